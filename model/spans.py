"""Spans of the model host, by OpenTelemetry's SDK: one for each HTTP request, one for each request
to the engine, and below it how long it waited, read its prompt and wrote its answer.
`model.tracing` says what they are for; this module is imported only where they are sent.

Their attributes have the names of OpenTelemetry's conventions, or begin with `qna.`; no prompt, no
answer and no text of a caller is in them. A receiver that is slow, away or answers nonsense costs a
request nothing: so many spans wait for it in memory, and no more; what does not fit is dropped and
counted.

From `Outbox` on `api/spans.py` has the same: the servers share nothing but HTTP (ADR 1). What is
mended here is mended there.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from os import environ

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

from model import __version__
from model.config import Settings
from model.engine import FinishReason, RequestOutput, RequestStream, SamplingParams
from model.metrics import Metrics
from model.tracing import NO_GENERATION, NO_TRACE, Generation, Trace, Tracing, given_headers

logger = logging.getLogger(__name__)

SERVICE = "qna-model-host"
PROVIDER = "qna"
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
MOST_WAITING = 2048
CLOSE_S = 2.0
"""What spans that still wait at the end get; the chart counts it into the pod's grace period."""
LEFT_S = 60.0
"""Longest wait for the engine to let go of a request that nobody wants any more."""
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
        self._tracer = self._provider.get_tracer("qna.model", __version__)
        self._model = settings.model_name
        about = {"url": settings.traces_url, "ratio": settings.traces_ratio}
        logger.info("spans are sent", extra=about)
        self._left: set[asyncio.Task[None]] = set()

    def begin(self, scope: Scope) -> Trace:
        if scope["path"] in UNTRACED:
            return NO_TRACE
        caller = _W3C.extract(given_headers(scope), getter=_GETTER)
        span = self._tracer.start_span(
            scope["method"],
            context=caller,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
        )
        return SpanTrace(self._tracer, span, scope["method"], self._model, self._left)

    async def close(self) -> None:
        # The SDK waits for half a minute for a receiver that does not answer.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_S)


class SpanTrace(Trace):
    __slots__ = ("_left", "_method", "_model", "_span", "_tracer")

    def __init__(
        self, tracer: Tracer, span: Span, method: str, model: str, left: set[asyncio.Task[None]]
    ) -> None:
        super().__init__(format_trace_id(span.get_span_context().trace_id))
        self._tracer = tracer
        self._span = span
        self._method = method
        self._model = model
        self._left = left

    def generation(self, operation: str, params: SamplingParams) -> Generation:
        if not self._span.is_recording():
            return NO_GENERATION
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": self._model,
            "gen_ai.request.max_tokens": params.max_tokens,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
        }
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            context=set_span_in_context(self._span, Context()),
            attributes=attributes,
        )
        return SpanGeneration(self._tracer, span, self._left)

    def end(self, route: str, status: int, outcome: str) -> None:
        span = self._span
        if not span.is_recording():
            return
        span.set_attributes({"http.route": route, "qna.outcome": outcome})
        if route != "other":
            span.update_name(f"{self._method} {route}")
        if status:
            span.set_attribute("http.response.status_code", status)
        # What a caller did wrong is no error here; a stream that broke off has status 200.
        if outcome not in ("ok", "cancelled") and not 400 <= status < 500:
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR)
        span.end()


class SpanGeneration(Generation):
    """Its times are the engine's own, from the last output, so nothing is done for each token."""

    __slots__ = ("_began", "_ended", "_last", "_left", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, left: set[asyncio.Task[None]]) -> None:
        self._tracer = tracer
        self._span = span
        self._left = left
        self._began = time.time_ns()
        self._last: RequestOutput | None = None
        self._ended = False

    def seen(self, output: RequestOutput) -> None:
        self._last = output

    def finished(self, reason: str) -> None:
        self._end(reason)

    def close(self, stream: RequestStream) -> None:
        if self._ended:
            return
        if self._last is not None and self._last.finish_reason is not None:
            self._end(self._last.finish_reason.value)
            return
        following = asyncio.get_running_loop().create_task(self._follow(stream))
        self._left.add(following)
        following.add_done_callback(self._left.discard)

    async def _follow(self, stream: RequestStream) -> None:
        """To where the engine lets go of the request: its last output says how far it had come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEFT_S):
                async for output in stream:
                    self.seen(output)
        reason = self._last.finish_reason if self._last else None
        self._end((reason or FinishReason.ABORT).value)

    def _end(self, reason: str) -> None:
        self._ended = True
        span, last = self._span, self._last
        span.set_attribute("gen_ai.response.finish_reasons", [reason])
        if reason in (FinishReason.ERROR, FinishReason.DEADLINE):
            span.set_attribute("error.type", reason)
            span.set_status(StatusCode.ERROR)
        elif reason == FinishReason.ABORT:
            span.set_attribute("error.type", "cancelled")
        if last is not None:
            span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": last.num_prompt_tokens,
                    "gen_ai.usage.output_tokens": last.num_output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": last.num_cached_tokens,
                }
            )
        span.end(None if last is None else self._stages(last))

    def _stages(self, last: RequestOutput) -> int:
        """When the engine let go of the request."""
        timing = last.timing
        prefill = {
            "gen_ai.usage.input_tokens": last.num_prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": last.num_cached_tokens,
            "qna.batch_size": timing.batch_size,
        }
        decode = {"gen_ai.usage.output_tokens": last.num_output_tokens}
        stages: tuple[tuple[str, float, dict[str, int]], ...] = (
            ("queue", timing.queue_s, {}),
            ("prefill", timing.prefill_s, prefill),
            ("decode", timing.decode_s, decode),
        )
        context = set_span_in_context(self._span, Context())
        at = self._began
        for name, seconds, attributes in stages:
            # A stage that it never came to.
            if name != "queue" and not seconds:
                continue
            stage = self._tracer.start_span(
                name, context=context, attributes=attributes, start_time=at
            )
            at += int(seconds * 1e9)
            stage.end(at)
        return at


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
