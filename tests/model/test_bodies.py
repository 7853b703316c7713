"""Bodies on their way and in memory: who has no key, who finds no room, who is late for the end."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from model import body_reader
from model.app import build_app
from model.body_reader import DRAIN_GRACE_S, BodyReader
from model.body_room import ROOM_BYTES, SMALL_BYTES, BodyRoom
from model.engine import FinishReason
from model.engine.sizes import SERVER_RESERVE
from model.errors import TooBusy
from model.host import Host
from model.predictor import Predictor
from tests.model.fakes import FakeEngine, load_scripted, output
from tests.model.hosts import byte_level, running, settings_for, until, wait_ready
from tests.model.test_process import PATIENCE_S, SERVING, Process
from tests.ports import free_port

pytestmark = pytest.mark.anyio
MIB = 2**20
BIG = 2 * SMALL_BYTES
KEY = "k" * 32
WORD = output(byte_level().encode("hello"), FinishReason.STOP)
CHAT = "/openai/v1/chat/completions"


def large(size: int) -> bytes:
    """A valid question, of which most is no part of it."""
    message = {"role": "user", "content": "hello"}
    return json.dumps({"model": "fake", "messages": [message], "user": "x" * size}).encode()


class Sending:
    """One request to the application itself, whose body comes as the test says."""

    def __init__(self, app: Any, *, length: int | None = None, key: str = KEY) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": CHAT,
            "raw_path": CHAT.encode(),
            "query_string": b"",
            "headers": headers,
            "client": ("10.0.0.9", 4711),
            "server": ("host", 80),
            "scheme": "http",
            "root_path": "",
        }
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages: list[dict[str, Any]] = []
        self.task = asyncio.ensure_future(app(self.scope, self._pieces.get, self._take))

    async def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    async def send(self, piece: bytes, *, more: bool = True) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        await asyncio.sleep(0.01)

    async def leave(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})
        await self.task

    @property
    def held(self) -> int:
        return len(self.scope["state"]["body"].content)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def code(self) -> str:
        body = b"".join(message.get("body", b"") for message in self.messages)
        return str(json.loads(body)["error"]["code"])


def room_of(app: Any) -> BodyRoom:
    layer = app.middleware_stack
    while not isinstance(layer, BodyReader):
        layer = getattr(layer, "_app", None) or layer.app
    return layer._room


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine([WORD])


@pytest.fixture
async def host(engine: FakeEngine) -> AsyncIterator[Host]:
    settings = settings_for(Path("fake"), model_name="fake", api_key=(KEY,))
    async with running(Host(settings, engine, load_scripted)) as made:
        yield made


@pytest.fixture
def app(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(body_reader, "ROOM_BYTES", 4 * MIB)
    monkeypatch.setattr(body_reader, "PATIENCE_S", 0.2)
    return build_app(host, Predictor(host), runs_engine=False)


# --- who has no key ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["wrong", ""])
async def test_of_a_request_without_a_key_nothing_is_kept(app: Any, key: str) -> None:
    sending = Sending(app, length=MIB, key=key)
    for _ in range(8):
        await sending.send(b"x" * (MIB // 8 - 1))
        assert sending.held == 0
        assert room_of(app).held == 0
    assert not sending.messages, "the agent loses an answer that comes before the end"
    await sending.send(b"x" * 8, more=False)
    await sending.task
    assert sending.status == 401


# --- room -------------------------------------------------------------------------------------


def test_the_room_leaves_most_of_the_reserve_to_others() -> None:
    assert ROOM_BYTES < SERVER_RESERVE / 2


async def test_large_bodies_take_no_more_than_there_is_room_for(app: Any, host: Host) -> None:
    size = MIB - 1000
    sendings = [Sending(app, length=size) for _ in range(6)]
    for sending in sendings:
        await sending.send(b" " * BIG)
    assert room_of(app).held == 4 * size
    refused = sendings[4:]
    for sending in refused:
        for _ in range(3):
            await sending.send(b" " * BIG)
    await asyncio.sleep(0.3)
    for sending in refused:
        assert sending.held == 0
        await sending.send(b" ", more=False)
        await sending.task
        assert (sending.status, sending.code) == (429, "overloaded")
        assert int(sending.headers["retry-after"]) >= 1
    assert b'qna_requests_rejected_total{reason="bodies"} 2.0' in host.metrics.render()
    # What is small needs no room.
    small = Sending(app)
    await small.send(large(10), more=False)
    await small.task
    assert small.status == 200
    for sending in sendings[:4]:
        await sending.leave()
    assert room_of(app).held == 0


async def test_who_waits_is_let_in_when_there_is_room(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_reader, "PATIENCE_S", 20.0)
    monkeypatch.setattr(body_reader, "BODY_TIMEOUT_S", 0.5)
    body = large(BIG)
    first = Sending(app)  # of unknown length: as large as may be
    others = [Sending(app, length=MIB) for _ in range(3)]
    for sending in (first, *others):
        await sending.send(b" " * BIG)
    waiting = Sending(app, length=len(body))
    await waiting.send(body, more=False)
    await asyncio.sleep(0.1)
    assert not waiting.messages
    await first.leave()
    await waiting.task
    assert waiting.status == 200
    for sending in others:
        await sending.leave()


async def test_the_bytes_are_let_go_once_they_are_parsed(app: Any, engine: FakeEngine) -> None:
    engine.outputs = []  # it never answers
    body = large(BIG)
    sending = Sending(app, length=len(body))
    await sending.send(body[:-1])
    assert room_of(app).held == len(body)
    await sending.send(body[-1:], more=False)
    await until(lambda: len(engine.streams) == 1)
    assert not sending.task.done()
    assert room_of(app).held == 0
    assert sending.held == 0
    assert b"x" * BIG not in _bytes_alive()
    await sending.leave()


def _bytes_alive() -> bytes:
    """What the frames of all waiting tasks hold."""
    found = []
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        while coroutine is not None and getattr(coroutine, "cr_frame", None) is not None:
            for value in coroutine.cr_frame.f_locals.values():
                found += [value] if isinstance(value, bytes) else []
                found += [getattr(value, "_body", b"")] if hasattr(value, "stream") else []
            coroutine = coroutine.cr_await
    return b"".join(item for item in found if isinstance(item, bytes))


async def test_a_body_over_the_limit_gives_its_room_back(app: Any) -> None:
    sending = Sending(app)
    for _ in range(9):
        await sending.send(b" " * BIG)
    assert room_of(app).held == 0
    await sending.send(b"", more=False)
    await sending.task
    assert sending.status == 413


async def test_first_come_first_served_and_nobody_is_forgotten() -> None:
    room = BodyRoom(BIG, 5.0)
    taken = await room.enter(BIG)
    second = asyncio.create_task(room.enter(BIG))
    third = asyncio.create_task(room.enter(SMALL_BYTES))
    await asyncio.sleep(0.01)
    room.leave(taken)
    taken = await second
    assert not third.done()
    leaving = asyncio.create_task(room.enter(BIG))
    await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    room.leave(taken)
    room.leave(await third)
    assert room.held == 0


async def test_who_leaves_the_line_makes_way_for_the_next() -> None:
    room = BodyRoom(BIG, 0.1)
    taken = await room.enter(SMALL_BYTES)
    large_one = asyncio.create_task(room.enter(10 * BIG))
    await asyncio.sleep(0.05)
    small_one = asyncio.create_task(room.enter(SMALL_BYTES))
    with pytest.raises(TooBusy):
        await large_one
    room.leave(await small_one)
    room.leave(taken)
    assert room.held == 0
    room.leave(await room.enter(10 * BIG))
    assert room.held == 0


# --- the drain --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, BIG])
async def test_half_a_body_is_told_of_the_drain_at_once(app: Any, host: Host, size: int) -> None:
    sending = Sending(app, length=MIB)
    await sending.send(b" " * size)
    started = time.monotonic()
    host.begin_drain()
    await sending.task
    assert time.monotonic() - started < 5
    assert (sending.status, sending.code) == (503, "draining")
    assert int(sending.headers["retry-after"]) >= 1
    assert room_of(app).held == 0


async def test_who_waits_for_room_is_told_of_the_drain_at_once(
    app: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_reader, "PATIENCE_S", 60.0)
    sendings = [Sending(app, length=MIB) for _ in range(6)]
    for sending in sendings:
        await sending.send(b" " * BIG)
    host.begin_drain()
    await asyncio.wait_for(asyncio.gather(*(sending.task for sending in sendings)), 10)
    assert {sending.code for sending in sendings} == {"draining"}


async def test_a_body_that_comes_whole_in_the_drain_is_read(app: Any, host: Host) -> None:
    sending = Sending(app, length=20)
    await sending.send(b" " * 10)
    host.begin_drain()
    await sending.send(b" " * 10, more=False)
    await sending.task
    assert (sending.status, sending.code) == (503, "draining")
    assert "connection" not in sending.headers


def test_a_process_does_not_wait_for_half_a_body() -> None:
    port = free_port()
    process = Process("-c", SERVING, str(port), PYTHONPATH=str(Path(__file__).parents[2]))
    try:
        process.wait_for("listening")
        wait_ready(f"http://127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            sock.sendall(head.encode() + b'{"user_pro')
            time.sleep(0.5)
            started = time.monotonic()
            process.process.send_signal(signal.SIGTERM)
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"draining"' in answer
        process.end()
        assert time.monotonic() - started < DRAIN_GRACE_S + 10
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait(PATIENCE_S)
