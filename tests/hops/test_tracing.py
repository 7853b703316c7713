"""One trace over both hops, from real servers to a real receiver: streamed and not, repeated, left,
failed.
"""

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from tests.hops.conftest import ENDLESS, LONG_PROMPT, Pair, Server, StartApi, wait_until
from tests.hops.wire import asked, leave, send
from tests.otlp import Receiver, Span
from tests.ports import free_port

API, HOST = "qna-api-server", "qna-model-host"
PARENT = "00f067aa0ba902b7"
NUMBERS = itertools.count(1)


@pytest.fixture
def trace() -> str:
    return f"{next(NUMBERS):031x}f"


def given(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "shop=7"}


def spans_of(receiver: Receiver, trace: str, count: int) -> list[Span]:
    """All spans of the trace, when so many are there."""

    def found() -> list[Span]:
        return [span for span in list(receiver.spans) if span.trace_id == trace]

    receiver.wait(lambda: len(found()) >= count)
    return sorted(found(), key=lambda span: span.start_ns)


def tree(spans: list[Span], parent_id: str, depth: int = 0) -> list[str]:
    lines = []
    for span in spans:
        if span.parent_id == parent_id:
            lines.append("  " * depth + f"{span.service[4:]}: {span.name}")
            lines += tree(spans, span.span_id, depth + 1)
    return lines


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_one_question_is_one_trace(pair: Pair, trace: str, stream: bool) -> None:
    body = {"user_prompt": "Capital of India?", "stream": stream, "details": True}
    answer = pair.api.client.post("/chat", json=body, headers=given(trace))
    assert "New Delhi" in answer.text
    spans = spans_of(pair.receiver, trace, 7)
    assert tree(spans, PARENT) == [
        "api-server: POST /chat",
        "  api-server: POST /generate",
        "    model-host: POST /generate",
        "      model-host: chat qna-demo",
        "        model-host: queue",
        "        model-host: prefill",
        "        model-host: decode",
    ]
    assert {span.trace_state for span in spans} == {"shop=7"}
    assert not [span for span in spans if span.failed]
    work = one(spans, "chat qna-demo")
    assert work.attributes["gen_ai.operation.name"] == "chat"
    assert work.attributes["gen_ai.request.model"] == "qna-demo"
    assert work.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    prompt = work.attributes["gen_ai.usage.input_tokens"]
    said = work.attributes["gen_ai.usage.output_tokens"]
    assert prompt > 5
    assert said > 3
    assert one(spans, "prefill").attributes["gen_ai.usage.input_tokens"] == prompt
    assert one(spans, "decode").attributes["gen_ai.usage.output_tokens"] == said
    api = one(spans, "POST /chat")
    assert api.attributes["gen_ai.usage.input_tokens"] == prompt
    assert api.attributes["gen_ai.usage.output_tokens"] == said
    # The stages follow each other and fill the request.
    queue, prefill, decode = (one(spans, name) for name in ("queue", "prefill", "decode"))
    assert queue.end_ns == prefill.start_ns
    assert prefill.end_ns == decode.start_ns
    assert work.start_ns <= queue.start_ns
    assert decode.end_ns <= work.end_ns
    assert work.seconds <= api.seconds


def test_the_stages_are_the_answers_own_timing(pair: Pair, trace: str) -> None:
    body = {"user_prompt": "Capital of India?", "details": True}
    answer = pair.api.client.post("/chat", json=body, headers=given(trace)).json()
    spans = spans_of(pair.receiver, trace, 7)
    for name in ("queue", "prefill", "decode"):
        ms = answer["timing"][f"{name}_ms"]
        assert one(spans, name).seconds * 1000 == pytest.approx(ms, abs=0.01), name


def test_a_repeated_attempt_is_a_span_of_its_own(
    pair: Pair, start_api: StartApi, sending: dict[str, str], models_file: str, trace: str
) -> None:
    """The first address refuses the connection."""
    api = start_api(API_MODELS_FILE=models_file, **sending)
    for _ in range(20):
        answer = api.client.post("/chat", json={"user_prompt": "Hello"}, headers=given(trace))
        assert answer.status_code == 200
        if api.metric("qna_api_upstream_retries_total"):
            break
    receiver = pair.receiver
    found = receiver.wait(
        lambda: [
            span
            for span in receiver.named("POST /generate", API)
            if span.trace_id == trace and "http.request.resend_count" in span.attributes
        ]
    )
    parent = found[0].parent_id
    attempts = [span for span in receiver.named("POST /generate", API) if span.parent_id == parent]
    attempts.sort(key=lambda span: span.start_ns)
    assert [span.failed for span in attempts] == [True, False]
    assert attempts[0].attributes["error.type"] == "connect"
    assert attempts[0].attributes["gen_ai.request.model"] == "demo"
    receiver.wait(lambda: receiver.children(attempts[1]))
    (served,) = receiver.children(attempts[1])
    assert (served.service, served.name) == (HOST, "POST /generate")
    assert receiver.children(attempts[0]) == []


@pytest.fixture
def models_file(tmp_path_factory: pytest.TempPathFactory, host: Server) -> str:
    path = tmp_path_factory.mktemp("models") / "models.yaml"
    path.write_text(
        f"""models:
  - name: demo
    served_name: qna-demo
    addresses:
      - url: http://127.0.0.1:{free_port()}
      - url: {host.url}
"""
    )
    return str(path)


@pytest.mark.parametrize(
    ("stage", "reached"),
    [
        ("queue", ["queue"]),
        ("prefill", ["queue", "prefill"]),
        ("decode", ["queue", "prefill", "decode"]),
    ],
)
def test_who_leaves_is_seen_on_every_hop(
    pair: Pair, trace: str, stage: str, reached: list[str]
) -> None:
    wait_until(lambda: pair.is_idle)
    with contextlib.ExitStack() as stack:
        if stage == "queue":
            blocker = stack.enter_context(send(pair.host, *asked("host", "Hi", endless=True)))
            assert blocker.recv(15) == b"HTTP/1.1 200 OK"
        prompt = LONG_PROMPT if stage == "prefill" else "Hello"
        path, body = asked("api", prompt, endless=stage == "decode")
        sock = send(pair.api, path, body, **given(trace))
        if stage == "decode":
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
        else:
            name = "waiting" if stage == "queue" else "running"
            wait_until(lambda: pair.host.metric(f"qna_num_requests_{name}") == 1)
        leave(sock, "FIN")
        spans = spans_of(pair.receiver, trace, 4 + len(reached))
    assert [one.name for one in spans if one.name in ("queue", "prefill", "decode")] == reached
    work = one(spans, "chat qna-demo")
    assert work.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    assert work.attributes["error.type"] == "cancelled"
    servers = [span for span in spans if span.kind == "server"]
    assert [span.attributes["qna.outcome"] for span in servers] == ["cancelled"] * 2
    (attempt,) = [span for span in spans if span.kind == "client"]
    assert attempt.attributes["error.type"] == "cancelled"


def test_an_error_is_seen_on_every_hop(pair: Pair, trace: str) -> None:
    path, body = asked("api", "Hello")
    headers = given(trace) | {"X-Request-Timeout-Ms": "150"}
    answer = pair.api.client.post(path, json=body | ENDLESS, headers=headers)
    assert answer.status_code == 504
    spans = spans_of(pair.receiver, trace, 7)
    failed = {f"{span.service[4:]}: {span.name}" for span in spans if span.failed}
    assert failed == {
        "api-server: POST /v1/chat/completions",
        "api-server: POST /openai/v1/chat/completions",
        "model-host: POST /openai/v1/chat/completions",
        "model-host: chat qna-demo",
    }


def test_the_trace_stands_in_the_logs_of_both(pair: Pair, trace: str) -> None:
    answer = pair.api.client.post("/chat", json={"user_prompt": "Hello"}, headers=given(trace))
    for server in (pair.api, pair.host):
        (line,) = [one for one in lines_of(server) if trace in one]
        assert f'"trace_id":"{trace}"' in line.replace('": "', '":"')
        assert answer.headers["x-request-id"] in line


def lines_of(server: Server) -> Iterator[str]:
    yield from server.log.read_text().splitlines()
