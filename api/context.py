"""What one request carries through the layers, and what the process knows about all of them.

Lives on the event loop only. `Call` is the part that goes to the model host.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.types import Scope

from api.errors import ApiError, DeadlineExceeded
from api.keys.records import NOBODY, Caller

SCOPE_KEY = "qna.context"
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/load"})
"""Asked by machines, all the time: no trace, and a line only in the log of a debugger."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def request_id_from(value: str | None) -> str:
    """The caller's id when it is a plain token, else a new one: ids reach logs and headers."""
    return value if value and _REQUEST_ID.match(value) else os.urandom(16).hex()


class Charge(Protocol):
    """What a call costs, as far as those who answer it know it (api.meter)."""

    prompt: int
    """Tokens of the prompt: as reserved, until more is known of what was sent."""
    pieces: int | None
    """How many pieces of a stream the client was sent."""

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as reserved."""

    async def cover(self) -> None: ...

    def sent(self) -> None: ...

    def not_sent(self) -> None: ...

    def streams(self, model: str | None) -> None: ...

    def used(self, usage: Any, model: str | None = None) -> None: ...

    def untold(self, model: str | None) -> None: ...

    def failed(self) -> None: ...

    def nothing(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request's identity and its deadline, on `time.monotonic()`."""

    request_id: str
    deadline: float
    caller: Caller = NOBODY
    charge: Charge | None = None

    def remaining(self) -> float:
        """Seconds left; raises when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left


@dataclass(slots=True, eq=False)
class RequestContext:
    request_id: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    streaming: bool = False
    ended: bool = False
    first_event: float | None = None
    error_code: str | None = None
    caller: Caller = NOBODY
    refusal: ApiError | None = None
    """What the request is answered with once its body has been read away."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of the answer, whatever it is."""
    charges: list[Charge] = field(default_factory=list)
    abort_reason: str | None = None
    task: "asyncio.Task[Any] | None" = None
    """What an abort cancels, while there is something to cancel."""
    cleanups: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def settle(self) -> None:
        """Close every charge; again is harmless, and one that fails keeps no other open."""
        failed: list[Exception] = []
        for charge in self.charges:
            try:
                await charge.close()
            except Exception as error:  # noqa: BLE001  # raised below
                failed.append(error)
        if failed:
            raise failed[0]

    def let_go(self) -> None:
        """Of what refers back to it: a circle would be left to the garbage collector, whose rounds
        keep every other request waiting.
        """
        self.charges.clear()
        self.cleanups.clear()
        self.refusal = None

    def abort(self, reason: str) -> None:
        """End the request: "client" when nobody listens any more, "draining" when time is up."""
        if self.abort_reason is None:
            self.abort_reason = reason
            if self.task is not None:
                self.task.cancel()

    def call(self, limit_s: float, *wanted_s: float | None) -> Call:
        """A caller may shorten the server's own limit, not exceed it."""
        named = [wanted for wanted in wanted_s if wanted is not None]
        return Call(self.request_id, self.started + min([limit_s, *named]), self.caller)


def context_of(scope: Scope) -> RequestContext:
    context = scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)
    return context
