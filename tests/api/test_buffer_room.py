"""Large bodies, and slow readers of much stored text: what the process holds for them, who waits,
and who is cut.
"""

import asyncio
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from api.body_reader import COPIES
from api.buffer_room import SMALL_BYTES, BufferRoom
from api.context import RequestContext
from api.errors import Overloaded
from api.history import SqlStore
from api.history.sizes import MIB
from api.keys.records import NOBODY
from api.metrics import Metrics
from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.keyed import bearer, new_key, start_keyed
from tests.api.stores import fill
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio
PAGE = 3 * MIB
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")


async def with_long_chat(api: Api, *owners: str) -> Api:
    store = api.parts.store
    assert isinstance(store, SqlStore)
    for owner in owners or ("",):
        await fill(store, "long", 3, "x" * MIB, owner=owner)
    return api


@asynccontextmanager
async def slow_reader(
    api: Api, path: str = "/chats/long", key: str = "none"
) -> AsyncIterator[socket.socket]:
    """Asks, and takes only what it is told to."""
    loop = asyncio.get_running_loop()
    url = httpx.URL(api.url)
    with socket.socket() as client:
        # Or the kernel takes megabytes of the answer in its name.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        await loop.sock_connect(client, (url.host, url.port))
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        yield client


async def status_of(client: socket.socket) -> int:
    head = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 12), 20)
    return int(head.split()[1])


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def held(api: Api) -> float:
    value = api.parts.metrics.registry.get_sample_value("qna_api_buffered_bytes")
    assert value is not None
    return value


@pytest.mark.parametrize("path", ["/chats/long", "/chats/long/export"])
async def test_slow_readers_hold_no_more_than_there_is_room_for(
    start_api: StartApi, path: str
) -> None:
    api = await with_long_chat(await start_api(max_buffered_bytes=4 * PAGE, queue_timeout_s=0.5))
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(slow_reader(api, path)) for _ in range(20)]
        statuses = await asyncio.gather(*map(status_of, readers))
        assert {*statuses} == {200, 429}
        assert PAGE < held(api) <= 4 * PAGE
        # What is small has room.
        answer = await api.client.get("/chats", params={"search": "q"})
        assert answer.status_code == 200
        refused = await api.client.get(path)
        assert error_of(refused)["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
    await eventually(lambda: held(api) == 0)
    whole = await api.client.get(path)
    assert len(whole.content) > PAGE


async def test_a_page_is_sent_whole_and_says_how_long_it_is(start_api: StartApi) -> None:
    api = await with_long_chat(await start_api())
    answer = await api.client.get("/chats/long")
    assert [len(turn["response"]) for turn in answer.json()["items"]] == [MIB] * 3
    assert int(answer.headers["content-length"]) == len(answer.content) > PAGE
    small = await api.client.get("/chats/long", params={"cursor": "WzJd"})
    assert small.json()["items"] == []
    assert held(api) == 0


async def test_who_waits_gets_its_page_when_there_is_room(start_api: StartApi) -> None:
    api = await with_long_chat(await start_api(max_buffered_bytes=PAGE, queue_timeout_s=20))
    async with slow_reader(api) as first:
        assert await status_of(first) == 200
        waiting = asyncio.create_task(api.client.get("/chats/long"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    answer = await waiting
    assert [len(turn["response"]) for turn in answer.json()["items"]] == [MIB] * 3


async def test_one_tenant_leaves_room_for_another(start_api: StartApi) -> None:
    settings = {"max_buffered_bytes": 5 * PAGE, "queue_timeout_s": 0.5}
    api = await with_long_chat(await start_keyed(start_api, **settings), "a", "b")
    (slow, _), (other, _) = await new_key(api, "a"), await new_key(api, "b")
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(slow_reader(api, key=slow)) for _ in range(8)]
        assert 429 in await asyncio.gather(*map(status_of, readers))
        assert (await api.client.get("/chats/long", headers=bearer(slow))).status_code == 429
        answer = await api.client.get("/chats/long", headers=bearer(other))
        assert len(answer.content) > PAGE


@pytest.mark.parametrize("path", ["/chats/long", "/chats/long/export"])
async def test_what_is_not_taken_in_time_is_broken_off(start_api: StartApi, path: str) -> None:
    """Although the client takes some of it all the time, so that it is not stuck."""
    api = await with_long_chat(await start_api(request_timeout_s=1.0))
    loop = asyncio.get_running_loop()
    async with slow_reader(api, path) as client:
        assert await status_of(client) == 200
        started = time.monotonic()
        while held(api):
            assert time.monotonic() - started < 15
            await loop.sock_recv(client, 1024)
            await asyncio.sleep(0.02)
        assert time.monotonic() - started > 0.5
        taken = 0
        while piece := await asyncio.wait_for(loop.sock_recv(client, 65_536), 10):
            taken += len(piece)
        assert taken < PAGE, "it ended as if it were whole"


@linux_only
async def test_the_process_stays_small(start_api: StartApi) -> None:
    """A hundred readers who take nothing, of three megabytes each."""
    api = await with_long_chat(await start_api(max_buffered_bytes=4 * PAGE, queue_timeout_s=0.2))
    before = memory()
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(slow_reader(api)) for _ in range(100)]
        await asyncio.gather(*map(status_of, readers))
        assert memory() - before < 40 * PAGE


# ---- bodies ------------------------------------------------------------------------------------

BODY = MIB * 3 // 4


def question(size: int) -> dict[str, str]:
    return {"user_prompt": "x" * size}


class Busy:
    """Questions that are being answered for as long as the test likes."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.asked: list[asyncio.Task[httpx.Response]] = []

    def ask(self, number: int, size: int = BODY) -> None:
        for _ in range(number):
            self.asked.append(asyncio.create_task(self._api.chat(**question(size))))

    @property
    def refused(self) -> list[httpx.Response]:
        return [task.result() for task in self.asked if task.done()]


@asynccontextmanager
async def busy(api: Api, host: StubHost) -> AsyncIterator[Busy]:
    over = asyncio.Event()
    host.faults = [holds(over)] * 100
    made = Busy(api)
    try:
        yield made
    finally:
        host.faults = []
        over.set()
        await asyncio.gather(*made.asked)


async def test_large_bodies_take_no_more_than_there_is_room_for(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(max_buffered_bytes=4 * COPIES * MIB, queue_timeout_s=0.3)
    async with busy(api, host) as load:
        load.ask(12)
        await eventually(lambda: len(load.refused) == 12 - 5)
        for refused in load.refused:
            assert error_of(refused)["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) >= 1
        assert held(api) == 5 * COPIES * len(orjson.dumps(question(BODY)))
        host.faults = []
        assert (await api.chat(user_prompt="Capital of India?")).status_code == 200
    assert [task.result().status_code for task in load.asked].count(200) == 5
    await eventually(lambda: held(api) == 0)


async def test_the_time_in_line_is_not_the_time_that_a_body_takes(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(max_buffered_bytes=COPIES * MIB, body_timeout_s=0.5)
    async with busy(api, host) as load:
        load.ask(1)
        await eventually(lambda: held(api))
        load.ask(1)
        await asyncio.sleep(1.0)
        assert not load.refused
    assert [task.result().status_code for task in load.asked] == [200, 200]


async def test_a_body_that_does_not_say_its_size_counts_as_the_largest(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api()

    async def content() -> AsyncIterator[bytes]:
        yield orjson.dumps(question(SMALL_BYTES))

    over = asyncio.Event()
    host.faults = [holds(over)]
    headers = {"content-type": "application/json"}
    asked = asyncio.create_task(api.client.post("/chat", content=content(), headers=headers))
    await eventually(lambda: held(api) == COPIES * MIB)
    over.set()
    assert (await asked).status_code == 200
    await eventually(lambda: held(api) == 0)


async def test_a_body_that_is_too_large_is_told_so_whatever_room_there_is(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(max_buffered_bytes=MIB, queue_timeout_s=0.1)
    async with busy(api, host) as load:
        load.ask(1)
        await eventually(lambda: held(api))
        refused = await api.chat(**question(2 * MIB))
        assert error_of(refused)["code"] == "body_too_large"


@linux_only
async def test_large_bodies_leave_the_process_small(start_api: StartApi, host: StubHost) -> None:
    room = 4 * COPIES * MIB
    api = await start_api(max_buffered_bytes=room, queue_timeout_s=0.2)
    async with busy(api, host) as load:
        before = memory()
        load.ask(60)
        await eventually(lambda: len(load.refused) > 50, 20)
        # The questions themselves lie in the same process.
        assert memory() - before < 60 * 2 * BODY + room


# ---- the room itself ---------------------------------------------------------------------------


class Readers:
    """Requests of a room, each with a text of its own size."""

    def __init__(self, most: int, share: float = 1.0, patience_s: float = 5.0) -> None:
        self.room = BufferRoom(most, Metrics(), share=share, queue_timeout_s=patience_s)
        self.read = 0

    async def come(self, owner: str, size: int) -> RequestContext:
        context = RequestContext("", caller=replace(NOBODY, tenant=owner))

        async def make() -> int:
            self.read += 1
            return size

        try:
            await self.room.read(context, make, lambda made: made)
        except BaseException:
            await self.leave(context)
            raise
        return context

    @staticmethod
    async def leave(context: RequestContext) -> None:
        for cleanup in context.cleanups:
            await cleanup()


BIG = 2 * SMALL_BYTES


async def test_a_small_text_takes_no_room() -> None:
    readers = Readers(BIG)
    full = await readers.come("a", BIG)
    await readers.come("a", SMALL_BYTES)
    assert readers.room.held == BIG
    await readers.leave(full)
    assert readers.room.held == 0


async def test_first_come_first_served_and_the_text_is_read_anew() -> None:
    readers = Readers(BIG)
    full = await readers.come("a", BIG)
    second = asyncio.create_task(readers.come("b", BIG))
    await asyncio.sleep(0)
    # It would fit in beside neither.
    third = asyncio.create_task(readers.come("c", BIG))
    await asyncio.sleep(0.01)
    assert readers.read == 3
    await readers.leave(full)
    context = await second
    assert readers.read == 4
    assert not third.done()
    await readers.leave(context)
    await readers.leave(await third)
    assert readers.room.held == 0


async def test_who_has_its_share_keeps_nobody_else_waiting() -> None:
    readers = Readers(4 * BIG, share=0.5)
    mine = [await readers.come("a", BIG) for _ in range(2)]
    waiting = asyncio.create_task(readers.come("a", BIG))
    await asyncio.sleep(0.01)
    other = await readers.come("b", BIG)
    assert not waiting.done()
    await readers.leave(mine.pop())
    await readers.leave(await waiting)
    await readers.leave(mine.pop())
    await readers.leave(other)
    assert readers.room.held == 0


async def test_what_is_larger_than_the_room_gets_all_of_it() -> None:
    readers = Readers(BIG)
    whole = await readers.come("a", 10 * BIG)
    assert readers.room.held == BIG
    await readers.leave(whole)
    assert readers.room.held == 0


async def test_who_waits_too_long_or_leaves_takes_no_room() -> None:
    readers = Readers(BIG, patience_s=0.05)
    full = await readers.come("a", BIG)
    with pytest.raises(Overloaded) as refused:
        await readers.come("b", BIG)
    assert refused.value.retry_after_s == 1.0
    leaving = asyncio.create_task(readers.come("b", BIG))
    await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await readers.leave(full)
    assert readers.room.held == 0
    await readers.leave(await readers.come("c", BIG))
