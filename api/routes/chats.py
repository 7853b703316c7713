"""The stored chats: list, read, delete, export."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.chat import NOBODY
from api.errors import InvalidRequest, NotFound
from api.history import ChatHead, ChatStore, Turn
from api.routes.common import errors, json_answer, parts_of
from api.schemas import ChatList, ChatView

router = APIRouter(tags=["chats"])
MAX_CHATS = 100
MAX_TURNS = 1000
PAGE_ERRORS = (400, 404, 503)


def _query(name: str, kind: str, text: str, **bounds: object) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": text,
        "schema": {"type": kind, **bounds},
    }


def _page(most: int) -> list[dict[str, Any]]:
    return [
        _query("limit", "integer", "Most entries to give", minimum=1, maximum=most),
        _query("cursor", "string", "next_cursor of the page before"),
    ]


_CHAT_ID = {
    "name": "chat_id",
    "in": "path",
    "required": True,
    "description": "Any chat id, percent-encoded (a slash is %2F)",
    "schema": {"type": "string", "minLength": 1},
}


@router.get(
    "/chats",
    response_model=ChatList,
    responses=errors(400, 503),
    openapi_extra={"parameters": _page(MAX_CHATS)},
    summary="List chats, the latest first",
)
async def list_chats(request: Request) -> Response:
    limit = _limit(request, MAX_CHATS, 20)
    cursor = _decode(request.query_params.get("cursor"), (int, str))
    before = (cursor[0], cursor[1]) if cursor else None
    rows = await parts_of(request).store.list_chats(NOBODY, limit + 1, before)
    page = rows[:limit]
    last = (page[-1].updated_ms, page[-1].chat_id) if len(rows) > limit else None
    return json_answer({"chats": [_head(row) for row in page], "next_cursor": _encode(last)})


# The longer path stands first, for the shorter one would match it too.
@router.get(
    "/chats/{chat_id:path}/export",
    responses={
        200: {
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ChatView"}},
                "text/markdown": {"schema": {"type": "string"}},
            }
        },
        **errors(*PAGE_ERRORS),
    },
    openapi_extra={
        "parameters": [
            _CHAT_ID,
            _query("format", "string", "Form of the export", enum=["json", "markdown"]),
        ]
    },
    summary="Export a whole chat as JSON or Markdown",
)
async def export_chat(request: Request) -> Response:
    form = request.query_params.get("format", "json")
    if form not in ("json", "markdown"):
        raise InvalidRequest("format: must be json or markdown", param="format")
    chat_id = _chat_id(request)
    store = parts_of(request).store
    head = await _existing(store, chat_id)
    turns = await _all_turns(store, chat_id)
    if form == "markdown":
        text = _markdown(head, turns)
        return Response(text, media_type="text/markdown; charset=utf-8", headers=_as_file("md"))
    return json_answer(_view(head, turns, None), _as_file("json"))


@router.get(
    "/chats/{chat_id:path}",
    response_model=ChatView,
    responses=errors(*PAGE_ERRORS),
    openapi_extra={"parameters": [_CHAT_ID, *_page(MAX_TURNS)]},
    summary="Read a chat's turns, the oldest first",
)
async def get_chat(request: Request) -> Response:
    limit = _limit(request, MAX_TURNS, MAX_TURNS)
    cursor = _decode(request.query_params.get("cursor"), (int,))
    chat_id = _chat_id(request)
    store = parts_of(request).store
    head = await _existing(store, chat_id)
    turns = await store.list_turns(NOBODY, chat_id, limit + 1, cursor[0] if cursor else -1)
    page = turns[:limit]
    last = (page[-1].position,) if len(turns) > limit else None
    return json_answer(_view(head, page, last))


@router.delete(
    "/chats/{chat_id:path}",
    status_code=204,
    responses=errors(404, 409, 503),
    openapi_extra={"parameters": [_CHAT_ID]},
    summary="Delete a chat with all its turns",
)
async def delete_chat(request: Request) -> Response:
    if not await parts_of(request).store.delete_chat(NOBODY, _chat_id(request)):
        raise _no_chat()
    return Response(status_code=204)


def _no_chat() -> NotFound:
    return NotFound("There is no such chat", code="chat_not_found", param="chat_id")


def _chat_id(request: Request) -> str:
    """The path still stands as it was sent (see api.app.RawChatPath), so %2F is not yet a slash."""
    try:
        chat_id = unquote(request.path_params["chat_id"], errors="strict")
    except UnicodeDecodeError:
        raise _no_chat() from None
    if not 1 <= len(chat_id) <= 256 or "\0" in chat_id:
        raise _no_chat()
    return chat_id


async def _existing(store: ChatStore, chat_id: str) -> ChatHead:
    head = await store.get_chat(NOBODY, chat_id)
    if head is None:
        raise _no_chat()
    return head


async def _all_turns(store: ChatStore, chat_id: str) -> list[Turn]:
    turns: list[Turn] = []
    while True:
        page = await store.list_turns(
            NOBODY, chat_id, MAX_TURNS, turns[-1].position if turns else -1
        )
        turns.extend(page)
        if len(page) < MAX_TURNS:
            return turns


def _limit(request: Request, most: int, default: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit: must be a whole number from 1 to {most}", param="limit")
    return int(text)


def _encode(position: tuple[Any, ...] | None) -> str | None:
    if position is None:
        return None
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def _decode(cursor: str | None, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = orjson.loads(raw)
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
        raise InvalidRequest("cursor: is none that this server gave", param="cursor")
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values) or any(
        isinstance(value, str) and "\0" in value for value in values
    ):
        raise InvalidRequest("cursor: is none that this server gave", param="cursor")
    return tuple(values)


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    when = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _head(head: ChatHead) -> dict[str, Any]:
    return {
        "chat_id": head.chat_id,
        "created_at": _time(head.created_ms),
        "updated_at": _time(head.updated_ms),
        "turns": head.turns,
    }


def _view(head: ChatHead, turns: Sequence[Turn], last: tuple[int, ...] | None) -> dict[str, Any]:
    return _head(head) | {
        "system_prompt": head.system_prompt,
        "items": [_turn(turn) for turn in turns],
        "next_cursor": _encode(last),
    }


def _turn(turn: Turn) -> dict[str, Any]:
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
        "created_at": _time(turn.created_ms),
        "finished_at": _time(turn.finished_ms),
    }


def _as_file(suffix: str) -> dict[str, str]:
    # The chat's id may be any text; a file name may not.
    return {"Content-Disposition": f'attachment; filename="chat.{suffix}"'}


def _markdown(head: ChatHead, turns: Sequence[Turn]) -> str:
    title = " ".join(head.chat_id.split())
    lines = [f"# Chat {title}", "", f"Begun {_time(head.created_ms)}.", ""]
    if head.system_prompt:
        lines += ["## System", "", head.system_prompt, ""]
    for turn in turns:
        lines += ["## User", "", turn.user_prompt, "", "## Assistant", ""]
        lines += [turn.response, ""] if turn.response else []
        lines += [f"*({turn.status})*", ""] if turn.status != "complete" else []
    return "\n".join(lines)
