"""Limits counted in PostgreSQL: one row for each subject, locked while it is changed.

Connections of its own, so that a slow chat never holds up a limit. Commits do not wait for the
disk: should the server crash, the last moments of counting are lost and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import orjson
import psycopg

from api.limits.book import Book, Claim, Permit, Settlements, Verdict, settle, subjects, take

_TABLE = """
CREATE TABLE IF NOT EXISTS qna_limits (
    subject text PRIMARY KEY, state text NOT NULL, changed_at timestamptz NOT NULL
)"""
_LOCK = 0x716E615F6C696D69
"""Number of the advisory lock: "qna_limi"."""
_FORGET = "DELETE FROM qna_limits WHERE changed_at < now() - interval '2 days'"
_MARK = """
INSERT INTO qna_limits VALUES (%s, %s, now()) ON CONFLICT (subject)
DO UPDATE SET state = excluded.state, changed_at = now()
WHERE qna_limits.state::bigint < excluded.state::bigint"""


class PostgresStore:
    def __init__(self, url: str, *, timeout_s: float, connections: int = 4) -> None:
        self._url = url
        milliseconds = max(1, int(timeout_s * 1000))
        # For the transaction alone, and in one exchange with its beginning: a pooler between may
        # hand the next one to another server connection, and this one to somebody else.
        self._begin = (
            f"BEGIN; SET LOCAL statement_timeout = {milliseconds}; "
            f"SET LOCAL lock_timeout = {milliseconds}; SET LOCAL synchronous_commit = off"
        ).encode()
        self._idle: list[psycopg.AsyncConnection] = []
        self._free = asyncio.Semaphore(connections)

    async def open(self) -> None:
        async with self._connection() as connection:
            # Two that make the same table at once would fail.
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            await connection.execute(_TABLE)
            await connection.execute(_FORGET)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def take(self, claims: Sequence[Claim], permits: Sequence[Permit]) -> Verdict:
        names = subjects(claims, permits)
        async with self._connection() as connection:
            books = await self._locked(connection, names)
            # After the wait for the locks.
            cursor = await connection.execute(
                "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
            row = await cursor.fetchone()
            assert row is not None
            verdict = take(books, claims, permits, row[0])
            if verdict.admitted:
                await self._write(connection, books)
        return verdict

    async def settle(self, settlements: Settlements) -> None:
        names = subjects((claim for claim, *_ in settlements.claims), settlements.permits)
        mark = (f"writer:{settlements.writer}", str(settlements.number))
        async with self._connection() as connection:
            # Waits for an attempt at the same that still runs.
            if not (await connection.execute(_MARK, mark)).rowcount:
                return
            books = await self._locked(connection, names)
            settle(books, settlements)
            await self._write(connection, books)

    async def _locked(
        self, connection: psycopg.AsyncConnection, names: Sequence[str]
    ) -> dict[str, Book]:
        query = (
            "SELECT subject, state FROM qna_limits WHERE subject = ANY(%s)"
            " ORDER BY subject FOR UPDATE"
        )
        rows = await (await connection.execute(query, (list(names),))).fetchall()
        if len(rows) < len(names):
            await connection.execute(
                "INSERT INTO qna_limits SELECT unnest(%s::text[]), %s, now()"
                " ON CONFLICT DO NOTHING",
                (list(names), orjson.dumps(Book().dump()).decode()),
            )
            rows = await (await connection.execute(query, (list(names),))).fetchall()
        return {subject: Book.load(orjson.loads(state)) for subject, state in rows}

    @staticmethod
    async def _write(connection: psycopg.AsyncConnection, books: Mapping[str, Book]) -> None:
        states = [orjson.dumps(book.dump()).decode() for book in books.values()]
        await connection.execute(
            "UPDATE qna_limits SET state = new.state, changed_at = now()"
            " FROM unnest(%s::text[], %s::text[]) AS new (subject, state)"
            " WHERE qna_limits.subject = new.subject",
            (list(books), states),
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """One in a transaction. One that failed, or whose caller left, is not used again."""
        async with self._free:
            connection = await self._begun()
            try:
                yield connection
                await connection.execute(b"COMMIT")
            except BaseException:
                # Nothing is waited for: the server may be frozen.
                connection.pgconn.finish()
                raise
            self._idle.append(connection)

    async def _begun(self) -> psycopg.AsyncConnection:
        """One that is known to work: those that were idle while the server restarted do not."""
        while True:
            was_idle = bool(self._idle)
            connection = self._idle.pop() if was_idle else await self._connect()
            try:
                await connection.execute(self._begin)
            except BaseException as error:
                connection.pgconn.finish()
                if was_idle and isinstance(error, psycopg.OperationalError):
                    continue
                raise
            return connection

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=2,
            application_name="qna-api-server limits",
            # A pooler between knows no prepared statements of ours.
            prepare_threshold=None,
        )
