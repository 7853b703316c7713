"""Chats and accounts of any size: no read takes more than a bounded part of them at once."""

from typing import Any

import pytest

from api.history import SqlStore
from api.history.search import PAGE_TURNS
from api.history.sizes import MIB, PAGE_BYTES, PAST_BYTES
from tests.api.conftest import Api, error_of
from tests.api.stores import begin, fill

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(kept_api: Api) -> SqlStore:
    """The server's own."""
    store = kept_api.parts.store
    assert isinstance(store, SqlStore)
    return store


async def pages(api: Api, path: str, **params: Any) -> list[dict[str, Any]]:
    """Every page, by its cursor."""
    seen = []
    while True:
        answer = await api.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        seen.append(answer.json())
        if (cursor := seen[-1]["next_cursor"]) is None:
            return seen
        params["cursor"] = cursor


def transactions(api: Api, name: str) -> float:
    value = api.parts.metrics.registry.get_sample_value(
        "qna_api_database_seconds_count", {"operation": name}
    )
    return value or 0


async def test_a_page_of_turns_is_bounded_by_what_they_hold(kept_api: Api, store: SqlStore) -> None:
    await fill(store, "1", 10, "x" * MIB)
    await fill(store, "huge", 2, "ä" * PAGE_BYTES)
    await fill(store, "small", 1001)
    items = [page["items"] for page in await pages(kept_api, "/chats/1")]
    assert [len(turns) for turns in items] == [3, 3, 3, 1]
    assert [turn["position"] for turns in items for turn in turns] == list(range(10))
    assert [len(page["items"]) for page in await pages(kept_api, "/chats/huge")] == [1, 1]
    assert [len(page["items"]) for page in await pages(kept_api, "/chats/small")] == [1000, 1]
    assert [len(page["items"]) for page in await pages(kept_api, "/chats/small", limit=600)] == [
        600,
        401,
    ]


async def test_a_question_takes_no_more_along_than_a_model_host_could_be_sent(
    store: SqlStore,
) -> None:
    await fill(store, "1", 10, "x" * MIB)
    turn = await begin(store)
    fitting = PAST_BYTES // (MIB + 2)
    assert [past.user_prompt for past in turn.past] == [f"q{n}" for n in range(10 - fitting, 10)]
    assert turn.past_left_out == 10 - fitting


async def test_a_list_does_not_hold_what_is_as_long_as_a_client_likes(store: SqlStore) -> None:
    await begin(store, system_prompt="s" * MIB)
    page = await store.list_chats("", 10, None)
    assert [head.system_prompt for head in page.chats] == [None]


async def test_a_search_begins_with_little_for_nobody_knows_how_long_it_is(
    kept_api: Api, store: SqlStore
) -> None:
    await fill(store, "long", 60, "x" * (MIB // 4))
    await pages(kept_api, "/chats", search="nothing")
    # The last one finds that there is no more.
    assert transactions(kept_api, "search_chats") >= 3


async def test_a_search_reads_a_long_chat_in_parts(kept_api: Api, store: SqlStore) -> None:
    await fill(store, "long", 9_000)
    await fill(store, "short", 2, updated_ms=2)
    found = await pages(kept_api, "/chats", search="q8999", limit=10)
    assert [chat["chat_id"] for page in found for chat in page["chats"]] == ["long"]
    assert transactions(kept_api, "search_chats") >= 5


async def test_a_search_stops_and_goes_on_in_the_midst_of_a_chat(
    kept_api: Api, store: SqlStore
) -> None:
    turns = PAGE_TURNS * 2
    await fill(store, "long", turns, updated_ms=2)
    await fill(store, "older", 1)
    found = await pages(kept_api, "/chats", search=f"q{turns - 1}")
    assert len(found) >= 2
    assert found[0]["chats"] == []
    assert [chat["chat_id"] for page in found for chat in page["chats"]] == ["long"]
    assert [len(page["chats"]) for page in await pages(kept_api, "/chats", search="q0")] == [2]


async def test_a_chat_that_changes_in_the_midst_of_a_search_ends_no_search(
    kept_api: Api, store: SqlStore
) -> None:
    turns = PAGE_TURNS * 2
    await fill(store, "long", turns, updated_ms=2)
    await fill(store, "older", 1)
    params = {"search": "q0", "limit": 1}
    first = (await kept_api.client.get("/chats", params={"search": f"q{turns}"})).json()
    assert (first["chats"], first["next_cursor"] is None) == ([], False)
    await begin(store, "long")
    rest = await kept_api.client.get("/chats", params=params | {"cursor": first["next_cursor"]})
    assert [chat["chat_id"] for chat in rest.json()["chats"]] == ["older"]


@pytest.mark.parametrize("cursor", ["WzEsIngiLDkyMjMzNzIwMzY4NTQ3NzU4MDdd", "WzEsIngiLC05XQ"])
async def test_a_cursor_of_no_turn_there_is_finds_nothing(kept_api: Api, cursor: str) -> None:
    """[1,"x",9223372036854775807] and [1,"x",-9]."""
    await kept_api.chat(chat_id="x", user_prompt="q")
    for params in ({"cursor": cursor}, {"cursor": cursor, "search": "q"}):
        answer = await kept_api.client.get("/chats", params=params)
        assert (answer.status_code, answer.json()["chats"]) == (200, [])


async def test_a_cursor_of_another_list_is_refused(kept_api: Api) -> None:
    answer = await kept_api.client.get("/chats/x", params={"cursor": "WzEsIngiLDFd"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "cursor")
