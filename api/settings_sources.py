"""Where a setting's value comes from: a flag, the environment, a file of its own for a secret, the
settings file, or the default; the first of these that says something wins.

Every field of Settings is a flag `--<name>`, a variable `API_<NAME>` and a name in the TOML file
that `--config` or `API_CONFIG` names. A secret may lie in a file of its own that `API_<NAME>_FILE`
names, as Kubernetes and Docker mount them.
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from api.settings import Settings, SettingsError, env_name

COMMANDS = ("serve", "migrate", "purge", "openapi", "settings")
_MASK = "********"


@dataclass(frozen=True, slots=True)
class Given:
    """What the process was asked to do, with where each setting came from."""

    command: str
    settings: Settings
    sources: Mapping[str, str]

    def lines(self) -> list[str]:
        """`name = value  # source`, a TOML file; secrets are masked."""
        rows = []
        for spec in fields(Settings):
            value = getattr(self.settings, spec.name)
            if spec.metadata["secret"] and value != spec.default:
                value = _MASK
            shown = f'"{_escaped(value)}"' if isinstance(value, str) else f"{value}"
            rows.append((f"{spec.name} = {shown}", self.sources[spec.name]))
        width = max(len(row[0]) for row in rows)
        return [f"{text:{width}}  # {source}" for text, source in rows]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(message)


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="python -m api",
        description="The API server. `python -m api keys --help` is about keys.",
        allow_abbrev=False,
    )
    made.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=COMMANDS,
        help="serve (default); migrate the database and end; purge what is older than "
        "API_RETENTION_DAYS and end; write docs/openapi/api-server.json; print the settings and "
        "where each came from",
    )
    made.add_argument("--dry-run", action="store_true", help="purge: only say what would go")
    add_flags(made)
    return made


def add_flags(made: argparse.ArgumentParser, title: str | None = None) -> None:
    """Every setting as a flag; under a title of their own in the help when there is one."""
    group = made.add_argument_group(title) if title else made
    group.add_argument(
        "--config", metavar="…", help="a TOML file with settings (API_CONFIG, default none)"
    )
    for spec in fields(Settings):
        flag = "--" + spec.name.replace("_", "-")
        text = f"{spec.metadata['text']} ({env_name(spec.name)}, default {spec.default})"
        group.add_argument(flag, dest=spec.name, metavar="…", help=text.replace("%", "%%"))


def read(environ: Mapping[str, str], argv: Sequence[str] = ()) -> Given:
    """The command and the settings that flags, environment and files ask for."""
    flags = vars(parser().parse_args(list(argv)))
    return resolve(environ, flags, flags["command"])


def resolve(environ: Mapping[str, str], flags: Mapping[str, Any], command: str) -> Given:
    """Settings from flags that were parsed already."""
    path = flags["config"] or environ.get("API_CONFIG")
    file = _file(Path(path)) if path else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for spec in fields(Settings):
        found = _find(spec, environ, flags, file)
        sources[spec.name] = found[1] if found else "default"
        if found:
            values[spec.name] = _parse(spec, found[0])
    return Given(command, Settings(**values), sources)


def _find(
    spec: Field[Any], environ: Mapping[str, str], flags: Mapping[str, Any], file: Mapping[str, str]
) -> tuple[str, str] | None:
    name = env_name(spec.name)
    if flags[spec.name] is not None:
        return flags[spec.name], "flag"
    # An empty variable is how charts and shells say "not set".
    if environ.get(name):
        return environ[name], "environment"
    if spec.metadata["secret"] and (path := environ.get(f"{name}_FILE")):
        return _secret(f"{name}_FILE", Path(path)), "file of its own"
    if spec.name in file:
        return file[spec.name], "file"
    return _standard(spec, environ)


def _standard(spec: Field[Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What a variable of OpenTelemetry's says, unless another one takes it back."""
    for name, end in spec.metadata["standard"]:
        if not environ.get(name) or not _exports_spans(environ):
            continue
        for kind in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if protocol := environ.get(kind):
                if protocol != "http/protobuf":
                    raise SettingsError(f"{kind}: want http/protobuf, which is all that is spoken")
                break
        return environ[name].rstrip("/") + end if end else environ[name], f"environment, {name}"
    return None


def _exports_spans(environ: Mapping[str, str]) -> bool:
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "none"


def _parse(spec: Field[Any], text: str) -> str | int | float:
    kind = type(spec.default)
    try:
        if kind is int:
            return int(text)
        return float(text) if kind is float else text.strip()
    except ValueError:
        want = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{env_name(spec.name)}: want {want}") from None


def _file(path: Path) -> dict[str, str]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"API_CONFIG: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own words may quote a password.
        raise SettingsError(f"API_CONFIG: {path}: is not valid TOML") from None
    known = {spec.name for spec in fields(Settings)}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"API_CONFIG: {path}: there is no setting {name[:64]!r}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SettingsError(f"API_CONFIG: {path}: {name}: want a text or a number")
    return {name: str(value) for name, value in values.items()}


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise SettingsError(f"{name}: {path}: {reason}") from None


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
