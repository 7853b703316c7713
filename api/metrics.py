"""Every metric of the API server, declared once. One registry per application, so that tests
never share.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    content_type: str = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"qna_api_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY
        ) -> Histogram:
            return Histogram(
                f"qna_api_{name}", text, labels, registry=self.registry, buckets=buckets
            )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"qna_api_{name}", text, registry=self.registry)

        self.requests = counter("requests_total", "Requests by outcome", "route", "outcome")
        self.duration = histogram("request_duration_seconds", "Whole requests", "route")
        self.first_event = histogram(
            "time_to_first_token_seconds", "From the request to a stream's first event", "route"
        )
        self.in_flight = gauge("requests_in_flight", "Requests being answered")
        self.cancelled = counter("requests_cancelled_total", "Requests whose client left", "stage")
        self.rejected = counter(
            "requests_rejected_total", "Requests refused before any work", "reason"
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
        self.turns = counter("turns_total", "Stored turns by how they ended", "status")
        self.turns_dropped = counter(
            "history_turns_dropped_total", "Earlier turns left out of a prompt"
        )
        self.store = histogram("database_seconds", "Database operations", "operation", buckets=FAST)
        self.loop_lag = gauge(
            "event_loop_lag_seconds", "How late the event loop ran its last timer"
        )
        self.draining = gauge("draining", "1 after SIGTERM")

    def render(self) -> bytes:
        rendered: bytes = generate_latest(self.registry)
        return rendered
