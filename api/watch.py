"""Small observers that run beside the requests: the model hosts' state and the event loop's lag."""

import asyncio
import contextvars
import time
from collections.abc import Sequence
from typing import Any

from api.metrics import Metrics
from api.upstream import ModelHost, Pool

FRESH_S = 2.0
ASLEEP = "asleep"
LAG_EVERY_S = 0.5


class HostWatch:
    """The model hosts' readiness as last seen. Asked for, never waited for: a probe must answer
    at once.
    """

    def __init__(self, host: ModelHost, metrics: Metrics) -> None:
        self._host = host
        self._metrics = metrics
        self._state: dict[str, Any] = {"model_host": "unknown"}
        self._seen = float("-inf")
        self._look: asyncio.Task[None] | None = None

    def state(self) -> dict[str, Any]:
        """`model_host`: ready, or degraded when a model or an address of one is away, or
        unavailable when nothing is there, or asleep when nothing has to be; `models`: the same for
        each model of a models file.
        """
        stale = time.monotonic() - self._seen > FRESH_S
        if stale and (self._look is None or self._look.done()):
            self._look = asyncio.create_task(self._refresh(), context=contextvars.Context())
        return self._state

    async def _refresh(self) -> None:
        ready = await self._host.probes.readiness()
        asleep = {pool for pool in ready if _is_asleep(pool)}
        # One that has left the models file shall not be missed for ever, nor one that nobody wants.
        self._metrics.hosts_ready.clear()
        for pool in ready.keys() - asleep:
            self._metrics.hosts_ready.labels(pool.name).set(sum(ready[pool]))
        awake = [answer for pool in ready.keys() - asleep for answer in ready[pool]]
        self._state = {"model_host": _word(awake) if ready.keys() - asleep else ASLEEP}
        named = {pool.name: _about(ready[pool], asleep=pool in asleep) for pool in ready}
        if not self._host.models.lenient:
            self._state["models"] = named
        self._seen = time.monotonic()

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})


def _is_asleep(pool: Pool) -> bool:
    """It may be without a host, is, and nobody minds."""
    listens = any(address.listens for address in pool.own_addresses)
    return bool(pool.room.hold_s) and not listens and not pool.load().requests


def _word(answers: Sequence[bool]) -> str:
    if not any(answers):
        return "unavailable"
    return "ready" if all(answers) else "degraded"


def _about(answers: Sequence[bool], *, asleep: bool) -> dict[str, Any]:
    state = ASLEEP if asleep else _word(answers)
    return {"state": state, "ready": sum(answers), "addresses": len(answers)}


async def measure_lag(metrics: Metrics) -> None:
    """Keep the gauge at how late the last timer ran."""
    while True:
        due = time.monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.loop_lag.set(max(0.0, time.monotonic() - due))
