"""Another answer to the last question: what stands, what is kept, what the model is told."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api, error_of, eventually
from tests.api.stub_host import Fault, StubHost, Wire, encoded, holds, refuse

pytestmark = pytest.mark.anyio


def says(text: str, reason: str = "stop") -> Fault:
    async def fault(wire: Wire) -> None:
        final = {"chat_id": "1", "response": text, "finish_reason": reason}
        if not wire.seen.body["stream"]:
            await wire.json(200, final)
            return
        await wire.start(200, "text/event-stream")
        delta = {"chat_id": "1", "delta": text}
        await wire.body(encoded({"event": "message", "data": delta}), more=True)
        await wire.body(encoded({"event": "message", "data": final}), more=True)
        await wire.body(b"data: [DONE]\n\n")

    return fault


def breaks_after(text: str) -> Fault:
    async def fault(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        delta = {"chat_id": "1", "delta": text}
        await wire.body(encoded({"event": "message", "data": delta}), more=True)
        raise ConnectionError("the stub breaks off here")

    return fault


async def again(api: Api, chat_id: str = "1", **body: Any) -> httpx.Response:
    return await api.client.post(f"/chats/{chat_id}/regenerate", json=body)


async def seen(api: Api, *, replaced: bool = False) -> list[tuple[int, str, str | None]]:
    """Position, state and answer of each turn."""
    params = {"replaced": "true"} if replaced else {}
    items = (await api.client.get("/chats/1", params=params)).json()["items"]
    return [(turn["position"], turn["status"], turn["response"]) for turn in items]


async def asked(api: Api, host: StubHost, *texts: str) -> None:
    for text in texts:
        host.faults = [says(f"to {text}")]
        assert (await api.chat(chat_id="1", user_prompt=text)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_the_new_answer_stands_and_the_old_one_is_kept(
    kept_api: Api, host: StubHost, *, stream: bool
) -> None:
    await asked(kept_api, host, "a", "b")
    host.faults = [says("better")]
    answer = await again(kept_api, stream=stream, temperature=1.5)
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.endswith("data: [DONE]\n\n")
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        assert json.loads(events[-1])["response"] == "better"
    else:
        assert answer.json() == {"chat_id": "1", "response": "better"}
    assert host.generated[-1].body["temperature"] == 1.5
    assert [m["content"] for m in host.generated[-1].body["messages"]] == ["a", "to a", "b"]
    assert await seen(kept_api) == [(0, "complete", "to a"), (2, "complete", "better")]
    everything = await seen(kept_api, replaced=True)
    assert everything[1] == (1, "replaced", "to b")
    await asked(kept_api, host, "c")
    told = [m["content"] for m in host.generated[-1].body["messages"]]
    assert told == ["a", "to a", "b", "better", "c"]
    head = (await kept_api.client.get("/chats")).json()["chats"][0]
    assert head["turns"] == 3


async def test_it_can_be_done_again_and_again(kept_api: Api, host: StubHost) -> None:
    await asked(kept_api, host, "a")
    for number in range(5):
        host.faults = [says(str(number))]
        assert (await again(kept_api)).status_code == 200
    assert await seen(kept_api) == [(5, "complete", "4")]
    items = (await kept_api.client.get("/chats/1/export", params={"replaced": "true"})).json()
    assert [turn["status"] for turn in items["items"]] == ["replaced"] * 5 + ["complete"]
    assert [turn["replaces"] for turn in items["items"]] == [None, 0, 1, 2, 3, 4]
    assert items["turns"] == 1
    plain = (await kept_api.client.get("/chats/1/export")).json()
    assert [turn["response"] for turn in plain["items"]] == ["4"]


async def test_the_old_answer_stands_until_the_new_one_is_complete(
    kept_api: Api, host: StubHost
) -> None:
    await asked(kept_api, host, "a")
    released = asyncio.Event()
    host.faults = [holds(released)]
    answering = asyncio.create_task(again(kept_api))
    await eventually(lambda: host.running == 1)
    assert await seen(kept_api) == [(0, "complete", "to a")]
    assert [status for _, status, _ in await seen(kept_api, replaced=True)] == [
        "complete", "pending"
    ]  # fmt: skip
    busy = await again(kept_api)
    assert (busy.status_code, error_of(busy)["code"]) == (409, "chat_busy")
    busy = await kept_api.chat(chat_id="1", user_prompt="b")
    assert (busy.status_code, error_of(busy)["code"]) == (409, "chat_busy")
    released.set()
    assert (await answering).status_code == 200
    assert await seen(kept_api) == [(1, "complete", "echo: a")]


@pytest.mark.parametrize("fault", [refuse(500, "internal_error"), breaks_after("half")])
async def test_an_attempt_that_fails_changes_nothing_that_is_seen(
    kept_api: Api, host: StubHost, fault: Fault
) -> None:
    await asked(kept_api, host, "a", "b")
    host.faults = [fault]
    await again(kept_api, stream=True)
    expected = [(0, "complete", "to a"), (1, "complete", "to b")]
    assert await seen(kept_api) == expected
    assert (await seen(kept_api, replaced=True))[2][1] == "replaced"
    await asked(kept_api, host, "c")
    told = [m["content"] for m in host.generated[-1].body["messages"]]
    assert told == ["a", "to a", "b", "to b", "c"]


async def test_a_failed_question_is_asked_again(kept_api: Api, host: StubHost) -> None:
    await asked(kept_api, host, "a")
    host.faults = [refuse(500, "internal_error")]
    await kept_api.chat(chat_id="1", system_prompt="Be brief.", user_prompt="b")
    host.faults = [says("now")]
    assert (await again(kept_api)).status_code == 200
    assert [m["content"] for m in host.generated[-1].body["messages"]] == [
        "Be brief.", "a", "to a", "b"
    ]  # fmt: skip
    assert await seen(kept_api) == [(0, "complete", "to a"), (2, "complete", "now")]
    assert (await kept_api.client.get("/chats/1")).json()["system_prompt"] == "Be brief."


async def test_of_two_broken_answers_the_one_that_says_something_stands(
    kept_api: Api, host: StubHost
) -> None:
    host.faults = [breaks_after("half")]
    await kept_api.chat(chat_id="1", user_prompt="a", stream=True)
    host.faults = [refuse(500, "internal_error")]
    await again(kept_api)
    assert await seen(kept_api) == [(0, "interrupted", "half")]
    host.faults = [breaks_after("three quarters")]
    await again(kept_api, stream=True)
    assert await seen(kept_api) == [(2, "interrupted", "three quarters")]
    host.faults = [says("whole")]
    await again(kept_api)
    assert await seen(kept_api) == [(3, "complete", "whole")]
    assert (await kept_api.client.get("/chats")).json()["chats"][0]["turns"] == 1


async def test_a_chat_that_cannot_be_asked_again_is_told_so(kept_api: Api) -> None:
    answer = await again(kept_api, "none")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "chat_not_found")
    assert (await kept_api.client.get("/chats/none")).status_code == 404
    await kept_api.chat(chat_id="1", user_prompt="a")
    await kept_api.client.post("/chats/1/branch", json={"before": 0, "chat_id": "empty"})
    answer = await again(kept_api, "empty")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_has_no_turns")


async def test_another_answer_to_a_turn_that_is_no_longer_the_last_is_refused(
    kept_api: Api, host: StubHost
) -> None:
    await asked(kept_api, host, "a")
    assert (await again(kept_api, position=0)).status_code == 200
    assert "position" not in host.generated[-1].body
    generated = len(host.generated)
    # Somebody else had it answered again, or asked on.
    for position in (0, 2):
        answer = await again(kept_api, position=position)
        assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_moved_on")
    await asked(kept_api, host, "b")
    answer = await again(kept_api, position=1)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_moved_on")
    assert len(host.generated) == generated + 1
    # The refusal holds nothing up.
    assert (await again(kept_api, position=2)).status_code == 200
    assert [turn[:2] for turn in await seen(kept_api)] == [(1, "complete"), (3, "complete")]


async def test_a_position_with_a_key_is_that_of_the_first_attempt(
    kept_api: Api, host: StubHost
) -> None:
    host.faults = [breaks_after("half")]
    await kept_api.chat(chat_id="1", user_prompt="a", stream=True)
    host.faults = [breaks_after("three quarters")]
    headers = {"Idempotency-Key": "k"}
    path, body = "/chats/1/regenerate", {"position": 0, "stream": True}
    await kept_api.client.post(path, json=body, headers=headers)
    assert await seen(kept_api) == [(1, "interrupted", "three quarters")]
    assert (await kept_api.client.post(path, json=body, headers=headers)).status_code == 200
    assert await seen(kept_api) == [(2, "complete", "echo: a")]


@pytest.mark.parametrize(
    ("body", "param"),
    [({"user_prompt": "x"}, "user_prompt"), ({"temperature": 9}, "temperature"),
     ({"position": -1}, "position"),
     ({"stream": 1}, "stream"), ({"replaced": "x"}, "replaced")],
)  # fmt: skip
async def test_what_it_does_not_take_is_named(
    shared_api: Api, body: dict[str, object], param: str
) -> None:
    await shared_api.chat(chat_id="1", user_prompt="a")
    answer = await again(shared_api, **body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


async def test_a_wrong_replaced_is_named(shared_api: Api) -> None:
    answer = await shared_api.client.get("/chats/1", params={"replaced": "yes"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "replaced")
