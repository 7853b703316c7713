"""A new chat from a chat's earlier turns: edit is branch and then ask."""

import asyncio

import httpx
import pytest

from api.history import SqlStore
from api.history.sizes import BRANCH_BYTES, BRANCH_TURNS
from tests.api.conftest import Api, error_of, eventually
from tests.api.stores import fill
from tests.api.stub_host import StubHost, holds, refuse

pytestmark = pytest.mark.anyio


async def branch(api: Api, before: int, chat_id: str = "1") -> httpx.Response:
    return await api.client.post(f"/chats/{chat_id}/branch", json={"before": before})


async def test_an_edited_question_goes_on_from_the_turns_before_it(
    kept_api: Api, host: StubHost
) -> None:
    for text in ("a", "b", "c"):
        await kept_api.chat(chat_id="1", user_prompt=text, system_prompt=f"sys {text}")
    made = await branch(kept_api, 1)
    assert made.status_code == 201, made.text
    head = made.json()
    assert head["branched_from"] == {"chat_id": "1", "position": 1}
    assert (head["turns"], head["title"]) == (1, "a")
    await kept_api.chat(chat_id=head["chat_id"], user_prompt="other b")
    assert [m["content"] for m in host.generated[-1].body["messages"]] == [
        "sys b", "a", "echo: a", "other b"
    ]  # fmt: skip
    assert [turn["user_prompt"] for turn in await kept_api.turns("1")] == ["a", "b", "c"]
    copies = await kept_api.turns(head["chat_id"])
    assert [turn["user_prompt"] for turn in copies] == ["a", "other b"]
    original = (await kept_api.turns("1"))[0]
    assert copies[0] == original
    assert (await kept_api.client.get("/chats/1")).json()["branched_from"] is None


async def test_only_complete_turns_are_copied_and_counted_anew(
    kept_api: Api, host: StubHost
) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    host.faults = [refuse(500, "internal_error")]
    await kept_api.chat(chat_id="1", user_prompt="failed")
    await kept_api.chat(chat_id="1", user_prompt="b")
    await kept_api.client.post("/chats/1/regenerate", json={})
    answer = await kept_api.client.post("/chats/1/branch", json={"before": 4, "chat_id": "2"})
    assert answer.json()["turns"] == 2
    copies = await kept_api.turns("2")
    assert [(turn["position"], turn["user_prompt"]) for turn in copies] == [(0, "a"), (1, "b")]
    assert [turn["replaces"] for turn in copies] == [None, None]
    assert (await kept_api.client.post("/chats/2/regenerate", json={})).status_code == 200


async def test_a_branch_before_the_first_turn_is_empty(kept_api: Api, host: StubHost) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a", system_prompt="s")
    body = {"before": 0, "chat_id": "2"}
    head = (await kept_api.client.post("/chats/1/branch", json=body)).json()
    assert (head["turns"], head["title"]) == (0, "")
    await kept_api.chat(chat_id="2", user_prompt="edited")
    assert [m["content"] for m in host.generated[-1].body["messages"]] == ["s", "edited"]
    assert (await kept_api.client.get("/chats/2")).json()["title"] == "edited"


async def test_a_branch_keeps_the_title_that_was_given(kept_api: Api) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    await kept_api.client.patch("/chats/1", json={"title": "Mine"})
    assert (await branch(kept_api, 1)).json()["title"] == "Mine"


async def test_a_branch_outlives_what_it_came_from(kept_api: Api) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    made = (await branch(kept_api, 1)).json()["chat_id"]
    assert (await kept_api.client.delete("/chats/1")).status_code == 204
    view = (await kept_api.client.get(f"/chats/{made}")).json()
    assert view["branched_from"] == {"chat_id": "1", "position": 1}
    assert [turn["user_prompt"] for turn in view["items"]] == ["a"]


async def test_a_chat_can_be_branched_while_it_is_answered(kept_api: Api, host: StubHost) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    released = asyncio.Event()
    host.faults = [holds(released)]
    asking = asyncio.create_task(kept_api.chat(chat_id="1", user_prompt="b"))
    await eventually(lambda: host.running == 1)
    assert (await branch(kept_api, 2)).json()["turns"] == 1
    released.set()
    assert (await asking).status_code == 200


async def test_a_branch_that_cannot_be_is_told_so(shared_api: Api) -> None:
    await shared_api.chat(chat_id="1", user_prompt="a")
    answer = await branch(shared_api, 0, "none")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "chat_not_found")
    body = {"before": 0, "chat_id": "1"}
    answer = await shared_api.client.post("/chats/1/branch", json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_exists")
    for before in (-1, 1.5, "1", None, 2**63, True):
        answer = await shared_api.client.post("/chats/1/branch", json={"before": before})
        assert (answer.status_code, error_of(answer)["param"]) == (400, "before"), before
    answer = await shared_api.client.post("/chats/1/branch", json={})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "missing_field")
    assert [turn["user_prompt"] for turn in await shared_api.turns("1")] == ["a"]


async def test_a_place_beyond_the_end_is_told_with_the_last_one_there_is(kept_api: Api) -> None:
    for text in ("a", "b"):
        await kept_api.chat(chat_id="1", user_prompt=text)
    await kept_api.client.post("/chats/1/regenerate", json={})
    for before in (4, 2**63 - 1):
        answer = await branch(kept_api, before)
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["param"]) == (
            422,
            "out_of_range",
            "before",
        )
        assert error["limit"] == 3
        assert error["message"] == (
            "before: must be at most 3, the position after the chat's last turn"
        )
    assert len((await kept_api.client.get("/chats")).json()["chats"]) == 1
    assert (await branch(kept_api, 3)).json()["turns"] == 2


async def test_a_branch_of_too_much_is_told_so(kept_api: Api) -> None:
    store = kept_api.parts.store
    assert isinstance(store, SqlStore)
    await fill(store, "many", BRANCH_TURNS + 1)
    await fill(store, "large", 3, "x" * (BRANCH_BYTES // 2))
    for chat_id, before, limit in (
        ("many", BRANCH_TURNS + 1, BRANCH_TURNS),
        ("large", 2, BRANCH_BYTES),
    ):
        answer = await branch(kept_api, before, chat_id)
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (422, "branch_too_large")
        assert (error["param"], error["limit"]) == ("before", limit)
        assert (await branch(kept_api, before - 1, chat_id)).status_code == 201
