"""A run's plots as PNG files. Draws only what was measured."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench import machine
from bench.results import Results
from bench.suites import CONCURRENCY, OURS, SWITCHES, without
from bench.targets import TOKENS
from bench.workloads import WORKLOADS

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

STYLE = {
    "figure.dpi": 130,
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
MARKERS = "osD^vPX*"
OURS_COLOUR, OTHER_COLOUR, LOSS_COLOUR = "#0072B2", "#9aa5b1", "#D55E00"


def write(results: Results, folder: Path) -> list[Path]:
    drawn = []
    for name, draw in PLOTS.items():
        with mpl.rc_context(STYLE):
            figure = draw(results)
            if figure is not None:
                path = folder / f"{name}.png"
                figure.savefig(path, bbox_inches="tight")
                plt.close(figure)
                drawn.append(path)
    return drawn


def engines(results: Results) -> Figure | None:
    """W1: every engine as a bar, the ceiling as a line."""
    workload = _main_workload(results)
    rows = [(e, results.get(e, workload)) for e in results.engines(workload)]
    switched = {without(switch) for switch in SWITCHES}
    bars = sorted(
        ((m.median(TOKENS) or 0.0, name, m) for name, m in rows if m and name not in switched),
        key=lambda bar: bar[0],
    )
    if len(bars) < 2:
        return None
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.42 * len(bars)))
    values = [value for value, _, _ in bars]
    names = [name for _, name, _ in bars]
    spans = [[f[TOKENS] for f in m.figures] for _, _, m in bars]
    errors = [
        [v - min(s) for v, s in zip(values, spans, strict=True)],
        [max(s) - v for v, s in zip(values, spans, strict=True)],
    ]
    colours = [OURS_COLOUR if n.startswith(OURS) else OTHER_COLOUR for n in names]
    axes.barh(names, values, xerr=errors, color=colours, ecolor="#444444", capsize=3)
    for row, (value, span) in enumerate(zip(values, spans, strict=True)):
        axes.annotate(
            f"{value:.0f}", (max(span), row), (6, 0), textcoords="offset points", va="center"
        )
    limit = max(max(span) for span in spans)
    if workload == "w1":
        limit = max(limit, *_draw_ceilings(axes, results))
    axes.set_xlim(0, limit * 1.12)
    axes.set_xlabel("output tokens per second (median of rounds; whiskers: least and most)")
    axes.set_title(
        f"{workload}: {len(WORKLOADS[workload]().requests)} requests",
        pad=24 if workload == "w1" else 8,
    )
    axes.grid(visible=False, axis="y")
    return figure


def _draw_ceilings(axes: Axes, results: Results) -> list[float]:
    bounds = []
    for kind in ("float32", "int8"):
        rate = machine.best_rates(results.head["measured"]).get(kind)
        if rate:
            bound = machine.ceiling(WORKLOADS["w1"](), rate)
            bounds.append(bound)
            axes.axvline(bound, color="#444444", linestyle="--", linewidth=1)
            axes.annotate(
                f"products alone, {kind}: {bound:.0f}",
                (bound, 1.0),
                (0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right" if kind == "int8" else "center",
                fontsize=8,
            )
    return bounds or [0.0]


def concurrency(results: Results) -> Figure | None:
    lines = []
    for engine in dict.fromkeys(e for name in CONCURRENCY for e in results.engines(name)):
        points = [
            (at_once, found)
            for name, at_once in CONCURRENCY.items()
            if (found := results.get(engine, name))
        ]
        if len(points) > 1:
            lines.append((engine, points))
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for index, (engine, points) in enumerate(lines):
        spans = [[f[TOKENS] for f in found.figures] for _, found in points]
        axes.plot(
            [at_once for at_once, _ in points],
            [found.median(TOKENS) for _, found in points],
            label=engine,
            **_line(index),
        )
        axes.fill_between(
            [at_once for at_once, _ in points],
            [min(span) for span in spans],
            [max(span) for span in spans],
            color=COLOURS[index % len(COLOURS)],
            alpha=0.12,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    ticks = list(CONCURRENCY.values())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests at once")
    axes.set_ylabel("output tokens per second")
    axes.set_title("Throughput against concurrency (W1's lengths)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def latency(results: Results) -> Figure | None:
    """How TTFT and ITL are distributed: the share of them that is at most so long."""
    workload = _main_workload(results)
    switched = {without(switch) for switch in SWITCHES}
    names = [e for e in results.engines(workload) if e not in switched]
    if not names:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for index, name in enumerate(names):
        found = results.get(name, workload)
        assert found
        done = [timing for timing in found.all_timings() if timing.ok]
        colour, style = COLOURS[index % len(COLOURS)], ("-", "--")[index // len(COLOURS) % 2]
        for axes, values in (
            (left, [1000 * timing.ttft_s for timing in done]),
            (right, [1000 * gap for timing in done for gap in timing.itl_s]),
        ):
            x, y = cumulative(values)
            axes.plot(x, y, label=name, color=colour, linestyle=style, linewidth=1.8)
    _cumulative_axes(left, "Time to first token", "ms")
    _cumulative_axes(right, "Inter-token latency", "ms")
    left.set_ylabel("share that is at most so long")
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=f"{workload}, all rounds")
    figure.tight_layout()
    return figure


def cumulative(values: Iterable[float]) -> tuple[list[float], list[float]]:
    ordered = sorted(value for value in values if value > 0)
    return ordered, [(index + 1) / len(ordered) for index in range(len(ordered))]


def _cumulative_axes(axes: Axes, title: str, unit: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.tick_params(axis="x", labelrotation=45)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(unit + " (logarithmic)")
    axes.set_title(title)


def waterfall(results: Results) -> Figure | None:
    """Everything on, then each optimisation switched off alone: what is lost is what it gains."""
    full = results.median(OURS, "w1", TOKENS)
    losses = [
        (switch, value)
        for switch in SWITCHES
        if full and (value := results.median(without(switch), "w1", TOKENS))
    ]
    if not full or not losses:
        return None
    losses.sort(key=lambda loss: -loss[1])
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.5 * len(losses)))
    names = ["all on", *(f"without {switch}" for switch, _ in losses)]
    rows = range(len(names))
    axes.barh(
        rows,
        [full, *(value for _, value in losses)],
        color=[OURS_COLOUR, *[OTHER_COLOUR] * len(losses)],
    )
    lost = [max(full - value, 0.0) for _, value in losses]
    axes.barh(
        list(rows)[1:], lost, left=[value for _, value in losses],
        color=LOSS_COLOUR, alpha=0.25, hatch="//", edgecolor=LOSS_COLOUR, linewidth=0,
    )  # fmt: skip
    axes.axvline(full, color=OURS_COLOUR, linewidth=1)
    axes.annotate(f"{full:.0f}", (full, 0), (6, 0), textcoords="offset points", va="center")
    for row, (_, value) in enumerate(losses, start=1):
        change = value / full - 1
        axes.annotate(
            f"{value:.0f}  ({change:+.0%})",
            (max(full, value), row),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(full, *(value for _, value in losses)) * 1.2)
    axes.set_xlabel("output tokens per second on W1 (median of rounds)")
    axes.set_title("What each optimisation gains, each switched off in turn")
    axes.grid(visible=False, axis="y")
    return figure


def _main_workload(results: Results) -> str:
    measured = results.workloads()
    return "w1" if "w1" in measured or not measured else measured[0]


def _line(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linewidth": 2,
        "markersize": 6,
    }


PLOTS: dict[str, Callable[[Results], Figure | None]] = {
    "engines": engines,
    "concurrency": concurrency,
    "latency": latency,
    "waterfall": waterfall,
}
