"""Sends a workload's requests to something that answers token by token, and keeps the times.

Owns the order: concurrency, and who waits for whom. Knows no engine: that is `send`. Event loop
only.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from bench.metrics import Timing
from bench.workloads import Request, Workload


class Send(Protocol):
    def __call__(self, request: Request, record: "Record") -> Coroutine[Any, Any, None]: ...


class Record:
    """Where a sender reports what it sees of one request."""

    def __init__(self, timing: Timing, now: Callable[[], float]) -> None:
        self.timing = timing
        self.progress = asyncio.Event()
        self.done = False
        self._now = now

    def sending(self) -> None:
        self.timing.sent_s = self._now()

    def piece(self) -> None:
        self.timing.pieces_s.append(self._now())
        self.progress.set()

    def end(self) -> None:
        timing = self.timing
        timing.ended_s = timing.pieces_s[-1] if timing.ok else self._now()
        self.done = True
        self.progress.set()

    async def reach(self, pieces: int | None) -> None:
        while not self.done and (pieces is None or len(self.timing.pieces_s) < pieces):
            self.progress.clear()
            await self.progress.wait()


async def drive(workload: Workload, send: Send) -> tuple[list[Timing], float]:
    """The times of every request, in the workload's order, and how long all of it took."""
    started = time.perf_counter()

    def now() -> float:
        return time.perf_counter() - started

    places = asyncio.Semaphore(workload.concurrency)
    records = [Record(Timing(scheduled_s=0.0, tag=r.tag), now) for r in workload.requests]

    async def one(request: Request, record: Record) -> None:
        for index in request.after:
            await records[index].reach(request.after_tokens)
        record.timing.scheduled_s = now()
        async with places:
            record.sending()
            try:
                await send(request, record)
            except Exception as error:  # noqa: BLE001 - a failed request is a figure too
                record.timing.error = f"{type(error).__name__}: {error}"[:300]
            finally:
                record.end()

    await asyncio.gather(*map(one, workload.requests, records))
    return [record.timing for record in records], now()
