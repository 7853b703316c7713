"""The bodies that clients send and get: shapes, bounds and how a wrong one is named.

The rules for sampling fields are the model host's, written a second time because the two processes
share no code; tests/contract holds them together. Validation never quotes what it refuses.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from api.errors import InvalidRequest

MAX_BATCH = 64
MAX_TIMEOUT_MS = 3_600_000
_DIGITS = re.compile(r"[0-9]{1,7}")
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "must not hold a NUL character")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must hold more than white space")
    return text


def _stop(value: object) -> list[str] | None:
    if value is None:
        return None
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > 4:
        raise PydanticCustomError("stop", "must be a string or a list of at most 4 strings")
    for index, item in enumerate(items):
        if not isinstance(item, str) or not 1 <= len(item) <= 256 or "\0" in item:
            path = "stop" if isinstance(value, str) else f"stop[{index}]"
            raise PydanticCustomError(
                "stop", "must be a string of 1 to 256 characters", {"path": path}
            )
    return items


_STOP_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 256},
        {
            "type": "array",
            "maxItems": 4,
            "items": {"type": "string", "minLength": 1, "maxLength": 256},
        },
        {"type": "null"},
    ],
    "description": "Text that ends the answer; it is not part of it.",
}

Text = Annotated[str, AfterValidator(_no_nul)]
ChatId = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_no_nul)]
Question = Annotated[str, Field(min_length=1), AfterValidator(_no_nul), AfterValidator(_not_blank)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ChatItem(_Strict):
    """One question of a batch."""

    chat_id: ChatId | None = Field(None, description="Names the chat; absent: a new one is made.")
    system_prompt: Text | None = Field(
        None, description="For this turn and the next ones; absent: the chat's last one."
    )
    user_prompt: Question
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stop: Annotated[list[str] | None, PlainValidator(_stop), WithJsonSchema(_STOP_SCHEMA)] = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    logprobs: int | None = Field(None, ge=0, le=20)
    details: bool | None = Field(
        None, description="Adds finish_reason, usage, timing and history to the answer."
    )
    timeout_ms: int | None = Field(
        None,
        ge=1,
        le=MAX_TIMEOUT_MS,
        description="How long the answer may take. The smallest of this, the header "
        "X-Request-Timeout-Ms and the server's own limit (API_REQUEST_TIMEOUT_S) holds: a caller "
        "may shorten that limit, not exceed it.",
    )

    def sampling(self) -> dict[str, Any]:
        """The fields that go to the model host as they are."""
        own = {"chat_id", "system_prompt", "user_prompt", "details", "timeout_ms", "stream"}
        return self.model_dump(exclude=own, exclude_none=True)


class ChatQuery(ChatItem):
    """One question."""

    stream: bool | None = Field(
        None, description="Answer as server-sent events; so does Accept: text/event-stream."
    )


class ChatBatch(_Strict):
    """Items are checked one by one when they run, so that only the bad one fails."""

    chats: list[Any] = Field(min_length=1, max_length=MAX_BATCH)


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


class Timing(BaseModel):
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    batch_size: int


class HistoryUse(BaseModel):
    turns_sent: int = Field(description="Earlier turns that went to the model with the question.")
    turns_dropped: int = Field(description="Older turns that were left out for want of room.")


class ErrorBody(BaseModel):
    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    code: str
    param: str | None
    request_id: str
    retry_after_s: int | None = Field(
        None, description="In an item of a batch, which has no Retry-After header of its own."
    )


class ErrorEnvelope(BaseModel):
    error: ErrorBody


class ChatAnswer(BaseModel):
    chat_id: str
    response: str
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None
    timing: Timing | None = None
    history: HistoryUse | None = None
    logprobs: list[Any] | None = None


class ChatFailure(BaseModel):
    chat_id: str
    error: ErrorBody


TurnStatus = Literal["pending", "complete", "interrupted", "failed"]


class TurnView(BaseModel):
    position: int
    status: TurnStatus
    system_prompt: str | None
    user_prompt: str
    response: str | None
    finish_reason: str | None
    error_code: str | None
    usage: Usage | None
    request_id: str
    created_at: str
    finished_at: str | None


class ChatSummary(BaseModel):
    chat_id: str
    created_at: str
    updated_at: str
    turns: int


class ChatList(BaseModel):
    chats: list[ChatSummary]
    next_cursor: str | None = Field(description="Pass as ?cursor= for the next page.")


class ChatView(ChatSummary):
    system_prompt: str | None
    items: list[TurnView]
    next_cursor: str | None


M = TypeVar("M", bound=BaseModel)


def parse_json(body: bytes) -> Any:
    """orjson refuses NaN, infinity, lone surrogates, invalid UTF-8 and nesting without end."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not valid JSON", code="invalid_json") from None


def validate(model: type[M], value: object) -> M:
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _named(error.errors(include_url=False, include_input=False)[0]) from None


def _named(error: ErrorDetails) -> InvalidRequest:
    path = error.get("ctx", {}).get("path") or _path(error["loc"])
    label = path or "a field"
    if error["type"] == "extra_forbidden":
        return InvalidRequest(f"{label}: unknown field", code="unknown_field", param=path)
    if error["type"] == "missing":
        return InvalidRequest(f"{label}: this field is required", code="missing_field", param=path)
    text = error["msg"].removeprefix("Input ")
    return InvalidRequest(f"{label}: {text[:1].lower()}{text[1:]}", param=path)


def _path(location: tuple[int | str, ...]) -> str | None:
    """`("stop", 1)` is `stop[1]`. A name that the client made up is given back only if it is a
    plain one.
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _NAME.match(part):
            path += f".{part}" if path else part
        else:
            return None
    return path or None


def timeout_header(value: str | None) -> float | None:
    """`X-Request-Timeout-Ms` in seconds."""
    if value is None:
        return None
    if not (_DIGITS.fullmatch(value) and 1 <= int(value) <= MAX_TIMEOUT_MS):
        raise InvalidRequest(
            f"X-Request-Timeout-Ms: must be a whole number from 1 to {MAX_TIMEOUT_MS}",
            param="X-Request-Timeout-Ms",
        )
    return int(value) / 1000
