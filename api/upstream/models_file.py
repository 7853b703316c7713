"""The models file (`API_MODELS_FILE`): its shape, its bounds, and how a wrong one is named.

YAML, because the file's usual home is a ConfigMap written by Helm's `toYaml`; JSON is YAML too.
Whatever is wrong is one line that names the entry, for the operator's log. Reads the keys
that the file names by path. Knows no network.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

MAX_BYTES = 1024 * 1024
MAX_MODELS = MAX_ADDRESSES = 200
MAX_WEIGHT = 1_000_000
# Names become metric labels and a header's value.
# Of other makers' servers too, so little is asked of it: it has to fit into a header.
MAX_KEYS = 1024
_KEYS = re.compile(r"(?!,)[!-~]{1,1024}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\Z")


class ModelsFileError(ValueError):
    """The file cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class AddressSpec:
    url: str
    weight: int = 1
    resolve: bool = False
    key: str = field(default="", repr=False)
    """What it wants to see as `Authorization: Bearer`; empty: nothing."""
    key_file: str = ""
    """Where the key was read."""
    standby: str = ""
    """What leads to the same hosts as the name's addresses, asked when none of them answers."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """None leaves the choice to the server's settings."""

    connect_s: float | None = None
    first_byte_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    name: str
    addresses: tuple[AddressSpec, ...]
    aliases: tuple[str, ...] = ()
    served_name: str | None = None
    fallback: str | None = None
    hold_s: float | None = None
    """How long requests wait while no host is there; None leaves the choice to the settings."""
    timeouts: Timeouts = field(default_factory=Timeouts)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would quietly keep the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ModelsFileError(f"line {line}: {_short(key.value)} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: str) -> tuple[ModelSpec, ...]:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelsFileError(f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ModelsFileError(f"is larger than {MAX_BYTES} bytes")
    return parse(content)


def parse(content: bytes) -> tuple[ModelSpec, ...]:
    try:
        data = yaml.load(content, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ModelsFileError(f"is not YAML{where}") from error
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, ModelsFileError) else ModelsFileError("is not YAML") from (
            error
        )
    top = _mapping(data, "the file", {"models"})
    entries = _list(top.get("models"), "models", MAX_MODELS)
    models = tuple(_model(entry, f"models[{index}]") for index, entry in enumerate(entries))
    _check_names(models)
    return models


def _model(entry: Any, where: str) -> ModelSpec:
    known = {"name", "aliases", "served_name", "addresses", "fallback", "hold_s", "timeouts"}
    data = _mapping(entry, where, known)
    addresses = tuple(
        _address(item, f"{where}.addresses[{index}]")
        for index, item in enumerate(
            _list(data.get("addresses"), f"{where}.addresses", MAX_ADDRESSES)
        )
    )
    urls = [address.url for address in addresses]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise ModelsFileError(f"{where}.addresses[{index}].url: stands twice")
    standbys = [address.standby for address in addresses if address.standby]
    if len({*urls, *standbys}) < len(urls) + len(standbys):
        raise ModelsFileError(f"{where}.addresses: a standby must be no other address of the model")
    if not any(address.weight for address in addresses):
        raise ModelsFileError(f"{where}.addresses: one weight at least must be more than 0")
    aliases = data.get("aliases") or []
    return ModelSpec(
        name=_name(data.get("name"), f"{where}.name"),
        addresses=addresses,
        aliases=tuple(
            _name(alias, f"{where}.aliases[{index}]")
            for index, alias in enumerate(_list(aliases, f"{where}.aliases", MAX_MODELS, least=0))
        ),
        served_name=_optional_name(data, "served_name", where),
        fallback=_optional_name(data, "fallback", where),
        hold_s=_hold(data.get("hold_s"), f"{where}.hold_s"),
        timeouts=_timeouts(data.get("timeouts"), f"{where}.timeouts"),
    )


def _address(entry: Any, where: str) -> AddressSpec:
    if isinstance(entry, str):
        return AddressSpec(_url(entry, where))
    data = _mapping(entry, where, {"url", "weight", "resolve", "key_file", "standby"})
    weight = data.get("weight", 1)
    if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
        raise ModelsFileError(f"{where}.weight: want a whole number from 0 to {MAX_WEIGHT}")
    resolve = data.get("resolve", False)
    if not isinstance(resolve, bool):
        raise ModelsFileError(f"{where}.resolve: want true or false")
    url = _url(data.get("url"), f"{where}.url")
    if resolve and not url.startswith("http://"):
        # A certificate is for the name, not for the numbers that it stands for.
        raise ModelsFileError(f"{where}.resolve: works with http:// only")
    key_file = data.get("key_file")
    key = _key(key_file, f"{where}.key_file")
    standby = "" if data.get("standby") is None else _url(data["standby"], f"{where}.standby")
    if standby and not resolve:
        raise ModelsFileError(f"{where}.standby: goes with resolve only")
    return AddressSpec(url, weight, resolve, key, key_file or "", standby)


def _key(path: Any, where: str) -> str:
    if path is None:
        return ""
    if not isinstance(path, str) or not path:
        raise ModelsFileError(f"{where}: want the path of a file that holds a key")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_KEYS + 1)
    except OSError as error:
        raise ModelsFileError(f"{where}: {path} cannot be read: {error.strerror}") from error
    keys = content.decode("latin-1").strip()
    if not _KEYS.match(keys):
        raise ModelsFileError(
            f"{where}: {path} must hold a key, or several with commas between, in 1 to {MAX_KEYS} "
            "visible ASCII characters"
        )
    return first_key(keys)


def first_key(keys: str) -> str:
    """The key to send of those that a model host takes, with commas between: while one is replaced
    both servers read the same list.
    """
    return keys.partition(",")[0]


def _timeouts(entry: Any, where: str) -> Timeouts:
    data = _mapping({} if entry is None else entry, where, set(Timeouts.__slots__))
    return Timeouts(
        **{key: _seconds(value, f"{where}.{key}", 0.001) for key, value in data.items()}
    )


def _hold(value: Any, where: str) -> float | None:
    return None if value is None else _seconds(value, where, 0)


def _seconds(value: Any, where: str, least: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= 3600:
        raise ModelsFileError(f"{where}: want {least:g} to 3600 seconds")
    return float(value)


def _check_names(models: tuple[ModelSpec, ...]) -> None:
    taken: set[str] = set()
    for index, model in enumerate(models):
        for name in (model.name, *model.aliases):
            if name in taken:
                raise ModelsFileError(f"models[{index}]: the name {name} is taken")
            taken.add(name)
    by_name = {model.name: model for model in models}
    for index, model in enumerate(models):
        seen = [model.name]
        while (after := by_name[seen[-1]].fallback) is not None:
            if after not in by_name:
                raise ModelsFileError(f"models[{index}].fallback: no model is called {after}")
            if after in seen:
                raise ModelsFileError(f"models[{index}].fallback: leads back to {after}")
            seen.append(after)


def _mapping(value: Any, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelsFileError(f"{where}: want a mapping with {', '.join(sorted(known))}")
    for key in value:
        if key not in known:
            raise ModelsFileError(
                f"{where}: unknown key {_short(key)}; there are {', '.join(sorted(known))}"
            )
    return value


def _list(value: Any, where: str, most: int, least: int = 1) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ModelsFileError(f"{where}: want a list of {least} to {most} entries")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ModelsFileError(
            f"{where}: want 1 to 128 letters, digits and . _ : / @ + -, a letter or digit first"
        )
    return value


def _optional_name(data: dict[str, Any], key: str, where: str) -> str | None:
    value = data.get(key)
    return None if value is None else _name(value, f"{where}.{key}")


def _url(value: Any, where: str) -> str:
    try:
        url = urlsplit(value if isinstance(value, str) else "")
        _ = url.port  # raises when it is none
    except ValueError:
        url = urlsplit("")
    # A user name or password would be logged, and would stand in a metric's label.
    good = url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc
    if not good or url.query or url.fragment:
        raise ModelsFileError(
            f"{where}: want http://host[:port][/path] or https://…, without user name and password"
        )
    return url.geturl().rstrip("/")


def _short(key: object) -> str:
    text = str(key)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
