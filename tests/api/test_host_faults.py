"""A model host that is killed, frozen, slow, answers garbage or closes in mid-stream: what a client
is told, how soon, what stands in the chat afterwards, and that it goes on. On both databases.

The stub host is a process of its own where it is killed or frozen, as a real one would be.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.fleet import metric
from tests.api.host_process import HostProcess, host_process
from tests.api.stub_host import RawHost, StubHost, Wire, closes, raw_host, resets, says

pytestmark = pytest.mark.anyio
IDLE_S = 1.0
"""How long a stream may be silent, here."""
BUSY_S = 2.0
"""What a busy machine may add to any of the stated times."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DELTA = b'data: {"chat_id": "1", "delta": "part"}\n\n'


@dataclass
class Told:
    """What the client got: a status and an error's code, and before that perhaps some text."""

    status: int
    code: str | None
    text: str
    seconds: float


async def ask(
    api: Api, *, stream: bool, after_text: Callable[[], Any] | None = None, **more: Any
) -> Told:
    """`after_text` is called once, when the first piece of the answer has come."""
    started = time.monotonic()
    body = {"chat_id": "1", "user_prompt": "one two three four five", "stream": stream, **more}
    if not stream:
        answer = await api.client.post("/chat", json=body)
        code = None if answer.status_code == 200 else error_of(answer)["code"]
        text = answer.json().get("response", "")
        return Told(answer.status_code, code, text, time.monotonic() - started)
    text, code = "", None
    async with api.client.stream("POST", "/chat", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            code = error_of(answer)["code"]
        else:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                data = json.loads(line.removeprefix("data: "))
                code = data["error"]["code"] if "error" in data else code
                text += data.get("delta", "")
                if text and after_text is not None:
                    after_text()
                    after_text, started = None, time.monotonic()
    return Told(answer.status_code, code, text, time.monotonic() - started)


async def kept_answers(api: Api) -> list[tuple[str, str]]:
    turns = await api.turns("1")
    return [
        (turn["user_prompt"], turn["response"]) for turn in turns if turn["status"] == "complete"
    ]


async def goes_on(api: Api, before: int, last: str, within_s: float = 5.0) -> None:
    """The chat takes the next question, and of what was answered before nothing is gone."""

    async def answered() -> bool:
        answer = await api.chat(chat_id="1", user_prompt="next", timeout_ms=2000)
        return answer.status_code == 200

    assert (await api.client.get("/livez")).status_code == 200
    turns = await api.turns("1")
    assert len(turns) == before + 1
    assert turns[-1]["status"] == last
    await eventually(answered, within_s + BUSY_S)
    kept = await kept_answers(api)
    assert kept[:before] == [(f"q{n}", f"echo: q{n}") for n in range(before)]
    assert kept[-1] == ("next", "echo: next")


@pytest.fixture
async def process() -> AsyncIterator[HostProcess]:
    async with host_process() as made:
        yield made


@pytest.fixture
async def api(start_api: StartApi, database_url: str, process: HostProcess) -> Api:
    """With three turns in chat 1, of a host that is about to fail."""
    await process.start(gap_s=0.05)
    api = await start_api(
        database_url=database_url, model_host_url=process.url, stream_idle_timeout_s=IDLE_S
    )
    for number in range(3):
        answer = await api.chat(chat_id="1", user_prompt=f"q{number}")
        assert answer.status_code == 200, answer.text
    return api


async def restarted(process: HostProcess, **pace: float) -> None:
    await process.kill()
    await process.start(**pace)


# ---- a process that is killed or frozen ---------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_killed_before_a_word(api: Api, process: HostProcess, *, stream: bool) -> None:
    await restarted(process, delay_s=30)
    sent = metric(api, "upstream_attempts_total")
    asking = asyncio.create_task(ask(api, stream=stream))
    await eventually(lambda: metric(api, "upstream_attempts_total") > sent)
    killed = time.monotonic()
    await process.kill()
    told = await asking
    assert (told.status, told.code) in ((503, "model_host_unavailable"), (502, "upstream_error"))
    assert time.monotonic() - killed < 1 + BUSY_S
    await process.start()
    # A question that nobody began to answer may leave nothing behind; here one turn at most.
    turns = await api.turns("1")
    assert [turn["status"] for turn in turns[3:]] in ([], ["failed"])
    assert (await ask(api, stream=stream)).status == 200
    assert (await kept_answers(api))[:3] == [(f"q{n}", f"echo: q{n}") for n in range(3)]


async def test_killed_in_mid_stream(api: Api, process: HostProcess) -> None:
    told = await ask(api, stream=True, after_text=lambda: process.signal(signal.SIGKILL))
    assert (told.status, told.code) == (200, "upstream_error")
    assert told.text.startswith("echo:")
    assert told.seconds < 1 + BUSY_S
    assert (await api.turns("1"))[-1]["response"].startswith("echo:")
    await restarted(process)
    await goes_on(api, 3, "interrupted")


@pytest.mark.parametrize("stream", [False, True])
async def test_frozen_before_a_word(api: Api, process: HostProcess, *, stream: bool) -> None:
    process.signal(signal.SIGSTOP)
    told = await ask(api, stream=stream, timeout_ms=700)
    assert (told.status, told.code) == (504, "deadline_exceeded")
    assert told.seconds < 0.7 + 0.5 + BUSY_S
    process.signal(signal.SIGCONT)
    await goes_on(api, 3, "failed")


async def test_frozen_in_mid_stream(api: Api, process: HostProcess) -> None:
    told = await ask(api, stream=True, after_text=lambda: process.signal(signal.SIGSTOP))
    assert (told.status, told.code) == (200, "upstream_error")
    assert told.text.startswith("echo:")
    assert told.seconds < IDLE_S + 0.5 + BUSY_S
    process.signal(signal.SIGCONT)
    await goes_on(api, 3, "interrupted")


async def test_not_there_at_all(api: Api, process: HostProcess) -> None:
    await process.kill()
    told = await ask(api, stream=False)
    assert (told.status, told.code) == (503, "model_host_unavailable")
    assert told.seconds < 2.5 + BUSY_S
    assert len(await api.turns("1")) == 3
    await process.start()
    assert (await ask(api, stream=True)).text == "echo: one two three four five"


# ---- one that answers, but how ------------------------------------------------------------------


@pytest.fixture
async def paced(kept_api: Api) -> Api:
    for number in range(3):
        await kept_api.chat(chat_id="1", user_prompt=f"q{number}")
    return kept_api


@pytest.mark.parametrize("stream", [False, True])
async def test_slow_but_in_time(paced: Api, host: StubHost, *, stream: bool) -> None:
    host.delay_s, host.gap_s = 0.3, 0.1
    told = await ask(paced, stream=stream, timeout_ms=20_000)
    assert (told.status, told.code, told.text) == (200, None, "echo: one two three four five")
    host.delay_s = host.gap_s = 0
    assert len(await kept_answers(paced)) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_too_slow(paced: Api, host: StubHost, *, stream: bool) -> None:
    host.delay_s, host.gap_s = (0, 0.2) if stream else (30, 0)
    told = await ask(paced, stream=stream, timeout_ms=500)
    assert told.code == "deadline_exceeded"
    assert told.status == (200 if stream else 504)
    assert told.seconds < 0.5 + 0.5 + BUSY_S
    await eventually(lambda: host.running == 0)
    host.delay_s = host.gap_s = 0
    await goes_on(paced, 3, "interrupted" if stream else "failed")


@pytest.mark.parametrize("garbage", [b"<html>", b'{"response": 1}', b"\xff\xfe", b"{" * 100_000])
@pytest.mark.parametrize("stream", [False, True])
async def test_garbage(paced: Api, host: StubHost, garbage: bytes, *, stream: bool) -> None:
    async def answers(wire: Wire) -> None:
        kind = "text/event-stream" if stream else "application/json"
        await wire.start(200, kind)
        await wire.body(b"data: " * stream + garbage + b"\n\n" * stream)

    host.always = answers
    told = await ask(paced, stream=stream)
    assert told.code == "upstream_error"
    assert told.status == 502 or (stream and told.status == 200)
    assert told.seconds < 1 + BUSY_S
    host.always = None
    turns = await paced.turns("1")
    await goes_on(paced, 3, turns[-1]["status"])
    assert turns[-1]["status"] in ("failed", "interrupted")


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


def then(first: bytes, end: Step) -> Step:
    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        # The client has the first part before the end comes.
        await asyncio.sleep(0.05)
        await end(writer)

    return step


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(closes, id="fin"),
        pytest.param(resets, id="rst"),
        pytest.param(says(b"0\r\n\r\n"), id="without its last event"),
        pytest.param(says(b"zz\r\nnot a chunk"), id="no chunk"),
        pytest.param(says(b"9\r\ndata: {{}\r\n"), id="half an event"),
    ],
)
async def test_closing_in_mid_stream(
    start_api: StartApi, database_url: str, host: StubHost, end: Step
) -> None:
    part = b"%x\r\n%s\r\n" % (len(DELTA), DELTA)
    api = await start_api(database_url=database_url)
    for number in range(3):
        await api.chat(chat_id="1", user_prompt=f"q{number}")
    async with raw_host(then(HEAD + part, end)) as broken:
        other = await start_api(
            database_url=database_url, model_host_url=broken.url, stream_idle_timeout_s=IDLE_S
        )
        told = await ask(other, stream=True)
        assert isinstance(broken, RawHost)
        assert broken.connections <= 2, "nothing is asked again after the first byte"
    assert (told.status, told.code, told.text) == (200, "upstream_error", "part")
    # What is no chunk is noticed by nothing else that comes.
    assert told.seconds < IDLE_S + 0.5 + BUSY_S
    assert (await api.turns("1"))[-1]["response"] == "part"
    await goes_on(api, 3, "interrupted")
