"""The official `openai` package, sync and async, unchanged, against both servers."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.clients.conftest import Servers, StartApi

MODEL = "qna-demo"
ANSWER = "The capital of India is New Delhi."
ASK: list[ChatCompletionMessageParam] = [
    {"role": "developer", "content": "You are a helpful assistant."},
    {"role": "user", "content": [{"type": "text", "text": "Capital of India?"}]},
]
# Never ends by itself: a request that is still there when the next one comes.
ENDLESS: Any = {"ignore_eos": True, "max_tokens": 900}


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_a_chat_with_everything_that_clients_send(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        max_completion_tokens=64,
        temperature=0,
        top_p=1,
        n=1,
        seed=1,
        stop=["\n"],
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        tools=[],
        parallel_tool_calls=False,
        user="somebody",
        metadata={"team": "a"},
        store=False,
        service_tier="auto",
    )
    assert made.id.startswith("chatcmpl-")
    assert made.object == "chat.completion"
    assert abs(made.created - time.time()) < 60
    assert made.model == MODEL
    assert made.system_fingerprint is not None and made.system_fingerprint.startswith("fp_")
    assert made.choices[0].message.content == ANSWER
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_stream_ends_with_the_usage_and_names_one_completion(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert len({(chunk.id, chunk.created, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_several_answers_come_whole_or_each_under_its_index(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "n": 3, "seed": 7, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = ["", "", ""]
    ends = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends.append((choice.index, choice.finish_reason))
    assert texts == [choice.message.content for choice in whole.choices] == [ANSWER] * 3
    assert sorted(ends) == [(index, "stop") for index in range(3)]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_spell_the_answer(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "logprobs": True, "top_logprobs": 2}
    if stream:
        chunks = client.chat.completions.create(**asked, stream=True)
        choices = [choice for chunk in chunks for choice in chunk.choices]
    else:
        choices = client.chat.completions.create(**asked).choices
    items = [item for choice in choices if choice.logprobs for item in choice.logprobs.content]
    text = b"".join(bytes(item.bytes) for item in items).decode()
    assert text.startswith(ANSWER)
    assert all(item.logprob <= 0 and len(item.top_logprobs) == 2 for item in items)


def test_a_stop_string_and_a_limit_end_an_answer(client: openai.OpenAI) -> None:
    stopped = client.chat.completions.create(model=MODEL, messages=ASK, stop="New")
    assert stopped.choices[0].message.content == "The capital of India is "
    assert stopped.choices[0].finish_reason == "stop"
    short = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None and short.usage.completion_tokens == 2


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "temperature": 2.0, "max_tokens": 40}
    texts = [
        client.chat.completions.create(**asked, seed=seed).choices[0].message.content
        for seed in (5, 5, 6)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_text_completions_take_texts_and_token_ids(client: openai.OpenAI) -> None:
    limit: Any = {"model": MODEL, "max_tokens": 4, "extra_body": {"ignore_eos": True}}
    one = client.completions.create(prompt="Capital of India?", **limit)
    assert one.id.startswith("cmpl-") and one.object == "text_completion"
    assert one.system_fingerprint is not None
    two = client.completions.create(prompt=["Capital of India?", "Hello"], n=2, **limit)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    ids = client.completions.create(prompt=[5, 6, 7], **limit)
    assert ids.usage is not None and ids.usage.prompt_tokens == 3
    lists = client.completions.create(prompt=[[5, 6, 7], [8]], **limit)
    assert lists.usage is not None and lists.usage.prompt_tokens == 4
    assert lists.choices[0].text == ids.choices[0].text
    scored = client.completions.create(prompt="Capital", logprobs=2, **limit)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None and len(logprobs.tokens or ()) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_puts_the_prompt_before_the_answer(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"model": MODEL, "prompt": ["Capital of India?", "Hello"], "max_tokens": 4}
    plain = client.completions.create(**asked, n=2)
    if stream:
        texts = [""] * 4
        for chunk in client.completions.create(**asked, n=2, echo=True, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
    else:
        echoed = client.completions.create(**asked, n=2, echo=True)
        texts = [choice.text for choice in echoed.choices]
    prompts = [prompt for prompt in asked["prompt"] for _ in range(2)]
    assert texts == [
        prompt + choice.text for prompt, choice in zip(prompts, plain.choices, strict=True)
    ]


def test_token_ids_are_echoed_as_what_they_say(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": [70, 71, 72], "max_tokens": 1, "echo": True}
    first = client.completions.create(**asked).choices[0].text
    assert client.completions.create(**asked | {"prompt": [[70, 71, 72]]}).choices[0].text == first
    asked["extra_body"] = {"ignore_eos": True}
    without = client.completions.create(**asked | {"echo": False}).choices[0].text
    assert client.completions.create(**asked).choices[0].text.removesuffix(without)


def test_models_are_listed_and_an_unknown_one_is_not_found(client: openai.OpenAI) -> None:
    (listed,) = client.models.list()
    assert (listed.id, listed.object, listed.owned_by) == (MODEL, "model", "qna")
    assert client.models.retrieve(MODEL) == listed
    for unknown in ("gpt-9", "meta-llama/Llama-9", "a/b/c", "../x", "caf\u00e9"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(unknown)
        assert caught.value.code == "model_not_found", unknown


def test_the_raw_response_has_the_headers_and_the_request_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert "prefill;dur=" in raw.headers["server-timing"]
    parsed = raw.parse()
    assert parsed._request_id == "mine-1"
    assert parsed.choices[0].message.content == ANSWER


def test_the_streaming_response_is_read_as_it_comes(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASK, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "chat.completion.chunk"


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"n": 99}, "n", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"max_tokens": 100_000}, "max_tokens", "context_length_exceeded"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported"),
    ],
)
def test_a_wrong_field_is_a_bad_request_that_names_it(
    client: openai.OpenAI, wrong: Any, param: str, code: str
) -> None:
    for more in ({}, {"stream": True}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": MODEL, "messages": ASK, **wrong, **more})
        error = caught.value
        assert (error.status_code, error.param, error.code) == (400, param, code)
        assert error.type == "invalid_request_error"
        assert error.request_id == error.body["request_id"]  # type: ignore[index]


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_deadline_that_passes_is_the_servers_error_and_the_clients_own_is_a_timeout(
    client: openai.OpenAI,
) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "extra_body": ENDLESS}
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**asked, extra_headers={"X-Request-Timeout-Ms": "50"})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**asked, timeout=0.1)


def test_a_host_that_is_away_is_the_servers_error(start_api: StartApi) -> None:
    url = start_api("http://127.0.0.1:9", API_RETRY_ATTEMPTS="0")
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "model_host_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_busy_server_is_a_rate_limit_and_its_retry_after_is_honoured(
    servers: Servers, start_api: StartApi
) -> None:
    url = start_api(servers.host, API_MAX_IN_FLIGHT="1", API_MAX_QUEUED="0")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        busy = client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, extra_body=ENDLESS
        )
        next(iter(busy))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=ASK)
        assert caught.value.code == "overloaded"
        wait = float(caught.value.response.headers["retry-after"])
        threading.Timer(0.2, busy.close).start()
        started = time.monotonic()
        patient = client.with_options(max_retries=3)
        made = patient.chat.completions.create(model=MODEL, messages=ASK)
        assert made.choices[0].message.content == ANSWER
        assert time.monotonic() - started >= wait * 0.9


@pytest.mark.anyio
async def test_the_async_client_asks_streams_and_fails_alike(base_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        made = await client.chat.completions.create(model=MODEL, messages=ASK)
        assert made.choices[0].message.content == ANSWER
        text = ""
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        assert text == ANSWER
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK)
        assert raw.parse().choices[0].message.content == ANSWER
        async with client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=ASK
        ) as response:
            assert (await response.parse()).choices[0].message.content == ANSWER
        assert [model.id async for model in client.models.list()] == [MODEL]
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=MODEL, messages=ASK, temperature=3)
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="gpt-9", prompt="x")
