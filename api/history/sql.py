"""The store on a SQL database: who waits for what, how long, and which leases are kept alive.

A whole transaction (`api.history.statements`) runs in one go on a thread of the database's own, so
the event loop waits once per transaction and not once per statement. `api.history.database` knows
how many threads there are and what else SQLite and PostgreSQL need.

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
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api import logs
from api.errors import ApiError, StoreUnavailable
from api.history import database, migrate, statements
from api.history.store import (
    ChatHead,
    LeaseLost,
    StartedTurn,
    StoreError,
    Turn,
    TurnOutcome,
    TurnStatus,
)
from api.metrics import Metrics

logger = logging.getLogger("api.history")
T = TypeVar("T")
_ATTEMPTS = 4
_SILENCE_S = 5.0


class SqlStore:
    def __init__(
        self, url: str, metrics: Metrics, *, lease_s: float, timeout_s: float, connections: int = 8
    ) -> None:
        self._database = database.make_database(url, timeout_s=timeout_s, connections=connections)
        self._metrics = metrics
        self._lease_ms = int(lease_s * 1000)
        self._timeout_s = timeout_s
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()
        self._operations: set[asyncio.Future[Any]] = set()
        self._renewal: asyncio.Task[None] | None = None
        self._opened = False
        self._silent_until = 0.0
        self._threads = ThreadPoolExecutor(
            max_workers=self._database.connections, thread_name_prefix="history"
        )

    # ---- opening and closing --------------------------------------------------------------------

    async def open(self) -> None:
        if self._opened:
            return
        alone = self._database.prepare()

        def operation(connection: Connection) -> tuple[str | None, str | None, int]:
            self._database.lock_schema(connection)
            before, after = migrate.upgrade(connection)
            return before, after, statements.end_dead_turns(connection, every=alone)

        loop = asyncio.get_running_loop()
        try:
            before, after, ended = await loop.run_in_executor(
                self._threads, lambda: self._transact(operation, writes=True)
            )
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"{self._database.name}: {' '.join(str(cause).split())}") from error
        await self._share_lock()
        logs.event(
            logger,
            logging.INFO,
            "history is open",
            schema=after,
            schema_before=before,
            interrupted_turns=ended,
            **self._database.facts(),
        )
        self._opened = True
        self._renewal = asyncio.create_task(self._renew_for_ever())

    async def _share_lock(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._database.share():
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
            self._renewal = None
        while self._operations:
            await asyncio.wait(self._operations)
        self._threads.shutdown()
        self._database.close()
        self._opened = False

    # ---- operations -----------------------------------------------------------------------------

    async def check(self) -> None:
        await self._run("check", statements.check)

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
        new = statements.NewTurn(
            owner=owner,
            chat_id=chat_id,
            turn_id=uuid.uuid4().hex,
            user_prompt=user_prompt,
            system_prompt=system_prompt,
            request_id=request_id,
            max_past=max_past,
            holder=self._holder,
            lease_ms=self._lease_ms,
        )
        # Renewed from the moment it may exist, so that a slow commit cannot outlive its own lease.
        self._held.add(new.turn_id)
        try:
            return await self._run(
                "begin_turn",
                lambda connection: statements.begin_turn(connection, new),
                writes=True,
                late=self._end_late,
            )
        except BaseException:
            self._held.discard(new.turn_id)
            raise

    async def end_turn(self, turn: StartedTurn, outcome: TurnOutcome) -> None:
        try:
            await self._run(
                "end_turn",
                lambda connection: statements.end_turn(connection, turn, outcome),
                writes=True,
            )
        finally:
            self._held.discard(turn.turn_id)
        self._metrics.turns.labels(outcome.status.value).inc()

    async def list_chats(
        self, owner: str, limit: int, before: tuple[int, str] | None
    ) -> Sequence[ChatHead]:
        return await self._run(
            "list_chats",
            lambda connection: statements.list_chats(connection, owner, limit, before),
        )

    async def get_chat(self, owner: str, chat_id: str) -> ChatHead | None:
        return await self._run(
            "get_chat", lambda connection: statements.get_chat(connection, owner, chat_id)
        )

    async def list_turns(self, owner: str, chat_id: str, limit: int, after: int) -> Sequence[Turn]:
        return await self._run(
            "list_turns",
            lambda connection: statements.list_turns(connection, owner, chat_id, limit, after),
        )

    async def delete_chat(self, owner: str, chat_id: str) -> bool:
        return await self._run(
            "delete_chat",
            lambda connection: statements.delete_chat(connection, owner, chat_id),
            writes=True,
        )

    # ---- leases ---------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        sweep_at = 0.0
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            sweep = time.monotonic() >= sweep_at
            if not self._held and not sweep:
                continue
            try:
                # The set belongs to the event loop: the database's thread gets a copy.
                held = tuple(self._held)
                renew = partial(
                    statements.renew_leases,
                    holder=self._holder,
                    turn_ids=held,
                    lease_ms=self._lease_ms,
                )
                await self._run("renew", renew, writes=True)
                # In a transaction of its own: a sweep that has to wait must not undo the renewal.
                sweep_dead = partial(statements.end_dead_turns, every=False)
                await self._run("sweep", sweep_dead, writes=True)
                sweep_at = time.monotonic() + self._lease_ms / 1000
            except ApiError as error:
                logs.event(logger, logging.WARNING, "leases not renewed", error_code=error.code)

    async def _end_late(self, turn: object) -> None:
        """A turn that began after its request had given up."""
        if isinstance(turn, StartedTurn):
            await self.end_turn(turn, TurnOutcome(status=TurnStatus.INTERRUPTED))

    # ---- running --------------------------------------------------------------------------------

    def _transact(self, operation: Callable[[Connection], T], *, writes: bool) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                with self._database.engine.connect() as plain:
                    connection = plain.execution_options(writes=writes)
                    with connection.begin():
                        return operation(connection)
            except DBAPIError as error:
                if attempt == _ATTEMPTS - 1 or not self._database.may_repeat(error):
                    raise
        raise AssertionError("unreachable")

    async def _run(
        self,
        name: str,
        operation: Callable[[Connection], T],
        *,
        writes: bool = False,
        late: Callable[[object], Awaitable[None]] | None = None,
    ) -> T:
        """Run to the end whatever happens to the caller; the caller waits no longer than the limit.

        A read that has not begun when the caller goes is left out. So is a write with `late`;
        one that has begun gets its result handed to `late`.
        """

        def whole() -> T:
            with self._metrics.store.labels(name).time():
                return self._transact(operation, writes=writes)

        submitted = self._threads.submit(whole)
        future = asyncio.wrap_future(submitted)
        self._operations.add(future)
        future.add_done_callback(self._operations.discard)
        try:
            async with asyncio.timeout(self._timeout_s + 0.25):
                return await asyncio.shield(future)
        except SQLAlchemyError as error:
            self._say_why(name, error)
            raise self._database.translate(error) from error
        except (TimeoutError, asyncio.CancelledError) as error:
            # An ending has to be stored even when nobody waits for it any more.
            needed = writes and late is None
            if needed or not submitted.cancel():
                self._watch_late(name, future, late)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(retry_after_s=2) from error
            raise

    def _say_why(self, name: str, error: SQLAlchemyError) -> None:
        """Callers learn a code only; the operator needs the database's own words, not a flood."""
        if time.monotonic() < self._silent_until:
            return
        self._silent_until = time.monotonic() + _SILENCE_S
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        logs.event(
            logger,
            logging.WARNING,
            "the database failed",
            operation=name,
            error=type(cause).__name__,
            sqlstate=getattr(cause, "sqlstate", None),
            cause=" ".join(str(cause).split())[:300],
        )

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
