"""Spans of the model host: one for each request to the engine, whatever door it came by, with the
engine's own times. The receiver is real; both servers together are in tests/hops.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.config import SettingsError, load_settings
from model.host import Host
from model.spans import MOST_WAITING, SpanTracing
from tests.model.hosts import MODEL_NAME, client_of, running, settings_for, until
from tests.otlp import Receiver, Span, receiving

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=1"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield made


@pytest.fixture(scope="module")
async def traced_host(tiny_model: Path, receiver: Receiver) -> AsyncIterator[Host]:
    settings = settings_for(tiny_model, max_num_seqs=8, traces_url=f"{receiver.url}/v1/traces")
    async with running(Host(settings)) as host:
        yield host
        await host.tracing.close()


@pytest.fixture
async def client(traced_host: Host, receiver: Receiver) -> AsyncIterator[httpx.AsyncClient]:
    receiver.spans.clear()
    async with client_of(traced_host) as client:
        yield client


async def named(receiver: Receiver, name: str, count: int = 1) -> list[Span]:
    await until(lambda: len(receiver.named(name)) >= count, 20)
    return receiver.named(name)


MESSAGES = [{"role": "user", "content": "hello"}]
DOORS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "/generate": ("/generate", {"user_prompt": "hello"}, 1, "chat"),
    "/generate/batch": (
        "/generate/batch",
        {"queries": [{"user_prompt": "a", "max_tokens": 3}, {"user_prompt": "b", "max_tokens": 3}]},
        2,
        "chat",
    ),
    "/v1/models/{model_name}:predict": (
        f"/v1/models/{MODEL_NAME}:predict",
        {"instances": [{"user_prompt": "hello", "max_tokens": 3}]},
        1,
        "chat",
    ),
    "/openai/v1/chat/completions": (
        "/openai/v1/chat/completions",
        {"model": MODEL_NAME, "messages": MESSAGES, "n": 3, "max_tokens": 3},
        3,
        "chat",
    ),
    "/openai/v1/completions": (
        "/openai/v1/completions",
        {"model": MODEL_NAME, "prompt": ["a", "b"], "max_tokens": 3},
        2,
        "text_completion",
    ),
}


@pytest.mark.parametrize("route", DOORS)
async def test_every_door_has_a_span_for_each_request_to_the_engine(
    client: httpx.AsyncClient, receiver: Receiver, route: str
) -> None:
    path, body, count, operation = DOORS[route]
    if path == "/generate":
        body = body | {"max_tokens": 3}
    answer = await client.post(path, json=body, headers=GIVEN)
    assert answer.status_code == 200, answer.text
    (server,) = await named(receiver, f"POST {route}")
    assert (server.kind, server.trace_id, server.parent_id) == ("server", TRACE, PARENT)
    work = await named(receiver, f"{operation} {MODEL_NAME}", count)
    assert len(work) == count
    for span in work:
        assert (span.parent_id, span.trace_state) == (server.span_id, "rojo=1")
        assert span.attributes["gen_ai.request.max_tokens"] == 3
        assert span.attributes["gen_ai.usage.output_tokens"] <= 3
        await until(lambda span=span: len(receiver.children(span)) >= 2, 20)  # type: ignore[misc]
        assert {one.name for one in receiver.children(span)} <= {"queue", "prefill", "decode"}


async def test_a_stop_string_is_an_end_and_no_cancel(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    body = {"user_prompt": "hello", "max_tokens": 64, "seed": 1}
    text = (await client.post("/generate", json=body)).json()["response"]
    await named(receiver, f"chat {MODEL_NAME}")
    receiver.spans.clear()
    stop = next(char for char in text if char.isascii() and char.isprintable())
    await client.post("/generate", json=body | {"stop": [stop, "canary7f3a"]})
    (span,) = await named(receiver, f"chat {MODEL_NAME}")
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "error.type" not in span.attributes
    assert b"canary7f3a" not in b"".join(receiver.raw)


async def test_a_deadline_marks_the_spans(client: httpx.AsyncClient, receiver: Receiver) -> None:
    body = {"user_prompt": "hello " * 100, "max_tokens": 300, "timeout_ms": 1}
    assert (await client.post("/generate", json=body)).status_code == 504
    (server,) = await named(receiver, "POST /generate")
    assert server.failed
    assert server.attributes["error.type"] == "deadline_exceeded"


async def test_a_refusal_before_the_engine_has_no_span_of_it(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    assert (await client.post("/generate", json={"user_prompt": "x" * 9000})).status_code == 400
    (server,) = await named(receiver, "POST /generate")
    assert not server.failed
    assert server.attributes["qna.outcome"] == "context_length_exceeded"
    assert not receiver.named(f"chat {MODEL_NAME}")


async def test_who_is_not_sampled_sends_nothing_and_is_logged_all_the_same(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    body = {"user_prompt": "hello", "max_tokens": 3}
    await client.post("/generate", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await client.post("/generate", json=body)
    (server,) = await named(receiver, "POST /generate")
    assert server.trace_id != TRACE


async def test_spans_beyond_the_queue_are_dropped_and_counted(
    tiny_model: Path, receiver: Receiver
) -> None:
    release = threading.Event()
    with receiving() as silent:
        silent.fault = lambda _: release.wait(30) and None
        host = Host(settings_for(tiny_model, traces_url=f"{silent.url}/v1/traces"))
        tracing = host.tracing
        assert isinstance(tracing, SpanTracing)
        for _ in range(MOST_WAITING + 50):
            tracing._tracer.start_span("x").end()
        assert b'qna_spans_total{outcome="dropped"} 50.0' in host.metrics.render()
        began = time.monotonic()
        await tracing.close()
        assert time.monotonic() - began < 5
        release.set()


LOADED = """
import json, sys
from model.app import create_app
from model.config import load_settings
app = create_app(load_settings([], json.loads(sys.argv[1])))
print(json.dumps(sorted(sys.modules)))
"""


def test_who_sends_no_spans_loads_nothing_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "{}"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    costly = {"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp"}
    assert costly & set(json.loads(done.stdout)) == set()
    # As these tests themselves have.
    assert costly <= set(sys.modules)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, ""),
        ({ENDPOINT: "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({ENDPOINT: "http://a", "MODEL_HOST_TRACES_URL": "http://c/own"}, "http://c/own"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/own"}, "http://b/own"),
        ({ENDPOINT: "http://a", "OTEL_SDK_DISABLED": "true"}, ""),
        ({ENDPOINT: "http://a", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_the_standard_variables_switch_it_on(environ: dict[str, str], url: str) -> None:
    assert load_settings([], environ).traces_url == url


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({ENDPOINT: "collector"}, f"{ENDPOINT}: must be http://"),
        ({"MODEL_HOST_TRACES_URL": "http://u:p@a/"}, "MODEL_HOST_TRACES_URL: must be http://"),
        ({ENDPOINT: "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "must be http/protobuf"),
        ({"MODEL_HOST_TRACES_RATIO": "1.5"}, "MODEL_HOST_TRACES_RATIO: must be a number from 0"),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings([], environ)
