"""A database that is stopped, stands still, takes no writes or is full: what clients are told, how
soon, and that no answer which they were given is gone afterwards.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.postgres_server import PostgresServer, controlled_server
from tests.api.small_disk import SmallDisk, small_disk
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio
WAIT_S = 1.0
LEASE_S = 1.0
"""A question whose answer could not be kept frees its chat after that."""
# The bar is the longest wait for the database and half a second; the rest is for a busy machine.
TOLD_WITHIN_S = WAIT_S + 0.5 + 1.5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One of this test's own: it is stopped, which the shared one cannot be."""
    with controlled_server() as made:
        yield made


@pytest.fixture
async def api(server: PostgresServer, start_api: StartApi) -> Api:
    return await start_api(
        database_url=server.url, database_timeout_s=WAIT_S, database_connections=2, lease_s=1.0
    )


class Clients:
    """Ask one question after the other, and keep what they are told."""

    def __init__(self, api: Api, padding: int = 0) -> None:
        self.api = api
        self._padding = " " * bool(padding) + "x" * padding
        self.answered: dict[str, str] = {}
        self.others: list[tuple[httpx.Response, float]] = []
        self._tasks = [asyncio.create_task(self._ask(name)) for name in range(4)]

    async def _ask(self, name: int) -> None:
        for number in range(10**6):
            text = f"{name}-{number}{self._padding}"
            started = time.monotonic()
            answer = await self.api.chat(chat_id=str(name), user_prompt=text)
            if answer.status_code == 200:
                assert answer.json()["response"] == f"echo: {text}"
                self.answered[text] = answer.json()["response"]
            else:
                self.others.append((answer, time.monotonic() - started))
                await asyncio.sleep(0.05)

    async def more(self, count: int, within_s: float = 10) -> None:
        seen = len(self.answered)
        await eventually(lambda: len(self.answered) >= seen + count, within_s)

    async def refused(self, count: int) -> None:
        seen = len(self.others)
        await eventually(lambda: len(self.others) >= seen + count, 20)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            assert task.cancelled(), task.exception()

    async def all_is_kept(self) -> None:
        stored: dict[str, Any] = {}
        for name in range(4):
            turns = await self.api.turns(str(name))
            complete = [turn for turn in turns if turn["status"] == "complete"]
            assert len({turn["user_prompt"] for turn in complete}) == len(complete)
            stored |= {turn["user_prompt"]: turn["response"] for turn in complete}
        assert {text: stored.get(text) for text in self.answered} == self.answered

    def were_told(self, *codes: str) -> None:
        for answer, seconds in self.others:
            error = error_of(answer)
            assert error["code"] in codes, error
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
            assert seconds < 2 * TOLD_WITHIN_S, (error["code"], seconds)  # begin and end may wait


async def test_a_server_that_is_stopped(api: Api, server: PostgresServer) -> None:
    clients = Clients(api)
    await clients.more(8)
    server.stop()
    await clients.refused(8)
    assert (await api.client.get("/livez")).status_code == 200
    assert (await api.client.get("/readyz")).status_code == 503
    server.start()
    await clients.more(8)
    await clients.end()
    clients.were_told("database_unavailable", "chat_busy")
    assert (await api.client.get("/readyz")).status_code == 200
    await clients.all_is_kept()


async def test_a_server_that_stands_still(api: Api, server: PostgresServer) -> None:
    clients = Clients(api)
    await clients.more(8)
    server.signal_all(signal.SIGSTOP)
    try:
        await clients.refused(8)
        started = time.monotonic()
        assert (await api.client.get("/livez")).status_code == 200
        assert time.monotonic() - started < 1
        assert (await api.client.get("/readyz")).status_code == 503
    finally:
        server.signal_all(signal.SIGCONT)
    await clients.more(8, 20)
    await clients.end()
    clients.were_told("database_unavailable", "chat_busy")
    await clients.all_is_kept()


async def test_a_server_that_takes_no_writes_any_more_loses_its_connections(
    api: Api, server: PostgresServer
) -> None:
    clients = Clients(api)
    await clients.more(8)
    with psycopg.connect(server.url, autocommit=True) as other:
        # New connections are read-only, as those to a primary that was replaced are, and stay so.
        other.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await clients.refused(8)
        other.execute("SET default_transaction_read_only = off")
        other.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    await clients.more(8)
    await clients.end()
    clients.were_told("database_unavailable", "chat_busy")
    await clients.all_is_kept()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """PostgreSQL does not run as root, so that its part of the disk is somebody else's."""
    with small_disk(24, "nobody" if os.geteuid() == 0 else None) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def url_on_disk(request: pytest.FixtureRequest, disk: SmallDisk) -> str:
    """A database whose tables lie on the small disk."""
    if request.param == "sqlite":
        return f"sqlite:///{disk.path}/chats.db"
    server: PostgresServer = request.getfixturevalue("server")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")  # type: ignore[arg-type]
        connection.execute("CREATE DATABASE chats TEMPLATE template0 TABLESPACE small")
    return server.url.replace("/postgres?", "/chats?")


async def test_a_disk_that_is_really_full(
    start_api: StartApi, host: StubHost, disk: SmallDisk, url_on_disk: str
) -> None:
    api = await start_api(database_url=url_on_disk, database_timeout_s=5.0, lease_s=1.0)
    clients = Clients(api, padding=2000)
    await clients.more(20)
    disk.fill()
    await clients.refused(8)
    assert (await api.client.get("/livez")).status_code == 200
    assert (await api.client.get("/chats")).status_code == 200
    disk.free()
    await clients.more(20, 5 + LEASE_S)
    await clients.end()
    clients.were_told("storage_full", "chat_busy")
    assert "storage_full" in {error_of(answer)["code"] for answer, _ in clients.others}
    await clients.all_is_kept()
    if url_on_disk.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(disk.path / "chats.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_full_disk_is_a_507_and_writes_resume_by_themselves(
    start_api: StartApi, host: StubHost, tmp_path: Path
) -> None:
    api = await start_api(lease_s=1.0)

    async def pages(limit: int) -> None:
        pragma = f"PRAGMA max_page_count={limit}"
        store: Any = api.parts.store
        await store._run("test", lambda connection: connection.exec_driver_sql(pragma).all())

    for number in range(5):
        assert (await api.chat(chat_id="1", user_prompt=f"q{number}")).status_code == 200
    released = asyncio.Event()
    host.faults = [holds(released)]
    long = "x" * 200_000
    asking = asyncio.create_task(api.chat(chat_id="2", user_prompt=long, timeout_ms=60_000))
    await eventually(lambda: host.running == 1)
    await pages(1)  # as many as there are
    refused = await api.chat(chat_id="1", user_prompt="y" * 200_000)
    assert (refused.status_code, error_of(refused)["code"]) == (507, "storage_full")
    released.set()
    answer = await asking
    assert (answer.status_code, error_of(answer)["code"]) == (507, "storage_full")
    assert (await api.client.get("/livez")).status_code == 200
    assert len(await api.turns("1")) == 5
    await pages(1_000_000)

    async def resumed() -> bool:
        return (await api.chat(chat_id="2", user_prompt="again")).status_code == 200

    await eventually(resumed)
    assert [turn["status"] for turn in await api.turns("2")][-1] == "complete"
    assert (await api.turns("2"))[0]["status"] == "interrupted"
    with contextlib.closing(sqlite3.connect(tmp_path / "chats.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
