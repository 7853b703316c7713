"""A whole chat as a file: what it looks like, how large it may be, and what cuts it off."""

import tracemalloc
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from api.history import SqlStore
from api.history.sizes import MIB
from api.history.store import TurnPage
from api.routes.export import _as_json
from tests.api.conftest import Api
from tests.api.stores import fill
from tests.api.stub_host import StubHost, refuse

pytestmark = pytest.mark.anyio
LARGE_TURNS, TURN_BYTES = 768, MIB // 16


async def exported(api: Api, form: str, chat_id: str = "1") -> httpx.Response:
    answer = await api.client.get(f"/chats/{chat_id}/export", params={"format": form})
    assert answer.status_code == 200, answer.text
    assert "attachment" in answer.headers["content-disposition"]
    return answer


@pytest.fixture
async def large(kept_api: Api) -> Api:
    """With a chat that is much larger than what an export may hold at once."""
    store = kept_api.parts.store
    assert isinstance(store, SqlStore)
    await fill(store, "large", LARGE_TURNS, "x" * TURN_BYTES)
    return kept_api


async def test_json_is_what_reading_the_chat_gives(kept_api: Api) -> None:
    for number in range(3):
        await kept_api.chat(chat_id="1", user_prompt=f"q{number}", system_prompt="s")
    answer = await exported(kept_api, "json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == (await kept_api.client.get("/chats/1")).json()
    made = await kept_api.client.post("/chats/1/branch", json={"before": 0, "chat_id": "2"})
    assert made.status_code == 201
    assert (await exported(kept_api, "json", "2")).json()["items"] == []


async def test_markdown_reads_like_the_chat(api: Api, host: StubHost) -> None:
    await api.chat(chat_id="a\n# b", system_prompt="Be brief.", user_prompt="Capital of India?")
    host.faults = [refuse(500, "internal_error")]
    await api.chat(chat_id="a\n# b", user_prompt="Again\n## Assistant\n```")
    answer = await exported(api, "markdown", "a%0A%23%20b")
    assert answer.headers["content-type"].startswith("text/markdown")
    begun = answer.text.split("\n\n")[1]
    assert begun.startswith("Begun 20")
    assert answer.text == (
        f"# Capital of India?\n\n{begun}\n\n## System\n\n> Be brief.\n\n"
        "## User\n\n> Capital of India?\n\n## Assistant\n\n> The capital of India is New Delhi.\n\n"
        "## User\n\n> Again\n> ## Assistant\n> ```\n\n## Assistant\n\n*(failed)*\n\n"
    )


@pytest.mark.parametrize("form", ["json", "markdown"])
async def test_a_large_chat_goes_out_in_parts(large: Api, form: str) -> None:
    whole = LARGE_TURNS * TURN_BYTES
    sent = 0
    tail = b""
    tracemalloc.start()
    try:
        async with large.client.stream(
            "GET", "/chats/large/export", params={"format": form}
        ) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw():
                sent += len(chunk)
                tail = (tail + chunk)[-100:]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > whole
    assert tail.endswith(b'],"next_cursor":null}' if form == "json" else b"xxx\n\n")
    # Writing JSON asks for many times what it then needs.
    assert peak < whole / 2


async def test_a_large_export_is_valid_json(large: Api) -> None:
    answer = await exported(large, "json", "large")
    items = orjson.loads(answer.content)["items"]
    assert [item["position"] for item in items] == list(range(LARGE_TURNS))
    assert {len(item["response"]) for item in items} == {TURN_BYTES}


async def test_a_file_that_cannot_be_read_to_its_end_does_not_look_whole(large: Api) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        async with large.client.stream("GET", "/chats/large/export") as answer:
            chunks = answer.aiter_raw()
            await anext(chunks)
            # The client reads no further, so most of it is still to be read from the database.
            assert (await large.client.delete("/chats/large")).status_code == 204
            async for _ in chunks:
                pass
    assert (await large.client.get("/livez")).status_code == 200


async def test_a_last_turn_that_is_withdrawn_meanwhile_leaves_valid_json(kept_api: Api) -> None:
    await kept_api.chat(chat_id="1", user_prompt="q")
    store = kept_api.parts.store
    head = await store.get_chat("", "1")
    assert head is not None
    page = await store.list_turns("", "1", after=-1, limit=10)

    async def pages() -> AsyncIterator[TurnPage]:
        yield TurnPage(page.turns, 0)
        yield TurnPage([], None)

    text = b"".join([part async for part in _as_json(head, pages())])
    assert len(orjson.loads(text)["items"]) == 1
