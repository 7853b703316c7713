"""The prefix cache as callers see it: the bundled model over the real engine, by every door."""

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from model.config import BUNDLED_MODEL, BUNDLED_NAME
from model.host import Host
from tests.model.hosts import client_of, running, settings_for

pytestmark = pytest.mark.anyio
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
QUESTIONS = ["Capital of India?", "And of Japan?", "What is 12 + 30?", "double that"]
DOORS = ["/generate", "/generate/batch", f"/v1/models/{BUNDLED_NAME}:predict"]
CHAT = "/openai/v1/chat/completions"
TEXT = "/openai/v1/completions"


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[Host]:
    async with running(Host(settings_for(BUNDLED_MODEL))) as host:
        yield host


@pytest.fixture
async def client(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(host) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def chat(client: httpx.AsyncClient, salt: str) -> tuple[list[str], list[int]]:
    """The answers of one chat, and how much of each prompt was cached."""
    messages, answers, cached = [SYSTEM], [], []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        body = {"messages": messages, "details": True, "cache_salt": salt}
        turn = await post(client, "/generate", body)
        answers.append(turn["response"])
        cached.append(turn["usage"]["cached_tokens"])
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers, cached


async def test_later_turns_are_cached_and_answered_as_without_the_cache(
    client: httpx.AsyncClient,
) -> None:
    answers, cached = await chat(client, "turns")
    assert cached[0] == 0
    assert all(earlier < later for earlier, later in pairwise(cached))
    assert answers[0] == "The capital of India is New Delhi."
    again = await chat(client, "turns")
    assert again[0] == answers
    assert min(again[1]) > 0
    off = Host(settings_for(BUNDLED_MODEL, prefix_cache=False))
    async with running(off), client_of(off) as without:
        assert await chat(without, "turns") == (answers, [0] * len(QUESTIONS))


async def openai_cached(client: httpx.AsyncClient, path: str, salt: str | None) -> int:
    prompt = "one two three four five six seven eight nine ten " * 4
    asked = {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {}
    body = {"model": BUNDLED_NAME, "prompt": prompt, "max_tokens": 1, **asked}
    answer = await post(client, path, body | ({"cache_salt": salt} if salt else {}))
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_openais_usage_says_what_was_cached(path: str, client: httpx.AsyncClient) -> None:
    first, second = [await openai_cached(client, path, "a") for _ in range(2)]
    assert (first, second % 16) == (0, 0)
    assert second > 0
    for other in ("b", None):
        assert await openai_cached(client, path, other) == 0


@pytest.mark.parametrize("door", DOORS)
async def test_salts_share_nothing(door: str, client: httpx.AsyncClient) -> None:
    async def cached(salt: str | None) -> int:
        prompt = f"Which capital is this one, please tell me: {door}"
        item = {"system_prompt": SYSTEM["content"], "user_prompt": prompt, "details": True}
        item |= {"cache_salt": salt} if salt else {}
        body = {"/generate": item, "/generate/batch": {"queries": [item]}}
        answer = await post(client, door, body.get(door, {"instances": [item]}))
        if "predictions" in answer:
            answer = answer["predictions"]
        usage = (answer if door == "/generate" else answer[0])["usage"]
        return int(usage["cached_tokens"])

    salt = f"salt of {door}"
    assert await cached(salt) == 0
    assert await cached(salt) > 0
    assert await cached(f"another {salt}") == 0


async def test_metrics_count_tokens_asked_for_and_found(client: httpx.AsyncClient) -> None:
    async def totals() -> list[float]:
        text = (await client.get("/metrics")).text
        names = ("queries", "hits")
        found = [re.search(rf"^qna_prefix_cache_{n}_total (\S+)", text, re.M) for n in names]
        return [float(match[1]) for match in found if match]

    queries, hits = await totals()
    asked = {"user_prompt": "hello " * 20, "details": True, "cache_salt": "metrics"}
    usages = [(await post(client, "/generate", asked))["usage"] for _ in range(2)]
    assert usages[1]["cached_tokens"] > 0
    assert await totals() == [
        queries + sum(usage["prompt_tokens"] for usage in usages),
        hits + usages[1]["cached_tokens"],
    ]
