"""A run's `rounds.jsonl` as figures: by engine and workload, by round, and their medians.

Knows no table and no plot.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import metrics
from bench.metrics import Timing


@dataclass(slots=True)
class Measured:
    """One engine on one workload: one entry a round."""

    engine: str
    workload: str
    about: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    timings: list[list[Timing]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    stolen: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def median(self, key: str) -> float | None:
        """Over the rounds that have this figure; None where none has."""
        values = [f[key] for f in self.figures if key in f]
        return statistics.median(values) if values else None

    def all_timings(self) -> list[Timing]:
        return [timing for one in self.timings for timing in one]


@dataclass(slots=True)
class Results:
    head: dict[str, Any]
    measured: dict[tuple[str, str], Measured]

    def get(self, engine: str, workload: str) -> Measured | None:
        found = self.measured.get((engine, workload))
        return found if found and found.figures else None

    def median(self, engine: str, workload: str, key: str) -> float | None:
        found = self.get(engine, workload)
        return found.median(key) if found else None

    def engines(self, workload: str) -> list[str]:
        return [e for (e, w), found in self.measured.items() if w == workload and found.figures]

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(w for (_, w), found in self.measured.items() if found.figures))

    def problems(self) -> Iterable[tuple[str, str, str]]:
        for (engine, workload), found in self.measured.items():
            for problem in dict.fromkeys(found.problems):
                yield engine, workload, problem


def load(folder: Path) -> Results:
    return parse((folder / "rounds.jsonl").read_text().splitlines())


def parse(lines: Sequence[str]) -> Results:
    results = Results({}, {})
    for line in lines:
        record = json.loads(line)
        if "head" in record:
            results.head = record["head"]  # the last one has measured the machine twice
            continue
        key = record["engine"], record["workload"]
        _add(results.measured.setdefault(key, Measured(*key)), record)
    return results


def _add(found: Measured, record: dict[str, Any]) -> None:
    for kind in ("skipped", "failed"):
        if kind in record:
            found.problems.append(f"{kind}: {record[kind]}")
            return
    timings = [Timing(**item) for item in record["timings"]]
    found.problems += [f"a request failed: {error}" for error in record["errors"]]
    found.about, found.facts = record["about"], record["facts"]
    found.rounds.append(record["round"])
    found.stolen.append(record["stolen"])
    found.timings.append(timings)
    found.figures.append({**metrics.summary(timings, record["duration_s"]), **_parts(timings)})


def _parts(timings: Sequence[Timing]) -> dict[str, float]:
    """What single workloads are for: by tag, and how long streams stand still."""
    parts: dict[str, float] = {}
    tags = metrics.by_tag(timings)
    for tag, tagged in tags.items():
        done = [timing.ttft_s for timing in tagged if timing.ok]
        if tag and done:
            parts[f"median_ttft_ms of {tag}"] = 1000 * metrics.percentile(done, 50)
    for late in tags.get("long prompt", []):
        if late.ok:
            during, before = metrics.stalls(timings, late)
            if not (during and before):
                continue  # streams that brought nothing would look as if they never stood still
            parts["p99_itl_ms while a long prompt comes"] = 1000 * metrics.percentile(during, 99)
            parts["median_itl_ms before it"] = 1000 * metrics.percentile(before, 50)
    return parts
