"""`Idempotency-Key`: one generation, one stored turn, the same answer, on both databases."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from api.history import Once, SqlStore, StoredAnswer
from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.stores import DONE, begin
from tests.api.stub_host import StubHost, Wire, encoded, holds, refuse

pytestmark = pytest.mark.anyio


async def ask(api: Api, key: str = "k", path: str = "/chat", **body: Any) -> httpx.Response:
    return await api.client.post(path, json=body, headers={"Idempotency-Key": key})


async def ask_until_answered(api: Api, key: str = "k", **body: Any) -> httpx.Response:
    """What a client does: it waits as long as it is told while the first request runs."""
    while True:
        answer = await ask(api, key, **body)
        if answer.status_code != 409:
            return answer
        assert error_of(answer)["code"] in ("idempotency_key_in_use", "chat_busy")
        await asyncio.sleep(0.02)


def events_of(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def states(api: Api, chat_id: str = "1") -> list[tuple[str, str | None]]:
    return [(turn["status"], turn["response"]) for turn in await api.turns(chat_id)]


# ---- answered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"details": True}, {"chat_id": "1"}, {"logprobs": 2}])
async def test_the_same_request_gets_the_same_answer(
    kept_api: Api, host: StubHost, more: dict[str, Any]
) -> None:
    async def with_logprobs(wire: Wire) -> None:
        answer = {"chat_id": "x", "response": "a\0b", "finish_reason": "stop", "logprobs": [1]}
        await wire.json(200, answer, {"x-finish-reason": "stop"})

    if "logprobs" in more:
        host.faults = [with_logprobs]
    first = await ask(kept_api, user_prompt="Capital of India?", **more)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    for _ in range(2):
        again = await ask(kept_api, user_prompt="Capital of India?", **more)
        assert again.status_code == 200
        # PostgreSQL cannot keep U+0000; it keeps the picture of it.
        assert again.json() in (
            first.json(),
            first.json() | {"response": first.json()["response"].replace("\0", "\u2400")},
        )
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["x-finish-reason"] == first.headers["x-finish-reason"]
    assert len(host.generated) == 1
    assert len(await kept_api.turns(first.json()["chat_id"])) == 1


async def test_a_stream_is_told_again_as_a_stream(kept_api: Api, host: StubHost) -> None:
    body = {"chat_id": "1", "user_prompt": "Capital of India?", "stream": True, "details": True}
    first = events_of((await ask(kept_api, **body)).text)
    answer = await ask(kept_api, **body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["idempotent-replayed"] == "true"
    again = events_of(answer.text)
    assert again[-1] == first[-1]
    assert "".join(event["delta"] for event in again[:-1]) == first[-1]["response"]
    assert len(host.generated) == 1


async def test_an_answer_is_told_in_the_form_that_is_asked_for(
    kept_api: Api, host: StubHost
) -> None:
    body = {"chat_id": "1", "user_prompt": "Capital of India?"}
    whole = (await ask(kept_api, **body)).json()
    headers = {"Idempotency-Key": "k", "Accept": "text/event-stream"}
    streamed = events_of((await kept_api.client.post("/chat", json=body, headers=headers)).text)
    assert streamed[-1]["response"] == whole["response"]
    assert streamed[-1]["finish_reason"] == "stop"
    assert "history" not in streamed[-1]
    assert len(host.generated) == 1


async def test_the_form_of_the_json_does_not_count(kept_api: Api, host: StubHost) -> None:
    for text in ('{"chat_id": "1", "user_prompt": "q"}', '{"user_prompt":"q",\n "chat_id":"1"}'):
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        answer = await kept_api.client.post("/chat", content=text, headers=headers)
        assert answer.status_code == 200
    assert len(host.generated) == 1


async def test_ten_at_once_are_one_generation_and_one_turn(kept_api: Api, host: StubHost) -> None:
    for body in ({"user_prompt": "q"}, {"user_prompt": "q", "chat_id": "1"}):
        before = len(host.generated)
        key = f"k{len(body)}"
        answers = await asyncio.gather(
            *(ask_until_answered(kept_api, key, **body) for _ in range(10))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
        assert sorted(map(str, replayed)) == ["None"] + ["true"] * 9
        assert len(host.generated) - before == 1
        assert len(await kept_api.turns(answers[0].json()["chat_id"])) == 1
    assert len((await kept_api.client.get("/chats")).json()["chats"]) == 2


@pytest.mark.parametrize("named", [True, False])
async def test_while_it_is_answered_the_same_request_is_told_to_wait(
    kept_api: Api, host: StubHost, *, named: bool
) -> None:
    body = {"user_prompt": "q"} | ({"chat_id": "1"} if named else {})
    released = asyncio.Event()
    host.faults = [holds(released)]
    first = asyncio.create_task(ask(kept_api, **body))
    await eventually(lambda: host.running == 1)
    answer = await ask(kept_api, **body)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "idempotency_key_in_use")
    assert int(answer.headers["retry-after"]) >= 1
    released.set()
    assert (await ask_until_answered(kept_api, **body)).json() == (await first).json()
    assert len(host.generated) == 1


async def test_another_request_with_the_key_is_refused(kept_api: Api, host: StubHost) -> None:
    await ask(kept_api, chat_id="1", user_prompt="q")
    for body in (
        {"chat_id": "1", "user_prompt": "other"},
        {"chat_id": "2", "user_prompt": "q"},
        {"user_prompt": "q"},
        {"chat_id": "1", "user_prompt": "q", "temperature": 1},
    ):
        answer = await ask(kept_api, **body)
        assert (answer.status_code, error_of(answer)["code"]) == (422, "idempotency_key_reused")
        assert error_of(answer)["param"] == "Idempotency-Key"
    answer = await ask(kept_api, path="/chats/1/regenerate")
    assert answer.status_code == 422
    assert len(host.generated) == 1
    assert len((await kept_api.client.get("/chats")).json()["chats"]) == 1


# ---- not answered -------------------------------------------------------------------------------


async def test_a_key_whose_request_failed_can_be_used_again(kept_api: Api, host: StubHost) -> None:
    body = {"user_prompt": "q"}
    host.faults = [refuse(500, "internal_error"), refuse(500, "internal_error")]
    for _ in range(2):
        assert (await ask(kept_api, **body)).status_code == 502
    answer = await ask(kept_api, **body)
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers
    chats = (await kept_api.client.get("/chats")).json()["chats"]
    assert [(chat["chat_id"], chat["turns"]) for chat in chats] == [(answer.json()["chat_id"], 1)]
    assert await states(kept_api, chats[0]["chat_id"]) == [("complete", "echo: q")]
    assert (await ask(kept_api, **body)).headers["idempotent-replayed"] == "true"


async def test_a_request_that_was_refused_uses_no_key(kept_api: Api, host: StubHost) -> None:
    assert (await ask(kept_api, user_prompt="")).status_code == 400
    released = asyncio.Event()
    host.faults = [holds(released)]
    first = asyncio.create_task(kept_api.chat(chat_id="1", user_prompt="a"))
    await eventually(lambda: host.running == 1)
    busy = await ask(kept_api, chat_id="1", user_prompt="b")
    assert error_of(busy)["code"] == "chat_busy"
    released.set()
    await first
    assert (await ask(kept_api, chat_id="1", user_prompt="c")).status_code == 200


def breaks_after(text: str, chat_id: str = "1") -> Any:
    async def fault(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        delta = {"chat_id": chat_id, "delta": text}
        await wire.body(encoded({"event": "message", "data": delta}), more=True)
        raise ConnectionError("the stub breaks off here")

    return fault


async def test_a_broken_answer_is_replaced_by_the_next_attempt(
    kept_api: Api, host: StubHost
) -> None:
    await kept_api.chat(chat_id="1", user_prompt="before")
    body = {"chat_id": "1", "user_prompt": "q", "stream": True}
    host.faults = [breaks_after("half")]
    assert "event: error" in (await ask(kept_api, **body)).text
    assert await states(kept_api) == [("complete", "echo: before"), ("interrupted", "half")]
    answer = await ask(kept_api, **body)
    assert events_of(answer.text)[-1]["response"] == "echo: q"
    told = [m["content"] for m in host.generated[-1].body["messages"]]
    assert told == ["before", "echo: before", "q"]
    assert await states(kept_api) == [("complete", "echo: before"), ("complete", "echo: q")]
    again = await ask(kept_api, **body)
    assert again.headers["idempotent-replayed"] == "true"


async def test_who_left_in_the_middle_and_asks_again_gets_an_answer(
    kept_api: Api, host: StubHost
) -> None:
    body = {"user_prompt": " ".join(f"w{n}" for n in range(50)), "stream": True}
    host.gap_s = 0.05
    headers = {"Idempotency-Key": "k"}
    async with kept_api.client.stream("POST", "/chat", json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if "w3" in line:
                break
    host.gap_s = 0
    final = events_of((await ask_until_answered(kept_api, **body)).text)[-1]
    assert final["response"] == f"echo: {body['user_prompt']}"
    (chat,) = (await kept_api.client.get("/chats")).json()["chats"]
    assert (chat["chat_id"], chat["turns"]) == (final["chat_id"], 1)
    assert len(host.generated) == 2


async def test_a_chat_that_went_on_gets_the_late_answer_at_its_end(
    kept_api: Api, host: StubHost
) -> None:
    host.faults = [refuse(500, "internal_error")]
    await ask(kept_api, chat_id="1", user_prompt="a")
    await kept_api.chat(chat_id="1", user_prompt="b")
    assert (await ask(kept_api, chat_id="1", user_prompt="a")).status_code == 200
    assert [m["content"] for m in host.generated[-1].body["messages"]] == ["b", "echo: b", "a"]
    assert await states(kept_api) == [("complete", "echo: b"), ("complete", "echo: a")]


async def test_an_answer_that_somebody_else_had_made_is_told(kept_api: Api, host: StubHost) -> None:
    host.faults = [refuse(500, "internal_error")]
    await ask(kept_api, chat_id="1", user_prompt="a")
    await kept_api.client.post("/chats/1/regenerate", json={})
    answer = await ask(kept_api, chat_id="1", user_prompt="a")
    assert answer.json()["response"] == "echo: a"
    assert answer.headers["idempotent-replayed"] == "true"
    assert await states(kept_api) == [("complete", "echo: a")]


# ---- another answer -----------------------------------------------------------------------------


async def test_another_answer_is_made_once(kept_api: Api, host: StubHost) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    path = "/chats/1/regenerate"
    host.faults = [breaks_after("half")]
    await ask(kept_api, path=path, stream=True)
    assert await states(kept_api) == [("complete", "echo: a")]
    first = await ask(kept_api, path=path, stream=True)
    assert "idempotent-replayed" not in first.headers
    again = await ask(kept_api, path=path, stream=True)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(host.generated) == 3
    assert await states(kept_api) == [("complete", "echo: a")]
    # What the key was answered stays the answer when a newer one stands.
    assert (await kept_api.client.post(path, json={})).status_code == 200
    assert (await ask(kept_api, path=path, stream=True)).headers["idempotent-replayed"] == "true"


async def test_another_answer_is_not_made_of_another_question(
    kept_api: Api, host: StubHost
) -> None:
    await kept_api.chat(chat_id="1", user_prompt="a")
    path = "/chats/1/regenerate"
    host.faults = [refuse(500, "internal_error")]
    await ask(kept_api, path=path)
    await kept_api.chat(chat_id="1", user_prompt="b")
    answer = await ask(kept_api, path=path)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_moved_on")
    assert await states(kept_api) == [("complete", "echo: a"), ("complete", "echo: b")]


# ---- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, "a\tb"])
async def test_a_key_that_cannot_be_is_named(shared_api: Api, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = await shared_api.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "Idempotency-Key")
    assert "1 to 255 visible ASCII characters" in error["message"]


async def test_keys_that_can_be_are_taken(shared_api: Api) -> None:
    for key in ("!", "~" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'):
        assert (await ask(shared_api, key, user_prompt="q")).status_code == 200


async def test_two_keys_are_none(shared_api: Api) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await shared_api.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    assert error_of(answer)["param"] == "Idempotency-Key"


async def test_a_batch_takes_no_key(shared_api: Api) -> None:
    answer = await ask(shared_api, path="/chat/batch", chats=[{"user_prompt": "q"}])
    assert (answer.status_code, error_of(answer)["param"]) == (400, "Idempotency-Key")


async def test_a_key_is_forgotten_in_time_and_with_its_chat(
    start_api: StartApi, host: StubHost, database_url: str
) -> None:
    api = await start_api(database_url=database_url, idempotency_s=1.0)
    await ask(api, chat_id="1", user_prompt="q")

    async def anew() -> bool:
        answer = await ask(api, chat_id="1", user_prompt="q")
        assert answer.status_code == 200
        return "idempotent-replayed" not in answer.headers

    await eventually(anew)
    assert await states(api) == [("complete", "echo: q")] * 2
    await ask(api, "other", chat_id="1", user_prompt="q")
    assert (await api.client.delete("/chats/1")).status_code == 204
    assert (
        "idempotent-replayed" not in (await ask(api, "other", chat_id="1", user_prompt="q")).headers
    )
    assert len(await api.turns("1")) == 1


async def test_owners_do_not_share_keys(store: SqlStore) -> None:
    once = Once("k", "f")
    mine = await begin(store, once=once)
    await store.end_turn(mine, DONE)
    assert isinstance(await begin(store, once=once), StoredAnswer)
    other = await store.begin_turn(
        "b", "1", user_prompt="q", system_prompt=None, request_id="r", max_past=9, once=once
    )
    assert not isinstance(other, StoredAnswer)
