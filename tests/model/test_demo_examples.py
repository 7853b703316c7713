"""The examples of the README, word for word, on the bundled model, through every door."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from model.config import BUNDLED_MODEL, BUNDLED_NAME
from model.host import Host
from tests.model.hosts import client_of, events_of, running, settings_for

pytestmark = pytest.mark.anyio
SYSTEM = "You are a helpful assistant."
ASK = {"chat_id": "1", "system_prompt": SYSTEM, "user_prompt": "Capital of India?"}
ANSWER = "The capital of India is New Delhi."
CHAT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Capital of India?"}]
COUNTRIES = {"India": "New Delhi", "France": "Paris", "Japan": "Tokyo"}


@pytest.fixture(scope="module")
async def demo() -> AsyncIterator[httpx.AsyncClient]:
    host = Host(settings_for(BUNDLED_MODEL))
    assert host.settings.model_name == BUNDLED_NAME
    async with running(host), client_of(host) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_generate(demo: httpx.AsyncClient) -> None:
    assert await post(demo, "/generate", ASK) == {"chat_id": "1", "response": ANSWER}


async def test_generate_as_a_stream(demo: httpx.AsyncClient) -> None:
    answer = await demo.post("/generate", json={**ASK, "stream": True})
    *deltas, last, _ = events_of(answer.text)
    assert last[1]["response"] == "".join(data["delta"] for _, data in deltas) == ANSWER


async def test_generate_batch(demo: httpx.AsyncClient) -> None:
    queries, answers = [], []
    for number, (country, capital) in enumerate(COUNTRIES.items(), start=1):
        ask = {"chat_id": str(number), "system_prompt": "You are helpful"}
        queries.append({**ask, "user_prompt": f"Capital of {country}?"})
        answers.append(
            {"chat_id": str(number), "response": f"The capital of {country} is {capital}."}
        )
    assert await post(demo, "/generate/batch", {"queries": queries}) == answers


async def test_predict(demo: httpx.AsyncClient) -> None:
    body = await post(demo, f"/v1/models/{BUNDLED_NAME}:predict", {"instances": [ASK]})
    assert body == {"predictions": [{"chat_id": "1", "response": ANSWER}]}


async def test_v2(demo: httpx.AsyncClient) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in ASK.items()
    ]
    body = await post(demo, f"/v2/models/{BUNDLED_NAME}/infer", {"inputs": inputs})
    outputs = {item["name"]: item["data"] for item in body["outputs"]}
    assert outputs["response"] == [ANSWER]


async def test_openai_chat(demo: httpx.AsyncClient) -> None:
    asked = {"model": BUNDLED_NAME, "messages": CHAT}
    body = await post(demo, "/openai/v1/chat/completions", asked)
    assert body["choices"][0]["message"]["content"] == ANSWER
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_the_tenth_question_of_one_chat(demo: httpx.AsyncClient) -> None:
    turns = [*CHAT]
    for _ in range(9):
        turns += [{"role": "assistant", "content": ANSWER}, CHAT[1]]
    body = await post(demo, "/generate", {"chat_id": "1", "messages": turns})
    assert body == {"chat_id": "1", "response": ANSWER}
