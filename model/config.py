"""Every setting of the model host: its flag, its environment variable, its default, its range.

Owns reading and checking them. Knows no KServe, no HTTP and no torch. Read once, on the main
thread, before anything is started; the result is immutable.
"""

import argparse
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model.engine import EngineConfig
from model.engine.config import DEVICE, KERNELS, QUANTIZATIONS

BUNDLED_MODEL = Path(__file__).parent / "demo" / "weights"
BUNDLED_NAME = "qna-demo"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
SWITCH = {"true": True, "1": True, "false": False, "0": False}
OTLP_ENDPOINTS = (
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
)
_KEY = re.compile(r"[A-Za-z0-9._~-]{32,256}")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class SettingsError(Exception):
    """One line that names the setting and says what it may be."""


def _text(value: str) -> str:
    return value


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value) or int(value) < low:
            raise ValueError(f"must be a whole number of at least {low}")
        if high is not None and int(value) > high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 86_400:
        raise ValueError("must be a number of seconds, above 0 and at most 86400")
    return number


def _keys(value: str) -> tuple[str, ...]:
    """Never repeats them in what it says."""
    keys = tuple(key for key in re.split(r"[\s,]+", value) if key)
    if not keys or not all(_KEY.fullmatch(key) for key in keys):
        raise ValueError(
            "must be a key of 32 to 256 characters of A-Z a-z 0-9 . _ ~ -, or several with commas"
        )
    return keys


def _size(value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*([kmg]i?)?b?", value.strip().lower())
    if not match or int(match[1]) < 1:
        raise ValueError('must be a size such as "512MiB", "2GiB" or a number of bytes')
    return int(match[1]) * UNITS[match[2] or ""]


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", value):
        raise ValueError("must be 1 to 128 letters, digits, dots, dashes or underscores")
    return value


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return parse


def _switch(value: str) -> bool:
    if value.lower() not in SWITCH:
        raise ValueError("must be true or false")
    return SWITCH[value.lower()]


def _device(value: str) -> str:
    if not DEVICE.fullmatch(value.lower()):
        raise ValueError("must be auto, cpu, cuda or cuda:<number>")
    return value.lower()


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        _ = url.port  # raises when it is none
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise ValueError("must be http://host[:port]/path or https://…, without user and password")
    return value


def _share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("must be a number from 0 to 1")
    return number


def setting(
    parse: Callable[[str], Any],
    default: Any,
    help: str,  # noqa: A002
    standard: tuple[tuple[str, str], ...] = (),
    *,
    secret: bool = False,
) -> Any:
    """`standard`: variables of others that say the same, each with what it leaves out. `secret`:
    no flag, which every user of the machine could read; a file instead, named by `<VARIABLE>_FILE`.
    """
    about = {"parse": parse, "help": help, "standard": standard, "secret": secret}
    return field(default=default, metadata=about, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    model: str = setting(_text, str(BUNDLED_MODEL), "a folder or a Hub id")
    model_name: str = setting(_name, "", "name under which the model is served")
    host: str = setting(_text, "127.0.0.1", "address to listen on; 0.0.0.0 in a container")
    port: int = setting(_whole(0, 65535), 8001, "port to listen on; 0 takes a free one")
    api_key: tuple[str, ...] = setting(
        _keys,
        (),
        "key that callers must send, or several while one is replaced; probes and metrics are open",
        secret=True,
    )
    trust_batcher: bool = setting(
        _switch, default=False, help="let KServe's batcher in this pod call :predict without a key"
    )
    device: str = setting(_device, "auto", "auto, cpu, cuda or cuda:<number>")
    dtype: str = setting(
        _choice("auto", "float32", "bfloat16", "float16"), "auto", "type of the weights"
    )
    kernels: str = setting(
        _choice(*KERNELS), "auto", "fast: our own, on a CPU in float32 or bfloat16; plain: torch's"
    )
    quantize: str = setting(
        _choice(*QUANTIZATIONS), "none", "int8: linears multiply in eight bits, on a CPU"
    )
    max_model_len: int | None = setting(
        _whole(1), None, "tokens of prompt and answer together; the model's own when absent"
    )
    block_size: int = setting(_whole(1, 4096), 16, "tokens in a block of the KV cache")
    kv_cache_memory: int | None = setting(_size, None, 'size of the KV cache, such as "2GiB"')
    prefix_cache: bool = setting(
        _switch, default=True, help="prompts that begin alike share what is computed"
    )
    max_num_seqs: int = setting(_whole(1), 32, "requests in one step")
    max_num_batched_tokens: int = setting(_whole(1), 512, "token budget of a step")
    max_queued_requests: int = setting(_whole(1), 256, "requests that may wait")
    max_queued_tokens: int | None = setting(
        _whole(1), None, "prompt and new tokens of all waiting requests"
    )
    request_timeout_s: float = setting(_seconds, 300.0, "longest time for one request")
    max_body_bytes: int = setting(_whole(1024), 1_048_576, "largest request body")
    max_batch_queries: int = setting(_whole(1, 4096), 64, "most queries of /generate/batch")
    # More than one caller's share: KServe's batcher may overshoot its own maxBatchSize.
    max_predict_instances: int = setting(_whole(1, 4096), 256, "most instances of :predict")
    drain_timeout_s: float = setting(_seconds, 30.0, "time for running requests after SIGTERM")
    threads: int | None = setting(_whole(1, 4096), None, "CPU threads of the model")
    watchdog_s: float = setting(_seconds, 30.0, "a step longer than this is a hang")
    log_level: str = setting(_choice(*LOG_LEVELS), "info", "debug, info, warning or error")
    log_format: str = setting(_choice(*LOG_FORMATS), "json", "json or text")
    access_log: bool = setting(_switch, default=True, help="a line in the log for each request")
    traces_url: str = setting(
        _url,
        "",
        "where spans are sent by OTLP over HTTP, such as http://collector:4318/v1/traces",
        standard=OTLP_ENDPOINTS,
    )
    traces_ratio: float = setting(
        _share, 1.0, "share of the traces that begin here whose spans are sent"
    )
    # A flag only: whoever may set an environment variable must not be able to run code.
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        # Once, here: not every library that reads the folder expands it.
        object.__setattr__(self, "model", os.path.expanduser(self.model))  # noqa: PTH111 - Hub ids
        if not self.model_name:
            object.__setattr__(self, "model_name", _default_name(self.model))
        self.engine_config()  # says now what the engine would refuse later

    def engine_config(self) -> EngineConfig:
        try:
            return EngineConfig(
                model=self.model,
                device=self.device,
                dtype=self.dtype,
                kernels=self.kernels,
                quantize=self.quantize,
                max_model_len=self.max_model_len,
                block_size=self.block_size,
                kv_cache_memory=self.kv_cache_memory,
                prefix_cache=self.prefix_cache,
                max_num_seqs=self.max_num_seqs,
                max_num_batched_tokens=self.max_num_batched_tokens,
                max_queued_requests=self.max_queued_requests,
                max_queued_tokens=self.max_queued_tokens,
                threads=self.threads,
                trust_remote_code=self.trust_remote_code,
                watchdog_s=self.watchdog_s,
            )
        except ValueError as error:
            name, _, rule = str(error).partition(": ")
            raise SettingsError(f"{variable(name)}: {rule}") from None


def _default_name(model: str) -> str:
    if Path(model) == BUNDLED_MODEL:
        return BUNDLED_NAME
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name).strip("-.")
    return last[:128] or "model"


def variable(name: str) -> str:
    return "MODEL" if name == "model" else f"MODEL_HOST_{name.upper()}"


def load_settings(argv: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Settings:
    """Flags win over the environment, the environment over the defaults."""
    flags = vars(_parser().parse_args(list(argv)))
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {"trust_remote_code": flags["trust_remote_code"]}
    for item in _settings():
        flag, named = flags.get(item.name), environ.get(variable(item.name), "")
        text, source = (flag, _flag(item.name)) if flag is not None else (named, None)
        source = source or variable(item.name)
        if text == "" and item.metadata["secret"]:
            text, source = _from_file(item, environ) or (text, source)
        if text == "":
            text, source = _standard(item, environ) or (text, source)
        if text == "" or _is_service_link(item.name, text):
            continue
        try:
            values[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            raise SettingsError(f"{source}: {error}") from None
    return Settings(**values)


def _from_file(item: Field[Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    name = f"{variable(item.name)}_FILE"
    if not (path := environ.get(name)):
        return None
    try:
        return Path(path).read_text().strip(), name
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{name}: {path} cannot be read: {why}") from None


def _standard(item: Field[Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What a variable of OpenTelemetry's says, unless another one takes it back."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    for name, end in item.metadata["standard"]:
        if text := environ.get(name):
            protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
                "OTEL_EXPORTER_OTLP_PROTOCOL"
            )
            if protocol not in (None, "http/protobuf"):
                raise SettingsError("OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf")
            return text.rstrip("/") + end if end else text, name
    return None


def _is_service_link(name: str, text: str) -> bool:
    """Kubernetes sets MODEL_HOST_PORT=tcp://… for a Service called model-host: not our setting."""
    return name == "port" and re.match(r"(tcp|udp|sctp)://", text) is not None


def _settings() -> list[Field[Any]]:
    return [item for item in fields(Settings) if "parse" in item.metadata]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m model", description="Serve one language model over HTTP.")
    for item in _settings():
        if item.metadata["secret"]:
            continue
        default = "" if item.default in (None, "", MISSING) else f" (default {item.default})"
        described = f"{item.metadata['help']}{default}; {variable(item.name)}"
        parser.add_argument(_flag(item.name), dest=item.name, metavar="VALUE", help=described)
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that comes with the model (no environment variable sets this)",
    )
    return parser
