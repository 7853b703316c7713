"""What a store of chats promises, without saying how.

A turn is a question and its answer. It is stored as `pending` before the answer begins and ends
in exactly one of `complete`, `interrupted` or `failed`. While it is pending its writer holds the
chat's lease; nobody else can begin a turn there. A writer that lost its lease (it was stopped for
too long) cannot end its turn any more.

A question may be asked again. The new attempt is a turn of its own that `replaces` the one before;
of the two the better one stands and the other is `replaced`: it is kept, but neither sent to a
model nor counted nor searched, and listed only on demand.

Every chat belongs to an `owner`; nothing is ever looked up without one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from api.history.sizes import PAGE_BYTES


class StoreError(Exception):
    """The store cannot be opened; the message is one line for the operator."""


class LeaseLost(Exception):
    """The turn was ended by somebody else, because this process did not renew its lease."""


class TurnStatus(StrEnum):
    PENDING = "pending"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A complete turn, as far as a prompt needs it. `tokens` is what it takes in one."""

    user_prompt: str
    response: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Once:
    """An Idempotency-Key: `fingerprint` is of the request that it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StartedTurn:
    owner: str
    chat_id: str
    turn_id: str
    position: int
    system_prompt: str | None
    user_prompt: str
    past: tuple[PastTurn, ...]
    past_left_out: int
    replaces: int | None = None
    once: Once | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the request of the same Idempotency-Key was answered. `rest` is what the turn itself
    does not hold, as TurnOutcome.rest gave it.
    """

    chat_id: str
    response: str
    rest: str


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
    rest: str = "{}"
    """Of the answer what is kept for the Idempotency-Key alone, as JSON."""
    withdrawn: bool = False
    """Refused before anything was said: leave nothing behind, where nothing depends on it."""


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
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a chat was branched from; that chat may be gone by now."""

    chat_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatHead:
    chat_id: str
    title: str
    system_prompt: str | None
    created_ms: int
    updated_ms: int
    turns: int
    begun: int
    """Turns that were ever begun in it: those that stand, and those that were replaced."""
    branched_from: Branch | None = None

    @property
    def place(self) -> tuple[int, str]:
        return (self.updated_ms, self.chat_id)


Place = tuple[int, str] | tuple[int, str, int]
"""Of a chat in the list, and in a search of the turn in it that was looked through last."""


@dataclass(frozen=True, slots=True)
class ChatPage:
    """`last` is where the next page begins, None when there is none. A page of a search may hold
    fewer chats than asked for, or none, and still not be the last.
    """

    chats: Sequence[ChatHead]
    last: Place | None


@dataclass(frozen=True, slots=True)
class TurnPage:
    """`last` is the position after which the next page begins, None when there is none."""

    turns: Sequence[Turn]
    last: int | None


@dataclass(frozen=True, slots=True)
class Purged:
    chats: int = 0
    turns: int = 0
    keys: int = 0


class ChatStore(Protocol):
    async def open(self) -> None:
        """Make the schema current and end the turns of dead processes, where no other can be alive.
        StoreError when that fails.
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
        once: Once | None = None,
    ) -> StartedTurn | StoredAnswer:
        """Take the chat's lease and store the question, in one commit. ChatBusy when it is
        taken. StoredAnswer when the same request was answered before; an attempt of it that got
        no answer is replaced.
        """

    async def begin_again(
        self,
        owner: str,
        chat_id: str,
        *,
        request_id: str,
        max_past: int,
        meant: int | None = None,
        once: Once | None = None,
    ) -> StartedTurn | StoredAnswer:
        """The same for the question of the chat's last turn, whatever became of that.
        ChatNotFound, ChatHasNoTurns; ChatMovedOn when the turn at the position that was `meant` is
        not the last one.
        """

    async def end_turn(self, turn: StartedTurn, outcome: TurnOutcome) -> None:
        """Store how the turn ended and give the lease back, in one commit. LeaseLost when too
        late.
        """

    async def list_chats(
        self, owner: str, limit: int, before: Place | None, search: str = ""
    ) -> ChatPage:
        """Latest first; `before` is the `last` of the page before."""

    async def find_answer(self, owner: str, once: Once) -> StoredAnswer | None:
        """The answer that the key has got already, without beginning anything. IdempotencyKeyReused
        and IdempotencyKeyInUse as `begin_turn` raises them.
        """

    async def get_chat(self, owner: str, chat_id: str) -> ChatHead | None: ...

    async def list_turns(
        self,
        owner: str,
        chat_id: str,
        limit: int,
        after: int,
        *,
        replaced: bool = False,
        most_bytes: int = PAGE_BYTES,
    ) -> TurnPage:
        """In order, those with a position greater than `after`; of their text no more than so many
        bytes, but always one turn.
        """

    async def rename_chat(self, owner: str, chat_id: str, title: str) -> ChatHead | None: ...

    async def branch_chat(self, owner: str, chat_id: str, before: int, new_id: str) -> ChatHead:
        """A new chat with copies of all complete turns before that position. ChatNotFound,
        ChatExists, OutOfRange.
        """

    async def delete_chat(self, owner: str, chat_id: str) -> bool:
        """False when there is none. ChatBusy while it is being answered."""

    async def purge(self, before_ms: int, *, dry_run: bool = False) -> Purged:
        """Delete chats without a turn since then, but for those being answered, and idempotency
        keys whose time is over.
        """
