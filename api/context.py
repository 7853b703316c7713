"""What one request carries through the layers, and what the process knows about all of them.

Lives on the event loop only. `Call` is the part that goes to the model host.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import Scope

from api.errors import DeadlineExceeded

SCOPE_KEY = "qna.context"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def request_id_from(value: str | None) -> str:
    """The caller's id when it is a plain token, else a new one: ids reach logs and headers."""
    return value if value and _REQUEST_ID.match(value) else uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Call:
    """A request's identity and its deadline, on `time.monotonic()`."""

    request_id: str
    deadline: float

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
    aborted: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    cleanups: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def abort(self, reason: str) -> None:
        """End the request: "client" when nobody listens any more, "draining" when time is up."""
        if not self.aborted.done():
            self.aborted.set_result(reason)

    @property
    def abort_reason(self) -> str | None:
        return self.aborted.result() if self.aborted.done() else None

    def call(self, limit_s: float, *wanted_s: float | None) -> Call:
        """A caller may shorten the server's own limit, not exceed it."""
        named = [wanted for wanted in wanted_s if wanted is not None]
        return Call(self.request_id, self.started + min([limit_s, *named]))


def context_of(scope: Scope) -> RequestContext:
    context = scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)
    return context


class Lifecycle:
    """Serving or draining, and which requests run."""

    def __init__(self, max_in_flight: int) -> None:
        self.draining = False
        self.running: set[RequestContext] = set()
        self._limit = max_in_flight
        self._slots = 0

    def admit(self, count: int = 1) -> int:
        """Take slots for so many questions, 0 when they are not there. One that is larger than
        the whole limit gets all of it, when nothing else runs, rather than never."""
        count = min(count, self._limit)
        if self._slots + count > self._limit:
            return 0
        self._slots += count
        return count

    def release(self, count: int) -> None:
        self._slots -= count

    @property
    def slots_taken(self) -> int:
        return self._slots

    def abort_all(self, reason: str) -> None:
        for context in list(self.running):
            context.abort(reason)
