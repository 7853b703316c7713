"""The bodies of /generate, /generate/batch and :predict, and what they answer.

Owns fields, types and ranges. Types are strict: "1" is no number, true is not 1, an unknown field
is refused. Knows no engine and no tokenizer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from model.errors import InvalidRequest, MissingField

MAX_MESSAGES = 4096
MAX_SEED = 2**63 - 1
MAX_STOPS = 4
MAX_STOP_LENGTH = 256


def _no_nul(text: str) -> str:
    # No terminal, log or database downstream treats NUL as a character like any other.
    if "\0" in text:
        raise PydanticCustomError("text_nul", "must not contain the character NUL")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("text_blank", "must not be empty or white space only")
    return text


def _stops(value: Any) -> Any:
    """One string or a list of them; a list afterwards. The path names an item only in a list."""
    if not isinstance(value, str):
        return value
    if not 1 <= len(value) <= MAX_STOP_LENGTH:
        raise PydanticCustomError("text_length", f"must have 1 to {MAX_STOP_LENGTH} characters")
    return [_no_nul(value)]


Text = Annotated[str, AfterValidator(_no_nul)]
Prompt = Annotated[Text, AfterValidator(_not_blank)]
ChatId = Annotated[Text, Field(min_length=1, max_length=256)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[
    list[Stop],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_stops),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH},
                {
                    "type": "array",
                    "maxItems": MAX_STOPS,
                    "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH},
                },
            ]
        }
    ),
]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Sampling(Strict):
    """A field that is absent takes the model's own value, greedy when the model has none."""

    max_tokens: int | None = Field(None, ge=1, description="at most min(512, what is left)")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="0 is off")
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    stop: Stops | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    logprobs: int | None = Field(None, ge=0, le=20)
    timeout_ms: int | None = Field(None, ge=1, le=3_600_000)


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
