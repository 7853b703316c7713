"""What is kept for a time only: by command, beside a running server, and by the server itself."""

import asyncio
import signal
from typing import Any

import pytest
from sqlalchemy import update

from api.__main__ import main
from api.clock import now_ms
from api.errors import ChatBusy
from api.history import Once, Purged, SqlStore, sql
from api.history.models import ChatRow, KeyRow
from api.history.retention import oldest_ms, sweep_for_ever
from tests.api.conftest import eventually
from tests.api.processes import process
from tests.api.stores import DONE, OpenStore, begin
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio
DAY_MS = 86_400_000


async def aged(store: SqlStore, days: float, *chat_ids: str) -> None:
    """Make the chats, or move them into the past, with what belongs to them."""
    then = now_ms() - int(days * DAY_MS)

    def operation(connection: Any) -> None:
        chats = update(ChatRow).where(ChatRow.chat_id.in_(chat_ids)).values(updated_ms=then)
        keys = update(KeyRow).where(KeyRow.chat_id.in_(chat_ids)).values(created_ms=then)
        connection.execute(chats)
        connection.execute(keys)

    await store._run("test", operation, writes=True)


async def filled(store: SqlStore) -> None:
    for number in range(7):
        for owner in ("", "b"):
            turn = await store.begin_turn(
                owner, f"c{number}", user_prompt="q", system_prompt=None, request_id="r",
                max_past=0, once=Once(f"k{number}", "f"),
            )  # fmt: skip
            await store.end_turn(turn, DONE)
    await aged(store, 31, "c0", "c1", "c2", "c3", "c4")
    await aged(store, 29, "c5")


async def kept(store: SqlStore, owner: str = "") -> set[str]:
    page = await store.list_chats(owner, 100, None)
    return {head.chat_id for head in page.chats}


async def test_old_chats_of_every_owner_go_in_batches_with_old_keys(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_PURGE_CHATS", 2)
    monkeypatch.setattr(sql, "_PURGE_KEYS", 1)
    store = await open_store()
    await filled(store)
    # Keys are kept for a day, so c5's are old as well; deleting a chat deletes its keys.
    dry = await store.purge(oldest_ms(30), dry_run=True)
    assert dry == Purged(chats=10, turns=10, keys=12)
    assert len(await kept(store)) == 7
    assert await store.purge(oldest_ms(30)) == Purged(chats=10, turns=10, keys=2)
    assert await kept(store) == await kept(store, "b") == {"c5", "c6"}
    assert (await store.list_turns("", "c0", 9, -1)).turns == []
    assert await store.purge(oldest_ms(30)) == Purged()
    assert await store.purge(oldest_ms(0)) == Purged()


async def test_a_chat_that_is_being_answered_stays(open_store: OpenStore) -> None:
    store = await open_store()
    await filled(store)
    turn = await begin(store, "c0")
    await aged(store, 31, "c0")
    assert (await store.purge(oldest_ms(30))).chats == 9
    await store.end_turn(turn, DONE)
    assert "c0" in await kept(store)


async def test_it_is_safe_beside_a_server_that_writes(open_store: OpenStore) -> None:
    """Chats that are purged and asked in at once: no turn that began is lost."""
    server, command = await open_store(), await open_store()
    for number in range(30):
        await server.end_turn(await begin(server, f"c{number}"), DONE)
    await aged(server, 31, *(f"c{number}" for number in range(30)))

    async def ask(number: int) -> None:
        await server.end_turn(await begin(server, f"c{number}", "new"), DONE)

    purging = asyncio.create_task(command.purge(oldest_ms(30)))
    await asyncio.gather(*(ask(number) for number in range(30)))
    await purging
    for number in range(30):
        turns = (await server.list_turns("", f"c{number}", 9, -1)).turns
        assert turns[-1].user_prompt == "new"
        assert turns[-1].status == "complete"


async def test_the_server_sweeps_by_itself(open_store: OpenStore) -> None:
    store = await open_store()
    await filled(store)
    sweeping = asyncio.create_task(sweep_for_ever(store, 30, every_s=0.05))

    async def swept() -> bool:
        return await kept(store) == {"c5", "c6"}

    await eventually(swept)
    await aged(store, 31, "c6")

    async def swept_again() -> bool:
        return await kept(store) == {"c5"}

    await eventually(swept_again)
    sweeping.cancel()
    await asyncio.wait({sweeping})


async def test_a_sweep_that_fails_is_tried_again(open_store: OpenStore) -> None:
    store = await open_store()
    await filled(store)
    failures = 2
    purge = store.purge

    async def fails_twice(*arguments: Any, **more: Any) -> Purged:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ChatBusy
        return await purge(*arguments, **more)

    store.purge = fails_twice  # type: ignore[method-assign]
    sweeping = asyncio.create_task(sweep_for_ever(store, 30, every_s=0.01))

    async def swept() -> bool:
        return await kept(store) == {"c5", "c6"}

    await eventually(swept)
    sweeping.cancel()
    await asyncio.wait({sweeping})


async def test_the_command_says_what_would_go_and_does_it(
    open_store: OpenStore, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = await open_store()
    await filled(store)
    flags = ["purge", "--database-url", database_url, "--retention-days", "30"]
    run = asyncio.to_thread
    assert await run(main, [*flags, "--dry-run"]) == 0
    assert "would purge: 10 chats with 10 turns, 12 idempotency keys\n" in capsys.readouterr().out
    assert len(await kept(store)) == 7
    assert await run(main, flags) == 0
    assert "purged: 10 chats with 10 turns, 2 idempotency keys\n" in capsys.readouterr().out
    assert await kept(store) == {"c5", "c6"}
    assert await run(main, ["migrate", "--dry-run", "--database-url", database_url]) == 1
    assert capsys.readouterr().err == "api: --dry-run: only purge takes it\n"


async def test_a_server_with_a_retention_time_starts_with_a_sweep(
    open_store: OpenStore, database_url: str, host: StubHost
) -> None:
    store = await open_store()
    await filled(store)
    async with process(host.url, database_url, API_RETENTION_DAYS="30") as api:
        await eventually(lambda: "purged" in api.log)
        listed = (await api.client.get("/chats")).json()["chats"]
        assert {chat["chat_id"] for chat in listed} == {"c5", "c6"}
        api.signal(signal.SIGTERM)
        assert await api.exit_code() == 0
