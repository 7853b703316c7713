"""What an operator sees of the API servers."""

from scripts.dashboards.grafana import Dashboard, Panel
from scripts.dashboards.queries import each, quantile, quantiles, rate, total

REAL = ',route!~"/livez|/readyz|/metrics|/load"'
FAILED = (
    ',outcome=~"internal_error|no_answer|upstream_error|limits_unavailable|'
    'model_host_unavailable|database_unavailable|deadline_exceeded|storage_full"'
)
_FAILING = (
    f"({rate('qna_api_requests_total', labels=REAL + FAILED)} or vector(0))"
    f" / {rate('qna_api_requests_total', labels=REAL)}"
)

DASHBOARD = Dashboard(
    uid="qna-api-server",
    title="qna: API server",
    about="Requests, model hosts, chats and limits. What to do about an alert: docs/runbook.md.",
    metric="qna_api_requests_in_flight",
    rows={
        "At a glance": [
            Panel(
                title="Requests",
                kind="stat",
                unit="reqps",
                shows={"": rate("qna_api_requests_total", labels=REAL)},
                says="All routes but probes and /metrics.",
            ),
            Panel(
                title="Failing",
                kind="stat",
                unit="percentunit",
                shows={"": _FAILING},
                says="The servers' own failures: ApiServerErrors.",
                warns=0.05,
            ),
            Panel(
                title="First token, p95",
                kind="stat",
                unit="s",
                shows={"": quantile(0.95, "qna_api_time_to_first_token_seconds")},
                says="Of streams, as callers see it: ApiServerFirstTokenSlow.",
                warns=5,
            ),
            Panel(
                title="In flight",
                kind="stat",
                shows={"": total("qna_api_requests_in_flight")},
                says="Questions that are being answered.",
            ),
            Panel(
                title="In line",
                kind="stat",
                shows={"": total("qna_api_requests_queued")},
                says="Questions that wait for a place: ApiServerQueueing.",
                warns=32,
            ),
            Panel(
                title="Hosts ready, fewest",
                kind="stat",
                shows={"": f"min (max by (job, model) ({each('qna_api_hosts_ready')}))"},
                says="Of the model with the fewest: ApiServerNoModelHost at 0.",
            ),
        ],
        "Requests": [
            Panel(
                title="By outcome",
                unit="reqps",
                shows={"{{outcome}}": rate("qna_api_requests_total", "outcome", labels=REAL)},
                says="ok, cancelled by the client, or an error's code.",
            ),
            Panel(
                title="By route",
                unit="reqps",
                shows={"{{route}}": rate("qna_api_requests_total", "route", labels=REAL)},
                says="Routes as they are declared.",
            ),
            Panel(
                title="Refused and cancelled",
                unit="reqps",
                shows={
                    "no place: {{reason}}": rate("qna_api_requests_rejected_total", "reason"),
                    "limit: {{limit}}": rate("qna_api_requests_limited_total", "limit"),
                    "client left: {{stage}}": rate("qna_api_requests_cancelled_total", "stage"),
                },
                says="No place: ApiServerRejecting. A limit is a key's or a tenant's own.",
            ),
            Panel(
                title="Time to first token",
                unit="s",
                shows=quantiles("qna_api_time_to_first_token_seconds"),
                says="Of streams, the wait in line included.",
                warns=5,
            ),
            Panel(
                title="Whole requests, p95 by route",
                unit="s",
                shows={
                    "{{route}}": quantile(0.95, "qna_api_request_duration_seconds", "route"),
                },
                says="Until the last byte; a stream lasts as long as its answer.",
            ),
            Panel(
                title="In flight and in line",
                shows={
                    "in flight {{instance}}": each("qna_api_requests_in_flight"),
                    "in line {{instance}}": each("qna_api_requests_queued"),
                },
                says="At most API_MAX_IN_FLIGHT and API_MAX_QUEUED in each process.",
            ),
        ],
        "Model hosts": [
            Panel(
                title="Addresses ready",
                shows={"{{model}}": f"max by (job, model) ({each('qna_api_hosts_ready')})"},
                says="As last asked. Without a models file there is one model, with no name.",
            ),
            Panel(
                title="Requests by address",
                unit="reqps",
                shows={
                    "{{model}} {{address}}": rate("qna_api_host_requests_total", "model", "address")
                },
                says="Weights and the chats' own places decide.",
            ),
            Panel(
                title="Failures by address",
                unit="reqps",
                shows={
                    "{{address}} {{reason}}": rate(
                        "qna_api_host_failures_total", "address", "reason"
                    )
                },
                says="Three in a row take an address out.",
            ),
            Panel(
                title="First byte, p95 by address",
                unit="s",
                shows={
                    "{{address}}": quantile(0.95, "qna_api_host_first_byte_seconds", "address"),
                },
                says="Of an answer that is not streamed this is the whole of it.",
            ),
            Panel(
                title="Out",
                shows={
                    "{{instance}} {{address}}": each("qna_api_host_out"),
                    "ejections {{address}}": rate("qna_api_host_ejections_total", "address"),
                },
                says="1: gets no requests. ApiServerHostOut after five minutes.",
            ),
            Panel(
                title="Attempts, retries, fallbacks",
                unit="reqps",
                shows={
                    "attempts": rate("qna_api_upstream_attempts_total"),
                    "failed: {{reason}}": rate("qna_api_upstream_failures_total", "reason"),
                    "again: {{reason}}": rate("qna_api_upstream_retries_total", "reason"),
                    "{{model}} by {{fallback}}": rate(
                        "qna_api_fallbacks_total", "model", "fallback"
                    ),
                },
                says="Retries stay below API_RETRY_BUDGET of all requests.",
            ),
        ],
        "Chats, limits, process": [
            Panel(
                title="Database, p99 by operation",
                unit="s",
                shows={"{{operation}}": quantile(0.99, "qna_api_database_seconds", "operation")},
                says="As its own threads see it; callers wait API_DATABASE_TIMEOUT_S at most.",
            ),
            Panel(
                title="Turns",
                unit="cps",
                shows={
                    "{{status}}": rate("qna_api_turns_total", "status"),
                    "earlier turns left out": rate("qna_api_history_turns_dropped_total"),
                },
                says="Stored turns by how they ended; what did not fit into the model's context.",
            ),
            Panel(
                title="Limits and usage",
                unit="cps",
                shows={
                    "no answer: {{operation}}": rate(
                        "qna_api_limit_store_failures_total", "operation"
                    ),
                    "usage lost": rate("qna_api_usage_lost_total"),
                },
                says="ApiServerLimitsUnavailable, ApiServerUsageLost.",
            ),
            Panel(
                title="Event loop lag",
                unit="s",
                shows={"{{instance}}": each("qna_api_event_loop_lag_seconds")},
                says="How late the last timer ran: ApiServerEventLoopSlow.",
                warns=0.25,
            ),
            Panel(
                title="Models file",
                shows={
                    "good {{instance}}": each("qna_api_models_file_good"),
                    "read: {{result}}": rate("qna_api_models_file_reloads_total", "result"),
                    "look-ups failed: {{model}}": rate("qna_api_resolve_failures_total", "model"),
                },
                says="0: the file on disk is refused, the one before stays in force.",
            ),
            Panel(
                title="Memory",
                unit="bytes",
                shows={"{{instance}}": each("process_resident_memory_bytes")},
                says="Resident memory of each process.",
            ),
        ],
    },
)
