"""Limits over HTTP: what is refused and how it is said, and what a call costs in the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.keyed import ADMIN, bearer, new_key, start_keyed
from tests.api.redis_server import running_redis
from tests.api.stub_host import StubHost, refuse

pytestmark = pytest.mark.anyio
OPENAI: dict[str, Any] = {"model": "qna-demo", "messages": [{"role": "user", "content": "q"}]}


@pytest.fixture
async def keyed(start_api: StartApi, limits_url: str) -> Api:
    return await start_keyed(start_api, limits_url=limits_url, limits_timeout_s=5)


async def ask(api: Api, key: str, **body: Any) -> httpx.Response:
    return await api.client.post("/chat", json={"user_prompt": "q"} | body, headers=bearer(key))


async def test_requests_of_a_key(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 3})
    for left in (2, 1, 0):
        answer = await ask(keyed, key)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    seen = len(host.generated)
    refused = await ask(keyed, key, chat_id="refused")
    assert refused.status_code == 429
    error = error_of(refused)
    assert error["code"] == "rate_limit_exceeded"
    named = {name: error[name] for name in ("limit_name", "scope", "limit", "remaining")}
    assert named == {
        "limit_name": "requests_per_minute", "scope": "key", "limit": 3, "remaining": 0
    }  # fmt: skip
    assert 58 <= int(refused.headers["retry-after"]) <= 62
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(host.generated) == seen
    # Nothing was stored for it.
    none = await keyed.client.get("/chats/refused", headers=bearer(key))
    assert none.status_code == 404
    # What makes nothing is not limited.
    assert (await keyed.client.get("/chats", headers=bearer(key))).status_code == 200


async def test_a_tenant_s_limit_is_of_all_its_keys(keyed: Api) -> None:
    one, _ = await new_key(keyed, "shop")
    two, _ = await new_key(keyed, "shop")
    other, _ = await new_key(keyed, "else")
    await keyed.client.put(
        "/admin/tenants/shop", json={"requests_per_minute": 2}, headers=bearer(ADMIN)
    )
    assert [(await ask(keyed, key)).status_code for key in (one, two)] == [200, 200]
    refused = await ask(keyed, one)
    assert refused.status_code == 429
    assert error_of(refused)["scope"] == "tenant"
    assert (await ask(keyed, other)).status_code == 200


async def test_tokens_are_reserved_and_what_is_not_used_is_given_back(keyed: Api) -> None:
    key, _ = await new_key(keyed, limits={"tokens_per_minute": 600})
    # An answer of at most 450 tokens is reserved; the stub uses fewer than 20.
    for _ in range(5):
        for body in ({}, {"stream": True}):
            answer = await ask(keyed, key, max_tokens=450, **body)
            assert answer.status_code == 200, answer.text
            assert "x-ratelimit-remaining-tokens" in answer.headers
    refused = await ask(keyed, key, max_tokens=590)
    assert refused.status_code == 429
    error = error_of(refused)
    assert (error["limit_name"], error["type"]) == ("tokens_per_minute", "tokens")
    assert 400 < error["remaining"] < 600
    never = await ask(keyed, key, max_tokens=601)
    assert never.status_code == 429
    assert "retry-after" not in never.headers
    assert never.headers["x-should-retry"] == "false"


async def test_what_was_used_beyond_the_estimate_counts(keyed: Api) -> None:
    key, _ = await new_key(keyed, limits={"tokens_per_day": 120})
    text = "a " * 60  # 120 bytes are estimated as 30 tokens; the stub counts words
    assert (await ask(keyed, key, user_prompt=text, max_tokens=1)).status_code == 200
    refused = await ask(keyed, key, user_prompt=text, max_tokens=1)
    assert refused.status_code == 429
    assert error_of(refused)["limit_name"] == "tokens_per_day"


async def test_a_call_that_fails_costs_nothing(keyed: Api, host: StubHost) -> None:
    limits = {"requests_per_minute": 2, "tokens_per_minute": 1200}
    key, _ = await new_key(keyed, limits=limits)
    host.always = refuse(400, "invalid_value")
    for _ in range(3):
        assert (await ask(keyed, key)).status_code == 400
        for body in (OPENAI, OPENAI | {"stream": True}):
            answer = await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
            assert answer.status_code == 400
        # Refused here already.
        assert (await ask(keyed, key, temperature=9)).status_code == 400
    host.always = None
    answer = await ask(keyed, key)
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 600


async def test_a_stream_that_breaks_off_costs_nothing(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 1})

    async def broken(wire: Any) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b'data: {"chat_id": "1", "delta": "x"}\n\n', more=True)
        await wire.body(b"")

    host.faults = [broken]
    answer = await ask(keyed, key, stream=True)
    assert "event: error" in answer.text
    assert (await ask(keyed, key)).status_code == 200
    assert (await ask(keyed, key)).status_code == 429


async def test_a_client_that_leaves_a_stream_pays_for_what_it_got(
    keyed: Api, host: StubHost
) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 1})
    host.gap_s = 0.2
    body = {"user_prompt": "a b c d e f g h", "stream": True}
    async with keyed.client.stream("POST", "/chat", json=body, headers=bearer(key)) as answer:
        async for _ in answer.aiter_lines():
            break
    await eventually(lambda: host.running == 0)
    host.gap_s = 0
    assert (await ask(keyed, key)).status_code == 429


async def test_a_client_that_leaves_before_its_answer_pays_as_well(
    keyed: Api, host: StubHost
) -> None:
    key, key_id = await new_key(keyed, limits={"requests_per_minute": 10})

    async def used() -> dict[str, int]:
        answer = await keyed.client.get(f"/admin/usage?key={key_id}", headers=bearer(ADMIN))
        row: dict[str, int] = answer.json()["rows"][0]
        return row

    # So fast are answers made: about ten words in 0.2 s.
    host.delay_s = 0.2
    text = "a b c d e f g h i"
    assert (await ask(keyed, key, user_prompt=text)).status_code == 200
    before = await used()
    host.delay_s = 30
    openai = OPENAI | {"messages": [{"role": "user", "content": text}]}
    for path, body in (
        ("/chat", {"user_prompt": text}),
        ("/chat", {"user_prompt": text, "stream": True}),
        ("/v1/chat/completions", openai),
        ("/v1/chat/completions", openai | {"stream": True}),
    ):
        with pytest.raises(httpx.ReadTimeout):
            await keyed.client.post(path, json=body, headers=bearer(key), timeout=0.5)
        await eventually(lambda: host.running == 0)
        now = await eventually(partial(_later, used, before))
        assert now["errors"] == 0
        assert 4 <= now["prompt_tokens"] - before["prompt_tokens"] <= 20
        said = now["completion_tokens"] - before["completion_tokens"]
        # Of a stream it is known that nothing had come.
        assert said == 0 if body.get("stream") else 5 <= said <= 60
        before = now
    host.delay_s = 0
    answer = await ask(keyed, key)
    assert answer.headers["x-ratelimit-remaining-requests"] == "4"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("again", [True, False])
async def test_who_leaves_pays_for_the_earlier_turns_that_went_along(
    keyed: Api, host: StubHost, *, again: bool, stream: bool
) -> None:
    key, key_id = await new_key(keyed, limits={"tokens_per_minute": 100_000})

    async def used() -> dict[str, int]:
        answer = await keyed.client.get(f"/admin/usage?key={key_id}", headers=bearer(ADMIN))
        row: dict[str, int] = answer.json()["rows"][0]
        return row

    # The stub counts words: 303 of the first question, 301 of its answer.
    for text in ("w " * 300, "q"):
        assert (await ask(keyed, key, chat_id="1", user_prompt=text)).status_code == 200
    before = await used()
    host.gap_s, host.delay_s = 30, 0 if stream else 30
    path = "/chats/1/regenerate" if again else "/chat"
    body = {"stream": stream} | ({} if again else {"chat_id": "1", "user_prompt": "q"})
    with pytest.raises(httpx.ReadTimeout):
        await keyed.client.post(path, json=body, headers=bearer(key), timeout=0.5)
    now = await eventually(partial(_later, used, before))
    assert now["errors"] == 0
    assert 604 <= now["prompt_tokens"] - before["prompt_tokens"] <= 640
    host.gap_s = host.delay_s = 0
    # Of the limit as well.
    left = int((await ask(keyed, key)).headers["x-ratelimit-remaining-tokens"])
    spent = sum(now[name] for name in ("prompt_tokens", "completion_tokens"))
    assert left == 100_000 - spent - 516


@pytest.mark.parametrize("stream", [False, True])
async def test_earlier_turns_that_do_not_fit_any_more_are_refused_before_any_work(
    keyed: Api, host: StubHost, *, stream: bool
) -> None:
    key, _ = await new_key(keyed, limits={"tokens_per_minute": 2000, "max_concurrent": 1})

    async def again(**more: Any) -> httpx.Response:
        return await ask(keyed, key, chat_id="1", user_prompt="q", stream=stream, **more)

    # The stub counts words: 303 of the first question, 301 of its answer.
    assert (await ask(keyed, key, chat_id="1", user_prompt="w " * 300)).status_code == 200
    left = [int((await again(max_tokens=1)).headers["x-ratelimit-remaining-tokens"])]
    # Its own cost, which is reserved with the earlier turns.
    left.append(int((await again(max_tokens=1)).headers["x-ratelimit-remaining-tokens"]))
    assert 600 < left[0] - left[1] < 640
    asked = len(host.generated)
    for _ in range(2):
        refused = await again(max_tokens=1)
        assert refused.status_code == 429
        error = error_of(refused)
        assert (error["limit_name"], error["limit"]) == ("tokens_per_minute", 2000)
        assert error["remaining"] < 600 < error["requested"] < 640
        assert 0 < int(refused.headers["retry-after"]) <= 61
    # Of the same tenant, whose chats these are.
    less, _ = await new_key(keyed, limits={"tokens_per_minute": 600})
    never = await ask(keyed, less, chat_id="1", user_prompt="q", stream=stream, max_tokens=1)
    assert never.status_code == 429
    assert never.headers["x-should-retry"] == "false"
    assert error_of(never)["requested"] > 600
    assert len(host.generated) == asked
    # Nothing is left behind, and nothing is charged.
    chat = (await keyed.client.get("/chats/1", headers=bearer(key))).json()
    assert chat["turns"] == 3
    answer = await ask(keyed, key, chat_id="2", user_prompt="q", max_tokens=1)
    assert answer.status_code == 200
    assert left[1] - int(answer.headers["x-ratelimit-remaining-tokens"]) < 30


async def _later(used: Callable[[], Awaitable[dict[str, int]]], before: dict[str, int]) -> Any:
    now = await used()
    return now if now["requests"] > before["requests"] else None


async def test_who_leaves_before_any_work_was_done_pays_nothing(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_keyed(start_api, max_in_flight=1, max_queued=5, queue_timeout_s=30)
    key, _ = await new_key(api, limits={"requests_per_minute": 5})
    host.delay_s = 0.6
    first = asyncio.create_task(ask(api, key))
    await eventually(lambda: host.running == 1)
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            await api.client.post(
                "/chat", json={"user_prompt": "q"}, headers=bearer(key), timeout=0.1
            )
    assert (await first).status_code == 200
    assert (await ask(api, key)).headers["x-ratelimit-remaining-requests"] == "3"


async def test_an_item_that_failed_costs_nothing_though_the_client_leaves_its_batch(
    keyed: Api, host: StubHost
) -> None:
    key, key_id = await new_key(keyed, limits={"requests_per_minute": 10})
    host.faults, host.delay_s = [refuse(400, "invalid_value")], 30
    chats = [{"user_prompt": str(number)} for number in range(2)]
    asking = asyncio.create_task(
        keyed.client.post("/chat/batch", json={"chats": chats}, headers=bearer(key))
    )
    await eventually(lambda: host.running == 1 and not host.faults)
    await asyncio.sleep(0.5)  # what has been refused is heard of
    asking.cancel()
    await eventually(lambda: host.running == 0)
    host.delay_s = 0

    async def counted() -> Any:
        answer = await keyed.client.get(f"/admin/usage?key={key_id}", headers=bearer(ADMIN))
        rows = answer.json()["rows"]
        return rows and rows[0]["requests"] == 2 and rows[0]

    assert (await eventually(counted))["errors"] == 1
    assert (await ask(keyed, key)).headers["x-ratelimit-remaining-requests"] == "8"


async def test_what_never_fits_is_not_told_to_come_again(keyed: Api, host: StubHost) -> None:
    """Even while a limit that ends is full as well."""
    key, _ = await new_key(keyed, limits={"max_concurrent": 1, "tokens_per_minute": 1000})
    host.delay_s = 0.5
    asking = asyncio.create_task(ask(keyed, key))
    await eventually(lambda: host.running == 1)
    refused = await ask(keyed, key, max_tokens=2000)
    assert error_of(refused)["limit_name"] == "tokens_per_minute"
    assert "retry-after" not in refused.headers
    assert (await asking).status_code == 200


async def test_calls_at_once(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed, limits={"max_concurrent": 2})
    host.delay_s = 0.5
    asking = [asyncio.create_task(ask(keyed, key)) for _ in range(2)]
    await eventually(lambda: host.running == 2)
    refused = await ask(keyed, key)
    assert refused.status_code == 429
    assert error_of(refused)["limit_name"] == "max_concurrent"
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]
    host.delay_s = 0
    # Each has ended when its answer is there, however it ends.
    for _ in range(5):
        assert (await ask(keyed, key, stream=True)).status_code == 200
    host.always = refuse(400, "invalid_value")
    for _ in range(3):
        assert (await ask(keyed, key)).status_code == 400


async def test_each_question_of_a_batch_counts(keyed: Api) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 2})
    chats = [{"user_prompt": str(number)} for number in range(3)]
    answer = await keyed.client.post("/chat/batch", json={"chats": chats}, headers=bearer(key))
    codes = [item.get("error", {}).get("code") for item in answer.json()]
    assert sorted(codes, key=str) == [None, None, "rate_limit_exceeded"]


async def test_a_question_of_a_batch_that_has_ended_leaves_room_for_the_next(
    keyed: Api, host: StubHost
) -> None:
    key, _ = await new_key(keyed, limits={"max_concurrent": 1})
    host.faults = [refuse(400, "invalid_value")]
    chats = [{"chat_id": "one", "user_prompt": str(number)} for number in range(3)]
    answer = await keyed.client.post("/chat/batch", json={"chats": chats}, headers=bearer(key))
    codes = [item.get("error", {}).get("code") for item in answer.json()]
    assert codes == ["invalid_value", None, None]


async def test_a_repeated_request_is_answered_where_no_limit_can_be_asked(
    start_api: StartApi,
) -> None:
    with running_redis() as (url, process):
        api = await start_keyed(
            start_api, limits_url=url, limits_timeout_s=1, limits_when_away="closed"
        )
        key, _ = await new_key(api, limits={"requests_per_minute": 9})
        headers = bearer(key) | {"Idempotency-Key": "one"}
        first = await api.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
        assert first.status_code == 200, first.text
        process.kill()
        process.wait()
        assert error_of(await ask(api, key))["code"] == "limits_unavailable"
        again = await api.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
        assert (again.status_code, again.json()) == (200, first.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "q", "max_tokens": 500, "max_completion_tokens": 1}),
        ("/v1/completions", {"prompt": "q " * 2000, "messages": "", "max_tokens": 1}),
        ("/v1/completions", {"prompt": ["q", "q"], "max_tokens": 100}),
        ("/v1/chat/completions", {"messages": OPENAI["messages"], "n": 2, "max_tokens": 100}),
    ],
)
async def test_a_field_of_another_route_hides_no_tokens(
    keyed: Api, path: str, body: dict[str, Any]
) -> None:
    key, _ = await new_key(keyed, limits={"tokens_per_minute": 150})
    answer = await keyed.client.post(path, json=body | {"model": "qna-demo"}, headers=bearer(key))
    assert (answer.status_code, error_of(answer)["limit_name"]) == (429, "tokens_per_minute")


async def test_a_repeated_request_is_neither_refused_nor_charged(keyed: Api) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 2})
    headers = bearer(key) | {"Idempotency-Key": "one"}
    first = await keyed.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    again = await keyed.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert (await ask(keyed, key)).status_code == 200
    assert (await ask(keyed, key)).status_code == 429
    still = await keyed.client.post("/chat", json={"user_prompt": "q"}, headers=headers)
    assert still.status_code == 200
    assert still.json() == first.json()
    # Whether there was room or none: what is left, as if it had not been asked.
    for answer, left in ((first, "1"), (again, "1"), (still, "0")):
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == left
        assert float(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) > 0


async def test_openai_s_clients_understand(keyed: Api) -> None:
    key, _ = await new_key(keyed, limits={"requests_per_minute": 1})
    async with openai.AsyncOpenAI(base_url=f"{keyed.url}/v1", api_key=key, max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(**OPENAI)
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**OPENAI)
    assert caught.value.code == "rate_limit_exceeded"


async def test_limits_of_the_settings_hold_for_keys_that_set_none(start_api: StartApi) -> None:
    api = await start_keyed(start_api, key_requests_per_minute=1)
    plain, _ = await new_key(api)
    wider, _ = await new_key(api, limits={"requests_per_minute": 0})
    assert [(await ask(api, plain)).status_code for _ in range(2)] == [200, 429]
    assert [(await ask(api, wider)).status_code for _ in range(3)] == [200] * 3


# ---- the line -----------------------------------------------------------------------------------


async def test_who_finds_no_place_waits_in_line(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=1, max_queued=2)
    host.delay_s = 0.2
    asking = [asyncio.create_task(api.chat(user_prompt=str(number))) for number in range(3)]
    await eventually(lambda: api.parts.lifecycle.waiting == 2)
    refused = await api.chat(user_prompt="q")
    assert refused.status_code == 429
    assert error_of(refused)["code"] == "overloaded"
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3
    assert api.parts.lifecycle.slots_taken == 0
    asked = [seen.body["messages"][-1]["content"] for seen in host.generated]
    assert asked == ["0", "1", "2"]


async def test_a_wait_in_line_ends(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=1, max_queued=2, queue_timeout_s=0.2)
    host.delay_s = 30.0
    running = asyncio.create_task(api.chat(user_prompt="q"))
    await eventually(lambda: host.running == 1)
    began = time.monotonic()
    assert (await api.chat(user_prompt="q")).status_code == 429
    assert 0.15 < time.monotonic() - began < 15
    running.cancel()
    await eventually(lambda: api.parts.lifecycle.slots_taken == 0)


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_holds_in_line(
    start_api: StartApi, host: StubHost, path: str, stream: bool
) -> None:
    api = await start_api(max_in_flight=1, max_queued=2)
    host.delay_s = 30.0
    running = asyncio.create_task(api.chat(user_prompt="q"))
    await eventually(lambda: host.running == 1)
    question = {"messages": [{"role": "user", "content": "q"}]} if "v1" in path else {}
    began = time.monotonic()
    late = await api.client.post(
        path,
        json=(question or {"user_prompt": "q"}) | {"stream": stream},
        headers={"X-Request-Timeout-Ms": "200"},
    )
    assert 0.15 < time.monotonic() - began < 5
    error = error_of(late)
    assert (late.status_code, error["code"]) == (504, "deadline_exceeded")
    assert error["type"] == "timeout_error"
    assert api.parts.lifecycle.waiting == 0
    running.cancel()
    await eventually(lambda: api.parts.lifecycle.slots_taken == 0)
    assert len(host.generated) == 1


async def test_so_does_the_servers_own(start_api: StartApi) -> None:
    api = await start_api(max_in_flight=1, max_queued=2, request_timeout_s=0.2)
    assert api.parts.lifecycle.admit()
    late = await api.chat(user_prompt="q")
    assert (late.status_code, error_of(late)["code"]) == (504, "deadline_exceeded")
    assert (api.parts.lifecycle.slots_taken, api.parts.lifecycle.waiting) == (1, 0)


async def test_a_wrong_deadline_is_named_after_the_line(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(max_in_flight=1, max_queued=2)
    host.delay_s = 0.3
    running = asyncio.create_task(api.chat(user_prompt="q"))
    await eventually(lambda: host.running == 1)
    body = {"user_prompt": "q"}
    wrong = await api.client.post("/chat", json=body, headers={"X-Request-Timeout-Ms": "soon"})
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "X-Request-Timeout-Ms")
    assert (await running).status_code == 200


async def test_who_leaves_the_line_takes_no_place(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=1, max_queued=2)
    host.delay_s = 0.5
    running = asyncio.create_task(api.chat(user_prompt="q"))
    await eventually(lambda: host.running == 1)
    leaving = asyncio.create_task(api.chat(user_prompt="q"))
    await eventually(lambda: api.parts.lifecycle.waiting == 1)
    leaving.cancel()
    await eventually(lambda: api.parts.lifecycle.waiting == 0)
    assert (await running).status_code == 200
    assert len(host.generated) == 1
    assert api.parts.lifecycle.slots_taken == 0
