"""Who writes a chat: the lease is a row with an expiry, and the turn's random id is the fence."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, case, delete, select, update

from api.clock import now_ms
from api.errors import ChatBusy
from api.history import prepared
from api.history.models import LeaseRow, TurnRow
from api.history.rows import IDS_AT_ONCE, PENDING, of
from api.history.store import TurnStatus

# An attempt at another answer that died never stands; what it was to replace still does.
_DEAD = case(
    (TurnRow.replaces.is_(None), TurnStatus.INTERRUPTED.value), else_=TurnStatus.REPLACED.value
)


@dataclass(frozen=True, slots=True)
class Lease:
    owner: str
    chat_id: str
    turn_id: str
    holder: str
    expires_ms: int


def take(connection: Connection, lease: Lease, now: int) -> None:
    """The caller holds the chat's row. ChatBusy while another lease is alive."""
    # Read after the lock, never beside it: a server that waited for the lock would join the
    # chat as it is now with the lease as it was before.
    expires_ms = connection.execute(
        prepared.LEASE_EXPIRY, prepared.of_chat(lease.owner, lease.chat_id)
    ).scalar()
    if expires_ms is not None:
        if expires_ms > now:
            raise ChatBusy
        # Its writer died or stood still: the turn ends now, and a late answer of it will find
        # nothing pending.
        # A lease that was renewed since it was read stays, and the insert below says so.
        old = delete(LeaseRow).where(*of(LeaseRow, lease.owner, lease.chat_id))
        connection.execute(old.where(LeaseRow.expires_ms <= now))
        connection.execute(
            update(TurnRow)
            .where(*of(TurnRow, lease.owner, lease.chat_id), TurnRow.status == PENDING)
            .values(status=_DEAD, finished_ms=now)
        )
    connection.execute(
        prepared.INSERT_LEASE,
        {
            "owner": lease.owner,
            "chat_id": lease.chat_id,
            "turn_id": lease.turn_id,
            "holder": lease.holder,
            "expires_ms": lease.expires_ms,
        },
    )


def give_back(connection: Connection, owner: str, chat_id: str, turn_id: str) -> None:
    connection.execute(
        prepared.DELETE_LEASE, prepared.of_chat(owner, chat_id) | {"of_turn": turn_id}
    )


def is_alive(connection: Connection, owner: str, chat_id: str, turn_id: str | None = None) -> bool:
    """Whether the chat is being answered, by that turn if one is named."""
    query = select(LeaseRow.expires_ms).where(
        *of(LeaseRow, owner, chat_id), LeaseRow.expires_ms > now_ms()
    )
    if turn_id is not None:
        query = query.where(LeaseRow.turn_id == turn_id)
    return connection.execute(query).first() is not None


def renew(connection: Connection, holder: str, turn_ids: Sequence[str], lease_ms: int) -> None:
    """Only of these turns: the lease of one whose ending could not be stored has to run out."""
    for start in range(0, len(turn_ids), IDS_AT_ONCE):
        connection.execute(
            update(LeaseRow)
            .where(
                LeaseRow.holder == holder,
                LeaseRow.turn_id.in_(turn_ids[start : start + IDS_AT_ONCE]),
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
        .where(TurnRow.status == PENDING, TurnRow.turn_id.not_in(select(LeaseRow.turn_id)))
        .values(status=_DEAD, finished_ms=now)
    )
    return int(dead.rowcount)


def check(connection: Connection) -> None:
    connection.execute(select(LeaseRow.turn_id).limit(1))
