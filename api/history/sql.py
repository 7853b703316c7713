"""The store on a SQL database.

Operations are plain functions on a connection: a whole transaction runs in one go on the
database's own thread, so the event loop waits once per transaction and not once per statement. (A
database that is reached over the network would run the same functions with SQLAlchemy's
`AsyncConnection.run_sync`.)

An operation that has begun always runs to its end: a request that is cancelled stops waiting for
it but never leaves a connection in the middle of an exchange. One renewal task per process keeps
the leases of all its running turns alive and ends the turns of processes that have died.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    and_,
    create_engine,
    delete,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from api import logs
from api.errors import ApiError, ChatBusy, StoreUnavailable
from api.history import migrate, sqlite
from api.history.models import ChatRow, LeaseRow, TurnRow
from api.history.store import (
    ChatHead,
    LeaseLost,
    PastTurn,
    StartedTurn,
    StoreError,
    Turn,
    TurnOutcome,
    TurnStatus,
)
from api.metrics import Metrics

logger = logging.getLogger("api.history")
T = TypeVar("T")
# Written out, not bound: only then SQLite sees that the partial index of pending turns applies.
_PENDING: ColumnClause[str] = literal_column("'pending'")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class SqlStore:
    def __init__(self, url: str, metrics: Metrics, *, lease_s: float, timeout_s: float) -> None:
        self._url = make_url(url)
        self._metrics = metrics
        self._lease_ms = int(lease_s * 1000)
        self._timeout_s = timeout_s
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()
        self._operations: set[asyncio.Future[Any]] = set()
        self._renewal: asyncio.Task[None] | None = None
        self._opened = False
        file = sqlite.database_file(self._url)
        self._file = file
        self._lock = sqlite.ProcessLock(file) if file else None
        self._engine = create_engine(
            # The name of an asyncio driver is accepted and means the same file.
            self._url.set(drivername="sqlite"),
            poolclass=StaticPool,
            hide_parameters=True,
            connect_args={
                "timeout": timeout_s,
                "isolation_level": None,
                # Opened and closed by other threads than the one that works with it, never at once.
                "check_same_thread": False,
            },
        )
        sqlite.configure(self._engine, timeout_s)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")

    # ---- opening and closing --------------------------------------------------------------------

    async def open(self) -> None:
        if self._opened:
            return
        alone = await self._prepare()

        def operation(connection: Connection) -> tuple[str | None, str | None, int]:
            before, after = migrate.upgrade(connection)
            return before, after, self._end_dead_turns(connection, every=alone)

        loop = asyncio.get_running_loop()
        try:
            before, after, ended = await loop.run_in_executor(
                self._thread, lambda: self._transact(operation, writes=True)
            )
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"{self._file or 'database'}: {cause}") from error
        await self._share_lock()
        mode, reason = sqlite.journal_mode()
        logs.event(
            logger,
            logging.INFO,
            "history is open",
            schema=after,
            schema_before=before,
            journal=mode,
            synchronous="full",
            because=reason,
            interrupted_turns=ended,
        )
        self._opened = True
        self._renewal = asyncio.create_task(self._renew_for_ever())

    async def _prepare(self) -> bool:
        """Make the folder. True when no other living process uses the database."""
        if self._file is None or self._lock is None:
            return True
        sqlite.prepare_folder(self._file)
        return self._lock.alone()

    async def _share_lock(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._lock is not None and not self._lock.share():
            if time.monotonic() > deadline:
                self._lock.release()
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
            self._renewal = None
        while self._operations:
            await asyncio.wait(self._operations)
        self._thread.shutdown()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
        self._opened = False

    # ---- operations -----------------------------------------------------------------------------

    async def check(self) -> None:
        def operation(connection: Connection) -> None:
            connection.execute(select(LeaseRow.turn_id).limit(1))

        await self._run("check", operation)

    async def begin_turn(
        self,
        owner: str,
        chat_id: str,
        *,
        user_prompt: str,
        system_prompt: str | None,
        request_id: str,
        max_past: int,
    ) -> StartedTurn:
        turn_id = uuid.uuid4().hex

        def operation(connection: Connection) -> StartedTurn:
            now = now_ms()
            chat = self._chat_for_writing(connection, owner, chat_id, now)
            self._take_lease(connection, chat, turn_id, now)
            effective = chat.system_prompt if system_prompt is None else system_prompt
            connection.execute(
                insert(TurnRow).values(
                    owner=owner,
                    chat_id=chat_id,
                    position=chat.next_position,
                    turn_id=turn_id,
                    status=TurnStatus.PENDING,
                    system_prompt=effective,
                    user_prompt=user_prompt,
                    own_tokens=0,
                    request_id=request_id,
                    created_ms=now,
                )
            )
            connection.execute(
                update(ChatRow)
                .where(*_of(ChatRow, owner, chat_id))
                .values(
                    next_position=chat.next_position + 1, updated_ms=now, system_prompt=effective
                )
            )
            limit = min(max_past, chat.complete_turns)
            past = self._past(connection, owner, chat_id, limit) if limit else ()
            return StartedTurn(
                owner=owner,
                chat_id=chat_id,
                turn_id=turn_id,
                position=chat.next_position,
                system_prompt=effective,
                past=past,
                past_left_out=chat.complete_turns - len(past),
            )

        # Renewed from the moment it may exist, so that a slow commit cannot outlive its own lease.
        self._held.add(turn_id)
        try:
            return await self._run("begin_turn", operation, writes=True, late=self._end_late)
        except BaseException:
            self._held.discard(turn_id)
            raise

    async def end_turn(self, turn: StartedTurn, outcome: TurnOutcome) -> None:
        def operation(connection: Connection) -> None:
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
            complete = int(outcome.status == TurnStatus.COMPLETE)
            connection.execute(
                update(ChatRow)
                .where(*_of(ChatRow, *of_chat))
                .values(updated_ms=now, complete_turns=ChatRow.complete_turns + complete)
            )

        try:
            await self._run("end_turn", operation, writes=True)
        finally:
            self._held.discard(turn.turn_id)
        self._metrics.turns.labels(outcome.status.value).inc()

    async def list_chats(
        self, owner: str, limit: int, before: tuple[int, str] | None
    ) -> Sequence[ChatHead]:
        query = select(ChatRow).where(ChatRow.owner == owner)
        if before is not None:
            position = tuple_(literal(before[0]), literal(before[1]))
            query = query.where(tuple_(ChatRow.updated_ms, ChatRow.chat_id) < position)
        query = query.order_by(ChatRow.updated_ms.desc(), ChatRow.chat_id.desc()).limit(limit)

        def operation(connection: Connection) -> list[ChatHead]:
            return [_head(row) for row in connection.execute(query)]

        return await self._run("list_chats", operation)

    async def get_chat(self, owner: str, chat_id: str) -> ChatHead | None:
        def operation(connection: Connection) -> ChatHead | None:
            query = select(ChatRow).where(*_of(ChatRow, owner, chat_id))
            row = connection.execute(query).first()
            return _head(row) if row else None

        return await self._run("get_chat", operation)

    async def list_turns(self, owner: str, chat_id: str, limit: int, after: int) -> Sequence[Turn]:
        query = (
            select(TurnRow)
            .where(*_of(TurnRow, owner, chat_id), TurnRow.position > after)
            .order_by(TurnRow.position)
            .limit(limit)
        )

        def operation(connection: Connection) -> list[Turn]:
            return [_turn(row) for row in connection.execute(query)]

        return await self._run("list_turns", operation)

    async def delete_chat(self, owner: str, chat_id: str) -> bool:
        def operation(connection: Connection) -> bool:
            self._refuse_if_leased(connection, owner, chat_id, now_ms())
            # One by one, in case the database at hand does not cascade.
            for table in (LeaseRow, TurnRow):
                connection.execute(delete(table).where(*_of(table, owner, chat_id)))
            gone = connection.execute(delete(ChatRow).where(*_of(ChatRow, owner, chat_id)))
            return bool(gone.rowcount)

        return await self._run("delete_chat", operation, writes=True)

    # ---- parts of operations --------------------------------------------------------------------

    def _chat_for_writing(
        self, connection: Connection, owner: str, chat_id: str, now: int
    ) -> "_Chat":
        """The chat with its lease, made when there is none."""
        query = (
            select(
                ChatRow.system_prompt,
                ChatRow.next_position,
                ChatRow.complete_turns,
                LeaseRow.expires_ms,
            )
            .join_from(
                ChatRow,
                LeaseRow,
                and_(ChatRow.owner == LeaseRow.owner, ChatRow.chat_id == LeaseRow.chat_id),
                isouter=True,
            )
            .where(*_of(ChatRow, owner, chat_id))
            .with_for_update(of=ChatRow)
        )
        row = connection.execute(query).first()
        if row is not None:
            return _Chat(owner, chat_id, *row)
        connection.execute(
            insert(ChatRow).values(
                owner=owner,
                chat_id=chat_id,
                created_ms=now,
                updated_ms=now,
                next_position=0,
                complete_turns=0,
            )
        )
        return _Chat(owner, chat_id, None, 0, 0, None)

    def _refuse_if_leased(self, connection: Connection, owner: str, chat_id: str, now: int) -> None:
        query = select(LeaseRow.expires_ms).where(
            *_of(LeaseRow, owner, chat_id), LeaseRow.expires_ms > now
        )
        if connection.execute(query).first() is not None:
            raise ChatBusy

    def _take_lease(self, connection: Connection, chat: "_Chat", turn_id: str, now: int) -> None:
        of_chat = (chat.owner, chat.chat_id)
        if chat.lease_expires_ms is not None:
            if chat.lease_expires_ms > now:
                raise ChatBusy
            # Its writer died or stood still: the turn ends now, and a late answer of it will find
            # nothing pending.
            connection.execute(
                update(TurnRow)
                .where(*_of(TurnRow, *of_chat), TurnRow.status == _PENDING)
                .values(status=TurnStatus.INTERRUPTED, finished_ms=now)
            )
            connection.execute(delete(LeaseRow).where(*_of(LeaseRow, *of_chat)))
        connection.execute(
            insert(LeaseRow).values(
                owner=chat.owner,
                chat_id=chat.chat_id,
                turn_id=turn_id,
                holder=self._holder,
                expires_ms=now + self._lease_ms,
            )
        )

    def _past(
        self, connection: Connection, owner: str, chat_id: str, limit: int
    ) -> tuple[PastTurn, ...]:
        query = (
            select(TurnRow.user_prompt, TurnRow.response, TurnRow.own_tokens)
            .where(*_of(TurnRow, owner, chat_id), TurnRow.status == TurnStatus.COMPLETE)
            .order_by(TurnRow.position.desc())
            .limit(limit)
        )
        rows = connection.execute(query).all()
        return tuple(PastTurn(row[0], row[1] or "", row[2]) for row in reversed(rows))

    def _end_dead_turns(self, connection: Connection, *, every: bool) -> int:
        """Mark pending turns whose lease ran out; all of them when `every`."""
        now = now_ms()
        if every:
            connection.execute(delete(LeaseRow))
        else:
            connection.execute(delete(LeaseRow).where(LeaseRow.expires_ms <= now))
        dead = connection.execute(
            update(TurnRow)
            .where(
                TurnRow.status == _PENDING,
                TurnRow.turn_id.not_in(select(LeaseRow.turn_id)),
            )
            .values(status=TurnStatus.INTERRUPTED, finished_ms=now)
        )
        return int(dead.rowcount)

    # ---- leases ---------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        sweep_at = 0.0
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            sweep = time.monotonic() >= sweep_at
            if not self._held and not sweep:
                continue
            try:
                await self._run("renew", self._renew_and_sweep, writes=True)
                sweep_at = time.monotonic() + self._lease_ms / 1000
            except ApiError as error:
                logs.event(logger, logging.WARNING, "leases not renewed", error_code=error.code)

    def _renew_and_sweep(self, connection: Connection) -> None:
        if self._held:
            connection.execute(
                update(LeaseRow)
                .where(LeaseRow.holder == self._holder)
                .values(expires_ms=now_ms() + self._lease_ms)
            )
        self._end_dead_turns(connection, every=False)

    async def _end_late(self, turn: object) -> None:
        """A turn that began after its request had given up."""
        if isinstance(turn, StartedTurn):
            await self.end_turn(turn, TurnOutcome(status=TurnStatus.INTERRUPTED))

    # ---- running --------------------------------------------------------------------------------

    def _transact(self, operation: Callable[[Connection], T], *, writes: bool) -> T:
        with self._engine.connect() as plain:
            connection = plain.execution_options(writes=writes)
            with connection.begin():
                return operation(connection)

    async def _run(
        self,
        name: str,
        operation: Callable[[Connection], T],
        *,
        writes: bool = False,
        late: Callable[[object], Awaitable[None]] | None = None,
    ) -> T:
        """Run to the end whatever happens to the caller; the caller waits no longer than the limit.

        With `late` an operation that has not begun when the caller goes is left out, and one that
        has gets its result handed to `late`.
        """

        def whole() -> T:
            with self._metrics.store.labels(name).time():
                return self._transact(operation, writes=writes)

        submitted = self._thread.submit(whole)
        future = asyncio.wrap_future(submitted)
        self._operations.add(future)
        future.add_done_callback(self._operations.discard)
        try:
            async with asyncio.timeout(self._timeout_s + 0.25):
                return await asyncio.shield(future)
        except SQLAlchemyError as error:
            raise sqlite.translate(error) from error
        except (TimeoutError, asyncio.CancelledError) as error:
            if late is None or not submitted.cancel():
                self._watch_late(name, future, late)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(retry_after_s=2) from error
            raise

    def _watch_late(
        self,
        name: str,
        future: asyncio.Future[T],
        late: Callable[[object], Awaitable[None]] | None,
    ) -> None:
        async def after() -> None:
            await asyncio.wait({future})
            if not future.cancelled() and future.exception() is None and late is not None:
                try:
                    await late(future.result())
                except (ApiError, LeaseLost):
                    logs.event(logger, logging.WARNING, "late turn not ended", operation=name)

        watcher = asyncio.create_task(after())
        self._operations.add(watcher)
        watcher.add_done_callback(self._operations.discard)


@dataclass(frozen=True, slots=True)
class _Chat:
    owner: str
    chat_id: str
    system_prompt: str | None
    next_position: int
    complete_turns: int
    lease_expires_ms: int | None


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
