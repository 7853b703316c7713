"""What the process knows about all requests: serving or draining, which run, and who waits.

So many questions are answered at once; a bounded number waits in line for a bounded time, first
come, first served. Who is refused is told when to come back, from how fast places have become free
lately. Lives on the event loop only.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from api.context import RequestContext
from api.errors import DeadlineExceeded, Overloaded

_MEMORY_S = 5.0
"""How long a place that became free counts for the rate, about."""
_MOST_S = 60.0


class Lifecycle:
    def __init__(
        self, max_in_flight: int, *, max_queued: int = 0, queue_timeout_s: float = 10.0
    ) -> None:
        self.draining = False
        self.running: set[RequestContext] = set()
        self._limit = max_in_flight
        self._slots = 0
        self._most_waiting = max_queued
        self._patience_s = queue_timeout_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rate = DrainRate()

    def admit(self, count: int = 1) -> int:
        """Take slots for so many questions, 0 when they are not there. One that is larger than
        the whole limit gets all of it, when nothing else runs, rather than never."""
        count = min(count, self._limit)
        if self._slots + count > self._limit:
            return 0
        self._slots += count
        return count

    async def enter(self, deadline: Callable[[], float] = lambda: math.inf) -> None:
        """Take one slot, after a wait in line if need be. Overloaded when the line is full or the
        wait too long, DeadlineExceeded when the deadline (on `time.monotonic()`) comes first, which
        only a request that waits is asked for.
        """
        if not self._waiting and self.admit():
            return
        if len(self._waiting) >= self._most_waiting:
            raise self.overloaded()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        left_s = deadline() - time.monotonic()
        try:
            async with asyncio.timeout(min(self._patience_s, left_s)):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # It got a slot in the moment in which it gave up.
                self.release(1)
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                late = left_s < self._patience_s
                raise (DeadlineExceeded() if late else self.overloaded()) from None
            raise

    def release(self, count: int) -> None:
        self._slots -= count
        self._rate.add(count, time.monotonic())
        while self._waiting and self._slots < self._limit:
            place = self._waiting.popleft()
            # One whose waiter has just been cancelled is not told of it yet.
            if not place.done():
                self._slots += 1
                place.set_result(None)

    def overloaded(self) -> Overloaded:
        return Overloaded(retry_after_s=self.wait_s())

    def wait_s(self) -> float:
        """How long until somebody who comes last would have a place."""
        rate = self._rate.per_second(time.monotonic())
        if not rate:
            return 1.0
        return min(_MOST_S, max(1.0, (len(self._waiting) + 1) / rate))

    @property
    def slots_taken(self) -> int:
        return self._slots

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def abort_all(self, reason: str) -> None:
        for context in list(self.running):
            context.abort(reason)


class DrainRate:
    """Places that become free per second, the latest counting most."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0
        self._since: float | None = None

    def add(self, count: int, now: float) -> None:
        self._since = now if self._since is None else self._since
        self._level = self._decayed(now) + count
        self._at = now

    def per_second(self, now: float) -> float:
        if self._since is None:
            return 0.0
        # What has been seen for a short time only is not yet the whole of it.
        seen = 1 - math.exp(-max(now - self._since, 0.25) / _MEMORY_S)
        return self._decayed(now) / (_MEMORY_S * seen)

    def _decayed(self, now: float) -> float:
        return self._level * math.exp(-max(0.0, now - self._at) / _MEMORY_S)
