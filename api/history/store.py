"""What a store of chats promises, without saying how.

A turn is a question and its answer. It is stored as `pending` before the answer begins and ends
in exactly one of `complete`, `interrupted` or `failed`. While it is pending its writer holds the
chat's lease; nobody else can begin a turn there. A writer that lost its lease (it was stopped for
too long) cannot end its turn any more.

Every chat belongs to an `owner`; nothing is ever looked up without one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class StoreError(Exception):
    """The store cannot be opened; the message is one line for the operator."""


class LeaseLost(Exception):
    """The turn was ended by somebody else, because this process did not renew its lease."""


class TurnStatus(StrEnum):
    PENDING = "pending"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A complete turn, as far as a prompt needs it. `tokens` is what it takes in one."""

    user_prompt: str
    response: str
    tokens: int


@dataclass(frozen=True, slots=True)
class StartedTurn:
    owner: str
    chat_id: str
    turn_id: str
    position: int
    system_prompt: str | None
    past: tuple[PastTurn, ...]
    past_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOutcome:
    status: TurnStatus
    response: str | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    own_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    position: int
    status: TurnStatus
    system_prompt: str | None
    user_prompt: str
    response: str | None
    finish_reason: str | None
    error_code: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    request_id: str
    created_ms: int
    finished_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatHead:
    chat_id: str
    system_prompt: str | None
    created_ms: int
    updated_ms: int
    turns: int


class ChatStore(Protocol):
    async def open(self) -> None:
        """Make the schema current and end the turns of dead processes. StoreError when that
        fails.
        """

    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raise StoreUnavailable unless the store answers."""

    async def begin_turn(
        self,
        owner: str,
        chat_id: str,
        *,
        user_prompt: str,
        system_prompt: str | None,
        request_id: str,
        max_past: int,
    ) -> StartedTurn:
        """Take the chat's lease and store the question, in one commit. ChatBusy when it is
        taken.
        """

    async def end_turn(self, turn: StartedTurn, outcome: TurnOutcome) -> None:
        """Store how the turn ended and give the lease back, in one commit. LeaseLost when too
        late.
        """

    async def list_chats(
        self, owner: str, limit: int, before: tuple[int, str] | None
    ) -> Sequence[ChatHead]:
        """Latest first; `before` is the `(updated_ms, chat_id)` of the last one that was seen."""

    async def get_chat(self, owner: str, chat_id: str) -> ChatHead | None: ...

    async def list_turns(self, owner: str, chat_id: str, limit: int, after: int) -> Sequence[Turn]:
        """In order, those with a position greater than `after`."""

    async def delete_chat(self, owner: str, chat_id: str) -> bool:
        """False when there is none. ChatBusy while it is being answered."""
