"""A whole chat as one file: JSON for programs, Markdown for people.

It is sent as it is read, a part at a time, however long the chat is and however slowly the client
reads. What cannot be read to its end is broken off: no file looks whole and is not.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import markdown
from api.clock import time_text
from api.context import context_of
from api.errors import ApiError, InvalidRequest
from api.history import ChatHead, Turn, TurnPage
from api.history.sizes import EXPORT_BYTES
from api.in_pieces import BrokenOff, InPieces
from api.routes.chats import MAX_TURNS, PAGE_ERRORS, existing
from api.routes.common import errors, owner_of, parts_of
from api.routes.pages import (
    CHAT_ID,
    REPLACED,
    chat_id_of,
    query,
    replaced_of,
    view_of_head,
    view_of_turn,
)

router = APIRouter(tags=["chats"])
Fetch = Callable[[int], Awaitable[TurnPage]]


@router.get(
    "/chats/{chat_id}/export",
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
            CHAT_ID,
            query("format", "string", "Form of the export", enum=["json", "markdown"]),
            REPLACED,
        ]
    },
    description="Sent as it is read, of any length; a connection that ends before the file does "
    "means that the rest could not be read.",
    summary="Export a whole chat as JSON or Markdown",
)
async def export_chat(request: Request) -> Response:
    form = request.query_params.get("format", "json")
    if form not in ("json", "markdown"):
        raise InvalidRequest("format: must be json or markdown", param="format")
    replaced = replaced_of(request)
    chat_id = chat_id_of(request)
    store, owner = parts_of(request).store, owner_of(request)

    async def fetch(after: int) -> TurnPage:
        return await store.list_turns(
            owner, chat_id, MAX_TURNS, after, replaced=replaced, most_bytes=EXPORT_BYTES
        )

    head = await existing(store, owner, chat_id)
    context, room = context_of(request.scope), parts_of(request).buffer_room
    # What goes wrong up to here is an answer of its own.
    first = await room.read(context, lambda: fetch(-1), _held_by)
    pages = _pages(request, head, first, fetch)
    if form == "markdown":
        content, suffix, kind = _as_markdown(head, pages), "md", "text/markdown; charset=utf-8"
    else:
        content, suffix, kind = _as_json(head, pages), "json", "application/json"
    return InPieces(
        content,
        within_s=parts_of(request).settings.request_timeout_s,
        media_type=kind,
        # The chat's id may be any text; a file name may not.
        headers={"Content-Disposition": f'attachment; filename="chat.{suffix}"'},
    )


def _held_by(first: TurnPage) -> int:
    """Bytes that the export of a chat that begins so holds at once: a page, and what is made of it.
    In characters, which is near enough.
    """
    if first.last is not None:
        return 2 * EXPORT_BYTES
    texts = ((turn.system_prompt, turn.user_prompt, turn.response) for turn in first.turns)
    return 2 * sum(len(text) for row in texts for text in row if text)


async def _pages(
    request: Request, head: ChatHead, page: TurnPage, fetch: Fetch
) -> AsyncIterator[TurnPage]:
    yield page
    while page.last is not None:
        try:
            page = await fetch(page.last)
            gone = not page.turns and not await _is_there(request, head)
        except ApiError as error:
            context_of(request.scope).error_code = error.code
            raise BrokenOff from error
        if gone:
            context_of(request.scope).error_code = "chat_not_found"
            raise BrokenOff
        yield page


async def _is_there(request: Request, head: ChatHead) -> bool:
    """Still, and not made anew under its name."""
    now = await parts_of(request).store.get_chat(owner_of(request), head.chat_id)
    return now is not None and now.created_ms == head.created_ms


async def _as_json(head: ChatHead, pages: AsyncIterator[TurnPage]) -> AsyncIterator[bytes]:
    yield orjson.dumps(view_of_head(head))[:-1] + b',"items":['
    comma = b""
    async for page in pages:
        # The last turn of all may have been withdrawn since the page before was read.
        if page.turns:
            yield comma + b",".join(orjson.dumps(view_of_turn(turn)) for turn in page.turns)
            comma = b","
    yield b'],"next_cursor":null}'


async def _as_markdown(head: ChatHead, pages: AsyncIterator[TurnPage]) -> AsyncIterator[bytes]:
    # Not on the event loop: a question may be as long as a body may be.
    yield await asyncio.to_thread(_text, _introduction(head))
    async for page in pages:
        yield await asyncio.to_thread(
            _text, (block for turn in page.turns for block in _blocks(turn))
        )


def _text(blocks: Iterable[str]) -> bytes:
    return "".join(f"{block}\n\n" for block in blocks).encode()


def _introduction(head: ChatHead) -> Iterator[str]:
    yield f"# {markdown.line(head.title) or 'Chat'}"
    yield f"Begun {time_text(head.created_ms)}."
    if head.branched_from:
        yield "Branched from another chat."
    if head.system_prompt:
        yield "## System"
        yield markdown.quoted(head.system_prompt)


def _blocks(turn: Turn) -> Iterator[str]:
    yield "## User"
    yield markdown.quoted(turn.user_prompt)
    yield "## Assistant"
    if turn.response:
        yield markdown.quoted(turn.response)
    if turn.status != "complete":
        yield f"*({turn.status})*"
