"""Usage inside a transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, literal, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from api.usage.counts import COUNTED, DAY_MS, Asked, Batch
from api.usage.rows import UsageRow, UsageWriterRow

# Seven values a row; databases bound the number of parameters of a statement.
_ROWS_AT_ONCE = 100
_WRITERS_KEPT_MS = 30 * DAY_MS
_KEY = ["hour_ms", "tenant", "key_id", "model"]


def add(connection: Connection, batch: Batch, now_ms: int) -> None:
    """A batch that was added before, by an attempt that nobody heard of again, is not added."""
    made = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    if not _is_new(connection, made, batch, now_ms):
        return
    # One order for all processes, so that two never wait for each other.
    ordered = sorted(batch.rows, key=lambda pair: tuple(asdict(pair[0]).values()))
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        rows = ordered[start : start + _ROWS_AT_ONCE]
        insert = made(UsageRow).values([asdict(where) | asdict(counts) for where, counts in rows])
        sums = {name: getattr(UsageRow, name) + insert.excluded[name] for name in COUNTED}
        connection.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=sums))


def _is_new(connection: Connection, made: Any, batch: Batch, now_ms: int) -> bool:
    """Also waits for an attempt at the same batch that still runs: it holds the row."""
    insert = made(UsageWriterRow).values(writer=batch.writer, batch=batch.number, written_ms=now_ms)
    marked = insert.on_conflict_do_update(
        index_elements=["writer"],
        set_={"batch": insert.excluded.batch, "written_ms": insert.excluded.written_ms},
        where=UsageWriterRow.batch < insert.excluded.batch,
    ).returning(UsageWriterRow.batch)
    is_new = connection.execute(marked).first() is not None
    if batch.number == 1:
        # Of processes that ended long ago nobody adds anything again.
        old = UsageWriterRow.written_ms < now_ms - _WRITERS_KEPT_MS
        connection.execute(delete(UsageWriterRow).where(old))
    return is_new


def read(connection: Connection, asked: Asked) -> Sequence[dict[str, Any]]:
    columns = {name: _column(name) for name in asked.group_by}
    sums = [func.sum(getattr(UsageRow, name)).label(name) for name in COUNTED]
    query = select(*(column.label(name) for name, column in columns.items()), *sums).where(
        UsageRow.hour_ms >= asked.start_ms, UsageRow.hour_ms < asked.end_ms
    )
    if asked.tenant is not None:
        query = query.where(UsageRow.tenant == asked.tenant)
    if asked.key_id is not None:
        query = query.where(UsageRow.key_id == asked.key_id)
    if columns and asked.after:
        last = (literal(value) for value in asked.after)
        query = query.where(tuple_(*columns.values()) > tuple_(*last))
    if columns:
        query = query.group_by(*columns.values()).order_by(*columns.values())
    rows = connection.execute(query.limit(asked.limit)).mappings()
    return [_row(dict(row)) for row in rows]


def _column(name: str) -> ColumnElement[Any]:
    if name == "day":
        return UsageRow.hour_ms - UsageRow.hour_ms % DAY_MS
    plain: Iterable[tuple[str, Any]] = (
        ("hour", UsageRow.hour_ms),
        ("tenant", UsageRow.tenant),
        ("key", UsageRow.key_id),
        ("model", UsageRow.model),
    )
    column: ColumnElement[Any] = dict(plain)[name]
    return column


def _row(row: dict[str, Any]) -> dict[str, Any]:
    # A sum of nothing is null, and one of bigints a decimal in PostgreSQL.
    return row | {name: int(row[name] or 0) for name in COUNTED}
