"""The bodies that clients send and get: shapes and bounds (a wrong one is named by api.validation).

The rules for sampling fields are the model host's, written a second time because the two processes
share no code; tests/contract holds them together.
"""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

MAX_BATCH = 64
MAX_TIMEOUT_MS = 3_600_000


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "must not hold a NUL character")
    return text


def _no_controls(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise PydanticCustomError("controls", "must not hold control characters")
    return text


def _not_a_step(text: str) -> str:
    """Browsers take these out of an address, percent-encoded or not."""
    if text in (".", ".."):
        raise PydanticCustomError("step", "must be something else than . and ..")
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
ChatId = Annotated[
    str,
    Field(min_length=1, max_length=256),
    AfterValidator(_no_nul),
    AfterValidator(_not_a_step),
]
Title = Annotated[
    str,
    Field(min_length=1, max_length=200),
    AfterValidator(_no_controls),
    AfterValidator(_not_blank),
]
Question = Annotated[str, Field(min_length=1), AfterValidator(_no_nul), AfterValidator(_not_blank)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class AnswerOptions(Strict):
    """How an answer is made and told, whatever the question."""

    model: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_no_nul)] | None = (
        Field(None, description="A model that GET /v1/models lists; absent: the first one.")
    )
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stop: Annotated[list[str] | None, PlainValidator(_stop), WithJsonSchema(_STOP_SCHEMA)] = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=1e-3, le=2)
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
        question = {"chat_id", "system_prompt", "user_prompt", "position", "model"}
        form = {"details", "timeout_ms", "stream"}
        return self.model_dump(exclude=question | form, exclude_none=True)


Stream = Annotated[
    bool | None,
    Field(description="Answer as server-sent events; so does Accept: text/event-stream."),
]


class ChatItem(AnswerOptions):
    """One question of a batch."""

    chat_id: ChatId | None = Field(None, description="Names the chat; absent: a new one is made.")
    system_prompt: Text | None = Field(
        None, description="For this turn and the next ones; absent: the chat's last one."
    )
    user_prompt: Question


class ChatQuery(ChatItem):
    """One question."""

    stream: Stream = None


class RegenerateQuery(AnswerOptions):
    """How the chat's last question is to be answered again; `{}` asks for nothing special."""

    position: int | None = Field(
        None,
        ge=0,
        le=2**63 - 1,
        description="The turn that is meant. 409 chat_moved_on when the chat's last one is another "
        "by now; absent: the last one, whichever it is.",
    )
    stream: Stream = None


class RenameQuery(Strict):
    title: Title


class BranchQuery(Strict):
    before: int = Field(
        ge=0,
        le=2**63 - 1,
        description="The new chat gets copies of all complete turns before this position.",
    )
    chat_id: ChatId | None = Field(
        None, description="Names the new chat; absent: a name is made. 409 when there is one."
    )


class ChatBatch(Strict):
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


TurnStatus = Literal["pending", "complete", "interrupted", "failed", "replaced"]


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
    replaces: int | None = Field(
        description="The position of the turn that this one is another attempt at; of the two "
        "one has the status replaced."
    )


class BranchedFrom(BaseModel):
    chat_id: str
    position: int


class ChatSummary(BaseModel):
    chat_id: str
    title: str = Field(description="Given by a person, else made from the first question.")
    branched_from: BranchedFrom | None
    created_at: str
    updated_at: str
    turns: int


class ChatList(BaseModel):
    chats: list[ChatSummary]
    next_cursor: str | None = Field(
        description="Pass as ?cursor= for the next page; null: this was the last one."
    )


class ChatView(ChatSummary):
    system_prompt: str | None
    items: list[TurnView]
    next_cursor: str | None


# Bodies that the OpenAPI document would not know by itself, because routes read them themselves.
BODIES: tuple[type[BaseModel], ...] = (
    ChatQuery,
    ChatBatch,
    ChatItem,
    ChatView,
    RegenerateQuery,
    RenameQuery,
    BranchQuery,
)
