"""Settles calls with a store that may be slow or away: none is lost, none is settled twice.

One batch is under way at a time, with a number that the store remembers. One of which nobody knows
what became of it is sent again as it was; what is settled meanwhile waits for the next. Whoever
settles waits for the store as long as its patience goes, and no longer.
"""

import asyncio
import contextvars
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

from api.limits.book import Settlement, Settlements
from api.limits.store import LimitStore
from api.loops import attempt
from api.metrics import Metrics

logger = logging.getLogger("api.limits")
MOST_WAITING = 20_000
_AT_ONCE = 200
Ask = Callable[[Awaitable[None]], Awaitable[bool]]
"""Asks the store within its time; whether it did what it was asked for."""


class Settler:
    def __init__(
        self, store: LimitStore, ask: Ask, metrics: Metrics, *, again_after_s: float
    ) -> None:
        self._store = store
        self._ask = ask
        self._metrics = metrics
        self._again_after_s = again_after_s
        self._writer = uuid.uuid4().hex
        self._number = 0
        self._waiting: deque[tuple[Settlement, asyncio.Future[None]]] = deque()
        self._work: asyncio.Task[None] | None = None

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Done once the store has it. Beyond `MOST_WAITING` what is left out stays taken, until it
        leaves its window.
        """
        done = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.settlements_lost.inc()
            done.set_result(None)
            return done
        self._waiting.append((settlement, done))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(
                attempt(self._send, logger, "settling failed"), context=contextvars.Context()
            )
        return done

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def close(self, patience_s: float) -> None:
        """What the store does not take by then is lost with the process."""
        if self._work is not None and not self._work.done():
            await asyncio.wait({self._work}, timeout=patience_s)
            self._work.cancel()
            await asyncio.wait({self._work})
        self._metrics.settlements_lost.inc(len(self._waiting))
        self._waiting.clear()

    async def _send(self) -> None:
        batch = self._next()
        while batch.items:
            if not await self._ask(self._store.settle(batch)):
                await asyncio.sleep(self._again_after_s)
                continue
            for _ in batch.items:
                _, done = self._waiting.popleft()
                if not done.done():
                    done.set_result(None)
            batch = self._next()

    def _next(self) -> Settlements:
        self._number += 1
        items = [settlement for settlement, _ in islice(self._waiting, _AT_ONCE)]
        return Settlements(self._writer, self._number, items)
