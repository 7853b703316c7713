"""The wire to the model hosts, against raw sockets: what is kept, closed, refused."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from api.upstream.connection import (
    HIGH_WATER,
    MAX_HEAD_BYTES,
    RECEIVE_BUFFER,
    BrokenOff,
    Disconnected,
)
from api.upstream.wire import Wire
from tests.api.conftest import eventually

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that does with each request what the script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await self.script(self, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended += 1
        finally:
            writer.close()


@asynccontextmanager
async def peer(script: Script) -> AsyncIterator[Peer]:
    made = Peer(script)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


def says(data: bytes) -> Script:
    async def script(_: Peer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


@asynccontextmanager
async def wire(limit: int = 8, keepalive_s: float = 5.0) -> AsyncIterator[Wire]:
    made = Wire(limit=limit, keepalive_s=keepalive_s)
    try:
        yield made
    finally:
        await made.aclose()


async def opened(wire: Wire, url: str, content: bytes = b"", **timeouts: float) -> httpx.Response:
    request = httpx.Request("POST", url, content=content, extensions={"timeout": timeouts})
    return await wire.handle_async_request(request)


async def ask(wire: Wire, url: str, content: bytes = b"", **timeouts: float) -> bytes:
    response = await opened(wire, url, content, **timeouts)
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with peer(says(OK)) as host, wire() as made:
        assert [await ask(made, host.url) for _ in range(3)] == [b"{}"] * 3
        assert host.connections == 1


async def test_one_that_is_older_than_the_host_keeps_it_is_not_used_and_is_closed() -> None:
    async with peer(says(OK)) as host, wire(keepalive_s=0.1) as made:
        await ask(made, host.url)
        await eventually(lambda: host.ended == 1)
        await ask(made, host.url)
        assert host.connections == 2


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"more",
        OK + OK,
    ],
    ids=["close", "1.0", "more than its length", "a second answer"],
)
async def test_one_that_cannot_be_trusted_any_more_is_not_used_again(data: bytes) -> None:
    async with peer(says(data)) as host, wire() as made:
        assert [await ask(made, host.url) for _ in range(2)] == [b"{}"] * 2
        assert host.connections == 2


async def test_what_comes_while_nobody_asked_closes_the_connection() -> None:
    late = asyncio.Event()

    async def script(_: Peer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        await late.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")

    async with peer(script) as host, wire() as made:
        assert await ask(made, host.url) == b"{}"
        late.set()
        await eventually(lambda: host.ended == 1)
        assert await ask(made, host.url) == b"{}"


async def test_an_interim_answer_is_not_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with peer(says(early + OK)) as host, wire() as made:
        response = await opened(made, host.url)
        assert (response.status_code, await response.aread()) == (200, b"{}")
        assert "link" not in response.headers


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def script(_: Peer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        raise ConnectionError

    async with peer(script) as host, wire() as made:
        assert await ask(made, host.url) == b"all of it"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Disconnected),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", BrokenOff),
        (CHUNKED + b"5\r\nhel", BrokenOff),
        (CHUNKED + b"zz\r\n", BrokenOff),
        (b"SSH-2.0-OpenSSH_9.2\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES, httpx.RemoteProtocolError),
    ],
    ids=["nothing", "short", "cut", "no chunk", "other protocol", "endless head"],
)
async def test_a_broken_answer_is_told_by_its_kind(data: bytes, error: type[Exception]) -> None:
    async def script(_: Peer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        raise ConnectionError

    async with peer(script) as host, wire() as made:
        with pytest.raises(error):
            await ask(made, host.url)


async def test_closing_an_answer_before_its_end_closes_the_connection() -> None:
    async with peer(says(CHUNKED + b"2\r\n{}\r\n")) as host, wire() as made:
        response = await opened(made, host.url)
        await response.aclose()
        await eventually(lambda: host.ended == 1)


async def test_a_cancelled_request_closes_its_connection_and_gives_its_place_back() -> None:
    async with peer(says(b"")) as host, wire(limit=1) as made:
        for _ in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(made, host.url)
        await eventually(lambda: host.ended == 3)
        host.script = says(OK)
        assert await ask(made, host.url, pool=1.0) == b"{}"


async def test_who_comes_when_all_places_are_taken_waits_for_one_and_not_for_ever() -> None:
    async with peer(says(OK)) as host, wire(limit=1) as made:
        first = await opened(made, host.url)
        begun = time.monotonic()
        with pytest.raises(httpx.PoolTimeout):
            await ask(made, host.url, pool=0.1)
        assert time.monotonic() - begun < 2
        waiting = asyncio.create_task(ask(made, host.url, pool=5.0))
        await asyncio.sleep(0)
        await first.aread()
        await first.aclose()
        assert await waiting == b"{}"


async def test_an_answer_that_is_not_read_waits_at_the_host() -> None:
    many = 64 * 1024 * 1024
    sent = 0

    async def script(_: Peer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % many)
        for _ in range(many // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with peer(script) as host, wire() as made:
        response = await opened(made, host.url)
        connection = response.stream._connection  # type: ignore[union-attr]
        await eventually(lambda: connection._reading_paused)
        assert connection._waiting_bytes < 2 * HIGH_WATER
        kernel = connection._transport.get_extra_info("socket")
        # Linux says twice what it was told.
        assert kernel.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER
        assert sent < many / 2
        assert len(await response.aread()) == many
        await response.aclose()


async def test_an_answer_may_come_before_the_whole_request_was_taken() -> None:
    async def script(_: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        await asyncio.Event().wait()

    async with peer(script) as host, wire() as made:
        response = await opened(made, host.url, b"x" * 32 * 1024 * 1024, write=20.0, read=20.0)
        assert response.status_code == 413
        await response.aclose()


async def test_a_header_cannot_hold_a_line_break() -> None:
    async with peer(says(OK)) as host, wire() as made:
        request = httpx.Request("POST", host.url, headers={"X-A": "a\r\nX-B: b"})
        with pytest.raises(httpx.LocalProtocolError):
            await made.handle_async_request(request)
        assert host.requests == []


async def test_a_host_that_takes_nothing_of_a_request_is_told_apart_from_a_late_answer() -> None:
    async def script(_: Peer, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with peer(script) as host, wire() as made:
        with pytest.raises(httpx.WriteTimeout):
            await opened(made, host.url, b"x" * 32 * 1024 * 1024, write=0.2, read=20.0)


@pytest.mark.parametrize("first", ["refuses", "is silent"])
async def test_a_name_with_several_addresses_is_reached_by_any_of_them(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with peer(says(OK)) as host, wire() as made, AsyncExitStack() as stack:
        port = int(host.url.rpartition(":")[2])
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.2", port))
        if first == "is silent":
            # With a full line of those who wait to be accepted, Linux answers nobody.
            other.listen(0)
            for _ in range(4):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)  # noqa: FBT003
                one.connect_ex(("127.0.0.2", port))

        async def several(*_: object, **__: object) -> list[tuple[object, ...]]:
            at = [("127.0.0.1", port), ("127.0.0.2", port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one) for one in at]

        with monkeypatch.context() as patched:
            patched.setattr(loop, "getaddrinfo", several)
            patched.setattr("random.shuffle", lambda _: None)  # the last one is taken first
            begun = time.monotonic()
            assert await ask(made, f"http://host.test:{port}", connect=2.0) == b"{}"
        assert (time.monotonic() - begun > 0.9) == (first == "is silent")
