"""The API server's settings: one frozen object, read once from the environment and flags.

Owns names, defaults and bounds. Every field is an environment variable `API_<NAME>` and a flag
`--<name>`; a flag wins. A wrong value raises SettingsError with one line that names the setting,
never its content when that may hold a password.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

MIB = 1024 * 1024


class SettingsError(ValueError):
    """A setting has a value that it cannot have; the message is one line for the operator."""


def _setting(
    default: str | int | float,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default, metadata={"text": text, "low": low, "high": high, "choices": choices}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str = _setting("127.0.0.1", "address to listen on; containers set 0.0.0.0")
    port: int = _setting(8000, "port to listen on; 0 takes a free one", low=0, high=65535)
    model_host_url: str = _setting("http://127.0.0.1:8001", "where the model host answers")
    database_url: str = _setting(
        "sqlite:///./data/chats.db",
        "where chats are stored: sqlite:///path or postgresql://user:password@host/name",
    )
    database_connections: int = _setting(
        8, "connections that one process keeps to PostgreSQL", low=1, high=200
    )

    request_timeout_s: float = _setting(
        120.0, "deadline of a request; it may name a shorter one", low=0.001, high=3600
    )
    connect_timeout_s: float = _setting(2.0, "time to reach the model host", low=0.01, high=60)
    write_timeout_s: float = _setting(
        10.0, "time to hand a request to the model host", low=0.01, high=600
    )
    pool_timeout_s: float = _setting(5.0, "time to wait for a free connection", low=0.01, high=60)
    stream_idle_timeout_s: float = _setting(
        15.0, "silence after which a stream counts as broken", low=0.01, high=3600
    )
    keepalive_s: float = _setting(
        4.0,
        "how long an idle connection is kept; less than the model host keeps it",
        low=0,
        high=600,
    )
    retry_attempts: int = _setting(4, "retries of one request", low=0, high=10)
    retry_budget: float = _setting(0.2, "retries per request, in the long run", low=0, high=1)
    retry_burst: int = _setting(20, "retries that may come at once", low=0, high=1000)

    max_body_bytes: int = _setting(MIB, "largest request body", low=1024, high=256 * MIB)
    body_timeout_s: float = _setting(15.0, "time to send a body", low=0.01, high=600)
    max_in_flight: int = _setting(256, "requests answered at once", low=1, high=100_000)
    max_history_turns: int = _setting(
        256, "most earlier turns that go along with a question", low=0, high=10_000
    )
    lease_s: float = _setting(
        15.0, "how long a chat stays locked after its writer died", low=0.2, high=3600
    )
    database_timeout_s: float = _setting(5.0, "longest wait for the database", low=0.05, high=60)
    drain_timeout_s: float = _setting(
        30.0, "time that running requests get after SIGTERM", low=0, high=3600
    )
    log_level: str = _setting(
        "info", "least level that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting("json", "form of the log", choices=("json", "text"))

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))
        _check_url(env_name("model_host_url"), self.model_host_url)
        if not self.database_url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise SettingsError(
                f"{env_name('database_url')}: want sqlite:///path or "
                "postgresql://user:password@host:port/name"
            )


def env_name(name: str) -> str:
    return f"API_{name.upper()}"


def _check(spec: Field[Any], value: object) -> None:
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    if choices and value not in choices:
        raise SettingsError(f"{env_name(spec.name)}: want one of {', '.join(choices)}")
    if isinstance(value, int | float):
        too_low = low is not None and value < low
        too_high = high is not None and value > high
        if too_low or too_high or not math.isfinite(value):
            raise SettingsError(f"{env_name(spec.name)}: want {low:g} to {high:g}")
    elif not value:
        raise SettingsError(f"{env_name(spec.name)}: must not be empty")


def _check_url(name: str, value: str) -> None:
    try:
        url = urlsplit(value)
        _ = url.port  # raises when it is none
    except ValueError:
        url = urlsplit("")
    if "@" in url.netloc:
        # It would be logged, and sent along with every request.
        raise SettingsError(f"{name}: must not hold a user name or a password")
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise SettingsError(f"{name}: want http://host[:port][/path] or https://…")


def _parse(spec: Field[Any], text: str) -> str | int | float:
    kind = type(spec.default)
    try:
        if kind is int:
            return int(text)
        return float(text) if kind is float else text.strip()
    except ValueError:
        want = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{env_name(spec.name)}: want {want}") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(message)


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="python -m api", description="The API server.", allow_abbrev=False)
    made.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=("serve", "migrate", "openapi"),
        help="serve (default); migrate the database and end; write docs/openapi/api-server.json",
    )
    for spec in fields(Settings):
        flag = "--" + spec.name.replace("_", "-")
        text = f"{spec.metadata['text']} ({env_name(spec.name)}, default {spec.default})"
        made.add_argument(flag, dest=spec.name, metavar="…", help=text)
    return made


def read(environ: Mapping[str, str], argv: Sequence[str] = ()) -> tuple[str, Settings]:
    """The command and the settings that flags and environment ask for."""
    flags = vars(parser().parse_args(list(argv)))
    values: dict[str, Any] = {}
    for spec in fields(Settings):
        text = flags[spec.name]
        if text is None:
            # An empty variable is how charts and shells say "not set".
            text = environ.get(env_name(spec.name)) or None
        if text is not None:
            values[spec.name] = _parse(spec, text)
    return flags["command"], Settings(**values)
