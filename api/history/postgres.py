"""What PostgreSQL needs beyond SQL: its connections, its time-outs, and which errors pass.

Isolation is READ COMMITTED; the chat's row is locked by whoever begins a turn in it. Two processes
that meet (the same new chat, a lease that is renewed while another sweeps it) can still make the
server end one transaction, which is then run again.
"""

from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from api.errors import ApiError, StoreFull, StoreUnavailable

_SCHEMA_LOCK = 0x716E615F63686174
"""Number of the advisory lock, the same in every version: "qna_chat"."""
_REPEATABLE = frozenset({"40001", "40P01", "23505"})
"""Serialisation failure, deadlock, a row that another process has just inserted."""
_DISK_FULL = "53100"


class PostgresServer:
    def __init__(self, url: URL, timeout_s: float, connections: int) -> None:
        self.connections = connections
        self.name = url.set(username=None, password=None, query={}).render_as_string()
        milliseconds = max(1, int(timeout_s * 1000))
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            # A server that was restarted has forgotten the connections of before.
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": max(2, int(timeout_s)),
                "application_name": "qna-api-server",
                "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
                f" -c idle_in_transaction_session_timeout={4 * milliseconds}",
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 2 * milliseconds,
            },
        )

    def prepare(self) -> bool:
        """Others may use the server at any time: a dead process is known by its lease alone."""
        return False

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})

    def share(self) -> bool:
        return True

    def close(self) -> None:
        self.engine.dispose()

    def may_repeat(self, error: BaseException) -> bool:
        return _sqlstate(error) in _REPEATABLE

    def translate(self, error: BaseException) -> ApiError:
        if _sqlstate(error) == _DISK_FULL:
            return StoreFull()
        return StoreUnavailable(retry_after_s=2)

    def facts(self) -> dict[str, Any]:
        return {"database": self.name, "connections": self.connections}


def _sqlstate(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)
