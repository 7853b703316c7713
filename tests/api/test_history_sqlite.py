"""The store on SQLite: what survives, what is waited for, what refuses to start."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event

from api.errors import ChatBusy, StoreFull, StoreUnavailable
from api.history import SqlStore, StartedTurn, StoreError, TurnOutcome, TurnStatus
from api.history import sqlite as sqlite_rules
from api.metrics import Metrics
from tests.api.conftest import eventually
from tests.api.stores import DONE, OpenStore, begin, statuses

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chats.db"


async def test_a_running_turn_keeps_its_lease(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store(lease_s=3.0)
    turn = await begin(store)
    database = sqlite3.connect(tmp_path / "chats.db")

    def expiry() -> int:
        value: int = database.execute("SELECT expires_ms FROM leases").fetchone()[0]
        return value

    first = expiry()
    await eventually(lambda: expiry() > first, 20)
    database.close()
    await store.end_turn(turn, DONE)


async def test_a_turn_whose_ending_failed_frees_its_chat_while_others_run(
    open_store: OpenStore,
) -> None:
    store = await open_store(lease_s=1.5)
    lost, running = await begin(store, "1"), await begin(store, "2")

    async def pages(limit: int) -> None:
        statement = f"PRAGMA max_page_count={limit}"
        await store._run("pragma", lambda connection: connection.exec_driver_sql(statement).all())

    await pages(1)  # as many as there are: the disk is full
    with pytest.raises(StoreFull):
        outcome = TurnOutcome(status=TurnStatus.COMPLETE, response="x" * 1_000_000)
        await store.end_turn(lost, outcome)
    await pages(1_000_000)

    async def free() -> bool:
        try:
            await begin(store, "1")
        except ChatBusy:
            return False
        return True

    await eventually(free, 10)
    assert (await statuses(store, "1"))[0] == "interrupted"
    await store.end_turn(running, DONE)


async def test_at_start_the_turns_of_a_dead_process_are_interrupted(
    open_store: OpenStore, tmp_path: Path
) -> None:
    first = await open_store()
    await begin(first)
    first._held.clear()
    await first.close()  # gives nothing back: for the database this is a process that ended
    again = await open_store()
    assert await statuses(again) == ["interrupted"]
    assert (await begin(again)).position == 1


async def test_a_short_lock_is_waited_for_and_a_long_one_is_a_503(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store = await open_store(timeout_s=0.6)
    blocker = sqlite3.connect(tmp_path / "chats.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(begin(store, "short"))
    await asyncio.sleep(0.2)
    blocker.execute("ROLLBACK")
    await waiting
    blocker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    results = await asyncio.gather(
        *(begin(store, f"long{n}") for n in range(5)), return_exceptions=True
    )
    assert time.monotonic() - started < 2.0
    assert {type(result) for result in results} == {StoreUnavailable}
    blocker.execute("ROLLBACK")
    blocker.close()

    async def works() -> bool:
        try:
            await begin(store, "after")
        except (StoreUnavailable, ChatBusy):
            return False
        return True

    await eventually(works)


async def test_a_read_that_nobody_waits_for_any_more_is_not_done(open_store: OpenStore) -> None:
    store = await open_store(timeout_s=0.1)
    blocked = threading.Event()
    store._transactions._threads.submit(blocked.wait)
    try:
        with pytest.raises(StoreUnavailable):
            await store.get_chat("", "1")
    finally:
        blocked.set()
    await eventually(lambda: not store._transactions._running)
    assert (await store.list_chats("", 1, None)).chats == []

    def done(operation: str) -> float | None:
        name = "qna_api_database_seconds_count"
        return store._metrics.registry.get_sample_value(name, {"operation": operation})

    assert done("list_chats") == 1
    assert done("get_chat") is None


async def test_a_full_disk_is_said_and_writes_resume(store: SqlStore, tmp_path: Path) -> None:
    def pages(limit: int) -> None:
        with store._database.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={limit}")

    pages(20)
    with pytest.raises(StoreFull):
        await begin(store, "big", "x" * 1_000_000)
    pages(1_000_000)
    await begin(store, "big", "x" * 1_000_000)
    check = sqlite3.connect(tmp_path / "chats.db")
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()


async def test_turns_that_wait_behind_one_another_share_a_commit(
    store: SqlStore, tmp_path: Path
) -> None:
    commits = 0

    @event.listens_for(store._database.engine, "commit")
    def on_commit(_connection: object) -> None:
        nonlocal commits
        commits += 1

    busy = await begin(store, "busy")
    blocked = threading.Event()
    before = commits
    store._transactions._threads.submit(blocked.wait)
    waiting = [asyncio.create_task(begin(store, f"c{number}")) for number in range(20)]
    waiting += [asyncio.create_task(begin(store, "busy")) for _ in range(3)]
    await eventually(lambda: len(store._transactions._jobs) == 23)
    blocked.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    # Each is refused by itself, and those that are not are there.
    assert sum(isinstance(result, StartedTurn) for result in results) == 20
    assert [type(result) for result in results[20:]] == [ChatBusy] * 3
    assert commits - before == 1
    other = sqlite3.connect(tmp_path / "chats.db")
    assert other.execute("SELECT count(*) FROM turns").fetchone() == (21,)
    other.close()
    await store.end_turn(busy, DONE)


async def test_of_turns_that_share_a_commit_only_the_one_that_is_too_large_fails(
    store: SqlStore,
) -> None:
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=60")
    blocked = threading.Event()
    store._transactions._threads.submit(blocked.wait)
    texts = ["small", "x" * 1_000_000, "small too"]
    waiting = [
        asyncio.create_task(begin(store, str(number), text)) for number, text in enumerate(texts)
    ]
    await eventually(lambda: len(store._transactions._jobs) == 3)
    blocked.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StartedTurn, StoreFull, StartedTurn]


async def test_commits_are_synced_and_the_journal_is_safe(store: SqlStore) -> None:
    mode, reason = sqlite_rules.journal_mode()
    assert mode == ("wal" if sqlite3.sqlite_version_info >= (3, 51, 3) else "persist")
    assert sqlite3.sqlite_version in reason
    with store._database.engine.connect() as connection:
        for pragma, value in (
            ("synchronous", 2), ("journal_mode", mode), ("busy_timeout", 5000), ("foreign_keys", 1)
        ):  # fmt: skip
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


@pytest.mark.parametrize("content", [b"this is no database at all, but long enough" * 30])
async def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chats.db"
    path.write_bytes(content)
    store = SqlStore(f"sqlite:///{path}", Metrics(), lease_s=1, timeout_s=1)
    with pytest.raises(StoreError, match="not a database"):
        await store.open()
    await store.close()
    assert path.read_bytes() == content


async def test_a_newer_schema_stops_the_start(open_store: OpenStore, tmp_path: Path) -> None:
    await (await open_store()).close()
    database = sqlite3.connect(tmp_path / "chats.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="newer version"):
        await open_store()


async def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqlStore(f"sqlite:///{tmp_path}/file/a/chats.db", Metrics(), lease_s=1, timeout_s=1)
    with pytest.raises(StoreError, match="cannot be made"):
        await store.open()
    await store.close()


async def test_a_deleted_chat_is_in_no_file_any_more(store: SqlStore, tmp_path: Path) -> None:
    """Nor in the journal, which is kept and holds what a transaction has overwritten."""
    marker = "ZEBRAQUARTZ"

    def seen() -> list[str]:
        return [p.name for p in tmp_path.iterdir() if marker.encode() in p.read_bytes()]

    async def say(chat: str, text: str) -> None:
        turn = await begin(store, chat, text)
        await store.end_turn(turn, TurnOutcome(status=TurnStatus.COMPLETE, response=text))

    for number in range(40):
        await say("secret", f"{marker} {number} " + "x" * 500)
    assert "chats.db" in seen()
    assert await store.delete_chat("", "secret")
    assert seen() == []
    await say("other", "harmless")
    await store.close()
    assert seen() == []
    assert (tmp_path / "chats.db").stat().st_mode & 0o777 == 0o600
