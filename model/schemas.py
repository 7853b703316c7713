"""The bodies of /generate, /generate/batch and :predict, and what they answer.

Owns their fields; the sampling fields and their ranges are in `fields.py`. Types are strict: "1"
is no number, true is not 1, an unknown field is refused. Knows no engine and no tokenizer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from model.errors import InvalidRequest, MissingField
from model.fields import Logprobs, SamplingFields, Strict, Text

MAX_MESSAGES = 4096


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("text_blank", "must not be empty or white space only")
    return text


Prompt = Annotated[Text, AfterValidator(_not_blank)]
ChatId = Annotated[Text, Field(min_length=1, max_length=256)]


class Sampling(SamplingFields, Strict):
    logprobs: Logprobs | None = None


class Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]


class Query(Sampling):
    """One question: the item of /generate/batch and of :predict."""

    chat_id: ChatId | None = None
    system_prompt: Text | None = None
    user_prompt: Prompt | None = None
    messages: Messages | None = None
    details: bool | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.messages is None:
            if self.user_prompt is None:
                raise MissingField("user_prompt: this field is required", param="user_prompt")
            return self
        if self.user_prompt is not None:
            raise InvalidRequest("give user_prompt or messages, not both", param="messages")
        if self.system_prompt is not None:
            raise InvalidRequest(
                "give the system prompt as the first of the messages", param="system_prompt"
            )
        check_last(self.messages)
        return self

    def as_messages(self) -> list[Message]:
        if self.messages is not None:
            return list(self.messages)
        system = [Message(role="system", content=self.system_prompt)] if self.system_prompt else []
        return [*system, Message(role="user", content=self.user_prompt or "")]

    @property
    def prompt_param(self) -> str:
        return "user_prompt" if self.messages is None else "messages"


def check_last(messages: list[Message]) -> None:
    last = len(messages) - 1
    if messages[last].role != "user":
        raise InvalidRequest("the last message must be the user's", param=f"messages[{last}].role")
    if not messages[last].content.strip():
        raise InvalidRequest(
            "the last message must not be empty or white space only",
            param=f"messages[{last}].content",
        )


class GenerateRequest(Query):
    stream: bool | None = None


class BatchRequest(Strict):
    queries: list[Any] = Field(min_length=1)


class PredictRequest(Strict):
    instances: list[Any] = Field(min_length=1)


# --- answers: for the OpenAPI document and for the tests that hold answers against it ---------


class Usage(Strict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class Timing(Strict):
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    batch_size: int


class TopLogprob(Strict):
    token: str
    logprob: float


class Logprob(TopLogprob):
    top: list[TopLogprob]


class Error(Strict):
    message: str
    type: str
    code: str
    param: str | None
    request_id: str
    limit: int | None = None
    count: int | None = None
    retry_after_s: int | None = None


class ErrorResponse(Strict):
    error: Error


class GenerateResponse(Strict):
    chat_id: str
    response: str
    finish_reason: str | None = None
    usage: Usage | None = None
    timing: Timing | None = None
    logprobs: list[Logprob] | None = None


class FailedQuery(Strict):
    chat_id: str
    error: Error


class PredictResponse(Strict):
    predictions: list[GenerateResponse | FailedQuery]
