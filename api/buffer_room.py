"""Room in memory for what is large and held for a while: bodies whose answers take their time, and
stored text that is being sent to readers who may be slow.

So many bytes are held at once, for one owner no more than a share of them. Who finds no room waits
in line for a bounded time, without what it needs the room for; after that it is told when to come
back, from how fast room has become free lately. Event loop only.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from api.context import RequestContext
from api.errors import Overloaded
from api.lifecycle import DrainRate
from api.metrics import Metrics

T = TypeVar("T")
SMALL_BYTES = 64 * 1024
"""What takes no room: about as much as a connection holds of anything."""
_MOST_S = 60.0


@dataclass(slots=True, eq=False)
class Hold:
    """A part of the room, or a place in the line for it."""

    owner: str
    size: int
    place: asyncio.Future[None]


class BufferRoom:
    def __init__(
        self, most_bytes: int, metrics: Metrics, *, share: float = 1.0, queue_timeout_s: float
    ) -> None:
        """`share` is what one owner may have of it."""
        self._most = most_bytes
        self._most_of_one = max(1, int(most_bytes * share))
        self._metrics = metrics
        self._patience_s = queue_timeout_s
        self._of: Counter[str] = Counter()
        self._line: deque[Hold] = deque()
        self._rate = DrainRate()

    async def enter(self, context: RequestContext, size: int) -> None:
        """Take room for the caller until the request has ended, after a wait if need be. Overloaded
        when there is none for too long.
        """
        hold = self._ask(context, size)
        if not hold.place.done():
            await self._wait(hold)

    async def read(
        self,
        context: RequestContext,
        read: Callable[[], Awaitable[T]],
        size_of: Callable[[T], int],
    ) -> T:
        """What `read` gives, of a size that is known afterwards only, with room for it until the
        request has ended: without room it is let go, and read again when there is some. Overloaded
        as above.
        """
        found = await read()
        size = size_of(found)
        if size <= SMALL_BYTES:
            return found
        hold = self._ask(context, size)
        if hold.place.done():
            return found
        del found
        await self._wait(hold)
        return await read()

    @property
    def held(self) -> int:
        return self._of.total()

    def _ask(self, context: RequestContext, size: int) -> Hold:
        # What is larger than all that one may have gets all of it, alone, rather than never.
        size = min(size, self._most_of_one)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        hold = Hold(context.caller.tenant, size, place)
        self._line.append(hold)
        context.cleanups.append(self._leaving(hold))
        self._let_in()
        return hold

    async def _wait(self, hold: Hold) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await asyncio.shield(hold.place)
        except TimeoutError:
            self._metrics.rejected.labels("buffers").inc()
            raise Overloaded(
                f"There is no room for {hold.size} bytes more at this moment",
                retry_after_s=self._wait_s(),
            ) from None

    def _let_in(self) -> None:
        """Whoever has room, first come first served; who has its share already keeps nobody else
        waiting.
        """
        for hold in list(self._line):
            if self._of[hold.owner] + hold.size > self._most_of_one:
                continue
            if self.held + hold.size > self._most:
                break
            self._line.remove(hold)
            self._of[hold.owner] += hold.size
            hold.place.set_result(None)
        self._show()

    def _leaving(self, hold: Hold) -> Callable[[], Awaitable[None]]:
        async def leave() -> None:
            if hold in self._line:
                self._line.remove(hold)
            else:
                self._of[hold.owner] -= hold.size
                if not self._of[hold.owner]:
                    del self._of[hold.owner]
                self._rate.add(hold.size, time.monotonic())
            self._let_in()

        return leave

    def _wait_s(self) -> float:
        """Until all who wait, and the one that gives up is still among them, would have room."""
        rate = self._rate.per_second(time.monotonic())
        waiting = sum(hold.size for hold in self._line)
        return min(_MOST_S, max(1.0, waiting / rate)) if rate else 1.0

    def _show(self) -> None:
        self._metrics.buffered_bytes.set(self.held)
