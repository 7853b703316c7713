"""Every metric of the model host, declared once.

Owns names, labels and buckets. Labels come from fixed sets, so their number is bounded. Knows no
route. Written on the event loop; the engine's own figures are read when /metrics is asked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from model.engine import EngineStats, RequestOutput

LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAG_PERIOD_S = 0.25
LAG_WINDOW = 40
"""Samples whose largest is shown: the last ten seconds."""


class Metrics:
    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        registry = self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        registry.register(EngineCollector(stats, self._cancelled_early))
        self._early = 0
        self._lags: deque[float] = deque([0.0], maxlen=LAG_WINDOW)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"qna_{name}", text, buckets=buckets, registry=registry)

        self._ttft = histogram("time_to_first_token_seconds", "Submit to first token", LATENCY)
        self._itl = histogram("inter_token_latency_seconds", "Between two tokens", SHORT)
        self._e2e = histogram("e2e_request_latency_seconds", "Submit to last token", LATENCY)
        self._queue = histogram("request_queue_time_seconds", "Waiting for the engine", LATENCY)
        self._prefill = histogram("request_prefill_time_seconds", "Computing the prompt", LATENCY)
        self._decode = histogram("request_decode_time_seconds", "First to last token", LATENCY)
        self._predict = histogram("predict_batch_size", "Instances of one :predict call", BATCHES)
        self._requests = Counter(
            "qna_requests", "Answered requests", ["route", "outcome"], registry=registry
        )
        self._rejected = Counter(
            "qna_requests_rejected",
            "Requests refused at the limit or while draining",
            ["reason"],
            registry=registry,
        )
        self.spans = Counter(
            "qna_spans", "Spans by what became of them", ["outcome"], registry=registry
        )
        self._lag = Gauge(
            "qna_event_loop_lag_seconds",
            "Largest delay of the event loop in the last ten seconds",
            registry=registry,
        )
        self._lag.set_function(lambda: max(self._lags))

    def request(self, route: str, outcome: str) -> None:
        self._requests.labels(route, outcome).inc()

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def predict_batch(self, size: int) -> None:
        self._predict.observe(size)

    def cancelled_before_engine(self) -> None:
        self._early += 1

    def clock(self) -> "RequestClock":
        return RequestClock(self._ttft, self._itl, self._e2e, self._finished)

    def render(self) -> bytes:
        text: bytes = generate_latest(self.registry)
        return text

    async def watch_event_loop(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_S)
            self._lags.append(max(0.0, time.monotonic() - before - LAG_PERIOD_S))

    def _finished(self, output: RequestOutput) -> None:
        self._queue.observe(output.timing.queue_s)
        self._prefill.observe(output.timing.prefill_s)
        self._decode.observe(output.timing.decode_s)

    def _cancelled_early(self) -> int:
        return self._early


class RequestClock:
    """Times one request's tokens as they reach the event loop."""

    def __init__(
        self,
        ttft: Histogram,
        itl: Histogram,
        e2e: Histogram,
        finished: Callable[[RequestOutput], None],
    ) -> None:
        self._ttft, self._itl, self._e2e, self._report = ttft, itl, e2e, finished
        self._start = self._last = time.monotonic()
        self._first = True

    def output(self, output: RequestOutput) -> None:
        if not output.token_ids:
            return
        now = time.monotonic()
        (self._ttft if self._first else self._itl).observe(now - self._last)
        self._first, self._last = False, now

    def finished(self, output: RequestOutput) -> None:
        self._e2e.observe(time.monotonic() - self._start)
        self._report(output)


class EngineCollector(Collector):  # type: ignore[misc]  # the library has no types here
    """The engine's figures at the moment of asking; nothing is copied into our own metrics."""

    def __init__(
        self, stats: Callable[[], EngineStats | None], cancelled_early: Callable[[], int]
    ) -> None:
        self._stats = stats
        self._cancelled_early = cancelled_early

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats = self._stats() or EngineStats()
        gauges = {
            "num_requests_running": ("Requests in the step", stats.num_running),
            "num_requests_waiting": ("Requests that wait", stats.num_waiting),
            "num_waiting_tokens": ("Prompt and new tokens that wait", stats.num_waiting_tokens),
            "num_running_tokens": (
                "Prompt and new tokens of the requests in the step",
                stats.num_running_tokens,
            ),
            "kv_cache_usage_ratio": (
                "Used share of the KV cache",
                stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0,
            ),
        }
        for name, (text, gauge) in gauges.items():
            yield GaugeMetricFamily(f"qna_{name}", text, value=gauge)
        counters = {
            "prompt_tokens": ("Prompt tokens", stats.prompt_tokens_total),
            "generation_tokens": ("Generated tokens", stats.generation_tokens_total),
            "prefix_cache_queries": (
                "Prompt tokens looked for in the prefix cache",
                stats.prefix_cache_queries_total,
            ),
            "prefix_cache_hits": (
                "Prompt tokens found in the prefix cache",
                stats.prefix_cache_hits_total,
            ),
            "num_preemptions": ("Requests put back to make room", stats.num_preemptions),
            "engine_steps": ("Steps of the engine", stats.steps),
        }
        for name, (text, count) in counters.items():
            yield CounterMetricFamily(f"qna_{name}", text, value=count)
        yield self._cancelled(stats)
        yield self._step_tokens(stats)

    def _cancelled(self, stats: EngineStats) -> Metric:
        family = CounterMetricFamily(
            "qna_requests_cancelled", "Ended by the client or a deadline", labels=["stage"]
        )
        family.add_metric(["encode"], self._cancelled_early())
        for stage in ("queue", "prefill", "decode"):
            family.add_metric([stage], stats.cancelled.get(stage, 0))
        return family

    def _step_tokens(self, stats: EngineStats) -> Metric:
        buckets = [
            ("+Inf" if bound == float("inf") else f"{bound:g}", count)
            for bound, count in stats.step_batch_tokens
        ] or [("+Inf", 0)]
        return HistogramMetricFamily(
            "qna_step_batch_tokens",
            "Tokens in a step",
            buckets=buckets,
            sum_value=stats.step_batch_tokens_sum,
        )
