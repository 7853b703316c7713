"""The few expressions that every statement on chats needs."""

from typing import Any, TypeVarTuple

from sqlalchemy import ColumnClause, ColumnElement, Select, and_, literal_column, or_

from api.history.models import ChatRow, TurnRow
from api.history.store import TurnStatus

Columns = TypeVarTuple("Columns")
# Written out, not bound: only then SQLite sees that the partial index of pending turns applies.
PENDING: ColumnClause[str] = literal_column("'pending'")
# Databases bound the number of parameters of a statement.
IDS_AT_ONCE = 500


def of(table: Any, owner: str, chat_id: str) -> tuple[ColumnElement[bool], ...]:
    return (table.owner == owner, table.chat_id == chat_id)


def locked(query: Select[*Columns], owner: str, chat_id: str) -> Select[*Columns]:
    """Hold the chat's row until the transaction ends; SQLite holds the whole file anyway."""
    return query.where(*of(ChatRow, owner, chat_id)).with_for_update()


def stands() -> ColumnElement[bool]:
    """The turn is part of the chat: not replaced, and no attempt to replace one that still runs."""
    return and_(
        TurnRow.status != TurnStatus.REPLACED,
        or_(TurnRow.replaces.is_(None), TurnRow.status != PENDING),
    )
