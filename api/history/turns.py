"""Turns inside a transaction: how one begins, how it ends, and which of two attempts stands.

Plain functions on a connection. They know SQL and the rules of turns, not threads, time-outs or who
waits. Every one of them names the owner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, delete, select, update

from api.clock import now_ms
from api.errors import ChatHasNoTurns, ChatMovedOn, ChatNotFound, IdempotencyKeyInUse
from api.history import idempotency, leases, prepared
from api.history.idempotency import KeyUse
from api.history.models import ChatRow, TurnRow
from api.history.rows import PENDING, of, stands
from api.history.sizes import PAST_BYTES
from api.history.store import (
    LeaseLost,
    Once,
    PastTurn,
    StartedTurn,
    StoredAnswer,
    TurnOutcome,
    TurnStatus,
)
from api.history.text import fold


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    system_prompt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A turn that wants to begin, and the lease it asks for. Without a question it is the last
    turn's, asked again.
    """

    owner: str
    chat_id: str
    turn_id: str
    question: Question | None
    request_id: str
    max_past: int
    holder: str
    lease_ms: int
    meant: int | None = None
    """Which turn is to be the last one when it is asked again."""
    once: Once | None = None
    key_ms: int = 0
    """How long a key is known."""


@dataclass(frozen=True, slots=True)
class _Chat:
    chat_id: str
    system_prompt: str | None
    next_position: int
    complete_turns: int
    hidden_turns: int


@dataclass(frozen=True, slots=True)
class _Earlier:
    """An attempt at the same question that stands so far."""

    position: int
    complete: bool
    system_prompt: str | None
    user_prompt: str


def begin(connection: Connection, new: NewTurn) -> StartedTurn | StoredAnswer:
    asked = _asked(connection, new)
    chat = _chat_for_writing(connection, new, asked.chat_id if asked else new.chat_id)
    # Once more: other requests with this key wait for the chat's row as well.
    asked = _asked(connection, new)
    if asked is not None:
        if asked.chat_id != chat.chat_id:
            # Stored a moment ago by a request that had a new chat made, as this one did.
            raise IdempotencyKeyInUse(retry_after_s=1)
        if answer := idempotency.outcome(connection, new.owner, asked):
            return answer
    # Not before: there may have been a wait for the chat's row.
    now = now_ms()
    lease = leases.Lease(new.owner, chat.chat_id, new.turn_id, new.holder, now + new.lease_ms)
    leases.take(connection, lease, now)
    earlier = _earlier(connection, new, chat, asked)
    if new.question is not None:
        text, system_prompt = new.question.text, new.question.system_prompt
        effective = chat.system_prompt if system_prompt is None else system_prompt
    else:
        assert earlier is not None
        text, effective = earlier.user_prompt, earlier.system_prompt
    connection.execute(
        prepared.INSERT_TURN,
        {
            "owner": new.owner,
            "chat_id": chat.chat_id,
            "position": chat.next_position,
            "turn_id": new.turn_id,
            "status": TurnStatus.PENDING,
            "system_prompt": effective,
            "user_prompt": text,
            "folded": fold(text),
            "own_tokens": 0,
            "request_id": new.request_id,
            "created_ms": now,
            "replaces": earlier.position if earlier else None,
        },
    )
    connection.execute(
        prepared.CHAT_BEGINS,
        prepared.of_chat(new.owner, chat.chat_id)
        | prepared.changed(
            next_position=chat.next_position + 1,
            hidden_turns=chat.hidden_turns + (earlier is not None),
            updated_ms=now,
        ),
    )
    if new.once is not None:
        use = KeyUse(chat.chat_id, chat.next_position, new.turn_id)
        if asked is not None:
            idempotency.move(connection, new.owner, new.once, use)
        else:
            idempotency.remember(connection, new.owner, new.once, use, now, new.key_ms)
    complete = chat.complete_turns - (earlier is not None and earlier.complete)
    limit = min(new.max_past, complete)
    past = _past(connection, new.owner, chat.chat_id, limit, earlier)
    return StartedTurn(
        owner=new.owner,
        chat_id=chat.chat_id,
        turn_id=new.turn_id,
        position=chat.next_position,
        system_prompt=effective,
        user_prompt=text,
        past=past,
        past_left_out=complete - len(past),
        replaces=earlier.position if earlier else None,
        once=new.once,
    )


def end(connection: Connection, turn: StartedTurn, outcome: TurnOutcome) -> TurnStatus | None:
    """As what it is stored; None when nothing of it is."""
    # With a key, the next attempt finds this one by it and replaces it.
    if outcome.withdrawn and turn.replaces is None and turn.once is None:
        _withdraw(connection, turn)
        return None
    now = now_ms()
    of_chat = (turn.owner, turn.chat_id)
    earlier = _status_and_response(connection, turn) if turn.replaces is not None else None
    complete = outcome.status == TurnStatus.COMPLETE
    said = complete or bool(outcome.response)
    # An attempt that failed never hides an answer, or the part of one, that was there before.
    better = earlier is None or complete or (not earlier.complete and (said or not earlier.said))
    status = outcome.status if better else TurnStatus.REPLACED
    mine = prepared.of_chat(*of_chat)
    ended = connection.execute(
        prepared.END_TURN,
        mine
        | {"of_position": turn.position, "of_turn": turn.turn_id}
        | prepared.changed(
            status=status,
            response=outcome.response,
            folded=fold(f"{turn.user_prompt} {outcome.response or ''}"),
            finish_reason=outcome.finish_reason,
            error_code=outcome.error_code,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cached_tokens=outcome.cached_tokens,
            own_tokens=outcome.own_tokens,
            finished_ms=now,
        ),
    )
    if ended.rowcount != 1:
        raise LeaseLost
    leases.give_back(connection, *of_chat, turn.turn_id)
    gained = int(complete and not (earlier and earlier.complete))
    values = mine | {"gained": gained, "new_updated_ms": now}
    if said and better:
        # A question that was refused must not change what the next ones are told.
        prompt = prepared.changed(system_prompt=turn.system_prompt)
        connection.execute(prepared.CHAT_ENDS_WITH_PROMPT, values | prompt)
    else:
        connection.execute(prepared.CHAT_ENDS, values)
    if turn.replaces is not None and better:
        connection.execute(
            update(TurnRow)
            .where(*of(TurnRow, *of_chat), TurnRow.position == turn.replaces)
            .values(status=TurnStatus.REPLACED)
        )
        idempotency.follow(connection, turn)
    if complete and (turn.once is not None or turn.replaces is not None):
        idempotency.answered(connection, turn, outcome.rest)
    return status


def _withdraw(connection: Connection, turn: StartedTurn) -> None:
    """As if it had never been asked: with the chat, when that was made for it."""
    of_chat = (turn.owner, turn.chat_id)
    withdrawn = connection.execute(
        delete(TurnRow).where(
            *of(TurnRow, *of_chat),
            TurnRow.position == turn.position,
            TurnRow.turn_id == turn.turn_id,
            TurnRow.status == PENDING,
        )
    )
    if withdrawn.rowcount != 1:
        raise LeaseLost
    leases.give_back(connection, *of_chat, turn.turn_id)
    connection.execute(
        update(ChatRow).where(*of(ChatRow, *of_chat)).values(next_position=turn.position)
    )
    connection.execute(
        delete(ChatRow).where(
            *of(ChatRow, *of_chat),
            ChatRow.next_position == 0,
            ChatRow.title.is_(None),
            ChatRow.branched_from_chat.is_(None),
        )
    )


def _asked(connection: Connection, new: NewTurn) -> KeyUse | None:
    if new.once is None:
        return None
    return idempotency.find(connection, new.owner, new.once, new.key_ms)


def _chat_for_writing(connection: Connection, new: NewTurn, chat_id: str) -> _Chat:
    """The chat, made when there is none and a question is asked."""
    row = connection.execute(prepared.LOCK_CHAT, prepared.of_chat(new.owner, chat_id)).first()
    if row is not None:
        return _Chat(chat_id, row[0], row[1], row[2], row[3])
    if new.question is None:
        raise ChatNotFound
    now = now_ms()
    connection.execute(
        prepared.INSERT_CHAT,
        {
            "owner": new.owner,
            "chat_id": chat_id,
            "created_ms": now,
            "updated_ms": now,
            "next_position": 0,
            "complete_turns": 0,
            "hidden_turns": 0,
        },
    )
    return _Chat(chat_id, None, 0, 0, 0)


def _earlier(
    connection: Connection, new: NewTurn, chat: _Chat, asked: KeyUse | None
) -> _Earlier | None:
    """Which turn the new one is another attempt at."""
    if new.question is not None and asked is None:
        return None
    turns = select(
        TurnRow.position, TurnRow.status, TurnRow.system_prompt, TurnRow.user_prompt
    ).where(*of(TurnRow, new.owner, chat.chat_id), stands())
    positions = idempotency.positions(connection, new.owner, asked) if asked else ()
    if new.question is None:
        turns = turns.order_by(TurnRow.position.desc()).limit(1)
    else:
        turns = turns.where(TurnRow.position.in_(positions))
    row = connection.execute(turns).first()
    if row is None:
        if new.question is None:
            raise ChatHasNoTurns
        return None
    if positions:
        if row.position not in positions:
            raise ChatMovedOn
    elif new.question is None and new.meant not in (None, row.position):
        raise ChatMovedOn
    complete = row.status == TurnStatus.COMPLETE
    return _Earlier(row.position, complete, row.system_prompt, row.user_prompt)


@dataclass(frozen=True, slots=True)
class _Ended:
    complete: bool
    said: bool


def _status_and_response(connection: Connection, turn: StartedTurn) -> _Ended:
    row = connection.execute(
        select(TurnRow.status, TurnRow.response.is_not(None)).where(
            *of(TurnRow, turn.owner, turn.chat_id), TurnRow.position == turn.replaces
        )
    ).first()
    if row is None:
        # The chat was deleted, and perhaps made again.
        raise LeaseLost
    return _Ended(row[0] == TurnStatus.COMPLETE, bool(row[1]))


def _past(
    connection: Connection, owner: str, chat_id: str, limit: int, without: _Earlier | None
) -> tuple[PastTurn, ...]:
    if not limit:
        return ()
    but = -1 if without is None else without.position
    values = prepared.of_chat(owner, chat_id) | {"but_position": but, "most": limit}
    if connection.dialect.name == "sqlite":
        # Row by row, which costs a third of what measuring them in the database does.
        rows = _that_fit(connection.execute(prepared.PAST_TURNS, values))
    else:
        fitting = values | {"most_bytes": PAST_BYTES}
        rows = connection.execute(prepared.PAST_TURNS_THAT_FIT, fitting).all()
    return tuple(PastTurn(row[0], row[1] or "", row[2]) for row in reversed(rows))


def _that_fit(result: CursorResult[Any]) -> Sequence[Any]:
    rows: list[Any] = []
    left = PAST_BYTES
    for row in result:
        left -= sum(len(text) if text.isascii() else len(text.encode()) for text in row[:2] if text)
        if left < 0:
            result.close()
            break
        rows.append(row)
    return rows
