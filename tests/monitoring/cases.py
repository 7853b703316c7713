"""For every alert: series in which it fires, and series in which it does not.

A value every 15 s, in promtool's notation: `0+15x40` rises by one a second for ten minutes.
"""

from dataclasses import dataclass, field
from typing import Any

EVERY = "15s"
ASKED = 'qna_api_requests_total{job="api-server",instance="a:8000",route="%s",outcome="%s"}'
SAID = 'qna_requests_total{job="model-host",instance="m:8080",route="/generate",outcome="%s"}'
API = 'job="api-server",instance="a:8000"'
HOST = 'job="model-host",instance="m:8080"'
# Failures from 2:00 to 7:00, and a single one at 2:15.
OUTAGE = "0x8 1+1x19 20x20"
ONCE = "0x8 1x50"
AFTER_ONCE = ("3m30s", "4m30s", "5m30s", "7m")
# Steps until 5:00, none until the process ends after 6:00; from 6:45 on there is another.
STANDS_STILL = "0+300x20 6000x3 _x3 0+300x40"
HANGS = "2x23 _x3 0x40"
A = {"job": "api-server", "instance": "a:8000"}
M = {"job": "model-host", "instance": "m:8080"}


@dataclass(frozen=True)
class Case:
    """`labels` beside the severity, and `summary`, when it fires; neither when it does not."""

    alert: str
    series: dict[str, str]
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    at: str = "10m"


def api(metric: str, more: str = "") -> str:
    return f"qna_api_{metric}{{{API}{more}}}"


def host(metric: str, more: str = "") -> str:
    return f"qna_{metric}{{{HOST}{more}}}"


def first_tokens(metric: str, late: bool) -> dict[str, str]:
    """Ten a step, all of which take 5 to 10 seconds, or at most half a second."""
    start, end = metric[:-1], "0+10x200"
    early = "0x200" if late else end
    return {
        f'{start},le="0.5"}}': early,
        f'{start},le="5"}}': early,
        f'{start},le="10"}}': end,
        f'{start},le="+Inf"}}': end,
    }


API_SERVER = [
    Case("ApiServerAbsent", {f"up{{{API}}}": "0x40"}, "No API server can be scraped."),
    Case("ApiServerAbsent", {f"up{{{API}}}": "0x40", 'up{job="api-server",instance="b"}': "1x40"}),
    Case("ApiServerUnreachable", {f"up{{{API}}}": "0x40"}, "a:8000 cannot be scraped.", A),
    Case("ApiServerUnreachable", {f"up{{{API}}}": "0x12 1x30"}),
    Case(
        "ApiServerRestarting",
        {f"process_start_time_seconds{{{API}}}": "100x3 200x3 300x3 400x30"},
        "a:8000 has started 3 times in 15 minutes.",
        A,
    ),
    Case("ApiServerRestarting", {f"process_start_time_seconds{{{API}}}": "100x3 200x3 300x40"}),
    Case(
        "ApiServerErrors",
        {ASKED % ("/chat", "ok"): "0+90x60", ASKED % ("/chat", "internal_error"): "0+10x60"},
        "10% of all requests fail.",
        {"job": "api-server"},
    ),
    Case(
        "ApiServerErrors",
        {
            ASKED % ("/chat", "ok"): "0+90x60",
            ASKED % ("/chat", "invalid_value"): "0+50x60",
            ASKED % ("/chat", "rate_limit_exceeded"): "0+50x60",
            ASKED % ("/readyz", "database_unavailable"): "0+50x60",
        },
    ),
    Case(
        "ApiServerNoModelHost",
        {
            api("hosts_ready", ',model="large"'): "0x40",
            api("hosts_ready", ',model="small"'): "2x40",
        },
        "No model host is ready for large.",
        {"job": "api-server", "model": "large"},
    ),
    Case(
        "ApiServerNoModelHost",
        {api("hosts_ready"): "0x40", 'qna_api_hosts_ready{job="api-server",instance="b"}': "1x40"},
    ),
    Case(
        "ApiServerHostOut",
        {api("host_out", ',model="large",address="http://l"'): "1x40"},
        "a:8000 sends nothing to http://l.",
        A | {"model": "large", "address": "http://l"},
    ),
    Case("ApiServerHostOut", {api("host_out", ',address="http://l"'): "1x12 0x8 1x18"}, at="9m"),
    Case(
        "ApiServerFallback",
        {api("fallbacks_total", ',model="large",fallback="small"'): "0+1x60"},
        "small answers in place of large.",
        {"job": "api-server", "model": "large", "fallback": "small"},
    ),
    Case("ApiServerFallback", {api("fallbacks_total", ',model="large",fallback="small"'): "7x60"}),
    Case(
        "ApiServerQueueing",
        {api("requests_queued"): "40x60"},
        "40 requests wait in line at a:8000.",
        A,
    ),
    Case("ApiServerQueueing", {api("requests_queued"): "32x60"}),
    Case(
        "ApiServerRejecting",
        {
            api("requests_rejected_total", ',reason="in_flight"'): "0+1x60",
            ASKED % ("/chat", "ok"): "0+49x60",
            ASKED % ("/chat", "overloaded"): "0+1x60",
        },
        "2% of all requests are refused, because all places are taken.",
        {"job": "api-server"},
    ),
    Case(
        "ApiServerRejecting",
        {
            api("requests_rejected_total", ',reason="in_flight"'): "0+1x60",
            ASKED % ("/chat", "ok"): "0+199x60",
        },
    ),
    Case(
        "ApiServerFirstTokenSlow",
        first_tokens(api("time_to_first_token_seconds_bucket", ',route="/chat"'), late=True),
        "A stream's first token takes 9.75s at the 95th percentile.",
        {"job": "api-server"},
        at="25m",
    ),
    Case(
        "ApiServerFirstTokenSlow",
        first_tokens(api("time_to_first_token_seconds_bucket", ',route="/chat"'), late=False),
        at="25m",
    ),
    Case(
        "ApiServerDatabaseUnavailable",
        {ASKED % ("/readyz", "database_unavailable"): "0+1x60"},
        "The database fails requests: database_unavailable.",
        {"job": "api-server", "outcome": "database_unavailable"},
    ),
    Case("ApiServerDatabaseUnavailable", {ASKED % ("/readyz", "draining"): "0+1x60"}),
    Case(
        "ApiServerDatabaseUnavailable",
        {ASKED % ("/chat", "database_unavailable"): OUTAGE},
        "The database fails requests: database_unavailable.",
        {"job": "api-server", "outcome": "database_unavailable"},
        at="6m",
    ),
    *(
        Case("ApiServerDatabaseUnavailable", {ASKED % ("/chat", "storage_full"): ONCE}, at=at)
        for at in AFTER_ONCE
    ),
    Case(
        "ApiServerLimitsUnavailable",
        {api("limit_store_failures_total", ',operation="take"'): "0+1x60"},
        "Where limits are counted does not answer.",
        {"job": "api-server"},
    ),
    Case(
        "ApiServerLimitsUnavailable",
        {api("limit_store_failures_total", ',operation="take"'): "5x60"},
    ),
    Case(
        "ApiServerLimitsUnavailable",
        {api("limit_store_failures_total", ',operation="take"'): OUTAGE},
        "Where limits are counted does not answer.",
        {"job": "api-server"},
        at="6m",
    ),
    *(
        Case(
            "ApiServerLimitsUnavailable",
            {api("limit_store_failures_total", ',operation="take"'): ONCE},
            at=at,
        )
        for at in AFTER_ONCE
    ),
    Case(
        "ApiServerUsageLost",
        {api("usage_lost_total"): "0x10 8x300"},
        "a:8000 has lost the usage of 8 requests.",
        A,
        at="60m",
    ),
    Case("ApiServerUsageLost", {api("usage_lost_total"): "8x300"}, at="60m"),
    Case(
        "ApiServerModelsFileRefused",
        {api("models_file_good"): "0x60"},
        "a:8000 refuses the models file.",
        A,
    ),
    Case("ApiServerModelsFileRefused", {api("models_file_good"): "1x60"}),
    Case(
        "ApiServerEventLoopSlow",
        {api("event_loop_lag_seconds"): "0.5x60"},
        "The event loop of a:8000 is 500ms late.",
        A,
    ),
    Case("ApiServerEventLoopSlow", {api("event_loop_lag_seconds"): "0.01x18 3 0.01x60"}),
]

MODEL_HOST = [
    Case("ModelHostAbsent", {f"up{{{HOST}}}": "0x40"}, "No model host can be scraped."),
    Case("ModelHostAbsent", {f"up{{{HOST}}}": "0x40", 'up{job="model-host",instance="n"}': "1x40"}),
    Case("ModelHostUnreachable", {f"up{{{HOST}}}": "0x40"}, "m:8080 cannot be scraped.", M),
    Case("ModelHostUnreachable", {f"up{{{HOST}}}": "0x12 1x30"}),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): "2x40", host("engine_steps_total"): "900x40"},
        "The engine of m:8080 has work and makes no step.",
        M,
    ),
    # As it goes: after some 70 s Kubernetes has ended the process, and a new one counts from 0.
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): HANGS, host("engine_steps_total"): STANDS_STILL},
        at="5m30s",
    ),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): HANGS, host("engine_steps_total"): STANDS_STILL},
        "The engine of m:8080 has work and makes no step.",
        M,
        at="5m45s",
    ),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): HANGS, host("engine_steps_total"): STANDS_STILL},
        "The engine of m:8080 has work and makes no step.",
        M,
        at="8m",
    ),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): HANGS, host("engine_steps_total"): STANDS_STILL},
        at="14m",
    ),
    # The first request for a long time has come, and the first step with it is not made yet.
    Case(
        "ModelHostStalled",
        {
            host("num_requests_running"): "0x40 1x1 0x20",
            host("engine_steps_total"): "900x40 901x20",
        },
        at="10m15s",
    ),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): "0x40", host("engine_steps_total"): "900x40"},
    ),
    Case(
        "ModelHostStalled",
        {host("num_requests_running"): "2x40", host("engine_steps_total"): "0+1x40"},
    ),
    Case(
        "ModelHostRestarting",
        {f"process_start_time_seconds{{{HOST}}}": "100x3 200x3 300x3 400x30"},
        "m:8080 has started 3 times in 15 minutes.",
        M,
    ),
    Case("ModelHostRestarting", {f"process_start_time_seconds{{{HOST}}}": "100x3 200x3 300x40"}),
    Case(
        "ModelHostErrors",
        {SAID % "ok": "0+90x60", SAID % "deadline_exceeded": "0+10x60"},
        "10% of all requests fail.",
        {"job": "model-host"},
    ),
    Case("ModelHostErrors", {SAID % "ok": "0+90x60", SAID % "overloaded": "0+50x60"}),
    Case(
        "ModelHostRequestsWaiting",
        {host("num_requests_waiting", ',pod="m-1"'): "70x60"},
        "70 requests wait at m-1.",
        M | {"pod": "m-1"},
    ),
    Case("ModelHostRequestsWaiting", {host("num_requests_waiting"): "64x60"}),
    Case(
        "ModelHostRequestsRejected",
        {
            host("requests_rejected_total", ',reason="overloaded"'): "0+1x60",
            SAID % "ok": "0+49x60",
            SAID % "overloaded": "0+1x60",
        },
        "2% of all requests are refused, because the queue is full.",
        {"job": "model-host"},
    ),
    Case(
        "ModelHostRequestsRejected",
        {host("requests_rejected_total", ',reason="draining"'): "0+9x60", SAID % "ok": "0+49x60"},
    ),
    Case(
        "ModelHostKvCacheFull",
        {
            host(
                "kv_cache_usage_ratio"
            ): "0.4 0.97 0.4x4 0.5 0.97 0.4x14 0.6 0.97x4 0.5x9 0.97 0.5x15"
        },
        "The KV cache of m:8080 is 97% full.",
        M,
        at="11m",
    ),
    Case("ModelHostKvCacheFull", {host("kv_cache_usage_ratio"): "0.3x20 1x16 0.3x60"}, at="14m"),
    Case(
        "ModelHostPreempting",
        {host("num_preemptions_total"): "0+15x100"},
        "m:8080 puts back 1 requests per second.",
        M,
        at="25m",
    ),
    Case("ModelHostPreempting", {host("num_preemptions_total"): "0+1x100"}, at="25m"),
    Case(
        "ModelHostFirstTokenSlow",
        first_tokens(host("time_to_first_token_seconds_bucket"), late=True),
        "The first token takes 9.75s at the 95th percentile.",
        {"job": "model-host"},
        at="25m",
    ),
    Case(
        "ModelHostFirstTokenSlow",
        first_tokens(host("time_to_first_token_seconds_bucket"), late=False),
        at="25m",
    ),
    Case(
        "ModelHostEventLoopSlow",
        {host("event_loop_lag_seconds"): "0.75x60"},
        "The event loop of m:8080 is 750ms late.",
        M,
    ),
    Case("ModelHostEventLoopSlow", {host("event_loop_lag_seconds"): "0.01x18 3 0.01x60"}),
]

CASES = {"api-server": API_SERVER, "model-host": MODEL_HOST}


def promtools(case: Case, rule: dict[str, Any]) -> dict[str, Any]:
    """The case as promtool reads it."""
    check: dict[str, Any] = {"eval_time": case.at, "alertname": case.alert}
    if case.summary:
        annotations = rule["annotations"] | {"summary": case.summary}
        expected = {"exp_labels": case.labels | rule["labels"], "exp_annotations": annotations}
        check["exp_alerts"] = [expected]
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"interval": EVERY, "input_series": series, "alert_rule_test": [check]}
