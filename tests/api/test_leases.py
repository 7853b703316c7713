"""Who ends whose turns, also where the database was away for longer than a lease."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from api.history import SqlStore
from tests.api.conftest import StartApi, eventually
from tests.api.postgres_server import PostgresServer, controlled_server
from tests.api.stores import DONE, OpenStore, begin, statuses
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio
LEASE_S = 1.5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One of this test's own: it is stopped, which the shared one cannot be."""
    with controlled_server() as made:
        yield made


@pytest.fixture
def database_url(server: PostgresServer) -> str:
    return server.url


async def opened(open_store: OpenStore) -> SqlStore:
    """A store whose rounds are made by the test."""
    store = await open_store(lease_s=LEASE_S, timeout_s=1.0)
    assert store._renewal is not None
    store._renewal.cancel()
    return store


async def rounds(seconds: float, *stores: SqlStore) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for store in stores:
            await store._renew()
        await asyncio.sleep(LEASE_S / 3)


async def outage(server: PostgresServer, *noticed_by: SqlStore) -> None:
    server.stop()
    await rounds(1.2 * LEASE_S, *noticed_by)
    server.start()


@pytest.mark.parametrize("noticed", [True, False])
async def test_who_is_back_first_ends_no_turn_of_others(
    open_store: OpenStore, server: PostgresServer, *, noticed: bool
) -> None:
    """Also when it had nothing to ask of the database while that was away."""
    alive, first = await opened(open_store), await opened(open_store)
    await rounds(1.2 * LEASE_S, first)
    turn = await begin(alive)
    await outage(server, *[alive, first] * noticed)
    await first._renew()
    started_now = await opened(open_store)
    assert await statuses(started_now) == ["pending"]
    await alive._renew()
    await rounds(1.2 * LEASE_S, alive, first, started_now)
    await alive.end_turn(turn, DONE)
    assert await statuses(first) == ["complete"]


async def test_a_dead_process_s_turns_are_ended_a_lease_after_an_outage(
    open_store: OpenStore, server: PostgresServer
) -> None:
    dead, other = await opened(open_store), await opened(open_store)
    await begin(dead)
    await outage(server, other)
    began = time.monotonic()
    while await statuses(other) == ["pending"]:
        await rounds(LEASE_S / 6, other)
    assert LEASE_S <= time.monotonic() - began < 3 * LEASE_S
    assert await statuses(other) == ["interrupted"]


async def test_who_was_there_all_along_does_not_wait_for_who_was_cut_off(
    open_store: OpenStore,
) -> None:
    cut_off, other = await opened(open_store), await opened(open_store)
    await begin(cut_off)
    await rounds(1.5 * LEASE_S, other)
    assert await statuses(other) == ["interrupted"]


async def test_answers_outlive_an_outage_that_is_longer_than_a_lease(
    start_api: StartApi, host: StubHost, server: PostgresServer
) -> None:
    """One of each replica, of which any may be the first that is back."""
    apis = [
        await start_api(database_url=server.url, database_timeout_s=1.0, lease_s=1.0)
        for _ in range(3)
    ]
    released = asyncio.Event()
    host.always = holds(released)
    asking = [
        asyncio.create_task(api.chat(chat_id=f"{number}", user_prompt="q", timeout_ms=60_000))
        for number, api in enumerate(apis)
    ]
    await eventually(lambda: host.running == len(apis))
    server.stop()
    await asyncio.sleep(2.0)
    server.start()
    await asyncio.sleep(1.5)
    released.set()
    for number, answer in enumerate(await asyncio.gather(*asking)):
        assert answer.status_code == 200, answer.text
        assert [turn["status"] for turn in await apis[0].turns(f"{number}")] == ["complete"]
