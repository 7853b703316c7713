"""The store on a real PostgreSQL server: several processes at once, and a server that goes away."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from api.__main__ import main
from api.errors import ApiError, ChatBusy, StoreUnavailable
from api.history import SqlStore, StartedTurn, StoreError, TurnOutcome, TurnStatus, postgres
from api.metrics import Metrics
from tests.api.conftest import eventually, serving_api
from tests.api.stores import DONE, OpenStore, begin, statuses
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


async def test_processes_that_start_together_migrate_once(open_store: OpenStore) -> None:
    stores = await asyncio.gather(*(open_store() for _ in range(5)))
    for number, store in enumerate(stores):
        await begin(store, f"c{number}")


async def test_a_process_waits_while_another_migrates(
    open_store: OpenStore, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (postgres._SCHEMA_LOCK,))
        opening = asyncio.create_task(open_store())
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

        def waits() -> bool:
            row = other.execute(waiting).fetchone()
            return row is not None and row[0] == 1

        await eventually(waits)
        assert not opening.done()
    await begin(await opening)


async def test_of_many_writers_in_two_processes_one_begins(open_store: OpenStore) -> None:
    first, second = await open_store(), await open_store()
    for chat in ("new", "new again", "once more"):
        results = await asyncio.gather(
            *(begin(store, chat) for store in (first, second) * 8), return_exceptions=True
        )
        begun = [result for result in results if isinstance(result, StartedTurn)]
        assert len(begun) == 1
        others = [result for result in results if result is not begun[0]]
        assert [type(result) for result in others] == [ChatBusy] * 15
        await first.end_turn(begun[0], DONE)
        assert await statuses(second, chat) == ["complete"]


async def test_a_lease_that_ran_out_is_taken_by_one(open_store: OpenStore) -> None:
    dead = await open_store(lease_s=0.3)
    await begin(dead, text="dead")
    assert dead._renewal is not None
    dead._renewal.cancel()  # as SIGSTOP would
    first, second = await open_store(), await open_store()
    begun: list[StartedTurn] = []

    async def taken() -> bool:
        results = await asyncio.gather(
            *(begin(store) for store in (first, second) * 4), return_exceptions=True
        )
        assert all(isinstance(result, StartedTurn | ChatBusy) for result in results), results
        begun.extend(result for result in results if isinstance(result, StartedTurn))
        return bool(begun)

    await eventually(taken)
    assert len(begun) == 1
    await first.end_turn(begun[0], DONE)
    assert await statuses(second) == ["interrupted", "complete"]


async def test_any_character_of_an_answer_is_kept(open_store: OpenStore) -> None:
    store = await open_store()
    text = "a\0b \U0001f642 \ud7ff \uffff"
    await store.end_turn(await begin(store), TurnOutcome(status=TurnStatus.COMPLETE, response=text))
    (turn,) = (await store.list_turns("", "1", 10, -1)).turns
    assert turn.response == text.replace("\0", "\u2400")


@pytest.mark.parametrize("postgres_encoding", ["SQL_ASCII"])
async def test_a_database_without_an_encoding_keeps_every_text(open_store: OpenStore) -> None:
    text = "Wie heißt die Hauptstadt? 首都 🏙"
    store = await open_store()
    await store.end_turn(await begin(store, text=text), DONE)
    (turn,) = (await store.list_turns("", "1", 10, -1)).turns
    assert turn.user_prompt == text


@pytest.mark.parametrize("postgres_encoding", ["LATIN1"])
async def test_an_encoding_that_cannot_hold_every_text_is_refused(open_store: OpenStore) -> None:
    with pytest.raises(StoreError, match="its encoding is LATIN1"):
        await open_store()


async def test_connections_that_the_server_closed_are_made_anew(
    open_store: OpenStore, postgres_url: str
) -> None:
    store = await open_store()
    turn = await begin(store)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await store.end_turn(turn, DONE)
    assert await statuses(store) == ["complete"]


async def test_a_long_lock_is_a_503_and_passes(open_store: OpenStore, postgres_url: str) -> None:
    store = await open_store(timeout_s=0.5)
    await store.end_turn(await begin(store), DONE)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await begin(store)

    async def works() -> bool:
        try:
            await begin(store)
        except (StoreUnavailable, ChatBusy):
            return False
        return True

    await eventually(works, 10)


async def test_a_password_never_reaches_a_message(postgres_url: str) -> None:
    address = psycopg.conninfo.conninfo_to_dict(postgres_url)
    url = f"postgresql://nobody:hunter2@/none?host={address['host']}"
    store = SqlStore(url, Metrics(), lease_s=1, timeout_s=2)
    with pytest.raises(StoreError) as caught:
        await store.open()
    await store.close()
    assert "hunter2" not in str(caught.value)
    assert not store._database.name.count("nobody")
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there_stops_the_start_with_one_line() -> None:
    store = SqlStore("postgresql://u:p@127.0.0.1:1/chats", Metrics(), lease_s=1, timeout_s=1)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/chats: .*refused"):
        await store.open()
    with pytest.raises(ApiError):
        await store.check()
    await store.close()


def test_an_address_that_is_none_is_one_line_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "postgresql://user:hunter2@host:port/name"
    assert main(["migrate", "--database-url", url]) == 1
    said = capsys.readouterr().err
    assert said == "api: API_DATABASE_URL: not an address of a database\n"


async def test_the_readiness_check_sees_the_server(open_store: OpenStore) -> None:
    await (await open_store()).check()


async def test_the_routes_work_on_it(postgres_url: str, host: StubHost, tmp_path: Path) -> None:
    async with serving_api(host, tmp_path, database_url=postgres_url) as api:
        for text in ("one", "two"):
            answer = await api.chat(chat_id="a/b", user_prompt=text)
            assert answer.status_code == 200, answer.text
        assert [turn["status"] for turn in await api.turns("a%2Fb")] == ["complete"] * 2
        page = (await api.client.get("/chats?limit=1")).json()
        assert [chat["chat_id"] for chat in page["chats"]] == ["a/b"]
        for path in ("/chats/a%00b", "/chats/a%00b/export", "/chats?cursor=WzEsIlx1MDAwMCJd"):
            refused = await api.client.get(path)
            assert refused.status_code in (400, 404), (path, refused.text)
        assert (await api.client.get("/readyz")).status_code == 200
        assert (await api.client.delete("/chats/a%2Fb")).status_code in (200, 204)
