"""What the store has to know of a database beyond SQL, and which kinds there are."""

from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.errors import ApiError
from api.history.postgres import PostgresServer
from api.history.sqlite import SqliteFile
from api.history.store import StoreError


class Database(Protocol):
    """A kind of database: how it is opened, locked and what its errors mean."""

    name: str
    """For messages: where it is, without a password."""
    engine: Engine
    connections: int
    """Transactions that may run at once, each on a thread of its own."""
    group_size: int
    """How many transactions that write may share a commit."""

    def prepare(self) -> bool:
        """Before the first connection. True when no other living process uses the database."""

    def lock_schema(self, connection: Connection) -> None:
        """Keep other processes from migrating until the transaction ends."""

    def share(self) -> bool:
        """After opening: let other processes in. False: not possible yet, ask again."""

    def close(self) -> None:
        """Close every connection and release what `prepare` and `share` took."""

    def may_repeat(self, error: BaseException) -> bool:
        """Whether the same transaction, run again from its start, can succeed at once."""

    def may_split(self, error: BaseException) -> bool:
        """Whether transactions that shared a commit and failed can succeed one by one."""

    def translate(self, error: BaseException) -> ApiError:
        """What a failed operation means for the client who asked for it."""

    def facts(self) -> dict[str, Any]:
        """What the start-up log says about it."""


def make_database(url: str, *, timeout_s: float, connections: int) -> Database:
    """The database of an address; nothing is opened yet. StoreError when it is no address."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The error's own words may hold the password.
        raise StoreError("API_DATABASE_URL: not an address of a database") from error
    if parsed.drivername.startswith("sqlite"):
        return SqliteFile(parsed, timeout_s)
    return PostgresServer(parsed, timeout_s, connections)
