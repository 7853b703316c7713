"""A run as a Markdown page, a JSON file with vLLM's key names, and plots. Measures nothing."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import machine, plots
from bench.metrics import DEFINITIONS
from bench.results import Measured, Results, load
from bench.suites import CONCURRENCY, OURS, SWITCHES, without
from bench.targets import TARGETS, TOKENS, Target
from bench.workloads import WORKLOADS

COLUMNS = (
    (TOKENS, "Output tokens/s", 1),
    ("median_ttft_ms", "TTFT p50, ms", 0),
    ("p99_ttft_ms", "TTFT p99, ms", 0),
    ("median_tpot_ms", "TPOT p50, ms", 1),
    ("median_itl_ms", "ITL p50, ms", 1),
    ("p99_itl_ms", "ITL p99, ms", 1),
)


def write(folder: Path) -> list[Path]:
    results = load(folder)
    page, data = folder / "report.md", folder / "results.json"
    data.write_text(json.dumps(as_json(results), indent=2) + "\n")
    pictures = plots.write(results, folder)
    page.write_text(markdown(results, [picture.name for picture in pictures]))
    return [page, data, *pictures]


def as_json(results: Results) -> dict[str, Any]:
    return {
        **results.head,
        "results": [
            {
                "backend": found.engine,
                "workload": found.workload,
                "max_concurrency": WORKLOADS[found.workload]().concurrency,
                "num_prompts": len(found.timings[0]),
                "facts": found.facts,
                **{key: found.median(key) for key in found.figures[0]},
                "rounds": found.figures,
                "stolen": found.stolen,
            }
            for found in results.measured.values()
            if found.figures
        ],
        "targets": [
            {"what": target.what, "bar": target.bar, "measured": target.figure(results)}
            for target in TARGETS
        ],
        "problems": [list(problem) for problem in results.problems()],
    }


def markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    parts = [
        "# Measured",
        f"`{results.head['command']}`, {results.head['started']}.",
        "\n".join(machine_lines(results.head["machine"], results.head["measured"])),
        "Medians over rounds; the least and the most of them in brackets. Engines alternate, each"
        " round of each in a fresh process.",
    ]
    for workload in results.workloads():
        parts += [
            f"## {workload}",
            WORKLOADS[workload]().what + ".",
            engine_table(results, workload),
        ]
    if concurrency := concurrency_table(results):
        parts += ["## Output tokens/s against concurrency", concurrency]
    if switches := switches_table(results):
        parts += ["## What each optimisation gains", switches]
    parts += ["## What is to be reached", targets_table(results, TARGETS)]
    if problems := list(results.problems()):
        lines = [f"- {engine} on {workload}: {what}" for engine, workload, what in problems]
        parts += ["## Not measured, and why", "\n".join(lines)]
    parts += [f"![{Path(name).stem}]({name})" for name in pictures]
    parts += ["## Definitions", f"```\n{DEFINITIONS}\n```"]
    return "\n\n".join(parts) + "\n"


def machine_lines(described: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    best = machine.best_rates(measured)
    rates = ", ".join(f"{kind} {rate / 1e9:.0f}" for kind, rate in best.items() if rate)
    ceilings = ", ".join(
        f"{kind} {machine.ceiling(WORKLOADS['w1'](), rate):.0f}"
        for kind, rate in best.items()
        if rate
    )
    return [
        f"- {described['cpu']}, {described['cores']} cores"
        f" ({', '.join(described['instructions'])}),"
        f" {described['memory_gib']:.0f} GiB; {described['system']}",
        f"- Python {described['python']}; {versions}; commit {described['commit']}",
        f"- memory read at {measured['read_gb_per_s']:.0f} GB/s with {measured['threads']} threads",
        f"- the model's matrix products, best of {', '.join(map(str, machine.ROWS))} rows: {rates}"
        " G operations/s",
        f"- so W1 could make at most this many output tokens/s: {ceilings}",
    ]


def engine_table(results: Results, workload: str) -> str:
    found = [item for e in results.engines(workload) if (item := results.get(e, workload))]
    extra = list(dict.fromkeys(k for item in found for k in item.figures[0] if " " in k))
    head = ["Engine", *(title for _, title, _ in COLUMNS), *map(_title, extra), "Rounds", "Stolen"]
    rows = [
        [
            f"`{item.engine}`",
            *(_cell(item, key, digits) for key, _, digits in COLUMNS),
            *(_cell(item, key, 1) for key in extra),
            str(len(item.figures)),
            f"{statistics.fmean(item.stolen):.0%}",
        ]
        for item in sorted(found, key=lambda item: -(item.median(TOKENS) or 0))
    ]
    return table(head, rows)


def concurrency_table(results: Results) -> str:
    measured = [name for name in CONCURRENCY if results.engines(name)]
    if len(measured) < 2:
        return ""
    engines = dict.fromkeys(e for name in measured for e in results.engines(name))
    several = [e for e in engines if sum(e in results.engines(name) for name in measured) > 1]
    head = ["Engine", *(f"{CONCURRENCY[name]} at once" for name in measured)]
    rows = [
        [f"`{e}`", *(_number(results.median(e, name, TOKENS), 1) for name in measured)]
        for e in several
    ]
    return table(head, rows) if rows else ""


def switches_table(results: Results) -> str:
    full = results.median(OURS, "w1", TOKENS)
    rows = [
        [switch, f"{value:.1f}", f"{full / value:.2f} times"]
        for switch in SWITCHES
        if full and (value := results.median(without(switch), "w1", TOKENS))
    ]
    if not rows:
        return ""
    head = ["Switched off", "Output tokens/s", "All on is"]
    return table(head, [["nothing", f"{full:.1f}", ""], *rows])


def targets_table(results: Results, targets: Iterable[Target]) -> str:
    rows = []
    for target in targets:
        value = target.figure(results)
        verdict = "not measured" if value is None else "yes" if target.reached(value) else "no"
        sign = "≤" if target.at_most else "≥"
        rows.append([target.what, f"{sign} {target.bar:g}", _number(value, 2), verdict])
    return table(["What", "Bar", "Measured", "Reached"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(item: Measured, key: str, digits: int) -> str:
    values = [figures[key] for figures in item.figures if key in figures]
    if not values or not any(values):
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _title(key: str) -> str:
    statistic, _, of = key.partition(" ")
    name, measure, _ = statistic.split("_")
    return f"{measure.upper()} {'p50' if name == 'median' else name} {of}, ms"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
