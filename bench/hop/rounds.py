"""The rounds of `python -m bench api`: every figure of every server, then all of it again the other
way round. Owns the run's folder; `rounds.jsonl` grows by a line a figure.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import uvloop

from bench import machine
from bench.hop import figures, memory
from bench.hop.figures import Figures
from bench.hop.servers import Bench, Cores, Target, version_of_litellm
from bench.hop.slow import slow_peers
from bench.spec import NotForThis

WARM_S = 1.0
Measure = Callable[[Target], Awaitable[Figures]]
ALL = ("completions", "chunks", "paced", "ttft", "chat", "memory", "two", "slow")
SHARED = ("completions", "chunks", "paced", "ttft")
"""What is measured of the stub and of LiteLLM, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    folder: Path
    command: str
    rounds: int = 3
    seconds: float = 8.0
    only: tuple[str, ...] = ALL
    peers: bool = True
    requests: int = 100_000


class Rounds:
    def __init__(self, options: Options, say: TextIO) -> None:
        self._options = options
        self._say = say
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._number = 0
        self._file = options.folder / "rounds.jsonl"

    def run(self) -> Path:
        cores = Cores.here()
        options = self._options
        options.folder.mkdir(parents=True, exist_ok=True)
        head = {
            "command": options.command,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": machine.describe(),
            "seconds": options.seconds,
            "litellm": self._litellm(),
        }
        self._file.write_text(json.dumps({"head": head}) + "\n")
        bench = Bench(cores, options.folder)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cores.load})
        try:
            with self._runner:
                for self._number in range(options.rounds):
                    self._round(bench, with_litellm=head["litellm"] is not None)
        finally:
            os.sched_setaffinity(0, before)
        return self._file

    def _litellm(self) -> str | None:
        if not self._options.peers:
            return None
        try:
            return version_of_litellm()
        except NotForThis as error:
            print(f"bench: without LiteLLM: {error}", file=self._say)
            return None

    def _round(self, bench: Bench, *, with_litellm: bool) -> None:
        parts: list[Callable[[Target], None]] = [partial(self._ours, bench)]
        if with_litellm:
            parts += [partial(self._peer, bench, key=key) for key in (False, True)]
        with bench.stub() as stub:
            for part in _there_and_back(parts, self._number):
                part(stub)

    # ---- who is measured ------------------------------------------------------------------------

    def _ours(self, bench: Bench, stub: Target) -> None:
        if any(name in self._options.only for name in (*SHARED, "chat")):
            with bench.api() as api:
                self._shared([stub, api])
                self._measure("chat", api, self._timed(figures.chat))
        if self._wanted("memory") and not self._number:
            with bench.api() as api:
                most = self._options.requests
                self._measure("memory", api, lambda target: memory.memory(target, most))
        if self._wanted("slow"):
            with bench.api() as api:
                self._measure("slow", api, lambda target: slow_peers(target, 5.0))
        if self._wanted("two"):
            with bench.redis() as url:
                with bench.api(limits_url=url) as one:
                    self._measure("one", one, self._timed(figures.completions))
                with bench.two(limits_url=url) as two:
                    self._measure("two", two, self._timed(figures.completions))

    def _peer(self, bench: Bench, stub: Target, *, key: bool) -> None:
        if any(name in self._options.only for name in SHARED):
            with bench.litellm(key=key) as peer:
                self._shared([peer])

    # ---- what is measured -----------------------------------------------------------------------

    def _shared(self, targets: Sequence[Target]) -> None:
        for name, figure in (
            ("completions", figures.completions),
            ("chunks", figures.chunks),
            ("paced", figures.paced),
        ):
            for target in _there_and_back(targets, self._number):
                self._measure(name, target, self._timed(figure))
        if self._wanted("ttft"):
            self._first_events(targets)

    def _first_events(self, targets: Sequence[Target]) -> None:
        """The last target at half of what it can do, all at this rate and the same times."""
        most = self._measure("streams", targets[-1], self._timed(figures.streams))
        if not most["per_s"]:
            return  # of nothing there is no half: the bar is not measured
        half = partial(
            figures.first_event,
            seconds=self._options.seconds,
            rate=most["per_s"] / 2,
            seed=self._number,
        )
        for target in _there_and_back(targets, self._number):
            self._measure("ttft", target, half)

    def _timed(self, figure: Callable[[Target, float], Awaitable[Figures]]) -> Measure:
        async def measure(target: Target) -> Figures:
            await figure(target, WARM_S)
            return await figure(target, self._options.seconds)

        return measure

    def _measure(self, name: str, target: Target, measure: Measure) -> Figures:
        if name in ALL and not self._wanted(name):
            return {}
        found = self._runner.run(_awaited(measure(target)))
        record: dict[str, Any] = {"figure": name, "target": target.name, "round": self._number}
        with self._file.open("a") as lines:
            lines.write(json.dumps({**record, "load": os.getloadavg()[0], **found}) + "\n")
        print(f"round {self._number + 1}/{self._options.rounds}  {_line(record, found)}",
              file=self._say, flush=True)  # fmt: skip
        return found

    def _wanted(self, name: str) -> bool:
        return name in self._options.only


async def _awaited(figures: Awaitable[Figures]) -> Figures:
    return await figures


def _there_and_back(items: Sequence[Any], number: int) -> Iterator[Any]:
    return iter(items) if number % 2 == 0 else reversed(items)


_SHOWN = ("per_s", "per_cpu_s", "events_per_cpu_s", "first_p50_ms", "first_p99_ms", "failed",
          "cpu_share", "idle_mb", "stream_kb", "growth_mb", "gap_ratio", "slowloris_closed_s",
          "readers_closed_s")  # fmt: skip


def _line(record: dict[str, Any], found: Figures) -> str:
    told = ", ".join(f"{name} {found[name]:.4g}" for name in _SHOWN if name in found)
    return f"{record['figure']:12} {record['target']:16} {told}"


def default_folder() -> Path:
    return Path("reports/api") / time.strftime("%Y%m%d-%H%M%S")


def command_line() -> str:
    return " ".join(["python -m bench", *sys.argv[1:]])
