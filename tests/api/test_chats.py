"""The stored chats over the wire: pages, turns, export, deletion, and ids of any text."""

import asyncio
from urllib.parse import quote

import pytest

from tests.api.conftest import Api, error_of, eventually
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


async def test_chats_are_paged_latest_first(api: Api) -> None:
    for number in range(5):
        await api.chat(chat_id=f"c{number}", user_prompt="q")
    first = (await api.client.get("/chats", params={"limit": 3})).json()
    assert [chat["chat_id"] for chat in first["chats"]] == ["c4", "c3", "c2"]
    rest = (await api.client.get("/chats", params={"cursor": first["next_cursor"]})).json()
    assert [chat["chat_id"] for chat in rest["chats"]] == ["c1", "c0"]
    assert rest["next_cursor"] is None
    assert set(rest["chats"][0]) == {
        "chat_id", "title", "branched_from", "created_at", "updated_at", "turns"
    }  # fmt: skip


async def test_a_turn_shows_how_it_went(api: Api) -> None:
    await api.chat(chat_id="1", system_prompt="s", user_prompt="Capital of India?")
    turn = (await api.turns("1"))[0]
    assert turn["status"] == "complete"
    assert turn["finish_reason"] == "stop"
    assert turn["usage"]["total_tokens"] > turn["usage"]["completion_tokens"] > 0
    assert turn["created_at"] <= turn["finished_at"]
    assert turn["created_at"].endswith("Z")


async def test_turns_are_paged_in_order(api: Api) -> None:
    for number in range(3):
        await api.chat(chat_id="1", user_prompt=str(number))
    first = (await api.client.get("/chats/1", params={"limit": 2})).json()
    assert [turn["user_prompt"] for turn in first["items"]] == ["0", "1"]
    rest = await api.client.get("/chats/1", params={"cursor": first["next_cursor"]})
    assert [turn["user_prompt"] for turn in rest.json()["items"]] == ["2"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/chats?limit=0", "limit"),
        ("/chats?limit=101", "limit"),
        ("/chats?limit=x", "limit"),
        ("/chats?limit=", "limit"),
        ("/chats?cursor=x", "cursor"),
        ("/chats?cursor=e30", "cursor"),
        ("/chats?cursor=WzFd", "cursor"),
        ("/chats?cursor=%ff", "cursor"),
        ("/chats/1?limit=1001", "limit"),
        ("/chats/1?cursor=WyIxIl0", "cursor"),
        ("/chats/1?cursor=WzFlMzBd", "cursor"),
        ("/chats/1/export?format=pdf", "format"),
    ],
)
async def test_a_wrong_page_is_named(shared_api: Api, path: str, param: str) -> None:
    answer = await shared_api.client.get(path)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", param)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("chat_id", ["none", "%00", "%ff", "a" * 257, "none%2Fexport"])
async def test_a_chat_that_is_not_there_is_a_404(
    shared_api: Api, method: str, chat_id: str
) -> None:
    answer = await shared_api.client.request(method, f"/chats/{chat_id}")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "chat_not_found")


@pytest.mark.parametrize(
    "chat_id",
    ["a/b", "a/export", "/", "a b", "a?b#c", "ä%2F", "a/../b", "\u202e\n", "%", "x" * 256],
)
async def test_any_chat_id_works_in_a_path(shared_api: Api, chat_id: str) -> None:
    assert (await shared_api.chat(chat_id=chat_id, user_prompt="q")).status_code == 200
    # httpx would resolve dots, as browsers do; encoded they are text.
    path = "/chats/" + quote(chat_id, safe="").replace(".", "%2E")
    view = await shared_api.client.get(path)
    assert view.json()["chat_id"] == chat_id
    export = await shared_api.client.get(path + "/export")
    assert export.json()["items"] == view.json()["items"]
    assert (await shared_api.client.delete(path)).status_code == 204
    assert (await shared_api.client.get(path)).status_code == 404


async def test_a_chat_that_is_being_answered_cannot_be_deleted(api: Api, host: StubHost) -> None:
    host.delay_s = 0.5
    asking = asyncio.create_task(api.chat(chat_id="1", user_prompt="q"))
    await eventually(lambda: host.running == 1)
    answer = await api.client.delete("/chats/1")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_busy")
    assert (await asking).status_code == 200
    assert (await api.client.delete("/chats/1")).status_code == 204
