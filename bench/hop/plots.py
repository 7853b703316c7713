"""The plots of `python -m bench api`. Draws only what was measured."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl

from bench.hop.names import API, STUB
from bench.plots import OTHER_COLOUR, OURS_COLOUR, STYLE

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes


class Measured(Protocol):
    def values(self, figure: str, target: str, key: str) -> list[float]: ...

    def targets(self, figure: str) -> list[str]: ...


PANELS = (
    ("completions", "per_cpu_s", "Whole answers"),
    ("chunks", "events_per_cpu_s", "Events, as fast as they come"),
    ("paced", "events_per_cpu_s", "Events, one by one"),
)


def write(run: Measured, folder: Path) -> list[Path]:
    panels = [panel for panel in PANELS if _servers(run, panel[0])]
    if not panels:
        return []
    path = folder / "api-throughput.png"
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.4 * len(panels), 2.2), squeeze=False, sharey=True
        )
        for each, (name, key, title) in zip(axes[0], panels, strict=True):
            _bars(each, run, name, key)
            each.set_title(title, fontsize=10)
        axes[0][0].invert_yaxis()
        figure.supxlabel("per second of the server's own processor time", fontsize=9)
        figure.tight_layout()
        figure.savefig(path, bbox_inches="tight")
        plt.close(figure)
    return [path]


def _servers(run: Measured, figure: str) -> Sequence[str]:
    return [target for target in run.targets(figure) if target != STUB]


def _bars(axes: Axes, run: Measured, figure: str, key: str) -> None:
    names = _servers(run, figure)
    spans = [run.values(figure, name, key) for name in names]
    values = [statistics.median(span) for span in spans]
    errors = [
        [value - min(span) for value, span in zip(values, spans, strict=True)],
        [max(span) - value for value, span in zip(values, spans, strict=True)],
    ]
    colours = [OURS_COLOUR if name == API else OTHER_COLOUR for name in names]
    axes.barh(names, values, xerr=errors, color=colours, ecolor="#444444", capsize=3)
    for row, (value, span) in enumerate(zip(values, spans, strict=True)):
        axes.annotate(
            f"{value:,.0f}", (max(span), row), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_xlim(0, max(map(max, spans)) * 1.35)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(visible=False, axis="y")
