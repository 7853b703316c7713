"""A client that leaves, in whatever way and at whatever moment, frees the host's slot; one that
stays is never cancelled.
"""

import asyncio
import json
import socket

import httpx
import pytest

from tests.api.conftest import Api, StartApi, eventually
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


async def connect(api: Api, **body: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    content = json.dumps(body).encode()
    head = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    await writer.drain()
    return reader, writer


def leave(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "RST":
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
    else:
        writer.close()


def cancelled(api: Api, stage: str) -> float:
    value: float = api.parts.metrics.cancelled.labels(stage)._value.get()
    return value


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_leaving_before_the_answer_aborts_the_host(
    api: Api, host: StubHost, how: str
) -> None:
    host.delay_s = 30
    _, writer = await connect(api, chat_id="1", user_prompt="q")
    await eventually(lambda: host.running == 1)
    leave(writer, how)
    await eventually(lambda: host.running == 0)
    assert host.generated[0].aborted
    await eventually(lambda: cancelled(api, "waiting") == 1)
    turn = (await api.turns("1"))[0]
    assert (turn["status"], turn["response"]) == ("interrupted", None)
    assert api.parts.lifecycle.slots_taken == 0


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_leaving_a_stream_keeps_the_partial_text(api: Api, host: StubHost, how: str) -> None:
    host.gap_s = 0.1
    question = " ".join(f"w{n}" for n in range(100))
    reader, writer = await connect(api, chat_id="1", user_prompt=question, stream=True)
    seen = await reader.readuntil(b"w2")
    assert b"echo" in seen
    leave(writer, how)
    await eventually(lambda: host.running == 0)
    await eventually(lambda: cancelled(api, "streaming") == 1)

    async def ended() -> bool:
        return bool((await api.turns("1"))[0]["status"] != "pending")

    await eventually(ended)
    turn = (await api.turns("1"))[0]
    assert turn["status"] == "interrupted"
    assert turn["response"].startswith("echo: w0 w1 w2")
    assert "w99" not in turn["response"]


async def test_after_leaving_the_chat_goes_on(api: Api, host: StubHost) -> None:
    host.delay_s = 30
    _, writer = await connect(api, chat_id="1", user_prompt="left")
    await eventually(lambda: host.running == 1)
    writer.close()
    await eventually(lambda: host.running == 0)
    host.delay_s = 0

    async def answered() -> bool:
        answer = await api.chat(chat_id="1", user_prompt="stayed")
        return answer.status_code == 200

    await eventually(answered)
    assert [m["content"] for m in host.generated[-1].body["messages"]] == ["stayed"]


async def test_two_hundred_early_leavers_leave_the_whole_capacity(
    start_api: StartApi, host: StubHost
) -> None:
    limit = 16
    api = await start_api(max_in_flight=limit)
    host.delay_s = 0.2
    for start in range(0, 200, 40):
        writers = []
        for n in range(40):
            _, writer = await connect(api, user_prompt=f"{start + n}", stream=bool(n % 2))
            writers.append(writer)
            if n % 3 == 0:
                await asyncio.sleep(0.002)
        for n, writer in enumerate(writers):
            leave(writer, "RST" if n % 2 else "FIN")
    await eventually(lambda: host.running == 0)
    await eventually(lambda: api.parts.lifecycle.slots_taken == 0)
    await eventually(lambda: not api.parts.lifecycle.running)
    await eventually(lambda: not api.parts.store._transactions._running, 30)  # type: ignore[attr-defined]
    answers = await asyncio.gather(*(api.chat(user_prompt=str(n)) for n in range(limit)))
    assert {answer.status_code for answer in answers} == {200}


async def test_keeping_the_connection_is_not_leaving(api: Api, host: StubHost) -> None:
    for _ in range(10):
        assert (await api.chat(chat_id="1", user_prompt="q")).status_code == 200
    assert not [seen for seen in host.seen if seen.aborted]
    assert cancelled(api, "waiting") == cancelled(api, "streaming") == 0
