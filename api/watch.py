"""Small observers that run beside the requests: the model host's state and the event loop's lag."""

import asyncio
import time
import uuid

from api.context import Call
from api.metrics import Metrics
from api.upstream import ModelHost

FRESH_S = 2.0
LAG_EVERY_S = 0.5


class HostWatch:
    """The model host's readiness as last seen. Asked for, never waited for: a probe must answer
    at once.
    """

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._state = "unknown"
        self._seen = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def state(self) -> str:
        stale = time.monotonic() - self._seen > FRESH_S
        if stale and (self._look is None or self._look.done()):
            self._look = asyncio.create_task(self._refresh())
        return self._state

    async def _refresh(self) -> None:
        call = Call(uuid.uuid4().hex, time.monotonic() + FRESH_S)
        self._state = "ready" if await self._host.is_ready(call) else "unavailable"
        self._seen = time.monotonic()

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})


async def measure_lag(metrics: Metrics) -> None:
    """Keep the gauge at how late the last timer ran."""
    while True:
        due = time.monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.loop_lag.set(max(0.0, time.monotonic() - due))
