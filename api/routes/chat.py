"""`POST /chat` and `POST /chat/batch`."""

import asyncio
import logging
import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import logs
from api.chat_stream import open_stream
from api.context import context_of
from api.errors import ApiError, InternalError, Overloaded
from api.routes.common import (
    POST_ERRORS,
    Parts,
    call_of,
    errors,
    json_answer,
    json_body,
    parts_of,
)
from api.schemas import (
    MAX_BATCH,
    ChatAnswer,
    ChatBatch,
    ChatFailure,
    ChatItem,
    ChatQuery,
    parse_json,
    timeout_header,
    validate,
)
from api.sse import MEDIA_TYPE, EventStream

router = APIRouter(tags=["chat"])
logger = logging.getLogger("api.chat")
RETRYABLE = frozenset({429, 503})
_STREAM = {
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "string",
                "description": "`data: {chat_id, delta}` events, then one with the whole response, "
                "finish_reason, usage and timing, then `data: [DONE]`; or one `event: error`.",
            }
        }
    },
    "description": "The answer, whole or as server-sent events.",
}


def wants_stream(request: Request, query: ChatQuery) -> bool:
    """What the body says counts; when it says nothing, the Accept header does."""
    if query.stream is not None:
        return query.stream
    return MEDIA_TYPE in request.headers.get("accept", "")


@router.post(
    "/chat",
    response_model=ChatAnswer,
    response_model_exclude_none=True,
    responses={200: _STREAM, **errors(*POST_ERRORS, 409, 507)},
    openapi_extra=json_body(ChatQuery),
    summary="Ask a question in a chat",
)
async def chat(request: Request) -> Response:
    query = validate(ChatQuery, parse_json(await request.body()))
    call = call_of(request, query.timeout_ms)
    service = parts_of(request).chat
    if not wants_stream(request, query):
        answer = await service.answer(query, call)
        return json_answer(answer.body, answer.headers)
    stream = await open_stream(service, query, call)
    # Should anything keep the response from being sent, the request's end still lets go of it.
    context_of(request.scope).cleanups.append(stream.aclose)
    return EventStream(stream, stream.headers)


@router.post(
    "/chat/batch",
    response_model=list[ChatAnswer | ChatFailure],
    responses=errors(*POST_ERRORS),
    openapi_extra=json_body(ChatBatch),
    summary=f"Ask up to {MAX_BATCH} questions at once",
)
async def chat_batch(request: Request) -> Response:
    batch = validate(ChatBatch, parse_json(await request.body()))
    timeout_header(request.headers.get("x-request-timeout-ms"))
    parts = parts_of(request)
    # The supervisor holds one slot for this request; the other questions need theirs.
    more = min(len(batch.chats), parts.settings.max_in_flight) - 1
    slots = parts.lifecycle.admit(more) if more else 0
    if slots != more:
        parts.metrics.rejected.labels("in_flight").inc()
        raise Overloaded(retry_after_s=1)
    try:
        results = await _answer_all(request, parts, batch.chats)
    finally:
        parts.lifecycle.release(slots)
    failures = [result for result in results if isinstance(result, _Failed)]
    if len(failures) == len(results) and all(
        failed.error.http_status in RETRYABLE for failed in failures
    ):
        raise failures[0].error
    request_id = context_of(request.scope).request_id
    return json_answer(
        [result.body(request_id) if isinstance(result, _Failed) else result for result in results]
    )


class _Failed:
    def __init__(self, chat_id: str, error: ApiError) -> None:
        self.chat_id = chat_id
        self.error = error

    def body(self, request_id: str) -> dict[str, Any]:
        body = self.error.body(request_id)
        if self.error.http_status in RETRYABLE:
            # An item has no header to say it in.
            seconds = self.error.headers().get("Retry-After", "1")
            body["error"]["retry_after_s"] = int(seconds)
        return {"chat_id": self.chat_id, **body}


async def _answer_all(
    request: Request, parts: Parts, items: list[Any]
) -> list[dict[str, Any] | _Failed]:
    """Questions of one chat follow each other in their order; different chats run side by side."""
    ids = [_chat_id(item) for item in items]
    by_chat: dict[str, list[int]] = {}
    for index, chat_id in enumerate(ids):
        by_chat.setdefault(chat_id, []).append(index)
    results: list[dict[str, Any] | _Failed] = [{} for _ in items]

    async def run(indexes: list[int]) -> None:
        for index in indexes:
            results[index] = await _answer_one(request, parts, items[index], ids[index])

    async with asyncio.TaskGroup() as group:
        for indexes in by_chat.values():
            group.create_task(run(indexes))
    return results


async def _answer_one(
    request: Request, parts: Parts, item: object, chat_id: str
) -> dict[str, Any] | _Failed:
    try:
        query = validate(ChatItem, item).model_copy(update={"chat_id": chat_id})
        return (await parts.chat.answer(query, call_of(request, query.timeout_ms))).body
    except ApiError as error:
        return _Failed(chat_id, error)
    except Exception as error:  # noqa: BLE001  # its neighbours keep their answers, whatever it did
        logs.event(
            logger,
            logging.ERROR,
            "an item of a batch failed",
            request_id=context_of(request.scope).request_id,
            exception=type(error).__name__,
            frames=logs.frames_of(error),
        )
        return _Failed(chat_id, InternalError())


def _chat_id(item: object) -> str:
    """The item's own id when it is one, else a new one: a failed item needs a name too."""
    given = item.get("chat_id") if isinstance(item, dict) else None
    if isinstance(given, str) and 1 <= len(given) <= 256 and "\0" not in given:
        return given
    return str(uuid.uuid4())
