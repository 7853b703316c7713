"""OpenAI's routes: what they offer beside /generate, and what they refuse."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from model.engine import FinishReason
from model.host import Host
from model.openai_schemas import ChatCompletionRequest
from model.parsing import validate
from tests.model.fakes import FakeEngine, load_scripted, output
from tests.model.hosts import (
    MODEL_NAME,
    byte_level,
    client_of,
    events_of,
    running,
    settings_for,
)

pytestmark = pytest.mark.anyio
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = ("/openai/v1/chat/completions", {"messages": MESSAGES})
TEXT = ("/openai/v1/completions", {"prompt": "hello"})


@pytest.mark.parametrize(("path", "prompt"), [CHAT, TEXT])
async def test_min_tokens_and_ignore_eos_reach_the_engine(path: str, prompt: Any) -> None:
    word = output(byte_level().encode("hello"))
    engine = FakeEngine([word, output(finish_reason=FinishReason.STOP)])
    host = Host(settings_for(Path("fake"), model_name="fake"), engine, load_scripted)
    async with running(host), client_of(host) as client:
        body = {"model": "fake", **prompt}
        for fields in ({}, {"min_tokens": 3, "ignore_eos": True}):
            assert (await client.post(path, json={**body, **fields})).status_code == 200
    asked = [(params.min_tokens, params.ignore_eos) for params in engine.params]
    assert asked == [(0, False), (3, True)]


@pytest.mark.parametrize(("path", "prompt"), [CHAT, TEXT])
@pytest.mark.parametrize("fields", [{"min_tokens": 9}, {"min_tokens": -1}, {"ignore_eos": 1}])
async def test_a_wrong_one_is_named(
    path: str, prompt: Any, fields: dict[str, Any], client: httpx.AsyncClient
) -> None:
    body = {"model": MODEL_NAME, "max_tokens": 8, **prompt, **fields}
    answer = await client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_value")
    assert error["param"] == next(iter(fields))


async def test_no_stop_string_ends_an_answer_before_min_tokens(client: httpx.AsyncClient) -> None:
    path, prompt = TEXT
    body = {"model": MODEL_NAME, "max_tokens": 16, "ignore_eos": True, **prompt}
    text = (await client.post(path, json=body)).json()["choices"][0]["text"]
    stopped = (await client.post(path, json={**body, "stop": text[0]})).json()
    assert stopped["choices"][0]["text"] == ""
    later = (await client.post(path, json={**body, "stop": text[0], "min_tokens": 5})).json()
    assert later["choices"][0]["text"].startswith(text[0])
    assert later["usage"]["completion_tokens"] > 5


async def test_prompts_times_n_is_what_has_a_limit(client: httpx.AsyncClient) -> None:
    path, _ = TEXT
    body = {"model": MODEL_NAME, "prompt": ["hello"] * 9, "n": 8, "max_tokens": 1}
    error = (await client.post(path, json=body)).json()["error"]
    assert error["param"] == "prompt"
    assert error["message"].startswith("prompt: 9 prompts with n = 8 make 72 choices; at most 64")


async def test_prompts_are_counted_before_any_is_looked_at(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL_NAME, "prompt": [[1]] * 200_000 + [{}]}
    error = (await client.post(TEXT[0], json=body)).json()["error"]
    assert error["param"] == "prompt"
    assert "at most 64 can be asked for" in error["message"]


async def test_token_ids_are_a_prompt_and_are_taken_as_they_are(client: httpx.AsyncClient) -> None:
    path, _ = TEXT
    ids = byte_level().encode("hello")
    body = {"model": MODEL_NAME, "max_tokens": 4, "ignore_eos": True}
    for flag in (None, True, False):
        asked = {**body, "prompt": ids, "add_special_tokens": flag}
        answer = (await client.post(path, json=asked)).json()
        assert answer["usage"]["prompt_tokens"] == len(ids)
    as_text = (await client.post(path, json={**body, "prompt": "hello"})).json()
    assert answer["choices"][0]["text"] == as_text["choices"][0]["text"]
    several = (await client.post(path, json={**body, "prompt": [ids, [*ids, ids[0]]]})).json()
    assert several["usage"]["prompt_tokens"] == 2 * len(ids) + 1
    assert several["choices"][0]["text"] == as_text["choices"][0]["text"]


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([1, -1], "prompt[1]"),
        ([1, 10**6], "prompt[1]"),
        ([[1], [2, 10**30]], "prompt[1][1]"),
        ([1, 2.5], "prompt[1]"),
        ([1, True], "prompt[1]"),
        ([], "prompt"),
        ([[]], "prompt[0]"),
    ],
)
async def test_a_token_id_that_is_none_is_named(
    prompt: Any, param: str, client: httpx.AsyncClient
) -> None:
    answer = await client.post(TEXT[0], json={"model": MODEL_NAME, "prompt": prompt})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param


def test_what_a_chats_texts_were_made_from_is_let_go() -> None:
    parts = [{"type": "text", "text": "a"}] * 3
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    asked = validate(ChatCompletionRequest, body)
    assert [item.content for item in asked.take_texts()] == ["aaa"]
    assert asked.messages == []


async def test_a_stream_ends_with_the_usage_that_was_asked_for(client: httpx.AsyncClient) -> None:
    body = {
        "model": MODEL_NAME,
        "prompt": byte_level().encode("hello"),
        "max_tokens": 5,
        "min_tokens": 5,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        # What `vllm bench serve` sends as well.
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "logprobs": None,
    }
    text = (await client.post(TEXT[0], json=body)).text
    *_, (_, last), (_, done) = events_of(text)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_too_many_new_tokens_are_named_as_the_caller_names_them(
    client: httpx.AsyncClient, name: str
) -> None:
    body = {"model": MODEL_NAME, "messages": MESSAGES, name: 1_000_000}
    answer = await client.post("/openai/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", name)
