"""From the bytes of a body to a checked value, or to an error that names the field.

Owns JSON and the words for what is wrong. Errors never hold the input: pydantic's own messages
are replaced by a table, and a field's name is repeated only when it is a plain word. A key that
stands twice in an object counts with its last value, as in every common JSON library. Knows no
route; runs on the event loop (a body is bounded before it gets here).
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from model.errors import (
    HostError,
    InvalidJson,
    InvalidRequest,
    MissingField,
    UnknownField,
    UnsupportedMediaType,
)

T = TypeVar("T", bound=BaseModel)

_SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_JSON_TYPE = re.compile(r"application/(json|[a-z0-9.+-]+\+json)", re.IGNORECASE)

_LARGEST = 2**63 - 1
# pydantic's kind of error → what the field must be; {…} are limits from pydantic's context.
_RULES = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "literal_error": "must be one of {expected}",
}


def check_headers(headers: Mapping[str, str]) -> None:
    """No content type passes: KServe's agent sends merged batches without one."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UnsupportedMediaType("send the body without compression")
    media, _, parameters = headers.get("content-type", "application/json").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w.-]+)", parameters, re.IGNORECASE)
    if not _JSON_TYPE.fullmatch(media.strip()):
        raise UnsupportedMediaType("send application/json")
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType("send JSON in UTF-8")


def parse_json(body: bytes) -> Any:
    """NaN, infinities, lone surrogates, invalid UTF-8 and depth bombs are no JSON here."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidJson("the body is not valid JSON in UTF-8") from None


def validate(model: type[T], value: Any, prefix: str = "") -> T:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{prefix or 'the body'} must be a JSON object", param=prefix or None)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _explain(details[0], prefix) from None
    except HostError as error:
        if prefix and error.param:
            error.param = f"{prefix}.{error.param}"
        raise


def parse(model: type[T], headers: Mapping[str, str], body: bytes) -> T:
    check_headers(headers)
    return validate(model, parse_json(body))


def _explain(error: ErrorDetails, prefix: str) -> HostError:
    param = field_path(error["loc"], prefix)
    name = param or "a field"
    if error["type"] == "missing":
        return MissingField(f"{name}: this field is required", param=param)
    if error["type"] == "extra_forbidden":
        return UnknownField(f"{name}: there is no such field", param=param)
    context = error.get("ctx", {})
    value = error.get("input")
    if error["type"].startswith("int") and isinstance(value, float) and abs(value) > _LARGEST:
        # Of whole numbers that long, JSON's parser makes floats.
        rule = f"must be from {-_LARGEST - 1} to {_LARGEST}"
    elif error["type"].startswith("text_"):  # our own checks, whose messages are ours
        rule = error["msg"]
    else:
        rule = _RULES.get(error["type"], "is not allowed").format_map(_Default(context))
    return InvalidRequest(f"{name}: {rule}", param=param)


class _Default(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "the limit"


def field_path(location: tuple[int | str, ...], prefix: str = "") -> str | None:
    """("messages", 0, "role") → "messages[0].role"; a name that is no plain word ends the path."""
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _SAFE_NAME.fullmatch(part):
            path += f".{part}" if path else part
        else:
            break
    return path or None
