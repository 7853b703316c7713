"""The API server's settings: one frozen object, read once when the process starts.

Owns names, defaults and bounds; `api.settings_sources` knows where values come from. A wrong value
raises SettingsError with one line that names the setting, never its content when that may hold a
password.
"""

import math
import re
from dataclasses import Field, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

MIB = 1024 * 1024
OTLP_ENDPOINTS = (
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
)
_GIVEN_KEY = re.compile(r"|[A-Za-z0-9._~-]{32,256}")
# Whatever a model host of another make may ask for.
_HOST_KEYS = re.compile(r"(?!,)[!-~]{0,1024}")


class SettingsError(ValueError):
    """A setting has a value that it cannot have; the message is one line for the operator."""


def _setting(
    default: str | int | float,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    empty: bool = False,
    standard: tuple[tuple[str, str], ...] = (),
) -> Any:
    """`secret`: never shown, and read from the file that `API_<NAME>_FILE` names. `empty`: may
    be. `standard`: variables of others that say the same, each with what it leaves out at its end.
    """
    about = {"text": text, "low": low, "high": high, "choices": choices, "standard": standard}
    return field(default=default, metadata=about | {"secret": secret, "empty": empty})


def _limit(text: str) -> Any:
    return _setting(0, f"{text}; 0 is no limit", low=0, high=10**12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str = _setting("127.0.0.1", "address to listen on; containers set 0.0.0.0")
    port: int = _setting(8000, "port to listen on; 0 takes a free one", low=0, high=65535)
    model_host_url: str = _setting("http://127.0.0.1:8001", "where the model host answers")
    model_host_pods_url: str = _setting(
        "", "http:// address whose name stands for all pods of the model host, each of which is "
        "then an address of its own; model_host_url is asked when none of them answers", empty=True,
    )  # fmt: skip
    models_file: str = _setting(
        "", "YAML file with several models and their addresses; it wins over the one model host",
        empty=True,
    )  # fmt: skip
    model_host_key: str = _setting(
        "", "the key that the model host asks for (its MODEL_HOST_API_KEY; the first is sent of "
        "several); a models file names its own by address", secret=True, empty=True,
    )  # fmt: skip
    database_url: str = _setting(
        "sqlite:///./data/chats.db",
        "where chats are stored: sqlite:///path or postgresql://user:password@host/name",
        secret=True,
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
    body_timeout_s: float = _setting(10.0, "time to send a body", low=0.01, high=600)
    client_keepalive_s: int = _setting(
        75,
        "how long a caller's idle connection is kept; longer than a load balancer keeps it",
        low=1,
        high=3600,
    )
    max_in_flight: int = _setting(256, "requests answered at once", low=1, high=100_000)
    max_queued: int = _setting(256, "requests that wait in line beyond that", low=0, high=100_000)
    queue_timeout_s: float = _setting(10.0, "longest wait in line", low=0.01, high=600)
    max_buffered_bytes: int = _setting(
        128 * MIB, "memory for what is large: bodies of requests that run, and stored text that is "
        "being sent; with keys half of it for one tenant, and who finds no room waits in line",
        low=MIB, high=1024 * 1024 * MIB,
    )  # fmt: skip
    hold_s: float = _setting(
        0.0, "longest wait of a question for a host of its model to be there; 0: none waits",
        low=0, high=3600,
    )  # fmt: skip
    max_held: int = _setting(
        64, "requests for one model that wait so", low=1, high=100_000
    )  # fmt: skip
    peers_url: str = _setting(
        "", "address whose name stands for every API server, which together say the load; empty: "
        "there is one", empty=True,
    )  # fmt: skip
    max_history_turns: int = _setting(
        256, "most earlier turns that go along with a question", low=0, high=10_000
    )
    lease_s: float = _setting(
        15.0, "how long a chat stays locked after its writer died", low=0.2, high=3600
    )
    retention_days: float = _setting(
        0.0, "days after a chat's last turn when it is deleted; 0 keeps all", low=0, high=36_500
    )
    idempotency_s: float = _setting(
        86_400.0, "how long an Idempotency-Key is known", low=1, high=365 * 86_400
    )
    database_timeout_s: float = _setting(5.0, "longest wait for the database", low=0.05, high=60)
    drain_timeout_s: float = _setting(
        30.0, "time that running requests get after SIGTERM", low=0, high=3600
    )
    auth: str = _setting("off", "whether callers need a key", choices=("off", "on"))
    admin_key: str = _setting(
        "", "a key with every scope that needs no database, 32 to 256 characters",
        secret=True, empty=True,
    )  # fmt: skip
    metrics_key: str = _setting(
        "", "the same for reading /metrics and nothing else", secret=True, empty=True
    )
    key_cache_s: float = _setting(
        5.0, "after how long a key that was revoked elsewhere is refused at the latest",
        low=0, high=3600,
    )  # fmt: skip
    allowed_hosts: str = _setting(
        "", "names, with commas between, that a server without keys on loopback answers to "
        "besides localhost", empty=True,
    )  # fmt: skip
    open_docs: str = _setting(
        "on", "whether /docs and /openapi.json need no key", choices=("on", "off")
    )

    limits_url: str = _setting(
        "", "where limits are counted: redis://… or postgresql://…; empty: in the chats' "
        "PostgreSQL, in memory with SQLite", secret=True, empty=True,
    )  # fmt: skip
    limits_timeout_s: float = _setting(
        0.25, "longest wait for where limits are counted", low=0.01, high=5
    )
    limits_when_away: str = _setting(
        "open", "while it does not answer: let in and count in this process, or refuse",
        choices=("open", "closed"),
    )  # fmt: skip
    key_requests_per_minute: int = _limit("requests per minute of a key that sets no other")
    key_tokens_per_minute: int = _limit("tokens per minute of such a key")
    key_tokens_per_day: int = _limit("tokens per day of such a key")
    key_max_concurrent: int = _limit("requests at once of such a key")
    tenant_requests_per_minute: int = _limit("requests per minute of a tenant that sets no other")
    tenant_tokens_per_minute: int = _limit("tokens per minute of such a tenant")
    tenant_tokens_per_day: int = _limit("tokens per day of such a tenant")
    tenant_max_concurrent: int = _limit("requests at once of such a tenant")

    log_level: str = _setting(
        "info", "least level that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting("json", "form of the log", choices=("json", "text"))
    access_log: str = _setting(
        "on", "whether the log has a line for each request", choices=("on", "off")
    )
    traces_url: str = _setting(
        "", "where spans are sent by OTLP over HTTP, such as http://collector:4318/v1/traces; "
        "empty: no tracing", empty=True, standard=OTLP_ENDPOINTS,
    )  # fmt: skip
    traces_ratio: float = _setting(
        1.0, "share of the traces that begin here whose spans are sent", low=0, high=1
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))
        _check_url(env_name("model_host_url"), self.model_host_url)
        if self.model_host_pods_url:
            _check_url(env_name("model_host_pods_url"), self.model_host_pods_url)
            if not self.model_host_pods_url.startswith("http://"):
                # A certificate is for the name, not for the numbers that it stands for.
                raise SettingsError(f"{env_name('model_host_pods_url')}: works with http:// only")
        if self.peers_url:
            _check_url(env_name("peers_url"), self.peers_url)
            if not self.peers_url.startswith("http:"):
                name = env_name("peers_url")
                raise SettingsError(f"{name}: want http://…, for it is asked by its numbers")
        if self.traces_url:
            _check_url(env_name("traces_url"), self.traces_url)
        for name in ("admin_key", "metrics_key"):
            if not _GIVEN_KEY.fullmatch(getattr(self, name)):
                raise SettingsError(
                    f"{env_name(name)}: want 32 to 256 characters of A-Z a-z 0-9 . _ ~ -"
                )
        if not _HOST_KEYS.fullmatch(self.model_host_key):
            raise SettingsError(
                f"{env_name('model_host_key')}: want 1 to 1024 visible ASCII characters, a key or "
                "several with commas between"
            )
        if not self.limits_url.startswith(
            ("redis://", "rediss://", "unix://", "postgresql://", "postgres://")
            if self.limits_url
            else ""
        ):
            raise SettingsError(
                f"{env_name('limits_url')}: want redis://[user:password@]host[:port][/number] or "
                "postgresql://user:password@host:port/name"
            )
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
            raise SettingsError(f"{env_name(spec.name)}: want {low:.15g} to {high:.15g}")
    elif not value and not spec.metadata["empty"]:
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
