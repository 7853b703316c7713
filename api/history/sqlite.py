"""What SQLite needs beyond SQL: its journal, its locks, and which processes use the file.

One connection per process: SQLite has one writer anyway, waiting for it in our own pool is fair
and can be bounded, and the WAL-reset bug of SQLite before 3.51.3 (two connections of which one
writes while another checkpoints can damage the file) cannot happen inside a process. Between
processes it could; so an older library gets the rollback journal instead of WAL. In both modes
`synchronous=FULL`: a commit that was answered survives `kill -9` and a power cut. The journal is
kept and overwritten (`PERSIST`): with the one that is deleted (`DELETE`) a commit would count only
when the folder is synced too, which FULL does not do.
"""

import fcntl
import sqlite3
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from api.errors import ApiError, StoreFull, StoreUnavailable
from api.history.store import StoreError

WAL_IS_SAFE_FROM = (3, 51, 3)
_DELETED = "deleted"


def journal_mode() -> tuple[str, str]:
    """The journal to use and why."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_IS_SAFE_FROM:
        return "wal", f"SQLite {version} has the fix of the WAL-reset bug"
    return "persist", f"SQLite {version} is older than 3.51.3, whose WAL could damage the file"


def database_file(url: URL) -> Path | None:
    """None for a database in memory."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return None
    return Path(url.database)


def prepare_folder(path: Path) -> None:
    """And the file, which holds what people say: it is the owner's alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be made: {error.strerror}") from error


def _configure(engine: Engine, timeout_s: float) -> None:
    """Settings of every connection, and transactions that take the write lock when they begin."""
    mode, _ = journal_mode()

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
            cursor.execute(f"PRAGMA journal_mode={mode}")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            # What is deleted is overwritten, in the file itself.
            cursor.execute("PRAGMA secure_delete=ON")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if connection.info.pop(_DELETED, False):
            if mode == "wal":
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("PRAGMA journal_size_limit=-1")
        # A read that becomes a write can fail at once, whatever the busy time-out says.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def leave_nothing_behind(connection: Connection) -> None:
    """In a transaction that deletes: the journal, which holds what was there, is cut off when it
    commits (a WAL when the next one begins), not kept for the next transaction.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_size_limit=0")
        connection.info[_DELETED] = True


class SqliteFile:
    """A database file, or one in memory. One connection, one thread."""

    connections = 1
    group_size = 64

    def __init__(self, url: URL, timeout_s: float) -> None:
        self._file = database_file(url)
        self.name = str(self._file or "database in memory")
        self._lock = ProcessLock(self._file) if self._file else None
        self.engine = create_engine(
            url.set(drivername="sqlite"),
            poolclass=StaticPool,
            hide_parameters=True,
            connect_args={
                "timeout": timeout_s,
                "isolation_level": None,
                # Opened and closed by other threads than the one that works with it, never at once.
                "check_same_thread": False,
            },
        )
        _configure(self.engine, timeout_s)

    def prepare(self) -> bool:
        if self._file is None or self._lock is None:
            return True
        prepare_folder(self._file)
        return self._lock.alone()

    def lock_schema(self, connection: Connection) -> None:
        """Nothing to do: a transaction that writes has the file for itself."""

    def share(self) -> bool:
        return self._lock is None or self._lock.share()

    def close(self) -> None:
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def may_repeat(self, error: BaseException) -> bool:
        """Never: nobody else writes while a transaction that writes runs."""
        return False

    def may_split(self, error: BaseException) -> bool:
        """Not when somebody else holds the file: each would wait for it as long again."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY

    def translate(self, error: BaseException) -> ApiError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StoreFull()
        return StoreUnavailable(retry_after_s=2)

    def facts(self) -> dict[str, Any]:
        mode, reason = journal_mode()
        return {"database": self.name, "journal": mode, "synchronous": "full", "because": reason}


class ProcessLock:
    """Tells whether other living processes use the database, by a lock file beside it.

    The kernel drops the lock of a process that dies in whatever way, so a process that gets it
    exclusively knows that every turn still marked pending is a dead one's. Afterwards the lock is
    shared and kept.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._file: IO[bytes] | None = None

    def alone(self) -> bool:
        """True when no other process holds the lock. False also where the file system has no
        locks.
        """
        try:
            self._file = self._path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def share(self) -> bool:
        """Keep a shared lock. False while a process that is just starting holds it alone."""
        if self._file is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            self.release()
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
