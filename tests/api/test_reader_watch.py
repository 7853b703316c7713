"""A client that stops reading an answer loses it; one that is only slow does not."""

import asyncio
import ctypes
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvicorn

from api import __main__ as main
from api import reader_watch
from api.http_protocol import HttpProtocol
from api.settings import Settings
from tests.api.conftest import eventually
from tests.api.stub_host import QuietServer, listener

pytestmark = pytest.mark.anyio
LONG = 64 * 1024 * 1024
CLOSED, FIN_WAIT = 7, "04"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")


class Endless:
    """An application that streams for as long as somebody takes it."""

    def __init__(self, piece: int = 16_384, pause_s: float = 0.0) -> None:
        self._piece, self._pause_s = b"x" * piece, pause_s
        self.sent = 0
        self.ended = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while self.sent < LONG and not gone.done():
            await send({"type": "http.response.body", "body": self._piece, "more_body": True})
            self.sent += len(self._piece)
            await asyncio.sleep(self._pause_s)
        self.ended = "gone" if gone.done() else "whole"
        gone.cancel()


class Short:
    """Answers at once, and has done all that it has to."""

    def __init__(self, size: int, *headers: tuple[bytes, bytes]) -> None:
        self._size, self._headers = size, headers
        self.answered = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [*self._headers]})
        await send({"type": "http.response.body", "body": b"x" * self._size})
        self.answered = True


@asynccontextmanager
async def served(app: Any, sock: socket.socket | None = None) -> AsyncIterator[tuple[str, int]]:
    sock = sock or listener()
    server = QuietServer(
        uvicorn.Config(app, log_config=None, lifespan="off", http=HttpProtocol, ws="none")
    )
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await eventually(lambda: server.started)
    try:
        yield sock.getsockname()
    finally:
        server.should_exit = True
        await task


async def asking(address: tuple[str, int]) -> socket.socket:
    loop = asyncio.get_running_loop()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(0)
    await loop.sock_connect(made, address)
    await loop.sock_sendall(made, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return made


def is_closed(client: socket.socket) -> bool:
    """Asked of the kernel: what lies unread hides the end from a reader."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSED


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_watch, "STUCK_S", 0.5)


@pytest.mark.usefixtures("_soon")
async def test_a_client_that_stops_reading_is_cut_off() -> None:
    app = Endless()
    async with served(app) as address:
        with await asking(address) as client:
            await eventually(lambda: app.ended)
            if sys.platform == "linux":
                # It is told at once, though much is on its way to it.
                await eventually(lambda: is_closed(client))
    assert app.ended == "gone"
    assert app.sent < LONG / 4


@linux_only
@pytest.mark.usefixtures("_soon")
async def test_long_before_the_buffers_between_are_full() -> None:
    app = Endless(piece=256, pause_s=0.01)
    async with served(app) as address:
        with await asking(address) as client:
            await eventually(lambda: app.ended)
            assert is_closed(client)
    assert app.ended == "gone"
    assert app.sent < 64 * 1024


@linux_only
@pytest.mark.usefixtures("_soon")
async def test_an_answer_that_fits_into_the_kernel_is_no_way_to_stay() -> None:
    app = Short(30_000)
    async with served(app) as address:
        with await asking(address) as client:
            await eventually(lambda: app.answered)
            await eventually(lambda: is_closed(client))


@linux_only
async def test_nor_is_one_whose_connection_is_closed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel holds what is left of it, and nobody else can let go any more."""
    monkeypatch.setattr(main, "UNTAKEN_S", 1.0)
    sock = main.bind(Settings(port=0))
    app = Short(30_000, (b"connection", b"close"))

    def held() -> bool:
        port = f":{address[1]:04X}"
        with open("/proc/net/tcp") as table:  # noqa: PTH123  # not a file that lies anywhere
            rows = [line.split() for line in table]
        return any(row[1].endswith(port) and row[3] == FIN_WAIT for row in rows)

    async with served(app, sock) as address:
        with await asking(address):
            await eventually(held)
            await eventually(lambda: not held(), 20)


@pytest.mark.usefixtures("_soon")
async def test_one_that_reads_slowly_is_not() -> None:
    app = Endless()
    loop = asyncio.get_running_loop()
    async with served(app) as address:
        with await asking(address) as client:
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                assert await loop.sock_recv(client, 65_536)
                await asyncio.sleep(0.02)
            assert not app.ended
    assert app.sent < LONG


@pytest.mark.usefixtures("_soon")
async def test_nor_one_that_reads_all_of_a_slow_answer() -> None:
    app = Endless(piece=100, pause_s=0.05)
    loop = asyncio.get_running_loop()
    async with served(app) as address:
        with await asking(address) as client:
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                assert await loop.sock_recv(client, 65_536)
            assert not app.ended


@linux_only
@pytest.mark.usefixtures("_soon")
async def test_nor_one_that_takes_less_than_comes() -> None:
    """More and more waits for it, and yet it takes some."""
    app = Endless(piece=2_000, pause_s=0.02)
    loop = asyncio.get_running_loop()
    async with served(app) as address:
        with await asking(address) as client:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert await loop.sock_recv(client, 500)
                await asyncio.sleep(0.02)
            assert not app.ended


@linux_only
async def test_nor_one_whose_line_is_broken_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_watch, "STUCK_S", 1.0)
    app = Endless(piece=100, pause_s=0.01)
    loop = asyncio.get_running_loop()
    async with served(app) as address:
        with await asking(address) as client:
            assert await loop.sock_recv(client, 65_536)
            with deaf(client):
                sent = app.sent
                await eventually(lambda: app.sent > sent + 20_000, 20)
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                assert await loop.sock_recv(client, 65_536)
            assert not app.ended


@contextmanager
def deaf(client: socket.socket) -> Iterator[None]:
    """Every packet to it is lost, by a filter of one instruction in its kernel: keep nothing."""
    attach, detach, return_ = 26, 27, 0x06
    code = ctypes.create_string_buffer(struct.pack("HBBI", return_, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(code))
    client.setsockopt(socket.SOL_SOCKET, attach, program)
    try:
        yield
    finally:
        client.setsockopt(socket.SOL_SOCKET, detach, 0)
