"""Every metric of the API server, declared once. One registry per application, so that tests
never share.
"""

from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    content_type: str = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"qna_api_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY
        ) -> Histogram:
            return Histogram(
                f"qna_api_{name}", text, labels, registry=self.registry, buckets=buckets
            )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"qna_api_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests_total", "Requests by outcome", "route", "outcome")
        self.duration = histogram("request_duration_seconds", "Whole requests", "route")
        self.first_event = histogram(
            "time_to_first_token_seconds", "From the request to a stream's first event", "route"
        )
        self.in_flight = gauge("requests_in_flight", "Requests being answered")
        self.queued = gauge("requests_queued", "Requests that wait in line for a place")
        self.cancelled = counter("requests_cancelled_total", "Requests whose client left", "stage")
        self.rejected = counter(
            "requests_rejected_total", "Requests refused before any work", "reason"
        )
        self.buffered_bytes = gauge("buffered_bytes", "Bytes of what is large and held")
        self.limited = counter(
            "requests_limited_total", "Requests refused by a limit of key or tenant", "limit"
        )
        self.limit_failures = counter(
            "limit_store_failures_total",
            "Times that the store of limits did not answer",
            "operation",
        )
        self.settlements_lost = counter(
            "limit_settlements_lost_total",
            "Calls whose reservation stays taken, for want of a store of limits",
        )
        self.usage_lost = counter(
            "usage_lost_total", "Requests that are in no usage, for want of a database"
        )
        self.upstream_attempts = counter(
            "upstream_attempts_total", "Requests sent to the model host"
        )
        self.upstream_retries = counter(
            "upstream_retries_total", "Attempts that were repeated", "reason"
        )
        self.upstream_failures = counter(
            "upstream_failures_total", "Attempts that failed", "reason"
        )
        address = ("model", "address")
        self.hosts_ready = gauge(
            "hosts_ready", "Addresses of a model that were ready when last asked", "model"
        )
        self.host_requests = counter("host_requests_total", "Requests sent to an address", *address)
        self.host_failures = counter(
            "host_failures_total", "Requests that an address failed", *address, "reason"
        )
        self.host_in_flight = gauge("host_in_flight", "Requests at an address", *address)
        self.host_out = gauge("host_out", "1 while an address gets no requests", *address)
        self.host_ejections = counter(
            "host_ejections_total", "Times that an address was taken out", *address
        )
        self.host_first_byte = histogram(
            "host_first_byte_seconds", "From a request to the first byte of its answer", *address
        )
        self.requests_held = gauge(
            "requests_held", "Requests that wait for a host of their model to be there", "model"
        )
        self.holds = counter(
            "holds_total", "Requests for a model without a host by what became of the wait",
            "model", "outcome",
        )  # fmt: skip
        self.host_start = histogram(
            "host_start_seconds",
            "From the first request for a model without a host to a host",
            "model",
        )
        self.load_requests = gauge(
            "load_requests", "Questions that are held for a model or at its hosts", "model"
        )
        self.load_tokens = gauge(
            "load_tokens", "Tokens of their prompts and answers, as reserved", "model"
        )
        self.fallbacks = counter(
            "fallbacks_total", "Requests that another model answered", "model", "fallback"
        )
        self.resolve_failures = counter(
            "resolve_failures_total", "Look-ups of a name that failed", "model"
        )
        self.models_file_reloads = counter(
            "models_file_reloads_total", "Changes of the models file", "result"
        )
        self.models_file_good = gauge(
            "models_file_good", "0 while the models file on disk is refused"
        )
        self.turns = counter("turns_total", "Stored turns by how they ended", "status")
        self.turns_dropped = counter(
            "history_turns_dropped_total", "Earlier turns left out of a prompt"
        )
        self.store = histogram("database_seconds", "Database operations", "operation", buckets=FAST)
        self.loop_lag = gauge(
            "event_loop_lag_seconds", "How late the event loop ran its last timer"
        )
        self.spans = counter("spans_total", "Spans by what became of them", "outcome")
        self.draining = gauge("draining", "1 after SIGTERM")

    @lru_cache(maxsize=1024)  # noqa: B019  # there is one of these in a process
    def of_request(self, route: str, outcome: str) -> tuple[Counter, Histogram]:
        """The meters of a request that ended so: to look them up takes longer than to count."""
        return self.requests.labels(route, outcome), self.duration.labels(route)

    def forget_address(self, model: str, address: str) -> None:
        """Addresses come and go with pods; what was counted of one that left is not kept."""
        for metric in (
            self.host_requests,
            self.host_failures,
            self.host_in_flight,
            self.host_out,
            self.host_ejections,
            self.host_first_byte,
        ):
            metric.remove_by_labels({"model": model, "address": address})

    def render(self) -> bytes:
        rendered: bytes = generate_latest(self.registry)
        return rendered
