"""Looks for a text in an owner's chats, in the order of their list, a part of them at a time.

Every part is a transaction of its own, as large as goes quickly: others write in between. A page
ends when it is full or has been looked for long enough, in the midst of a chat if need be; its
cursor says where the next one goes on.
"""

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

from sqlalchemy import Connection

from api.history import reading
from api.history.models import TurnRow
from api.history.store import ChatHead, ChatPage, Place

# Of one transaction: chats, and turns in the first one, for nobody knows how long they are, and at
# most.
_CHATS = 200
_LEAST_TURNS, _MOST_TURNS = 20, 2_000
# How long a transaction may take before the next one is made smaller.
_SLOW_S = 0.05
# Of one page.
PAGE_TURNS = 20_000
PAGE_S = 1.0


@dataclass(frozen=True, slots=True)
class Looked:
    found: Sequence[ChatHead]
    last: Place | None
    """None: that was all."""
    turns: int


class Run(Protocol):
    def __call__(
        self, name: str, operation: Callable[[Connection], Looked]
    ) -> Coroutine[Any, Any, Looked]: ...


async def search_chats(
    run: Run, owner: str, limit: int, before: Place | None, search: str
) -> ChatPage:
    found: list[ChatHead] = []
    read, most_turns = 0, _LEAST_TURNS
    ends = time.monotonic() + PAGE_S
    while True:
        part = partial(look, owner=owner, search=search, before=before, most_turns=most_turns)
        started = time.monotonic()
        looked = await run("search_chats", part)
        now = time.monotonic()
        for head in looked.found:
            found.append(head)
            if len(found) == limit:
                return ChatPage(found, head.place)
        before = looked.last
        read += looked.turns
        if before is None or read >= PAGE_TURNS or now > ends:
            return ChatPage(found, before)
        wanted = most_turns // 4 if now - started > _SLOW_S else most_turns * 4
        most_turns = max(_LEAST_TURNS, min(_MOST_TURNS, wanted))


def look(
    connection: Connection, *, owner: str, search: str, before: Place | None, most_turns: int
) -> Looked:
    """The next chats with no more turns than that, or so many turns of the next chat."""
    if before is not None and len(before) == 3:
        head = reading.chat_at(connection, owner, before[:2])
        if head is not None:
            return _within(connection, owner, search, head, before[2], most_turns)
    after = before[:2] if before is not None else None
    heads = reading.list_chats(connection, owner, _CHATS, after)
    if not heads:
        return Looked((), None, 0)
    if heads[0].begun > most_turns:
        return _within(connection, owner, search, heads[0], -1, most_turns)
    together = accumulate(head.begun for head in heads)
    some = [head for head, turns in zip(heads, together, strict=True) if turns <= most_turns]
    titled = reading.titled(some, search)
    others = [head.chat_id for head in some if head.chat_id not in titled]
    matching = titled | reading.matching(connection, owner, others, search)
    found = [head for head in some if head.chat_id in matching]
    return Looked(found, some[-1].place, sum(max(1, head.begun) for head in some))


def _within(
    connection: Connection, owner: str, search: str, head: ChatHead, after: int, most_turns: int
) -> Looked:
    upto = min(after + most_turns, 2**63 - 1)
    bounds = (TurnRow.position > after, TurnRow.position <= upto)
    matches = reading.titled([head], search) or reading.matching(
        connection, owner, [head.chat_id], search, *bounds
    )
    if matches:
        return Looked([head], head.place, most_turns)
    last: Place = (*head.place, upto) if upto + 1 < head.begun else head.place
    return Looked((), last, most_turns)
