"""Which trace a request belongs to, and where its spans are noted.

A trace is W3C's: `traceparent` and `tracestate` of the request are continued here. Without a
receiver for spans (`MODEL_HOST_TRACES_URL`) nothing is recorded, and the trace's id stands in the
log. `model.spans`, the only importer of OpenTelemetry's SDK, is imported only when there is a
receiver. Event loop only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from os import environ

from starlette.types import Scope

from model.config import Settings
from model.engine import RequestOutput, RequestStream, SamplingParams
from model.metrics import Metrics

_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?\Z"
)


class Generation:
    """One request to the engine. This one records nothing."""

    __slots__ = ()

    def seen(self, output: RequestOutput) -> None: ...

    def finished(self, reason: str) -> None:
        """The caller has its whole answer."""

    def close(self, stream: RequestStream) -> None:
        """Nobody reads any more; without `finished` before it, the request failed or was left."""


class Trace:
    """One request's part of a trace. This one records nothing."""

    __slots__ = ("trace_id",)

    def __init__(self, trace_id: str | None) -> None:
        self.trace_id = trace_id

    def generation(self, operation: str, params: SamplingParams) -> Generation:
        return NO_GENERATION

    def end(self, route: str, status: int, outcome: str) -> None: ...


NO_GENERATION = Generation()
NO_TRACE = Trace(None)
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
        found = _TRACEPARENT.match(given_headers(scope).get("traceparent", b""))
        return Trace(found.group(1).decode()) if found else NO_TRACE

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


def make_tracing(settings: Settings, metrics: Metrics) -> Tracing:
    if not settings.traces_url or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Tracing()
    # Here and not above: who sends no spans shall not pay for the SDK in time and memory.
    from model.spans import SpanTracing

    return SpanTracing(settings, metrics)
