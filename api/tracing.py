"""Which trace a request belongs to, and where its spans are noted.

A trace is W3C's: `traceparent` and `tracestate` of the caller's request are continued here and go
on to the model host. Without a receiver for spans (`API_TRACES_URL`) nothing is recorded: the two
headers are passed on as they came, and the trace's id stands in the log. `api.spans`, the only
importer of OpenTelemetry's SDK, is imported only when there is a receiver.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from os import environ

from starlette.types import Scope

from api.metrics import Metrics
from api.settings import Settings

_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?\Z"
)
_MOST_BYTES = 512


class Attempt:
    """One request to an address of a model. This one records nothing."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers
        """What takes the trace along."""

    def answered(self, status: int) -> None:
        """The head of an answer is here."""

    def failed(self, reason: str) -> None: ...

    def end(self, *, whole: bool) -> None:
        """Its answer has been read, or nobody wants the rest. Again is harmless."""


class Trace:
    """One request's part of a trace. This one records nothing."""

    __slots__ = ("_headers", "trace_id")

    def __init__(self, trace_id: str | None, headers: Mapping[str, str]) -> None:
        self.trace_id = trace_id
        self._headers = headers

    def attempt(self, method: str, path: str, url: str, model: str, resend: int) -> Attempt:
        return Attempt(self._headers)

    def used(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        """What an answer took, by the model host's own count."""

    def end(self, route: str, status: int, outcome: str, first_event_s: float | None) -> None: ...


NO_TRACE = Trace(None, {})
_current: ContextVar[Trace] = ContextVar("trace", default=NO_TRACE)


def current() -> Trace:
    """Of the request that this task works for."""
    return _current.get()


@contextmanager
def entered(trace: Trace) -> Iterator[None]:
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


class Tracing:
    """Begins each request's part. This one has nowhere to send spans."""

    def begin(self, scope: Scope) -> Trace:
        given = given_headers(scope)
        found = _TRACEPARENT.match(given.get("traceparent", b""))
        if found is None:
            return NO_TRACE
        headers = {name: value.decode() for name, value in given.items() if _is_plain(value)}
        return Trace(found.group(1).decode(), headers)

    async def close(self) -> None: ...


def given_headers(scope: Scope) -> dict[str, bytes]:
    """The trace's headers as they came; none where one came twice that must come once."""
    found: dict[str, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"traceparent":
            if "traceparent" in found:
                return {}
            found["traceparent"] = value
        elif name == b"tracestate":
            before = found.get("tracestate")
            found["tracestate"] = value if before is None else before + b"," + value
    return found


def _is_plain(value: bytes) -> bool:
    return len(value) <= _MOST_BYTES and all(32 <= byte < 127 for byte in value)


def make_tracing(settings: Settings, metrics: Metrics) -> Tracing:
    if not settings.traces_url or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Tracing()
    # Here and not above: who sends no spans shall not pay for the SDK in time and memory.
    from api.spans import SpanTracing

    return SpanTracing(settings, metrics)
