"""What is done to whole chats: given a title, branched, deleted, purged; inside a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from api.clock import now_ms
from api.errors import ChatBusy, ChatExists, ChatNotFound, OutOfRange
from api.history import leases, reading
from api.history.models import ChatRow, KeyRow, LeaseRow, TurnRow
from api.history.rows import locked, of, stands
from api.history.sizes import BRANCH_BYTES, BRANCH_TURNS, bytes_of
from api.history.sqlite import leave_nothing_behind
from api.history.store import ChatHead, TurnStatus

_COPIED = [
    column
    for column in TurnRow.__table__.columns
    if column.name not in ("owner", "chat_id", "position", "replaces")
]


def rename_chat(connection: Connection, owner: str, chat_id: str, title: str) -> ChatHead | None:
    connection.execute(update(ChatRow).where(*of(ChatRow, owner, chat_id)).values(title=title))
    return reading.get_chat(connection, owner, chat_id)


def branch_chat(
    connection: Connection, owner: str, chat_id: str, before: int, new_id: str
) -> ChatHead:
    """The turns keep their times and counts; the new chat has the system prompt that held for the
    question it goes on from.
    """
    source = connection.execute(
        select(ChatRow.title, ChatRow.system_prompt, ChatRow.next_position).where(
            *of(ChatRow, owner, chat_id)
        )
    ).first()
    if source is None:
        raise ChatNotFound
    if before > source.next_position:
        raise OutOfRange(
            f"before: must be at most {source.next_position}, the position after the chat's last "
            "turn",
            param="before",
            extra={"limit": source.next_position},
        )
    taken = select(ChatRow.chat_id).where(*of(ChatRow, owner, new_id))
    if connection.execute(taken).first() is not None:
        raise ChatExists
    copied = (
        *of(TurnRow, owner, chat_id),
        TurnRow.position < before,
        TurnRow.status == TurnStatus.COMPLETE,
    )
    _check_size(connection, copied)
    asked = connection.execute(
        select(TurnRow.system_prompt)
        .where(*of(TurnRow, owner, chat_id), TurnRow.position >= before, stands())
        .order_by(TurnRow.position)
        .limit(1)
    ).first()
    now = now_ms()
    chat: dict[str, Any] = {
        "owner": owner,
        "chat_id": new_id,
        "title": source.title,
        "system_prompt": asked.system_prompt if asked else source.system_prompt,
        "created_ms": now,
        "updated_ms": now,
        "next_position": 0,
        "complete_turns": 0,
        "hidden_turns": 0,
        "branched_from_chat": chat_id,
        "branched_from_position": before,
    }
    connection.execute(insert(ChatRow).values(**chat))
    copies = select(
        literal(owner).label("owner"),
        literal(new_id).label("chat_id"),
        (func.row_number().over(order_by=TurnRow.position) - 1).label("position"),
        *_COPIED,
    ).where(*copied)
    names = ["owner", "chat_id", "position", *(column.name for column in _COPIED)]
    connection.execute(insert(TurnRow).from_select(names, copies))
    count = select(func.count()).select_from(TurnRow).where(*of(TurnRow, owner, new_id))
    turns = connection.execute(count).scalar_one()
    connection.execute(
        update(ChatRow)
        .where(*of(ChatRow, owner, new_id))
        .values(next_position=turns, complete_turns=turns)
    )
    made = reading.get_chat(connection, owner, new_id)
    assert made is not None
    return made


def _check_size(connection: Connection, copied: Sequence[ColumnElement[bool]]) -> None:
    """A copy is one transaction, for which everybody else on SQLite waits."""
    lengths = connection.execute(
        select(bytes_of(TurnRow.system_prompt, TurnRow.user_prompt, TurnRow.response))
        .where(*copied)
        .limit(BRANCH_TURNS + 1)
    )
    length = 0
    for turns, (one,) in enumerate(lengths, 1):
        length += one
        if turns > BRANCH_TURNS or length > BRANCH_BYTES:
            lengths.close()
            by_turns = turns > BRANCH_TURNS
            limit, what = (BRANCH_TURNS, "turns") if by_turns else (BRANCH_BYTES, "bytes of text")
            raise OutOfRange(
                f"before: a branch copies at most {limit} {what}, and what is before it is more",
                code="branch_too_large",
                param="before",
                extra={"limit": limit},
            )


def delete_chat(connection: Connection, owner: str, chat_id: str) -> bool:
    connection.execute(locked(select(ChatRow.next_position), owner, chat_id))
    if leases.is_alive(connection, owner, chat_id):
        raise ChatBusy
    leave_nothing_behind(connection)
    # One by one, in case the database at hand does not cascade.
    for table in (KeyRow, LeaseRow, TurnRow):
        connection.execute(delete(table).where(*of(table, owner, chat_id)))
    gone = connection.execute(delete(ChatRow).where(*of(ChatRow, owner, chat_id)))
    return bool(gone.rowcount)


# ---- what is kept for a time only ---------------------------------------------------------------


def old_chats(
    connection: Connection, before_ms: int, after: tuple[str, str], limit: int
) -> Sequence[tuple[str, str]]:
    """Chats of any owner whose last change is older, in the order of their keys."""
    query = (
        select(ChatRow.owner, ChatRow.chat_id)
        .where(
            ChatRow.updated_ms < before_ms,
            tuple_(ChatRow.owner, ChatRow.chat_id) > tuple_(literal(after[0]), literal(after[1])),
        )
        .order_by(ChatRow.owner, ChatRow.chat_id)
        .limit(limit)
    )
    return [(row.owner, row.chat_id) for row in connection.execute(query)]


def purge_chat(
    connection: Connection, owner: str, chat_id: str, before_ms: int, *, dry_run: bool
) -> int | None:
    """How many turns went; None when the chat was used since it was looked up, or is being used."""
    query = select(ChatRow.updated_ms, ChatRow.next_position)
    query = query.where(*of(ChatRow, owner, chat_id)) if dry_run else locked(query, owner, chat_id)
    chat = connection.execute(query).first()
    if chat is None or chat.updated_ms >= before_ms or leases.is_alive(connection, owner, chat_id):
        return None
    if not dry_run:
        delete_chat(connection, owner, chat_id)
    return int(chat.next_position)


def purge_keys(connection: Connection, before_ms: int, limit: int, *, dry_run: bool) -> int:
    """How many keys' time is over; at most so many are deleted."""
    old = KeyRow.created_ms <= before_ms
    if dry_run:
        counted = connection.execute(select(func.count()).select_from(KeyRow).where(old))
        return int(counted.scalar_one())
    key = tuple_(KeyRow.owner, KeyRow.idempotency_key)
    batch = select(KeyRow.owner, KeyRow.idempotency_key).where(old).limit(limit)
    return int(connection.execute(delete(KeyRow).where(key.in_(batch))).rowcount)
