"""Idempotency keys: which request a key was sent with, and which turn came of it.

A key is stored in the commit that begins its turn and knows the answer from the commit that ends
it, so no crash can part them. While it has no answer the same request may try again: its next
attempt replaces the one before. Two requests that bring a new key at once meet at the table's
primary key; all others at the row of the chat.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from api.clock import now_ms
from api.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from api.history import leases
from api.history.models import KeyRow, TurnRow
from api.history.rows import of
from api.history.store import Once, StartedTurn, StoredAnswer


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The turn that a key was last used for. `answer` is None until it is answered."""

    chat_id: str
    position: int
    turn_id: str
    answer: str | None = None


def find(connection: Connection, owner: str, once: Once, key_ms: int) -> KeyUse | None:
    """What the key was used for. IdempotencyKeyReused when that was another request."""
    row = connection.execute(
        select(
            KeyRow.chat_id,
            KeyRow.position,
            KeyRow.turn_id,
            KeyRow.answer,
            KeyRow.fingerprint,
            KeyRow.created_ms,
        ).where(KeyRow.owner == owner, KeyRow.idempotency_key == once.key)
    ).first()
    if row is None or row.created_ms <= now_ms() - key_ms:
        return None
    if row.fingerprint != once.fingerprint:
        raise IdempotencyKeyReused
    return KeyUse(row.chat_id, row.position, row.turn_id, row.answer)


def outcome(connection: Connection, owner: str, asked: KeyUse) -> StoredAnswer | None:
    """The answer; None when there is none and the question may be asked again."""
    if asked.answer is None:
        if leases.is_alive(connection, owner, asked.chat_id, asked.turn_id):
            raise IdempotencyKeyInUse(retry_after_s=1)
        return None
    response = connection.execute(
        select(TurnRow.response).where(
            *of(TurnRow, owner, asked.chat_id), TurnRow.position == asked.position
        )
    ).scalar_one()
    return StoredAnswer(asked.chat_id, response or "", asked.answer)


def remember(
    connection: Connection, owner: str, once: Once, use: KeyUse, now: int, key_ms: int
) -> None:
    turn = {
        "chat_id": use.chat_id,
        "position": use.position,
        "turn_id": use.turn_id,
    }
    key = (KeyRow.owner == owner, KeyRow.idempotency_key == once.key)
    # Of one whose time is over nothing is left; of any other that another request has stored
    # meanwhile everything, and the insert says so.
    connection.execute(delete(KeyRow).where(*key, KeyRow.created_ms <= now - key_ms))
    connection.execute(
        insert(KeyRow).values(
            owner=owner,
            idempotency_key=once.key,
            fingerprint=once.fingerprint,
            created_ms=now,
            **turn,
        )
    )


def move(connection: Connection, owner: str, once: Once, use: KeyUse) -> None:
    """The next attempt of the same request."""
    connection.execute(
        update(KeyRow)
        .where(KeyRow.owner == owner, KeyRow.idempotency_key == once.key)
        .values(position=use.position, turn_id=use.turn_id)
    )


def positions(connection: Connection, owner: str, asked: KeyUse) -> tuple[int, ...]:
    """Where the question of the key may stand: its last attempt, and what that was to replace."""
    replaces = connection.execute(
        select(TurnRow.replaces).where(
            *of(TurnRow, owner, asked.chat_id), TurnRow.position == asked.position
        )
    ).scalar()
    return (asked.position,) if replaces is None else (asked.position, replaces)


def follow(connection: Connection, turn: StartedTurn) -> None:
    """A key whose attempt was replaced, by whomever, is the key of the turn that stands now."""
    connection.execute(
        update(KeyRow)
        .where(
            *of(KeyRow, turn.owner, turn.chat_id),
            KeyRow.position == turn.replaces,
            KeyRow.answer.is_(None),
        )
        .values(position=turn.position, turn_id=turn.turn_id)
    )


def answered(connection: Connection, turn: StartedTurn, rest: str) -> None:
    connection.execute(
        update(KeyRow)
        .where(
            *of(KeyRow, turn.owner, turn.chat_id),
            KeyRow.position == turn.position,
            KeyRow.answer.is_(None),
        )
        .values(answer=rest)
    )
