"""Chats as they are listed, searched and read, inside a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from api.history.models import ChatRow, TurnRow
from api.history.rows import of, stands
from api.history.sizes import bytes_of
from api.history.store import Branch, ChatHead, Turn, TurnPage, TurnStatus
from api.history.text import fold, title_of

# Enough of a question to make a title from.
_TITLE_FROM = 400
_FIRST_QUESTION = (
    select(func.substr(TurnRow.user_prompt, 1, _TITLE_FROM))
    .where(
        TurnRow.owner == ChatRow.owner, TurnRow.chat_id == ChatRow.chat_id, TurnRow.position == 0
    )
    .scalar_subquery()
    .label("first_question")
)
# A list holds many: what is as long as a client likes is not part of it.
_LISTED = [column for column in ChatRow.__table__.columns if column.name != "system_prompt"]
_SHOWN = [
    column
    for column in TurnRow.__table__.columns
    if column.name not in ("owner", "chat_id", "turn_id", "own_tokens", "folded")
]


def list_chats(
    connection: Connection, owner: str, limit: int, before: tuple[int, str] | None
) -> Sequence[ChatHead]:
    query = select(*_LISTED, _FIRST_QUESTION).where(ChatRow.owner == owner)
    if before is not None:
        position = tuple_(literal(before[0]), literal(before[1]))
        query = query.where(tuple_(ChatRow.updated_ms, ChatRow.chat_id) < position)
    query = query.order_by(ChatRow.updated_ms.desc(), ChatRow.chat_id.desc()).limit(limit)
    return [_head(row, None) for row in connection.execute(query)]


def get_chat(connection: Connection, owner: str, chat_id: str) -> ChatHead | None:
    query = select(*_LISTED, ChatRow.system_prompt, _FIRST_QUESTION)
    row = connection.execute(query.where(*of(ChatRow, owner, chat_id))).first()
    return _head(row, row.system_prompt) if row else None


def chat_at(connection: Connection, owner: str, place: tuple[int, str]) -> ChatHead | None:
    """The chat at that place of the list; None when it has changed since, or is gone."""
    updated_ms, chat_id = place
    head = get_chat(connection, owner, chat_id)
    return head if head is not None and head.updated_ms == updated_ms else None


def titled(heads: Sequence[ChatHead], search: str) -> set[str]:
    """Those of the chats that have the text in their title."""
    needle = fold(search)
    return {head.chat_id for head in heads if needle in fold(head.title)}


def matching(
    connection: Connection, owner: str, chat_ids: Sequence[str], search: str, *bounds: Any
) -> set[str]:
    """Those of the chats that have the text in a turn; `bounds` are of its position."""
    if not chat_ids:
        return set()
    query = (
        select(TurnRow.chat_id)
        .where(
            TurnRow.owner == owner,
            TurnRow.chat_id.in_(chat_ids),
            *bounds,
            TurnRow.status != TurnStatus.REPLACED,
            or_(
                TurnRow.folded.contains(fold(search), autoescape=True),
                # Written by a version that did not fold.
                and_(TurnRow.folded.is_(None), _as_it_stands(search)),
            ),
        )
        .distinct()
    )
    return set(connection.execute(query).scalars())


def _as_it_stands(search: str) -> ColumnElement[bool]:
    return or_(
        TurnRow.user_prompt.icontains(search, autoescape=True),
        TurnRow.response.icontains(search, autoescape=True),
    )


def list_turns(
    connection: Connection,
    owner: str,
    chat_id: str,
    limit: int,
    after: int,
    *,
    replaced: bool,
    most_bytes: int,
) -> TurnPage:
    wanted = [*of(TurnRow, owner, chat_id), TurnRow.position > after]
    if not replaced:
        wanted.append(stands())
    lengths = (
        select(
            TurnRow.position, bytes_of(TurnRow.system_prompt, TurnRow.user_prompt, TurnRow.response)
        )
        .where(*wanted)
        .order_by(TurnRow.position)
        .limit(limit + 1)
    )
    last, more = _last_that_fits(connection.execute(lengths).all(), limit, most_bytes)
    query = select(*_SHOWN).where(*wanted, TurnRow.position <= last).order_by(TurnRow.position)
    turns = [_turn(row) for row in connection.execute(query)]
    return TurnPage(turns, last if more else None)


def _last_that_fits(lengths: Sequence[Any], limit: int, most_bytes: int) -> tuple[int, bool]:
    """The position up to which turns are given, and whether others follow."""
    last, left = -1, most_bytes
    for number, (position, length) in enumerate(lengths):
        left -= length
        if number == limit or (number and left < 0):
            return last, True
        last = position
    return last, False


def _head(row: Any, system_prompt: str | None) -> ChatHead:
    title = row.title if row.title is not None else title_of(row.first_question or "")
    branch = None
    if row.branched_from_chat is not None:
        branch = Branch(row.branched_from_chat, row.branched_from_position)
    return ChatHead(
        chat_id=row.chat_id,
        title=title,
        system_prompt=system_prompt,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        turns=row.next_position - row.hidden_turns,
        begun=row.next_position,
        branched_from=branch,
    )


def _turn(row: Any) -> Turn:
    return Turn(
        position=row.position,
        status=TurnStatus(row.status),
        system_prompt=row.system_prompt,
        user_prompt=row.user_prompt,
        response=row.response,
        finish_reason=row.finish_reason,
        error_code=row.error_code,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cached_tokens=row.cached_tokens,
        request_id=row.request_id,
        created_ms=row.created_ms,
        finished_ms=row.finished_ms,
        replaces=row.replaces,
    )
