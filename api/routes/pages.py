"""Pages and paths of the stored chats: what a client may ask for, and what it is told."""

import base64
import binascii
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request

from api.clock import time_text
from api.errors import ChatNotFound, InvalidRequest
from api.history import ChatHead, Turn, TurnPage

MAX_SEARCH = 200
CHAT_ID = {
    "name": "chat_id",
    "in": "path",
    "required": True,
    "description": "Any chat id, percent-encoded (a slash is %2F)",
    "schema": {"type": "string", "minLength": 1},
}


def query(name: str, kind: str, text: str, **bounds: object) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": text,
        "schema": {"type": kind, **bounds},
    }


def page(most: int) -> list[dict[str, Any]]:
    return [
        query("limit", "integer", "Most entries to give", minimum=1, maximum=most),
        query("cursor", "string", "next_cursor of the page before"),
    ]


REPLACED = query(
    "replaced", "boolean", "Also the attempts that another answer replaced, or that failed to"
)
SEARCH = query(
    "search",
    "string",
    "Only chats with this text in the title, a question or an answer, whatever its case; a page "
    "may then hold fewer chats than asked for, even none, and not be the last",
    maxLength=MAX_SEARCH,
)


def chat_id_of(request: Request) -> str:
    """The path still stands as it was sent (see api.app.RawChatPath), so %2F is not yet a slash."""
    try:
        chat_id = unquote(request.path_params["chat_id"], errors="strict")
    except UnicodeDecodeError:
        raise ChatNotFound from None
    if not 1 <= len(chat_id) <= 256 or "\0" in chat_id:
        raise ChatNotFound
    return chat_id


def limit_of(request: Request, most: int, default: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit: must be a whole number from 1 to {most}", param="limit")
    return int(text)


def replaced_of(request: Request) -> bool:
    text = request.query_params.get("replaced", "false")
    if text not in ("true", "false"):
        raise InvalidRequest("replaced: must be true or false", param="replaced")
    return text == "true"


def search_of(request: Request) -> str:
    """Blank text looks for nothing in particular, so it is no search."""
    text = request.query_params.get("search", "").strip()
    if len(text) > MAX_SEARCH:
        raise InvalidRequest(f"search: must have at most {MAX_SEARCH} characters", param="search")
    if "\0" in text:
        raise InvalidRequest("search: must not hold a NUL character", param="search")
    return text


def encode_cursor(position: tuple[Any, ...] | None) -> str | None:
    if position is None:
        return None
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def decode_cursor(request: Request, *kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = orjson.loads(raw)
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or tuple(map(type, values)) not in kinds:
        raise InvalidRequest("cursor: is none that this server gave", param="cursor")
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values) or any(
        isinstance(value, str) and "\0" in value for value in values
    ):
        raise InvalidRequest("cursor: is none that this server gave", param="cursor")
    return tuple(values)


def summary(head: ChatHead) -> dict[str, Any]:
    branch = head.branched_from
    return {
        "chat_id": head.chat_id,
        "title": head.title,
        "branched_from": {"chat_id": branch.chat_id, "position": branch.position}
        if branch
        else None,
        "created_at": time_text(head.created_ms),
        "updated_at": time_text(head.updated_ms),
        "turns": head.turns,
    }


def view(head: ChatHead, page: TurnPage) -> dict[str, Any]:
    last = None if page.last is None else (page.last,)
    return view_of_head(head) | {
        "items": [view_of_turn(turn) for turn in page.turns],
        "next_cursor": encode_cursor(last),
    }


def view_of_head(head: ChatHead) -> dict[str, Any]:
    return summary(head) | {"system_prompt": head.system_prompt}


def view_of_turn(turn: Turn) -> dict[str, Any]:
    usage = None
    if turn.prompt_tokens is not None and turn.completion_tokens is not None:
        usage = {
            "prompt_tokens": turn.prompt_tokens,
            "completion_tokens": turn.completion_tokens,
            "total_tokens": turn.prompt_tokens + turn.completion_tokens,
            "cached_tokens": turn.cached_tokens,
        }
    return {
        "position": turn.position,
        "status": turn.status,
        "system_prompt": turn.system_prompt,
        "user_prompt": turn.user_prompt,
        "response": turn.response,
        "finish_reason": turn.finish_reason,
        "error_code": turn.error_code,
        "usage": usage,
        "request_id": turn.request_id,
        "created_at": time_text(turn.created_ms),
        "finished_at": time_text(turn.finished_ms),
        "replaces": turn.replaces,
    }
