"""What a host says that refuses a request, in our own form or in those of other makes and of the
proxies before them, and what of it the caller is told.
"""

import re
from typing import Any

import orjson

from api.errors import HostRefusal, Overloaded

# In its own words a host says what is wrong with the request; some repeat all of it.
MOST_TEXT = 1000
MOST_NAME = 128
_CODES = {
    404: "not_found",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_OTHER_CODE = "invalid_value"
_UNTOLD = "The model host refused the request"
# Codes become values of a metric's label.
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_MARKUP = re.compile(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)


def envelope_of(content: bytes) -> dict[str, Any] | None:
    """The error that the body tells, by the names that ours have; None where it tells none."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    match body:
        case {"error": {"message": str()}}:  # ours, OpenAI's, vLLM's, KServe's
            return dict(body["error"])
        case {"message": str()}:  # vLLM's of old, SGLang's, gateways'
            return dict(body)
        case {"error": str(text)} | {"detail": str(text)}:  # TGI's, Ollama's; FastAPI's
            return {"message": text}
        case {"detail": [{"msg": str(text), "loc": [_, *path]}, *_]}:
            return {"message": text, "param": _field(path)}
    return None


def is_ours(envelope: dict[str, Any]) -> bool:
    """Of a model host of this project, whose word needs no second look."""
    return isinstance(envelope.get("code"), str) and isinstance(envelope.get("request_id"), str)


def refusal(status: int, envelope: dict[str, Any] | None, retry_after: float | None) -> HostRefusal:
    if status == 429 and not retry_after:
        retry_after = 1.0
    if envelope is None or not is_ours(envelope):
        return _in_our_words(status, envelope or {}, retry_after)
    fixed = {"message", "type", "code", "param", "request_id"}
    return HostRefusal(
        status,
        str(envelope.get("type", "invalid_request_error")),
        envelope["message"],
        code=envelope["code"],
        param=envelope.get("param"),
        retry_after_s=retry_after,
        extra={key: value for key, value in envelope.items() if key not in fixed},
    )


def _in_our_words(status: int, envelope: dict[str, Any], retry_after: float | None) -> HostRefusal:
    if status == 429:
        # What it says of quotas is about this server's account there, not about the caller.
        return HostRefusal(
            status,
            "rate_limit_error",
            Overloaded.default,
            code=Overloaded.code,
            retry_after_s=retry_after,
        )
    param = envelope.get("param")
    if not isinstance(param, str) or not 1 <= len(param) <= MOST_NAME:
        param = None
    code = envelope.get("code")
    if not isinstance(code, str) or not _CODE.match(code):
        unknown = status == 404 and param == "model"
        code = "model_not_found" if unknown else _CODES.get(status, _OTHER_CODE)
    message = _readable(envelope.get("message", ""))
    return HostRefusal(
        status, "invalid_request_error", message, code=code, param=param, retry_after_s=retry_after
    )


def _readable(text: str) -> str:
    if not text.strip() or _MARKUP.search(text):
        return _UNTOLD
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _field(path: list[Any]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def seconds_of(value: str | None) -> float | None:
    """Of a Retry-After; a time that nobody waits for is none."""
    return float(value) if value and re.fullmatch(r"[0-9]{1,6}", value) else None
