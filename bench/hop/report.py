"""A run of `python -m bench api` as a page, a JSON file and plots. Measures nothing."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.hop import plots
from bench.hop.names import API, LITELLM, LITELLM_KEY, STUB
from bench.report import table


@dataclass(slots=True)
class Run:
    head: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)

    def values(self, figure: str, target: str, key: str) -> list[float]:
        return [
            record[key]
            for record in self.records
            if record["figure"] == figure and record["target"] == target and key in record
        ]

    def median(self, figure: str, target: str, key: str) -> float | None:
        values = self.values(figure, target, key)
        return statistics.median(values) if values else None

    def targets(self, figure: str) -> list[str]:
        return list(dict.fromkeys(r["target"] for r in self.records if r["figure"] == figure))

    def added_ms(self, key: str) -> list[float]:
        """To the time to first token, round by round: through the server, less the stub's own at
        the same rate.
        """
        through = self._by_round("ttft", API, key)
        direct = self._by_round("ttft", STUB, key)
        return [through[number] - direct[number] for number in through if number in direct]

    def _by_round(self, figure: str, target: str, key: str) -> dict[int, float]:
        return {
            record["round"]: record[key]
            for record in self.records
            if record["figure"] == figure and record["target"] == target and key in record
        }


Figure = Callable[[Run], list[float]]


@dataclass(frozen=True, slots=True)
class Bar:
    what: str
    bar: float
    unit: str
    figure: Figure
    at_most: bool = False
    digits: int = 0


def of(figure: str, key: str, target: str = API) -> Figure:
    return lambda run: run.values(figure, target, key)


def ratio(above: Figure, below: Figure) -> Figure:
    """Of medians, so one value."""

    def figure(run: Run) -> list[float]:
        first, second = above(run), below(run)
        if not first or not second:
            return []
        return [statistics.median(first) / statistics.median(second)]

    return figure


def _twice(run: Run) -> list[float]:
    """Two processes by their processor time: what both cores would do, over what one does."""
    return [2 * value for value in ratio(of("two", "per_cpu_s"), of("one", "per_cpu_s"))(run)]


CPU = "of the server's own processor time"
BARS = (
    Bar(f"/v1/chat/completions, requests per second {CPU}", 1000, "",
        of("completions", "per_cpu_s")),
    Bar("the same by the clock", 1000, "", of("completions", "per_s")),
    Bar(f"over LiteLLM without a key, {CPU}", 8, "times",
        ratio(of("completions", "per_cpu_s"), of("completions", "per_cpu_s", LITELLM)), digits=1),
    Bar("over LiteLLM with its master key, the same", 8, "times",
        ratio(of("completions", "per_cpu_s"), of("completions", "per_cpu_s", LITELLM_KEY)),
        digits=1),
    Bar(f"/chat on SQLite, each turn durable: turns per second {CPU}", 400, "",
        of("chat", "per_cpu_s")),
    Bar("the same by the clock", 400, "", of("chat", "per_s")),
    Bar(f"events of streams as fast as they come, per second {CPU}", 30_000, "",
        of("chunks", "events_per_cpu_s")),
    Bar(f"events that come one by one, per second {CPU}", 30_000, "",
        of("paced", "events_per_cpu_s")),
    Bar("added to the time to first token at half of capacity, p50", 2, "ms",
        lambda run: run.added_ms("first_p50_ms"), at_most=True, digits=1),
    Bar("the same, p99", 6, "ms", lambda run: run.added_ms("first_p99_ms"), at_most=True, digits=1),
    Bar("memory at rest", 120, "MB", of("memory", "idle_mb"), at_most=True),
    Bar("memory for each open stream", 60, "KB", of("memory", "stream_kb"), at_most=True),
    Bar("memory grown over the requests after the first 10,000", 5, "MB", of("memory", "growth_mb"),
        at_most=True, digits=1),
    Bar("two processes over one, by their processor time", 1.7, "times", _twice, digits=2),
    Bar("two processes over one, by the clock", 1.7, "times",
        ratio(of("two", "per_s"), of("one", "per_s")), digits=2),
    Bar("other streams' p99 gap beside 256 slow readers and 200 slowloris connections", 1.5,
        "times",
        of("slow", "gap_ratio"), at_most=True, digits=2),
    Bar("slowloris connections, until the last one is closed", 15, "s",
        of("slow", "slowloris_closed_s"), at_most=True, digits=1),
    Bar("slow readers, until the last one is closed", 15, "s", of("slow", "readers_closed_s"),
        at_most=True, digits=1),
)  # fmt: skip


def load(folder: Path) -> Run:
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    run = Run(json.loads(lines[0])["head"])
    run.records = [json.loads(line) for line in lines[1:]]
    return run


def write(folder: Path) -> list[Path]:
    run = load(folder)
    page, data = folder / "report.md", folder / "results.json"
    data.write_text(json.dumps(as_json(run), indent=2) + "\n")
    pictures = plots.write(run, folder)
    page.write_text(markdown(run, pictures))
    return [page, data, *pictures]


def as_json(run: Run) -> dict[str, Any]:
    figures = [
        {"what": bar.what, "bar": bar.bar, "unit": bar.unit, "values": bar.figure(run)}
        for bar in BARS
    ]
    return {**run.head, "figures": figures, "records": run.records}


def markdown(run: Run, pictures: Sequence[Path] = ()) -> str:
    described = run.head["machine"]
    versions = f"LiteLLM {run.head['litellm']}" if run.head["litellm"] else "without LiteLLM"
    parts = [
        "# The API server, measured",
        f"`{run.head['command']}`, {run.head['started']}; {described['cpu']},"
        f" {described['cores']} cores; Python {described['python']}; {versions};"
        f" {run.head['seconds']:g} s a figure. Medians of the rounds, the least and the most in"
        " brackets.",
        table(["What", "Bar", "Measured", "Reached"], [_row(bar, run) for bar in BARS]),
        "## Beside others, under the same load",
        _beside(run),
    ]
    if failed := _failed(run):
        parts += ["## Requests that failed", failed]
    parts += [f"![{picture.stem}]({picture.name})" for picture in pictures]
    return "\n\n".join(parts) + "\n"


def _row(bar: Bar, run: Run) -> list[str]:
    values = bar.figure(run)
    sign = "≤" if bar.at_most else "≥"
    aim = f"{sign} {bar.bar:,g} {bar.unit}".strip()
    if not values:
        return [bar.what, aim, "not measured", ""]
    middle = statistics.median(values)
    reached = middle <= bar.bar if bar.at_most else middle >= bar.bar
    return [bar.what, aim, _span(values, bar.digits), "yes" if reached else "**no**"]


COLUMNS = (
    ("completions", "per_cpu_s", "requests per CPU second", 0),
    ("completions", "per_s", "requests/s", 0),
    ("completions", "latency_p99_ms", "p99, ms", 1),
    ("chunks", "events_per_cpu_s", "events per CPU second, in bulk", 0),
    ("paced", "events_per_cpu_s", "one by one", 0),
    ("ttft", "rate", "half of capacity, streams/s", 0),
    ("ttft", "first_p50_ms", "first event there, p50, ms", 1),
    ("ttft", "first_p99_ms", "p99, ms", 1),
)


def _beside(run: Run) -> str:
    targets = list(dict.fromkeys(t for figure, *_ in COLUMNS for t in run.targets(figure)))
    rows = [
        [target, *(_span(run.values(f, target, key), digits) for f, key, _, digits in COLUMNS)]
        for target in targets
    ]
    return table(["", *(title for _, _, title, _ in COLUMNS)], rows)


def _failed(run: Run) -> str:
    return "\n".join(
        f"- {r['figure']}, {r['target']}, round {r['round'] + 1}: {r['failed']:.0f}"
        for r in run.records
        if r.get("failed")
    )


def _span(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
