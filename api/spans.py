"""Spans of the API server, by OpenTelemetry's SDK: one for each request, one for each attempt at a
model host. `api.tracing` says what they are for; this module is imported only where they are sent.

Their attributes have the names of OpenTelemetry's conventions, or begin with `qna.`; no value
comes from a caller, so there is no prompt, answer, key or address of a caller in them. A receiver
that is slow, away or answers nonsense costs a request nothing: so many spans wait for it in
memory, and no more; what does not fit is dropped and counted.

From `Outbox` on `model/spans.py` has the same: the servers share nothing but HTTP (ADR 1). What is
mended here is mended there.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from os import environ
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter
from starlette.types import Scope

from api import __version__, logs
from api.context import PROBES
from api.metrics import Metrics
from api.settings import Settings
from api.tracing import NO_TRACE, Attempt, Trace, Tracing, given_headers

logger = logging.getLogger("api.spans")
SERVICE = "qna-api-server"
# Others hold the name of a model as a caller wrote it.
NAMED_PATHS = frozenset({"/generate", "/openai/v1/chat/completions", "/openai/v1/completions"})
MOST_WAITING = 2048
CLOSE_S = 2.0
"""What spans that still wait at the end get; the chart counts it into the pod's grace period."""
_W3C = TraceContextTextMapPropagator()
# It repeats what a caller wrote into `tracestate`, where that is malformed.
logging.getLogger("opentelemetry.trace.span").setLevel(logging.CRITICAL)


class _Headers(Getter[dict[str, bytes]]):
    def get(self, carrier: dict[str, bytes], key: str) -> list[str] | None:
        value = carrier.get(key)
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: dict[str, bytes]) -> list[str]:
        return list(carrier)


_GETTER = _Headers()


class SpanTracing(Tracing):
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        ratio = ParentBased(TraceIdRatioBased(settings.traces_ratio))
        self._provider = TracerProvider(
            # None: the SDK reads OTEL_TRACES_SAMPLER itself.
            sampler=None if environ.get("OTEL_TRACES_SAMPLER") else ratio,
            resource=_resource(),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.traces_url)
        self._provider.add_span_processor(Outbox(exporter, metrics.spans))
        self._tracer = self._provider.get_tracer("qna.api", __version__)
        about = {"url": settings.traces_url, "ratio": settings.traces_ratio}
        logs.event(logger, logging.INFO, "spans are sent", **about)

    def begin(self, scope: Scope) -> Trace:
        if scope["path"] in PROBES:
            return NO_TRACE
        caller = _W3C.extract(given_headers(scope), getter=_GETTER)
        span = self._tracer.start_span(
            scope["method"],
            context=caller,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
        )
        return SpanTrace(self._tracer, span, scope["method"])

    async def close(self) -> None:
        # The SDK waits for half a minute for a receiver that does not answer.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_S)


class SpanTrace(Trace):
    __slots__ = ("_context", "_method", "_span", "_tracer", "_usage")

    def __init__(self, tracer: Tracer, span: Span, method: str) -> None:
        super().__init__(format_trace_id(span.get_span_context().trace_id), {})
        self._tracer = tracer
        self._method = method
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._usage = [0, 0, 0]

    def attempt(self, method: str, path: str, url: str, model: str, resend: int) -> Attempt:
        parts = urlsplit(url)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }
        if model:
            attributes["gen_ai.request.model"] = model
        if resend:
            attributes["http.request.resend_count"] = resend
        name = f"{method} {path}" if path in NAMED_PATHS else method
        span = self._tracer.start_span(
            name, context=self._context, kind=SpanKind.CLIENT, attributes=attributes
        )
        return SpanAttempt(span)

    def used(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        counts = (prompt_tokens, completion_tokens, cached_tokens)
        self._usage = [before + more for before, more in zip(self._usage, counts, strict=True)]

    def end(self, route: str, status: int, outcome: str, first_event_s: float | None) -> None:
        span = self._span
        if not span.is_recording():
            return
        span.set_attributes({"http.route": route, "qna.outcome": outcome})
        if route != "unmatched":
            span.update_name(f"{self._method} {route}")
        if status:
            span.set_attribute("http.response.status_code", status)
        if first_event_s is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", first_event_s)
        if any(self._usage):
            names = ("input_tokens", "output_tokens", "cache_read.input_tokens")
            for name, count in zip(names, self._usage, strict=True):
                span.set_attribute(f"gen_ai.usage.{name}", count)
        # What a caller did wrong is no error here; a stream that broke off has status 200.
        if outcome not in ("ok", "cancelled") and not 400 <= status < 500:
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR)
        span.end()


class SpanAttempt(Attempt):
    __slots__ = ("_failed", "_open", "_span")

    def __init__(self, span: Span) -> None:
        headers: dict[str, str] = {}
        _W3C.inject(headers, set_span_in_context(span, Context()))
        super().__init__(headers)
        self._span = span
        self._open = True
        self._failed = False

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 400:
            self.failed(str(status))
        else:
            self._span.add_event("first byte")

    def failed(self, reason: str) -> None:
        self._failed = True
        self._span.set_attribute("error.type", reason)
        self._span.set_status(StatusCode.ERROR)

    def end(self, *, whole: bool) -> None:
        if not self._open:
            return
        self._open = False
        if not whole and not self._failed:
            self._span.set_attribute("error.type", "cancelled")
        self._span.end()


class Outbox(SpanProcessor):
    """Spans on their way to the receiver: so many and no more. Who ends a span never waits."""

    def __init__(self, exporter: SpanExporter, spans: Counter) -> None:
        self._dropped = spans.labels("dropped")
        self._lock = threading.Lock()
        self._waiting = 0
        counted = _Counted(exporter, spans, self._left)
        self._batches = BatchSpanProcessor(counted, max_queue_size=MOST_WAITING)

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        with self._lock:
            full = self._waiting >= MOST_WAITING
            self._waiting += not full
        if full:
            self._dropped.inc()
        else:
            self._batches.on_end(span)

    def _left(self, count: int) -> None:
        with self._lock:
            self._waiting -= count

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class _Counted(SpanExporter):
    """Runs in the thread that sends."""

    def __init__(self, exporter: SpanExporter, spans: Counter, left: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._sent, self._failed = spans.labels("sent"), spans.labels("failed")
        self._left = left

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            (self._sent if result is SpanExportResult.SUCCESS else self._failed).inc(len(spans))
            self._left(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource() -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the names that we give."""
    ours = Resource({SERVICE_NAME: SERVICE, SERVICE_VERSION: __version__})
    given = Resource.create()
    named = not str(given.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return ours.merge(given) if named else given.merge(ours)
