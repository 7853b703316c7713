"""Where the API server sends spans: how that is switched on and off, and that a receiver that fails
is nobody's business but its own.
"""

import json
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.settings import Settings, SettingsError
from api.settings_sources import read
from api.spans import MOST_WAITING, _resource
from tests.api.conftest import Api, StartApi, eventually
from tests.otlp import Receiver, span_of

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-5d1e"


def spans(api: Api, outcome: str) -> float:
    value: float = api.parts.metrics.spans.labels(outcome)._value.get()
    return value


# ---- a receiver that fails -----------------------------------------------------------------------


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\xff garbage " * 50)
    handler.close_connection = True


def broken(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.send_response(500)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def hanging(handler: BaseHTTPRequestHandler) -> None:
    # As long as the connection is there.
    handler.rfile.read()


@pytest.mark.parametrize("fault", [garbage, broken, hanging, None])
async def test_a_receiver_that_fails_costs_requests_nothing(
    start_api: StartApi, receiver: Receiver, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    receiver.fault = fault
    url = receiver.url
    if fault is None:
        # Nobody listens there.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
    api = await start_api(traces_url=f"{url}/v1/traces")
    longest = 0.0
    for _ in range(20):
        began = time.monotonic()
        assert (await api.chat(user_prompt="q")).status_code == 200
        longest = max(longest, time.monotonic() - began)
    assert longest < 0.9
    await eventually(lambda: spans(api, "failed") > 0, 20)
    assert spans(api, "sent") == 0
    began = time.monotonic()
    await api.app.state.tracing.close()
    assert time.monotonic() - began < 3


async def test_spans_beyond_the_queue_are_dropped_and_counted(
    start_api: StartApi, receiver: Receiver
) -> None:
    receiver.fault = hanging
    api = await start_api(traces_url=f"{receiver.url}/v1/traces")
    tracer = api.app.state.tracing._tracer
    for _ in range(MOST_WAITING + 100):
        tracer.start_span("x").end()
    assert spans(api, "dropped") == 100
    metrics = (await api.client.get("/metrics")).text
    assert 'qna_api_spans_total{outcome="dropped"} 100.0' in metrics


# ---- switching it on and off ---------------------------------------------------------------------

LOADED = """
import asyncio, json, sys
from api.app import create_app
from api.settings_sources import read
app = create_app(read(json.loads(sys.argv[1])).settings)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("on", [True, False])
def test_who_sends_no_spans_loads_nothing_for_it(tmp_path: Path, on: bool) -> None:
    environ = {"API_DATABASE_URL": f"sqlite:///{tmp_path}/chats.db"}
    if on:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(environ)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = json.loads(done.stdout)
    costly = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests")
    found = {name for name in costly if any(one.startswith(name) for one in loaded)}
    assert found == (set(costly) if on else set())
    assert "redis" not in loaded


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, ""),
        ({ENDPOINT: "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({ENDPOINT: "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        (
            {ENDPOINT: "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/own"},
            "http://b/own",
        ),
        ({ENDPOINT: "http://a", "API_TRACES_URL": "http://c/v1/traces"}, "http://c/v1/traces"),
        ({ENDPOINT: "http://a", "OTEL_SDK_DISABLED": "true"}, ""),
        ({ENDPOINT: "http://a", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_the_standard_variables_switch_it_on(environ: dict[str, str], url: str) -> None:
    assert read(environ).settings.traces_url == url


def test_the_settings_say_where_the_receiver_is_from() -> None:
    lines = read({ENDPOINT: "http://collector:4318"}).lines()
    line = next(line for line in lines if line.startswith("traces_url"))
    assert "http://collector:4318/v1/traces" in line
    assert line.endswith(f"# environment, {ENDPOINT}")


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({ENDPOINT: "collector:4318"}, "API_TRACES_URL"),
        ({ENDPOINT: "http://user:pass@collector"}, "API_TRACES_URL"),
        ({ENDPOINT: "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"API_TRACES_RATIO": "2"}, "API_TRACES_RATIO: want 0 to 1"),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(environ: dict[str, str], word: str) -> None:
    with pytest.raises(SettingsError, match=word) as caught:
        read(environ)
    assert "pass" not in str(caught.value).replace("password", "")


def test_the_service_has_a_name_that_the_environment_may_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _resource().attributes["service.name"] == "qna-api-server"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    attributes = _resource().attributes
    assert attributes["service.name"] == "front"
    assert attributes["deployment.environment.name"] == "test"


def test_frameworks_own_records_are_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FastAPI's own would hold query strings and the messages of exceptions."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/chats.db"))
    assert not any(app._telemetry[name] for name in ("tracing", "metrics", "logs"))  # type: ignore[literal-required]
    assert app._telemetry["auto_configure"] is False


async def test_the_receivers_own_key_reaches_it_and_nobody_else(
    start_api: StartApi,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-vendor-key={CANARY}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    api = await start_api(traces_url=f"{receiver.url}/v1/traces")
    await api.chat(user_prompt="q")
    await span_of(receiver, "POST /chat")
    assert receiver.headers[0]["x-vendor-key"] == CANARY
    assert receiver.headers[0]["content-encoding"] == "gzip"
    assert CANARY not in caplog.text
    assert CANARY.encode() not in b"".join(receiver.raw)
