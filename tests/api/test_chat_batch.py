"""`POST /chat/batch`: answers in order, each item with its own error."""

import asyncio
from pathlib import Path

import httpx
import pytest

from api.settings import Settings
from api.upstream import make_transport
from tests.api.conftest import Api, StartApi, error_of, serving_api
from tests.api.keyed import bearer, new_key, start_keyed
from tests.api.stub_host import StubHost, refuse

pytestmark = pytest.mark.anyio


def item(chat_id: str, question: str, **more: object) -> dict[str, object]:
    return {"chat_id": chat_id, "system_prompt": "You are helpful", "user_prompt": question} | more


async def ask(api: Api, *items: object) -> list[dict[str, object]]:
    answer = await api.client.post("/chat/batch", json={"chats": items})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, object]] = answer.json()
    return results


async def test_answers_come_in_order(api: Api) -> None:
    results = await ask(
        api,
        item("1", "Capital of India?"),
        item("2", "Capital of France?"),
        item("3", "Capital of Japan?"),
    )
    assert results == [
        {"chat_id": "1", "response": "The capital of India is New Delhi."},
        {"chat_id": "2", "response": "The capital of France is Paris."},
        {"chat_id": "3", "response": "The capital of Japan is Tokyo."},
    ]


async def test_only_the_bad_item_fails(api: Api) -> None:
    good, hot, streamed, none, blank = await ask(
        api,
        item("1", "Capital of India?"),
        item("2", "q", temperature=9),
        item("3", "q", stream=True),
        7,
        {"user_prompt": " "},
    )
    assert good["response"] == "The capital of India is New Delhi."
    assert (hot["chat_id"], hot["error"]["param"]) == ("2", "temperature")
    assert (streamed["error"]["code"], streamed["error"]["param"]) == ("unknown_field", "stream")
    assert none["error"]["code"] == "invalid_value"
    assert blank["error"]["param"] == "user_prompt"
    assert len(blank["chat_id"]) == 36


async def test_a_host_error_fails_its_item_alone(api: Api, host: StubHost) -> None:
    host.faults = [refuse(500, "internal_error")]
    results = await ask(api, *(item(str(n), "q") for n in range(4)))
    assert sum("error" in result for result in results) == 1
    assert sum("response" in result for result in results) == 3


async def test_items_of_one_chat_follow_each_other(api: Api) -> None:
    results = await ask(api, *(item("1", f"q{n}", details=True) for n in range(3)))
    assert [result["response"] for result in results] == ["echo: q0", "echo: q1", "echo: q2"]
    assert [result["history"]["turns_sent"] for result in results] == [0, 1, 2]
    assert [turn["user_prompt"] for turn in await api.turns("1")] == ["q0", "q1", "q2"]


async def test_too_busy_for_every_item_is_the_batchs_429(api: Api, host: StubHost) -> None:
    host.always = refuse(429, "overloaded", "4", kind="rate_limit_error")
    chats = [item(str(n), "q") for n in range(3)]
    answer = await api.client.post("/chat/batch", json={"chats": chats})
    assert (answer.status_code, error_of(answer)["code"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "4"


async def test_a_refused_item_says_when_to_come_again(api: Api, host: StubHost) -> None:
    host.faults = [refuse(429, "overloaded", "4", kind="rate_limit_error")]
    results = await ask(api, *(item(str(n), "q") for n in range(3)))
    failed = [result["error"] for result in results if "error" in result]
    assert [(error["code"], error["retry_after_s"]) for error in failed] == [("overloaded", 4)]


async def test_an_item_that_can_never_fit_does_not_say_when_to_come_again(
    start_api: StartApi,
) -> None:
    api = await start_keyed(start_api)
    key, _ = await new_key(api, limits={"tokens_per_minute": 600, "requests_per_minute": 1})
    chats = [item("1", "q", max_tokens=601), item("2", "q"), item("2", "q")]
    answer = await api.client.post("/chat/batch", json={"chats": chats}, headers=bearer(key))
    never, good, later = answer.json()
    assert never["error"]["code"] == "rate_limit_exceeded"
    assert "retry_after_s" not in never["error"]
    assert "response" in good
    assert later["error"]["retry_after_s"] >= 1


async def test_one_other_failure_keeps_the_batch_a_200(api: Api, host: StubHost) -> None:
    host.always = refuse(429, "overloaded", "4", kind="rate_limit_error")
    busy, bad = await ask(api, item("1", "q"), item("2", "q", temperature=9))
    assert busy["error"]["retry_after_s"] == 4
    assert "retry_after_s" not in bad["error"]


async def test_a_bug_fails_its_item_alone(
    host: StubHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Buggy(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self._wire = make_transport(Settings())

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if b"trigger" in request.content:
                raise RuntimeError("a bug, with what the client sent")
            return await self._wire.handle_async_request(request)

        async def aclose(self) -> None:
            await self._wire.aclose()

    async with serving_api(host, tmp_path, Buggy()) as api:
        good, bad = await ask(api, item("1", "Capital of India?"), item("2", "trigger"))
        assert good["response"] == "The capital of India is New Delhi."
        assert (bad["chat_id"], bad["error"]["code"]) == ("2", "internal_error")
        assert (await api.turns("2"))[0]["status"] == "interrupted"
    assert "an item of a batch failed" in caplog.messages
    assert "what the client sent" not in caplog.text


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "chats"),
        ({"chats": []}, "invalid_value", "chats"),
        ({"chats": [item("1", "q")] * 65}, "invalid_value", "chats"),
        ({"chats": item("1", "q")}, "invalid_value", "chats"),
        ({"chats": [item("1", "q")], "extra": 1}, "unknown_field", "extra"),
    ],
)
async def test_a_wrong_batch_is_named(shared_api: Api, body: object, code: str, param: str) -> None:
    answer = await shared_api.client.post("/chat/batch", json=body)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


async def test_a_batch_counts_as_its_items(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=4)
    host.delay_s = 0.3
    chats = [item(str(n), "q") for n in range(3)]
    answers = await asyncio.gather(
        *(api.client.post("/chat/batch", json={"chats": chats}) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 429]
    assert api.parts.lifecycle.slots_taken == 0
    # One that is larger than the limit is answered when there is nothing else.
    assert len(await ask(api, *(item(str(n), "q") for n in range(6)))) == 6
    assert api.parts.lifecycle.slots_taken == 0


async def test_a_batch_asks_for_no_more_at_once_than_it_has_slots(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(max_in_flight=2)
    host.delay_s = 0.1
    asking = asyncio.create_task(ask(api, *(item(str(n), "q") for n in range(8))))
    most = 0
    while not asking.done():
        most = max(most, host.running)
        await asyncio.sleep(0.005)
    assert all("response" in one for one in await asking)
    assert most == 2
