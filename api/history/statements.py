"""What the store does inside a transaction: plain functions on a connection.

They know SQL and the rules of turns and leases; not threads, time-outs or who waits. Every one of
them names the owner.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVarTuple

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    Select,
    delete,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from api.errors import ChatBusy
from api.history.models import ChatRow, LeaseRow, TurnRow
from api.history.store import (
    ChatHead,
    LeaseLost,
    PastTurn,
    StartedTurn,
    Turn,
    TurnOutcome,
    TurnStatus,
)

Columns = TypeVarTuple("Columns")
# Written out, not bound: only then SQLite sees that the partial index of pending turns applies.
_PENDING: ColumnClause[str] = literal_column("'pending'")
# Databases bound the number of parameters of a statement.
_IDS_AT_ONCE = 500


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A question that wants to become a turn, and the lease it asks for."""

    owner: str
    chat_id: str
    turn_id: str
    user_prompt: str
    system_prompt: str | None
    request_id: str
    max_past: int
    holder: str
    lease_ms: int


@dataclass(frozen=True, slots=True)
class _Chat:
    system_prompt: str | None
    next_position: int
    complete_turns: int
    lease_expires_ms: int | None


def begin_turn(connection: Connection, new: NewTurn) -> StartedTurn:
    chat = _chat_for_writing(connection, new)
    # Not before: there may have been a wait for the chat's row.
    now = now_ms()
    _take_lease(connection, new, chat, now)
    effective = chat.system_prompt if new.system_prompt is None else new.system_prompt
    connection.execute(
        insert(TurnRow).values(
            owner=new.owner,
            chat_id=new.chat_id,
            position=chat.next_position,
            turn_id=new.turn_id,
            status=TurnStatus.PENDING,
            system_prompt=effective,
            user_prompt=new.user_prompt,
            own_tokens=0,
            request_id=new.request_id,
            created_ms=now,
        )
    )
    connection.execute(
        update(ChatRow)
        .where(*_of(ChatRow, new.owner, new.chat_id))
        .values(next_position=chat.next_position + 1, updated_ms=now)
    )
    past = _past(connection, new, min(new.max_past, chat.complete_turns))
    return StartedTurn(
        owner=new.owner,
        chat_id=new.chat_id,
        turn_id=new.turn_id,
        position=chat.next_position,
        system_prompt=effective,
        past=past,
        past_left_out=chat.complete_turns - len(past),
    )


def end_turn(connection: Connection, turn: StartedTurn, outcome: TurnOutcome) -> None:
    now = now_ms()
    of_chat = (turn.owner, turn.chat_id)
    ended = connection.execute(
        update(TurnRow)
        .where(
            *_of(TurnRow, *of_chat),
            TurnRow.position == turn.position,
            TurnRow.turn_id == turn.turn_id,
            TurnRow.status == _PENDING,
        )
        .values(
            status=outcome.status,
            response=outcome.response,
            finish_reason=outcome.finish_reason,
            error_code=outcome.error_code,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cached_tokens=outcome.cached_tokens,
            own_tokens=outcome.own_tokens,
            finished_ms=now,
        )
    )
    if ended.rowcount != 1:
        raise LeaseLost
    connection.execute(
        delete(LeaseRow).where(*_of(LeaseRow, *of_chat), LeaseRow.turn_id == turn.turn_id)
    )
    complete = outcome.status == TurnStatus.COMPLETE
    changed: dict[str, Any] = {"updated_ms": now}
    if complete:
        changed["complete_turns"] = ChatRow.complete_turns + 1
    if complete or outcome.response:
        # A question that was refused must not change what the next ones are told.
        changed["system_prompt"] = turn.system_prompt
    connection.execute(update(ChatRow).where(*_of(ChatRow, *of_chat)).values(**changed))


def delete_chat(connection: Connection, owner: str, chat_id: str) -> bool:
    connection.execute(_locked(select(ChatRow.next_position), owner, chat_id))
    leased = select(LeaseRow.expires_ms).where(
        *_of(LeaseRow, owner, chat_id), LeaseRow.expires_ms > now_ms()
    )
    if connection.execute(leased).first() is not None:
        raise ChatBusy
    # One by one, in case the database at hand does not cascade.
    for table in (LeaseRow, TurnRow):
        connection.execute(delete(table).where(*_of(table, owner, chat_id)))
    gone = connection.execute(delete(ChatRow).where(*_of(ChatRow, owner, chat_id)))
    return bool(gone.rowcount)


def list_chats(
    connection: Connection, owner: str, limit: int, before: tuple[int, str] | None
) -> Sequence[ChatHead]:
    query = select(ChatRow).where(ChatRow.owner == owner)
    if before is not None:
        position = tuple_(literal(before[0]), literal(before[1]))
        query = query.where(tuple_(ChatRow.updated_ms, ChatRow.chat_id) < position)
    query = query.order_by(ChatRow.updated_ms.desc(), ChatRow.chat_id.desc()).limit(limit)
    return [_head(row) for row in connection.execute(query)]


def get_chat(connection: Connection, owner: str, chat_id: str) -> ChatHead | None:
    row = connection.execute(select(ChatRow).where(*_of(ChatRow, owner, chat_id))).first()
    return _head(row) if row else None


def list_turns(
    connection: Connection, owner: str, chat_id: str, limit: int, after: int
) -> Sequence[Turn]:
    query = (
        select(TurnRow)
        .where(*_of(TurnRow, owner, chat_id), TurnRow.position > after)
        .order_by(TurnRow.position)
        .limit(limit)
    )
    return [_turn(row) for row in connection.execute(query)]


def check(connection: Connection) -> None:
    connection.execute(select(LeaseRow.turn_id).limit(1))


def renew_leases(
    connection: Connection, holder: str, turn_ids: Sequence[str], lease_ms: int
) -> None:
    """Only of these turns: the lease of one whose ending could not be stored has to run out."""
    for start in range(0, len(turn_ids), _IDS_AT_ONCE):
        connection.execute(
            update(LeaseRow)
            .where(
                LeaseRow.holder == holder,
                LeaseRow.turn_id.in_(turn_ids[start : start + _IDS_AT_ONCE]),
            )
            .values(expires_ms=now_ms() + lease_ms)
        )


def end_dead_turns(connection: Connection, *, every: bool) -> int:
    """Mark pending turns whose lease ran out; all of them when `every`."""
    now = now_ms()
    expired = delete(LeaseRow)
    connection.execute(expired if every else expired.where(LeaseRow.expires_ms <= now))
    dead = connection.execute(
        update(TurnRow)
        .where(TurnRow.status == _PENDING, TurnRow.turn_id.not_in(select(LeaseRow.turn_id)))
        .values(status=TurnStatus.INTERRUPTED, finished_ms=now)
    )
    return int(dead.rowcount)


def _chat_for_writing(connection: Connection, new: NewTurn) -> _Chat:
    """The chat with its lease, made when there is none."""
    columns = select(ChatRow.system_prompt, ChatRow.next_position, ChatRow.complete_turns)
    row = connection.execute(_locked(columns, new.owner, new.chat_id)).first()
    if row is not None:
        # Read after the lock, never beside it: a server that waited for the lock would join the
        # chat as it is now with the lease as it was before.
        lease = select(LeaseRow.expires_ms).where(*_of(LeaseRow, new.owner, new.chat_id))
        return _Chat(row[0], row[1], row[2], connection.execute(lease).scalar())
    now = now_ms()
    connection.execute(
        insert(ChatRow).values(
            owner=new.owner,
            chat_id=new.chat_id,
            created_ms=now,
            updated_ms=now,
            next_position=0,
            complete_turns=0,
        )
    )
    return _Chat(None, 0, 0, None)


def _locked(query: Select[*Columns], owner: str, chat_id: str) -> Select[*Columns]:
    """Hold the chat's row until the transaction ends; SQLite holds the whole file anyway."""
    return query.where(*_of(ChatRow, owner, chat_id)).with_for_update()


def _take_lease(connection: Connection, new: NewTurn, chat: _Chat, now: int) -> None:
    of_chat = (new.owner, new.chat_id)
    if chat.lease_expires_ms is not None:
        if chat.lease_expires_ms > now:
            raise ChatBusy
        # Its writer died or stood still: the turn ends now, and a late answer of it will find
        # nothing pending.
        # A lease that was renewed since it was read stays, and the insert below says so.
        connection.execute(
            delete(LeaseRow).where(*_of(LeaseRow, *of_chat), LeaseRow.expires_ms <= now)
        )
        connection.execute(
            update(TurnRow)
            .where(*_of(TurnRow, *of_chat), TurnRow.status == _PENDING)
            .values(status=TurnStatus.INTERRUPTED, finished_ms=now)
        )
    connection.execute(
        insert(LeaseRow).values(
            owner=new.owner,
            chat_id=new.chat_id,
            turn_id=new.turn_id,
            holder=new.holder,
            expires_ms=now + new.lease_ms,
        )
    )


def _past(connection: Connection, new: NewTurn, limit: int) -> tuple[PastTurn, ...]:
    if not limit:
        return ()
    query = (
        select(TurnRow.user_prompt, TurnRow.response, TurnRow.own_tokens)
        .where(
            *_of(TurnRow, new.owner, new.chat_id),
            TurnRow.status == TurnStatus.COMPLETE,
        )
        .order_by(TurnRow.position.desc())
        .limit(limit)
    )
    rows = connection.execute(query).all()
    return tuple(PastTurn(row[0], row[1] or "", row[2]) for row in reversed(rows))


def _of(table: Any, owner: str, chat_id: str) -> tuple[ColumnElement[bool], ...]:
    return (table.owner == owner, table.chat_id == chat_id)


def _head(row: Any) -> ChatHead:
    return ChatHead(
        chat_id=row.chat_id,
        system_prompt=row.system_prompt,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        turns=row.next_position,
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
    )
