"""Traces of the API server: what a caller began goes on, every attempt is a span, nothing that a
caller wrote is in one. The receiver is real, the model host a stand-in.
"""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api, StartApi, eventually
from tests.api.stub_host import StubHost, refuse
from tests.otlp import Receiver, span_of

pytestmark = pytest.mark.anyio
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=1,congo=2"}
CANARY = "canary-5d1e"


async def test_a_callers_trace_goes_on_to_the_model_host(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    body = {"chat_id": "1", "user_prompt": "Capital of India?"}
    answer = await traced.client.post("/chat", json=body, headers=GIVEN)
    assert answer.status_code == 200
    server = await span_of(receiver, "POST /chat")
    attempt = await span_of(receiver, "POST /generate")
    assert (server.trace_id, server.parent_id, server.kind) == (TRACE, PARENT, "server")
    assert (attempt.trace_id, attempt.parent_id) == (TRACE, server.span_id)
    assert (attempt.kind, attempt.service) == ("client", "qna-api-server")
    sent = host.generated[0].headers
    assert sent["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01"
    assert sent["tracestate"] == GIVEN["tracestate"] == attempt.trace_state
    usage = {key: server.attributes[f"gen_ai.usage.{key}"] for key in ("input_tokens",)}
    assert usage == {"input_tokens": 6}
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["qna.outcome"] == "ok"
    assert attempt.attributes["server.port"] == httpx.URL(host.url).port
    assert attempt.start_ns >= server.start_ns
    assert attempt.end_ns <= server.end_ns
    assert not server.failed


async def test_without_a_trace_one_begins_and_a_streams_spans_last_as_long_as_it(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    host.gap_s = 0.05
    await traced.chat(user_prompt="a b c d", stream=True)
    server = await span_of(receiver, "POST /chat")
    attempt = await span_of(receiver, "POST /generate")
    assert server.parent_id == ""
    assert attempt.parent_id == server.span_id
    assert attempt.events == ["first byte"]
    assert attempt.seconds >= 0.2
    assert 0 < server.attributes["gen_ai.response.time_to_first_chunk"] < server.seconds


async def test_each_attempt_is_a_span_and_says_why_it_failed(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    host.faults = [refuse(503, "draining"), refuse(503, "not_ready")]
    assert (await traced.chat(user_prompt="q")).status_code == 200
    server = await span_of(receiver, "POST /chat")
    await eventually(lambda: len(receiver.named("POST /generate")) == 3)
    attempts = sorted(receiver.named("POST /generate"), key=lambda span: span.start_ns)
    assert [span.parent_id for span in attempts] == [server.span_id] * 3
    assert [span.failed for span in attempts] == [True, True, False]
    assert [span.attributes.get("error.type") for span in attempts] == [
        "draining", "not_ready", None
    ]  # fmt: skip
    resent = [span.attributes.get("http.request.resend_count") for span in attempts]
    assert resent == [None, 1, 2]
    seen = [one.headers["traceparent"].split("-")[2] for one in host.generated]
    assert seen == [span.span_id for span in attempts]


async def test_an_error_and_a_deadline_mark_their_spans(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    host.delay_s = 5
    assert (await traced.chat(user_prompt="q", timeout_ms=100)).status_code == 504
    server = await span_of(receiver, "POST /chat")
    attempt = await span_of(receiver, "POST /generate")
    assert server.failed
    assert attempt.failed
    assert server.attributes["error.type"] == attempt.attributes["error.type"]
    assert server.attributes["error.type"] == "deadline_exceeded"
    # What a caller did wrong is no error of the server's.
    assert (await traced.chat(user_prompt="q", temperature=99)).status_code == 400
    refused = await eventually(
        lambda: [one for one in receiver.named("POST /chat") if one.span_id != server.span_id]
    )
    assert not refused[0].failed
    assert refused[0].attributes["qna.outcome"] == "invalid_value"


async def test_a_client_that_leaves_ends_both_spans_as_cancelled(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    host.delay_s = 30
    with pytest.raises(httpx.ReadTimeout):
        await traced.client.post("/chat", json={"user_prompt": "q"}, timeout=0.2)
    server = await span_of(receiver, "POST /chat")
    attempt = await span_of(receiver, "POST /generate")
    assert server.attributes["qna.outcome"] == "cancelled"
    assert attempt.attributes["error.type"] == "cancelled"
    assert attempt.seconds < 10


async def test_spans_hold_nothing_that_a_caller_wrote(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    headers = {"Authorization": f"Bearer {CANARY}", "X-Request-Id": CANARY, "User-Agent": CANARY}
    body: dict[str, Any] = {"user_prompt": CANARY, "system_prompt": CANARY, "chat_id": CANARY}
    for more in ({}, {"stream": True}, {"model": CANARY}, {CANARY: 1}, {"stop": [CANARY]}):
        await traced.client.post(f"/chat?key={CANARY}", json=body | more, headers=headers)
    messages = [{"role": "user", "content": CANARY}]
    await traced.client.post("/v1/chat/completions", json={"model": CANARY, "messages": messages})
    await traced.client.get(f"/v1/models/{CANARY}", headers=headers)
    await traced.client.get(f"/chats/{CANARY}?cursor={CANARY}", headers=headers)
    await traced.client.get(f"/nothing/{CANARY}", headers=headers)
    await traced.client.get("/livez")
    await span_of(receiver, "GET")
    assert len(receiver.named("POST /chat")) == 5
    assert not [span for span in receiver.spans if span.attributes.get("http.route") == "/livez"]
    assert CANARY.encode() not in b"".join(receiver.raw)


@pytest.mark.parametrize(
    "given",
    [
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        CANARY,
    ],
)
@pytest.mark.parametrize("on", [True, False])
async def test_what_is_no_trace_is_left_out(
    start_api: StartApi, receiver: Receiver, host: StubHost, given: str, on: bool
) -> None:
    api = await start_api(traces_url=f"{receiver.url}/v1/traces" if on else "")
    body = {"user_prompt": "q"}
    headers = {"traceparent": given, "tracestate": CANARY}
    assert (await api.client.post("/chat", json=body, headers=headers)).status_code == 200
    sent = host.generated[0].headers
    assert "tracestate" not in sent
    assert (TRACE in sent.get("traceparent", "")) is False
    assert ("traceparent" in sent) is on


async def test_without_a_receiver_the_trace_is_passed_on_and_logged(
    api: Api, host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"user_prompt": "q"}
    await api.client.post("/chat", json=body, headers=GIVEN)
    await api.client.post("/chat", json=body)
    first, second = host.generated
    assert {name: first.headers[name] for name in GIVEN} == GIVEN
    assert not {"traceparent", "tracestate"} & set(second.headers)


async def test_the_ratio_and_the_callers_own_choice_decide(
    start_api: StartApi, receiver: Receiver, host: StubHost
) -> None:
    api = await start_api(traces_url=f"{receiver.url}/v1/traces", traces_ratio=0.0)
    body = {"user_prompt": "q"}
    await api.client.post("/chat", json=body)
    # The model host is told not to record it either.
    assert int(host.generated[0].headers["traceparent"][-2:], 16) % 2 == 0
    await api.client.post("/chat", json=body, headers=GIVEN)
    server = await span_of(receiver, "POST /chat")
    assert server.trace_id == TRACE
    assert len(receiver.named("POST /chat")) == 1


async def test_opentelemetrys_own_sampler_wins_over_the_ratio(
    start_api: StartApi, receiver: Receiver, host: StubHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    api = await start_api(traces_url=f"{receiver.url}/v1/traces", traces_ratio=1.0)
    await api.client.post("/chat", json={"user_prompt": "q"}, headers=GIVEN)
    sent = host.generated[0].headers["traceparent"]
    # The trace is the caller's still; whether it is recorded is not the caller's to say.
    assert TRACE in sent
    assert int(sent[-2:], 16) % 2 == 0


async def test_requests_side_by_side_keep_their_traces_apart(
    traced: Api, receiver: Receiver, host: StubHost
) -> None:
    host.delay_s = 0.05
    ids = [f"{n:032x}" for n in range(1, 17)]
    headers = [{"traceparent": f"00-{one}-{PARENT}-01"} for one in ids]
    body = {"user_prompt": "q"}
    await asyncio.gather(*(traced.client.post("/chat", json=body, headers=h) for h in headers))
    await eventually(lambda: len(receiver.spans) == 32)
    for one in ids:
        (server,) = [span for span in receiver.named("POST /chat") if span.trace_id == one]
        (attempt,) = receiver.children(server)
        assert attempt.trace_id == one


async def test_a_malformed_trace_state_is_neither_sent_nor_logged(
    traced: Api, receiver: Receiver, host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    headers = GIVEN | {"tracestate": f"{CANARY}, shop={CANARY}"}
    await traced.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    assert (await span_of(receiver, "POST /chat")).trace_id == TRACE
    assert CANARY not in caplog.text
    assert "tracestate" not in host.generated[0].headers


@pytest.mark.parametrize("on", [True, False])
async def test_a_trace_that_comes_twice_is_none_and_a_state_in_parts_is_one(
    start_api: StartApi, receiver: Receiver, host: StubHost, on: bool
) -> None:
    api = await start_api(traces_url=f"{receiver.url}/v1/traces" if on else "")
    parent = ("traceparent", GIVEN["traceparent"])
    body = {"user_prompt": "q"}
    parts = [parent, ("tracestate", "rojo=1"), ("tracestate", "congo=2")]
    await api.client.post("/chat", json=body, headers=parts)
    await api.client.post("/chat", json=body, headers=[parent, parent])
    first, second = (one.headers for one in host.generated)
    assert TRACE in first["traceparent"]
    assert first["tracestate"] == "rojo=1,congo=2"
    assert TRACE not in second.get("traceparent", "")
