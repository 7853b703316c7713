"""What only a real socket shows: leaving clients, framing, the official OpenAI client."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from tests.model.hosts import MODEL_NAME, Address

LONG = {"user_prompt": "hello", "max_tokens": 480}
LIMIT = 65_536


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def idle(address: Address) -> bool:
    stats = address.host.engine.stats
    return stats.num_running == stats.num_waiting == stats.kv_blocks_used == 0


def cancelled(address: Address) -> int:
    return sum(address.host.engine.stats.cancelled.values())


def raw(address: Address, body: dict[str, object], path: str = "/generate") -> socket.socket:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    sock = socket.create_connection(("127.0.0.1", address.port), timeout=60)
    sock.sendall(head.encode() + content)
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_while_tokens_are_made_frees_its_slot(
    address: Address, stream: bool
) -> None:
    before = cancelled(address)
    sock = raw(address, {**LONG, "stream": stream})
    if stream:
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    else:
        eventually(lambda: address.host.engine.stats.num_running == 1)
    sock.close()
    eventually(lambda: cancelled(address) == before + 1 and idle(address))


def test_a_client_that_leaves_the_queue_never_enters_the_batch(address: Address) -> None:
    running = [raw(address, LONG) for _ in range(8)]  # as many as the engine runs at once
    eventually(lambda: address.host.engine.stats.num_running == 8)
    before = address.host.engine.stats.cancelled.get("queue", 0)
    waiting = [raw(address, LONG) for _ in range(4)]
    eventually(lambda: address.host.engine.stats.num_waiting == 4)
    for sock in waiting:
        sock.close()
    eventually(lambda: address.host.engine.stats.cancelled.get("queue", 0) == before + 4)
    for sock in running:
        sock.close()
    eventually(lambda: idle(address))


def test_one_leaving_client_ends_every_choice_and_every_item(address: Address) -> None:
    before = cancelled(address)
    many = raw(address, {"queries": [LONG, LONG, LONG]}, "/generate/batch")
    messages = [{"role": "user", "content": "hello"}]
    chat = {"model": MODEL_NAME, "messages": messages, "n": 3, "max_tokens": 480}
    several = raw(address, chat, "/openai/v1/chat/completions")
    eventually(lambda: address.host.engine.stats.num_running == 6)
    many.close()
    several.close()
    eventually(lambda: cancelled(address) == before + 6 and idle(address))


def test_a_client_that_keeps_its_connection_is_not_cancelled(address: Address) -> None:
    before = cancelled(address)
    with httpx.Client(base_url=address.url, timeout=60) as client:
        for _ in range(3):
            answer = client.post("/generate", json={"user_prompt": "hi", "max_tokens": 3})
            assert answer.status_code == 200
    assert cancelled(address) == before


def test_the_body_limit_is_exact(address: Address) -> None:
    for extra, status in ((-1, 400), (0, 400), (1, 413)):
        answer = httpx.post(f"{address.url}/generate", content=b" " * (LIMIT + extra))
        assert answer.status_code == status
    assert answer.json()["error"]["limit"] == LIMIT


def test_a_chunked_body_over_the_limit_is_read_and_then_refused(address: Address) -> None:
    chunks: Iterator[bytes] = (b"x" * 1000 for _ in range(500))
    with httpx.Client(base_url=address.url, timeout=60) as client:
        answer = client.post("/generate", content=chunks)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
        # The connection is whole: the body was read to its end.
        assert client.get("/livez").status_code == 200


def test_an_endless_body_is_cut_off(address: Address) -> None:
    sock = socket.create_connection(("127.0.0.1", address.port), timeout=60)
    sock.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    with contextlib.suppress(OSError):
        while sent < 50 * LIMIT:
            sock.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            sent += 0x2000
    with contextlib.suppress(OSError):
        assert b" 413 " in sock.recv(1000)
    sock.close()
    assert httpx.get(f"{address.url}/livez").status_code == 200


def test_a_client_that_leaves_before_its_body_is_sent_does_no_harm(address: Address) -> None:
    for _ in range(20):
        sock = socket.create_connection(("127.0.0.1", address.port), timeout=60)
        sock.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        sock.close()
    eventually(lambda: idle(address))
    assert httpx.get(f"{address.url}/readyz").status_code == 200


def test_probes_answer_while_a_long_text_is_refused(address: Address) -> None:
    answer = httpx.post(f"{address.url}/generate", json={"user_prompt": "x " * 30_000}, timeout=60)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert httpx.get(f"{address.url}/livez").status_code == 200


# --- the official client ----------------------------------------------------------------------


@pytest.fixture
def client(address: Address) -> Iterator[openai.OpenAI]:
    base = f"{address.url}/openai/v1"
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=120) as client:
        yield client


ASK = [{"role": "user", "content": "what is the capital of japan?"}]


def test_chat_whole_and_streamed_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL_NAME, messages=ASK, max_tokens=12)  # type: ignore[arg-type]
    stream = client.chat.completions.create(
        model=MODEL_NAME,
        messages=ASK,  # type: ignore[arg-type]
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_choices_logprobs_seed_and_stop(client: openai.OpenAI) -> None:
    answers = [
        client.chat.completions.create(
            model=MODEL_NAME,
            messages=ASK,  # type: ignore[arg-type]
            n=3,
            seed=5,
            temperature=1.5,
            max_tokens=6,
            logprobs=True,
            top_logprobs=2,
        )
        for _ in range(2)
    ]
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1, "the choices of one seed differ"
    logprobs = answers[0].choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content[0].top_logprobs) == 2


def test_text_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL_NAME, prompt=["hello", "world"], n=2, max_tokens=4, logprobs=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    stream = client.completions.create(model=MODEL_NAME, prompt="hello", max_tokens=4, stream=True)
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks) == answer.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == MODEL_NAME
    assert client.models.retrieve(MODEL_NAME).model_dump()["max_model_len"] == 512


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="other", messages=ASK)  # type: ignore[call-overload]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        create(model=MODEL_NAME, messages=ASK, temperature=9)  # type: ignore[call-overload]
    assert bad.value.param == "temperature"
