"""What PostgreSQL needs beyond SQL: its connections, its time-outs, and which errors pass.

Isolation is READ COMMITTED; the chat's row is locked by whoever begins a turn in it. Two processes
that meet (the same new chat, a lease that is renewed while another sweeps it) can still make the
server end one transaction, which is then run again.
"""

from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError

from api.errors import ApiError, StoreFull, StoreUnavailable
from api.history.store import StoreError

_SCHEMA_LOCK = 0x716E615F63686174
"""Number of the advisory lock, the same in every version: "qna_chat"."""
_REPEATABLE = frozenset({"40001", "40P01", "23505"})
"""Serialisation failure, deadlock, a row that another process has just inserted."""
_ENCODINGS = frozenset({"UTF8", "SQL_ASCII"})
"""SQL_ASCII is what a server made without a locale has: it keeps the bytes that it is given."""
_DISK_FULL = "53100"
_READ_ONLY = "25006"
_LIMITS = text(
    "SELECT set_config('statement_timeout', :wait, true), set_config('lock_timeout', :wait, true),"
    " set_config('idle_in_transaction_session_timeout', :idle, true)"
)


class PostgresServer:
    group_size = 1
    """The server has group commit of its own."""

    def __init__(self, url: URL, timeout_s: float, connections: int) -> None:
        self.connections = connections
        where = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
        self.name = where.render_as_string()
        milliseconds = max(1, int(timeout_s * 1000))
        defaults = {
            "connect_timeout": max(2, int(timeout_s)),
            "application_name": "qna-api-server",
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 2 * milliseconds,
        }
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            # A server that was restarted has forgotten the connections of before.
            pool_pre_ping=True,
            hide_parameters=True,
            # What the address says wins. A pooler between hands each transaction to another
            # server connection, which knows no prepared statements of ours.
            connect_args={k: v for k, v in defaults.items() if k not in url.query}
            # An old database without an encoding would otherwise answer in bytes.
            | {"prepare_threshold": None, "client_encoding": "utf8"},
        )

        @event.listens_for(self.engine, "handle_error")
        def on_error(context: ExceptionContext) -> None:
            # A server that others have replaced goes on answering, and takes no writes: its
            # connections look well and have to go, so that new ones lead to the one that does.
            if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
                context.is_disconnect = True

        @event.listens_for(self.engine, "begin")
        def on_begin(connection: Connection) -> None:
            # Not as start-up options, which poolers refuse, and for the transaction alone.
            connection.execute(_LIMITS, {"wait": str(milliseconds), "idle": str(4 * milliseconds)})

    def prepare(self) -> bool:
        """Others may use the server at any time: a dead process is known by its lease alone."""
        return False

    def lock_schema(self, connection: Connection) -> None:
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding not in _ENCODINGS:
            raise StoreError(
                f"{self.name}: its encoding is {encoding}, which cannot hold every text; "
                "use a database that was created with ENCODING 'UTF8'"
            )
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})

    def share(self) -> bool:
        return True

    def close(self) -> None:
        self.engine.dispose()

    def may_repeat(self, error: BaseException) -> bool:
        return _sqlstate(error) in _REPEATABLE

    def may_split(self, error: BaseException) -> bool:
        return False

    def translate(self, error: BaseException) -> ApiError:
        if _sqlstate(error) == _DISK_FULL:
            return StoreFull()
        return StoreUnavailable(retry_after_s=2)

    def facts(self) -> dict[str, Any]:
        return {"database": self.name, "connections": self.connections}


def _sqlstate(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)
