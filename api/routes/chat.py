"""`POST /chat`, `POST /chat/batch` and another answer to a chat's last question."""

import asyncio
import logging
import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import logs
from api.chat import Conversation
from api.chat_stream import open_stream
from api.context import Call, Charge, context_of
from api.errors import ApiError, InternalError, InvalidRequest, LimitsUnavailable, RateLimited
from api.history import Once, StoredAnswer
from api.idempotency import HEADER, Replay, once_of
from api.meter import answer_tokens
from api.routes.common import (
    POST_ERRORS,
    Parts,
    call_of,
    check_model,
    errors,
    json_answer,
    json_body,
    owner_of,
    parts_of,
)
from api.routes.pages import CHAT_ID, chat_id_of
from api.schemas import (
    MAX_BATCH,
    AnswerOptions,
    ChatAnswer,
    ChatBatch,
    ChatFailure,
    ChatItem,
    ChatQuery,
    RegenerateQuery,
)
from api.sse import EVENT_SCHEMA, MEDIA_TYPE, EventStream
from api.trimming import estimated_tokens
from api.validation import parse_json, timeout_header, validate

router = APIRouter(tags=["chat"])
logger = logging.getLogger("api.chat")
RETRYABLE = frozenset({429, 503})
_STREAM = {
    "content": {
        MEDIA_TYPE: {
            "schema": EVENT_SCHEMA
            | {
                "description": "`data: {chat_id, delta}` events, then one with the whole response, "
                "finish_reason, usage and timing, then `data: [DONE]`; or one `event: error`.",
            }
        }
    },
    "description": "The answer, whole or as server-sent events.",
}


_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Any text that is new for a new request. The same request with the same key is "
    "answered once and gets that answer again, with `Idempotent-Replayed: true`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
}


def wants_stream(request: Request, stream: bool | None) -> bool:
    """What the body says counts; when it says nothing, the Accept header does."""
    if stream is not None:
        return stream
    return MEDIA_TYPE in request.headers.get("accept", "")


@router.post(
    "/chat",
    response_model=ChatAnswer,
    response_model_exclude_none=True,
    responses={200: _STREAM, **errors(*POST_ERRORS, 409, 422, 507)},
    openapi_extra={"parameters": [_KEY], **json_body(ChatQuery)},
    summary="Ask a question in a chat",
)
async def chat(request: Request) -> Response:
    body = parse_json(await request.body())
    query = validate(ChatQuery, body)
    once = once_of(request.headers.getlist(HEADER), "/chat", body)
    call = call_of(request, query.timeout_ms)
    found = await _reserve_unless_stored(
        request, call, once, query, query.system_prompt, query.user_prompt
    )
    if isinstance(found, StoredAnswer):
        return await _respond(request, found, query, query.stream)
    begun = await parts_of(request).chat.begin(query, found, once)
    return await _respond(request, begun, query, query.stream)


@router.post(
    "/chats/{chat_id}/regenerate",
    response_model=ChatAnswer,
    response_model_exclude_none=True,
    responses={200: _STREAM, **errors(*POST_ERRORS, 404, 409, 422, 507)},
    openapi_extra={"parameters": [CHAT_ID, _KEY], **json_body(RegenerateQuery)},
    summary="Ask a chat's last question again",
)
async def regenerate(request: Request) -> Response:
    body = parse_json(await request.body())
    query = validate(RegenerateQuery, body)
    chat_id = chat_id_of(request)
    once = once_of(request.headers.getlist(HEADER), f"/chats/{chat_id}/regenerate", body)
    call = call_of(request, query.timeout_ms)
    found = await _reserve_unless_stored(request, call, once, query)
    if isinstance(found, StoredAnswer):
        return await _respond(request, found, query, query.stream)
    begun = await parts_of(request).chat.begin_again(chat_id, query, found, once)
    return await _respond(request, begun, query, query.stream)


async def _reserve(
    request: Request, call: Call, options: AnswerOptions, *texts: str | None
) -> Call:
    """Take what the answer may cost from the caller's limits, but for earlier turns, which are not
    known yet.
    """
    model = check_model(request, call.caller, options.model)
    prompt, answer = estimated_tokens(*texts), answer_tokens(options.max_tokens)
    context = context_of(request.scope)
    return await parts_of(request).meter.reserve(context, call, model, prompt, answer)


async def _reserve_unless_stored(
    request: Request, call: Call, once: Once | None, options: AnswerOptions, *texts: str | None
) -> Call | StoredAnswer:
    """The call with what is reserved for it. An answer that is there already is never refused."""
    try:
        return await _reserve(request, call, options, *texts)
    except (RateLimited, LimitsUnavailable) as refusal:
        if once is None:
            raise
        stored = await parts_of(request).store.find_answer(owner_of(request), once)
        if stored is None:
            raise
        if isinstance(refusal, RateLimited):
            context_of(request.scope).headers = list(refusal.rate_headers)
        return stored


async def _respond(
    request: Request,
    begun: Conversation | StoredAnswer,
    options: AnswerOptions,
    stream: bool | None,
) -> Response:
    service = parts_of(request).chat
    streams = wants_stream(request, stream)
    if isinstance(begun, StoredAnswer):
        for charge in context_of(request.scope).charges:
            charge.nothing()
        replay = Replay(begun, details=bool(options.details))
        if streams:
            return EventStream(replay, replay.headers)
        return json_answer(replay.body(), replay.headers)
    if not streams:
        answer = await service.complete(begun)
        return json_answer(answer.body, answer.headers)
    made = await open_stream(service, begun)
    # Should anything keep the response from being sent, the request's end still lets go of it.
    context_of(request.scope).cleanups.append(made.aclose)
    return EventStream(made, made.headers)


@router.post(
    "/chat/batch",
    response_model=list[ChatAnswer | ChatFailure],
    responses=errors(*POST_ERRORS),
    openapi_extra=json_body(ChatBatch),
    summary=f"Ask up to {MAX_BATCH} questions at once",
)
async def chat_batch(request: Request) -> Response:
    if HEADER in request.headers:
        raise InvalidRequest(
            f"{HEADER}: a batch takes none; send the questions one by one to /chat", param=HEADER
        )
    batch = validate(ChatBatch, parse_json(await request.body()))
    timeout_header(request.headers.get("x-request-timeout-ms"))
    parts = parts_of(request)
    # The supervisor holds one slot for this request; the other questions need theirs.
    more = min(len(batch.chats), parts.settings.max_in_flight) - 1
    slots = parts.lifecycle.admit(more) if more else 0
    if slots != more:
        parts.metrics.rejected.labels("in_flight").inc()
        raise parts.lifecycle.overloaded()
    try:
        results = await _answer_all(request, parts, batch.chats, slots + 1)
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
        seconds = self.error.headers().get("Retry-After")
        if seconds is not None and self.error.http_status in RETRYABLE:
            # An item has no header to say it in.
            body["error"]["retry_after_s"] = int(seconds)
        return {"chat_id": self.chat_id, **body}


async def _answer_all(
    request: Request, parts: Parts, items: list[Any], at_once: int
) -> list[dict[str, Any] | _Failed]:
    """Questions of one chat follow each other in their order; different chats run side by side, as
    many as there are slots for.
    """
    ids = [_chat_id(item) for item in items]
    by_chat: dict[str, list[int]] = {}
    for index, chat_id in enumerate(ids):
        by_chat.setdefault(chat_id, []).append(index)
    results: list[dict[str, Any] | _Failed] = [{} for _ in items]

    slots = asyncio.Semaphore(at_once)

    async def run(indexes: list[int]) -> None:
        for index in indexes:
            async with slots:
                results[index] = await _answer_one(request, parts, items[index], ids[index])

    async with asyncio.TaskGroup() as group:
        for indexes in by_chat.values():
            group.create_task(run(indexes))
    return results


async def _answer_one(
    request: Request, parts: Parts, item: object, chat_id: str
) -> dict[str, Any] | _Failed:
    charge: Charge | None = None
    try:
        query = validate(ChatItem, item).model_copy(update={"chat_id": chat_id})
        call = call_of(request, query.timeout_ms)
        call = await _reserve(request, call, query, query.system_prompt, query.user_prompt)
        charge = call.charge
        body = (await parts.chat.answer(query, call)).body
        await _close(charge)
        return body
    except ApiError as error:
        return await _failed(chat_id, charge, error)
    except Exception as error:  # noqa: BLE001  # its neighbours keep their answers, whatever it did
        logs.event(
            logger,
            logging.ERROR,
            "an item of a batch failed",
            request_id=context_of(request.scope).request_id,
            exception=type(error).__name__,
            frames=logs.frames_of(error),
        )
        return await _failed(chat_id, charge, InternalError())


async def _failed(chat_id: str, charge: Charge | None, error: ApiError) -> _Failed:
    if charge is not None:
        # The client may have left meanwhile, and then pays for what has not failed.
        charge.failed()
    await _close(charge)
    return _Failed(chat_id, error)


async def _close(charge: Charge | None) -> None:
    """What an item has reserved is for the next ones, which would be refused for it."""
    if charge is not None:
        await charge.close()


def _chat_id(item: object) -> str:
    """The item's own id when it is one, else a new one: a failed item needs a name too."""
    given = item.get("chat_id") if isinstance(item, dict) else None
    if isinstance(given, str) and 1 <= len(given) <= 256 and "\0" not in given:
        return given
    return str(uuid.uuid4())
