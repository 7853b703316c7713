"""Where questions wait for a model of which no host is there: bounded, first come first served,
each until a host answers, its patience ends or its client leaves. They count as load, which
is how whoever starts hosts learns that one is wanted.

Nobody is there where every address refuses the connection, or the name has none. A host that is
there and fails is no business of this room. Who cannot wait is told how long a start is expected
to take, from how long the last one took, and keeps the model wanted until that time has passed.
On the event loop; looks for nobody itself (api.upstream.probes does).
"""

import asyncio
import time

from api.errors import ModelStarting
from api.metrics import Metrics

WANTED_S = 60.0
"""How long one who was turned away keeps the model wanted, at least: scalers look now and then."""


class Room:
    def __init__(self, model: str, metrics: Metrics, *, hold_s: float = 0.0, most: int = 0) -> None:
        """`hold_s`: of a model that names no other."""
        self.hold_s = hold_s
        """Longest wait; 0: nobody waits here."""
        self._default_s = hold_s
        self._most = most
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._since: float | None = None
        self._took_s: float | None = None
        self._wanted_until = 0.0
        self._model = model
        self._metrics = metrics

    def follow(self, hold_s: float | None) -> None:
        """What the models file says of this model."""
        self.hold_s = self._default_s if hold_s is None else hold_s

    # ---- what is there --------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Nobody was there when somebody asked, and no host has come since."""
        return self._since is not None

    @property
    def is_wanted(self) -> bool:
        return bool(self._waiting) or time.monotonic() < self._wanted_until

    @property
    def requests(self) -> int:
        """Those that wait; one, where all who came were turned away."""
        return len(self._waiting) or int(time.monotonic() < self._wanted_until)

    @property
    def tokens(self) -> int:
        return sum(self._waiting.values()) or self.requests

    def expected_s(self) -> float:
        """How long until a host is there; what nobody has seen takes as long as one may wait."""
        took = self.hold_s if self._took_s is None else self._took_s
        gone = 0.0 if self._since is None else time.monotonic() - self._since
        return max(1.0, took - gone)

    # ---- waiting --------------------------------------------------------------------------------

    async def wait(self, patience_s: float, tokens: int) -> None:
        """Until a host answers. ModelStarting for who would wait too long, did, or has no place."""
        if self._since is None:
            self._since = time.monotonic()
        if len(self._waiting) >= self._most:
            raise self.turn_away("full")
        if patience_s <= 0 or (self._took_s is not None and self.expected_s() > patience_s):
            raise self.turn_away("too_long")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place] = tokens
        self._show()
        outcome = "left"
        try:
            async with asyncio.timeout(patience_s):
                await place
            outcome = "answered"
        except TimeoutError:
            outcome = "timeout"
            raise self.turn_away() from None
        finally:
            del self._waiting[place]
            self._show()
            self._metrics.holds.labels(self._model, outcome).inc()

    def turn_away(self, outcome: str | None = None) -> ModelStarting:
        self.want()
        if outcome is not None:
            self._metrics.holds.labels(self._model, outcome).inc()
        return ModelStarting(self.expected_s())

    def want(self) -> None:
        """Somebody asked who does not wait here."""
        # Clients come back after up to one and a half times what they were told.
        now = time.monotonic()
        self._wanted_until = max(self._wanted_until, now + max(WANTED_S, 2 * self.expected_s()))

    # ---- the end of the wait --------------------------------------------------------------------

    def host_came(self) -> None:
        if self._since is not None:
            self._took_s = time.monotonic() - self._since
            self._metrics.host_start.labels(self._model).observe(self._took_s)
        self.close()

    def end(self) -> None:
        """The model is gone."""
        self.hold_s = 0.0
        self.close()

    def close(self) -> None:
        """There is nothing to wait for any more; who still waits finds out why."""
        self._since = None
        self._wanted_until = 0.0
        for place in self._waiting:
            if not place.done():
                place.set_result(None)

    def _show(self) -> None:
        self._metrics.requests_held.labels(self._model).set(len(self._waiting))
