"""From what a client sent to what it may mean: JSON that is read strictly, and a refusal that names
the field and its rule. Never quotes what it refuses.
"""

import re
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from api.errors import InvalidRequest
from api.rules import rule_of
from api.schemas import MAX_TIMEOUT_MS

_DIGITS = re.compile(r"[0-9]{1,7}")
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")
M = TypeVar("M", bound=BaseModel)


def parse_json(body: bytes) -> Any:
    """orjson refuses NaN, infinity, lone surrogates, invalid UTF-8 and nesting without end."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not valid JSON", code="invalid_json") from None


def validate(model: type[M], value: object) -> M:
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _named(error.errors(include_url=False)[0]) from None


def _named(error: ErrorDetails) -> InvalidRequest:
    path = error.get("ctx", {}).get("path") or _path(error["loc"])
    label = path or "a field"
    if error["type"] == "extra_forbidden":
        return InvalidRequest(f"{label}: unknown field", code="unknown_field", param=path)
    if error["type"] == "missing":
        return InvalidRequest(f"{label}: this field is required", code="missing_field", param=path)
    return InvalidRequest(f"{label}: {rule_of(error)}", param=path)


def _path(location: tuple[int | str, ...]) -> str | None:
    """`("stop", 1)` is `stop[1]`. A name that the client made up is given back only if it is a
    plain one.
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _NAME.match(part):
            path += f".{part}" if path else part
        else:
            return None
    return path or None


def timeout_header(value: str | None) -> float | None:
    """`X-Request-Timeout-Ms` in seconds."""
    if value is None:
        return None
    if not (_DIGITS.fullmatch(value) and 1 <= int(value) <= MAX_TIMEOUT_MS):
        raise InvalidRequest(
            f"X-Request-Timeout-Ms: must be a whole number from 1 to {MAX_TIMEOUT_MS}",
            param="X-Request-Timeout-Ms",
        )
    return int(value) / 1000
