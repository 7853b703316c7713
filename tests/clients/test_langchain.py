"""LangChain's `langchain-openai`, unchanged, against both servers."""

from collections.abc import Iterator

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "qna-demo"
ANSWER = "The capital of India is New Delhi."


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    return


@pytest.fixture
def chat(base_url: str) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=base_url, api_key="none", max_retries=0, timeout=60)


def test_invoke_answers_with_usage_and_metadata(chat: ChatOpenAI) -> None:
    made = chat.invoke(
        [SystemMessage("You are a helpful assistant."), HumanMessage("Capital of India?")]
    )
    assert made.content == ANSWER
    assert made.usage_metadata is not None
    assert made.usage_metadata["total_tokens"] == (
        made.usage_metadata["input_tokens"] + made.usage_metadata["output_tokens"]
    )
    assert made.response_metadata["finish_reason"] == "stop"
    assert made.response_metadata["model_name"] == MODEL
    assert made.response_metadata["system_fingerprint"].startswith("fp_")
    assert made.id.startswith("chatcmpl-") or made.response_metadata["id"].startswith("chatcmpl-")


def test_a_conversation_is_continued(chat: ChatOpenAI) -> None:
    before = [HumanMessage("Capital of India?"), AIMessage(ANSWER)]
    assert chat.invoke([*before, HumanMessage("And of Japan?")]).content == (
        "The capital of Japan is Tokyo."
    )


def test_a_stream_adds_up_and_ends_with_the_usage(chat: ChatOpenAI) -> None:
    whole = None
    pieces = 0
    for chunk in chat.stream("Capital of India?", stream_usage=True):
        whole = chunk if whole is None else whole + chunk
        pieces += bool(chunk.content)
    assert whole is not None and whole.content == ANSWER
    assert pieces > 1
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] > 0


def test_a_batch_answers_in_order(chat: ChatOpenAI) -> None:
    asked = [f"Capital of {country}?" for country in ("India", "France", "Japan")]
    cities = ["New Delhi", "Paris", "Tokyo"]
    for made, city in zip(chat.batch(asked), cities, strict=True):
        assert city in str(made.content)


@pytest.mark.anyio
async def test_async_invoke_stream_and_batch(chat: ChatOpenAI) -> None:
    assert (await chat.ainvoke("Capital of India?")).content == ANSWER
    text = ""
    async for chunk in chat.astream("Capital of India?"):
        text += str(chunk.content)
    assert text == ANSWER
    assert [made.content for made in await chat.abatch(["Capital of India?"] * 3)] == [ANSWER] * 3


def test_log_probabilities_are_in_the_metadata(chat: ChatOpenAI) -> None:
    made = chat.bind(logprobs=True, top_logprobs=1).invoke("Capital of India?")
    assert made.response_metadata["logprobs"]["content"][0]["logprob"] <= 0


def test_the_text_completion_class_works_too(base_url: str) -> None:
    model = OpenAI(
        model=MODEL, base_url=base_url, api_key="none", max_retries=0, max_tokens=4, temperature=0
    )
    whole = model.invoke("Capital of India?")
    assert "".join(model.stream("Capital of India?")) == whole


class City(BaseModel):
    name: str


def test_what_is_not_supported_is_said(chat: ChatOpenAI) -> None:
    for method, param in (("function_calling", "tools"), ("json_schema", "response_format")):
        with pytest.raises(openai.BadRequestError) as caught:
            chat.with_structured_output(City, method=method).invoke("Capital of India?")  # type: ignore[arg-type]
        assert caught.value.param == param
