"""The stored chats: list, search, read, rename, branch, delete."""

import uuid
from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ChatNotFound
from api.history import ChatHead, ChatStore, Place
from api.history.sizes import BRANCH_BYTES, BRANCH_TURNS, PAGE_BYTES
from api.routes.common import (
    errors,
    json_answer,
    json_body,
    owner_of,
    parts_of,
    stored_answer,
)
from api.routes.pages import (
    CHAT_ID,
    REPLACED,
    SEARCH,
    chat_id_of,
    decode_cursor,
    encode_cursor,
    limit_of,
    page,
    replaced_of,
    search_of,
    summary,
    view,
)
from api.schemas import (
    BranchQuery,
    ChatList,
    ChatSummary,
    ChatView,
    RenameQuery,
)
from api.validation import parse_json, validate

router = APIRouter(tags=["chats"])
MAX_CHATS = 100
MAX_TURNS = 1000
PAGE_ERRORS = (400, 404, 429, 503)
CHANGE_ERRORS = (400, 404, 408, 413, 415, 503, 507)


@router.get(
    "/chats",
    response_model=ChatList,
    responses=errors(400, 503),
    openapi_extra={"parameters": [*page(MAX_CHATS), SEARCH]},
    summary="List chats, the latest first",
)
async def list_chats(request: Request) -> Response:
    limit = limit_of(request, MAX_CHATS, 20)
    # The longer one is of a search that stopped in the midst of a chat.
    before = cast(Place | None, decode_cursor(request, (int, str), (int, str, int)))
    store = parts_of(request).store
    found = await store.list_chats(owner_of(request), limit, before, search_of(request))
    return json_answer(
        {
            "chats": [summary(head) for head in found.chats],
            "next_cursor": encode_cursor(found.last),
        }
    )


@router.post(
    "/chats/{chat_id}/branch",
    status_code=201,
    response_model=ChatSummary,
    responses=errors(*CHANGE_ERRORS, 409, 422, 429),
    openapi_extra={"parameters": [CHAT_ID], **json_body(BranchQuery)},
    description=f"Of up to {BRANCH_TURNS} turns with up to {BRANCH_BYTES} bytes of text.",
    summary="Make a new chat of a chat's earlier turns",
)
async def branch_chat(request: Request) -> Response:
    query = validate(BranchQuery, parse_json(await request.body()))
    new_id = query.chat_id or str(uuid.uuid4())
    store = parts_of(request).store
    made = await store.branch_chat(owner_of(request), chat_id_of(request), query.before, new_id)
    return json_answer(summary(made), status=201)


@router.get(
    "/chats/{chat_id}",
    response_model=ChatView,
    responses=errors(*PAGE_ERRORS),
    openapi_extra={"parameters": [CHAT_ID, *page(MAX_TURNS), REPLACED]},
    description=f"Up to `limit` turns with up to {PAGE_BYTES} bytes of text, and always one.",
    summary="Read a chat's turns, the oldest first",
)
async def get_chat(request: Request) -> Response:
    limit = limit_of(request, MAX_TURNS, MAX_TURNS)
    cursor = decode_cursor(request, (int,))
    replaced = replaced_of(request)
    chat_id = chat_id_of(request)
    store, owner = parts_of(request).store, owner_of(request)
    after = cursor[0] if cursor else -1

    async def read() -> object:
        head = await existing(store, owner, chat_id)
        found = await store.list_turns(owner, chat_id, limit, after, replaced=replaced)
        return view(head, found)

    return await stored_answer(request, read)


@router.patch(
    "/chats/{chat_id}",
    response_model=ChatSummary,
    responses=errors(*CHANGE_ERRORS),
    openapi_extra={"parameters": [CHAT_ID], **json_body(RenameQuery)},
    summary="Give a chat a title",
)
async def rename_chat(request: Request) -> Response:
    query = validate(RenameQuery, parse_json(await request.body()))
    store = parts_of(request).store
    head = await store.rename_chat(owner_of(request), chat_id_of(request), query.title)
    if head is None:
        raise ChatNotFound
    return json_answer(summary(head))


@router.delete(
    "/chats/{chat_id}",
    status_code=204,
    responses=errors(404, 409, 503),
    openapi_extra={"parameters": [CHAT_ID]},
    summary="Delete a chat with all its turns",
)
async def delete_chat(request: Request) -> Response:
    if not await parts_of(request).store.delete_chat(owner_of(request), chat_id_of(request)):
        raise ChatNotFound
    return Response(status_code=204)


async def existing(store: ChatStore, owner: str, chat_id: str) -> ChatHead:
    head = await store.get_chat(owner, chat_id)
    if head is None:
        raise ChatNotFound
    return head
