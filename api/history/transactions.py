"""Runs whole transactions of a database, each in one go on a thread of the database's own.

The event loop waits once per transaction and not once per statement. An operation that has begun
always runs to its end: a request that is cancelled stops waiting for it but never leaves a
connection in the middle of an exchange. `api.history.database` knows how many threads there are.

SQLite has one writer, and a commit costs several waits for the disk: transactions that wait behind
one another share a commit, each still whole or undone by itself.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api import logs
from api.errors import ApiError, StoreUnavailable
from api.history.database import Database
from api.history.store import LeaseLost
from api.metrics import Metrics

logger = logging.getLogger("api.history")
T = TypeVar("T")
Late = Callable[[object], Awaitable[None]]
_ATTEMPTS = 4
_SILENCE_S = 5.0


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    name: str
    operation: Callable[[Connection], T]
    writes: bool
    future: "Future[T]" = field(default_factory=Future)


class Transactions:
    def __init__(self, database: Database, metrics: Metrics, timeout_s: float) -> None:
        self._database = database
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._running: set[asyncio.Future[Any]] = set()
        self._jobs: deque[Job[Any]] = deque()
        self._silent_until = 0.0
        self._threads = ThreadPoolExecutor(
            max_workers=database.connections, thread_name_prefix="history"
        )

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
        self._threads.shutdown()

    async def first(self, operation: Callable[[Connection], T]) -> T:
        """However long it takes, with the database's own errors: nobody waits for it yet."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self._transact(operation, writes=True)
        )

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

    # ---- on a thread of the database's own ------------------------------------------------------

    def _work(self) -> None:
        """The next job, and with it those writes behind it that may share its commit."""
        jobs: list[Job[Any]] = []
        while self._jobs and len(jobs) < self._database.group_size:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break  # another thread was faster
            if jobs and not (job.writes and jobs[0].writes):
                self._jobs.appendleft(job)
                self._threads.submit(self._work)
                break
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
        if len(jobs) > 1:
            self._together(jobs)
        elif jobs:
            self._alone(jobs[0])

    def _alone(self, job: "Job[Any]") -> None:
        started = time.perf_counter()
        try:
            result = self._transact(job.operation, writes=job.writes)
        except BaseException as error:  # noqa: BLE001  # whoever waits for it is told
            self._observe(job, started)
            job.future.set_exception(error)
        else:
            self._observe(job, started)
            job.future.set_result(result)

    def _together(self, jobs: Sequence["Job[Any]"]) -> None:
        """Many small transactions in one commit: what costs time is the disk's, not ours. Each is
        undone by itself when it is refused, and nobody hears of success before the commit.
        """
        started = time.perf_counter()
        outcomes: list[Any] = []

        def operation(connection: Connection) -> None:
            outcomes.clear()
            raw = connection.connection.cursor()
            for job in jobs:
                raw.execute("SAVEPOINT job")
                try:
                    outcomes.append((job.operation(connection), None))
                except DBAPIError:
                    raise
                except Exception as error:  # noqa: BLE001  # as above
                    raw.execute("ROLLBACK TO job")
                    outcomes.append((None, error))
                raw.execute("RELEASE job")
            raw.close()

        try:
            self._transact(operation, writes=True)
        except BaseException as error:  # noqa: BLE001  # as above
            if isinstance(error, DBAPIError) and self._database.may_split(error):
                # One of them was too much; the others need not fail with it.
                for job in jobs:
                    self._alone(job)
                return
            outcomes = [(None, error)] * len(jobs)
        for job, (result, refusal) in zip(jobs, outcomes, strict=True):
            self._observe(job, started)
            if refusal is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(refusal)

    def _observe(self, job: "Job[Any]", started: float) -> None:
        self._metrics.store.labels(job.name).observe(time.perf_counter() - started)

    # ---- on the event loop ----------------------------------------------------------------------

    async def run(
        self,
        name: str,
        operation: Callable[[Connection], T],
        *,
        writes: bool = False,
        late: Late | None = None,
    ) -> T:
        """Run to the end whatever happens to the caller; the caller waits no longer than the limit.

        A read that has not begun when the caller goes is left out. So is a write with `late`;
        one that has begun gets its result handed to `late`.
        """

        job = Job(name, operation, writes)
        self._jobs.append(job)
        self._threads.submit(self._work)
        future = asyncio.wrap_future(job.future)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(self._timeout_s + 0.25):
                return await asyncio.shield(future)
        except SQLAlchemyError as error:
            self._say_why(name, error)
            raise self._database.translate(error) from error
        except (TimeoutError, asyncio.CancelledError) as error:
            # An ending has to be stored even when nobody waits for it any more.
            needed = writes and late is None
            if needed or not job.future.cancel():
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
        late: Late | None,
    ) -> None:
        async def after() -> None:
            await asyncio.wait({future})
            if not future.cancelled() and future.exception() is None and late is not None:
                try:
                    await late(future.result())
                except (ApiError, LeaseLost):
                    logs.event(logger, logging.WARNING, "late turn not ended", operation=name)

        watcher = asyncio.create_task(after())
        self._running.add(watcher)
        watcher.add_done_callback(self._running.discard)
