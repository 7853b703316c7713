"""POST /generate and /generate/batch over the real engine on a tiny random model."""

from typing import Any

import httpx
import pytest

from model.host import Host
from tests.model.hosts import events_of, until

pytestmark = pytest.mark.anyio
ASK = {"chat_id": "1", "user_prompt": "what is the capital of japan?", "max_tokens": 8}


async def ask(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post("/generate", json={**ASK, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_answer_is_exactly_chat_id_and_response(client: httpx.AsyncClient) -> None:
    assert (await ask(client)).keys() == {"chat_id", "response"}


async def test_details_add_up(client: httpx.AsyncClient) -> None:
    body = await ask(client, details=True)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 8
    assert body["finish_reason"] == "length"
    assert body["timing"]["batch_size"] >= 1


async def test_headers_carry_times_and_the_finish_reason(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json=ASK)
    assert answer.headers["x-finish-reason"] == "length"
    assert answer.headers["server-timing"].startswith("queue;dur=")
    assert "chat-id" not in answer.headers


async def test_a_stream_is_the_same_text_as_the_whole(client: httpx.AsyncClient) -> None:
    whole = await ask(client, max_tokens=40)
    streamed = await client.post("/generate", json={**ASK, "max_tokens": 40, "stream": True})
    *deltas, last, done = events_of(streamed.text)
    assert done == ("message", "[DONE]")
    assert "".join(data["delta"] for _, data in deltas) == last[1]["response"]
    assert last[1]["response"] == whole["response"]
    assert last[1].keys() == {"chat_id", "response", "finish_reason", "usage", "timing"}


async def test_the_accept_header_asks_for_a_stream_and_the_body_decides(
    client: httpx.AsyncClient,
) -> None:
    accept = {"Accept": "text/event-stream"}
    streamed = await client.post("/generate", json=ASK, headers=accept)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    whole = await client.post("/generate", json={**ASK, "stream": False}, headers=accept)
    assert whole.headers["content-type"] == "application/json"


async def test_a_seed_repeats_and_another_seed_differs(client: httpx.AsyncClient) -> None:
    sampled = {"temperature": 1.5, "max_tokens": 20}
    first = await ask(client, seed=1, **sampled)
    assert first == await ask(client, seed=1, **sampled)
    assert first != await ask(client, seed=2, **sampled)


async def test_a_stop_string_ends_the_answer_before_it(client: httpx.AsyncClient) -> None:
    whole = (await ask(client, max_tokens=30))["response"]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    cut = await ask(client, max_tokens=30, stop=stop, details=True)
    assert cut["response"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"


async def test_log_probabilities_are_given_for_each_token(client: httpx.AsyncClient) -> None:
    body = await ask(client, logprobs=2)
    assert len(body["logprobs"]) == 8
    for item in body["logprobs"]:
        assert item["logprob"] <= 0
        assert len(item["top"]) == 2
        assert item["logprob"] == pytest.approx(item["top"][0]["logprob"])


async def test_messages_and_prompts_make_the_same_prompt(client: httpx.AsyncClient) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": ASK["user_prompt"]},
    ]
    asked = {"messages": messages, "max_tokens": 8}
    answer = await client.post("/generate", json=asked)
    assert answer.json()["response"] == (await ask(client, system_prompt="be kind"))["response"]


async def test_without_a_chat_id_each_answer_gets_its_own(client: httpx.AsyncClient) -> None:
    asked = {"user_prompt": "hello", "max_tokens": 1}
    ids = {(await client.post("/generate", json=asked)).json()["chat_id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_batch_answers_in_order_as_each_alone(client: httpx.AsyncClient) -> None:
    queries = [{**ASK, "chat_id": str(i), "user_prompt": "hello " * (i + 1)} for i in range(12)]
    answer = await client.post("/generate/batch", json={"queries": queries})
    alone = [(await client.post("/generate", json=query)).json() for query in queries]
    assert answer.json() == alone


async def test_in_a_batch_only_the_bad_item_fails(client: httpx.AsyncClient) -> None:
    queries = [ASK, {**ASK, "chat_id": "2", "temperature": "hot"}, 7, {"user_prompt": ""}]
    answer = await client.post("/generate/batch", json={"queries": queries})
    good, bad, number, empty = answer.json()
    assert good.keys() == {"chat_id", "response"}
    assert (bad["chat_id"], bad["error"]["param"]) == ("2", "temperature")
    assert number["error"]["code"] == "invalid_value"
    assert empty["error"]["param"] == "user_prompt"


async def test_more_queries_than_the_limit_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate/batch", json={"queries": [ASK] * 65})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "queries"


async def test_an_answer_that_ends_at_a_stop_string_is_no_cancel(
    client: httpx.AsyncClient, tiny_host: Host
) -> None:
    before = dict(tiny_host.engine.stats.cancelled)
    text = (await ask(client, max_tokens=40))["response"]
    body = await ask(client, max_tokens=480, stop=text[3], details=True)
    assert body["finish_reason"] == "stop"
    await until(lambda: tiny_host.engine.stats.num_running == 0)
    assert tiny_host.engine.stats.cancelled == before


async def test_context_limits_are_exact(client: httpx.AsyncClient) -> None:
    used = (await ask(client, details=True))["usage"]["prompt_tokens"]
    answer = await client.post("/generate", json={**ASK, "max_tokens": 512 - used, "stop": " "})
    assert answer.status_code == 200
    answer = await client.post("/generate", json={**ASK, "max_tokens": 512 - used + 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert (error["limit"], error["count"], error["param"]) == (512, 513, "max_tokens")
    assert "512" in error["message"]


async def test_a_prompt_longer_than_the_context_names_the_prompt(
    client: httpx.AsyncClient,
) -> None:
    for text in ("x " * 600, "x" * 200_000):  # after encoding, and before it
        answer = await client.post("/generate", json={"user_prompt": text})
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "user_prompt")
        assert error["limit"] == 512
        # What is refused uncounted has no count, and says so.
        assert ("count" in error) != ("at least" in error["message"])
        assert error.get("count", 513) > 512


async def test_the_default_length_stays_inside_the_context(client: httpx.AsyncClient) -> None:
    body = {"user_prompt": "x " * 200, "details": True, "ignore": None}
    del body["ignore"]
    answer = (await client.post("/generate", json=body)).json()
    assert answer["usage"]["total_tokens"] <= 512
