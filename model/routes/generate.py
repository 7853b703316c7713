"""POST /generate and POST /generate/batch."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from model.body_reader import parsed
from model.deadline import deadline_of
from model.generation import Delta, Job, whole
from model.host import Host
from model.items import (
    answer_all,
    check_count,
    details_of,
    job_of,
    raise_when_nothing_was_done,
    render,
)
from model.responses import (
    DONE,
    EventStream,
    Json,
    event,
    request_id,
    timing_headers,
    while_connected,
)
from model.routes.documentation import answers, body, schema
from model.schemas import (
    BatchRequest,
    FailedQuery,
    GenerateRequest,
    GenerateResponse,
)
from model.tenant import tenant_of


def create_router(host: Host) -> APIRouter:
    router = APIRouter(tags=["generate"])
    batch_schema: dict[str, Any] = {
        "type": "array",
        "items": {"anyOf": [schema(GenerateResponse), schema(FailedQuery)]},
    }

    @router.post(
        "/generate",
        summary="Answer one question",
        openapi_extra=body(GenerateRequest),
        responses=answers(GenerateResponse, "The answer, or its stream", streams=True),
    )
    async def generate(request: Request) -> Response:
        host.check()
        asked = await parsed(GenerateRequest, request)
        deadline = deadline_of(request.headers, host.settings.request_timeout_s)
        job = job_of(asked, deadline, tenant_of(request.headers))
        chat_id = asked.chat_id or str(uuid4())
        if _wants_stream(asked, request):
            return EventStream(_events(host, job, chat_id))
        answer = await while_connected(request.receive, host.generator.answer(job))
        content = render(chat_id, answer, details=bool(asked.details))
        return Json(content, headers=timing_headers(answer))

    @router.post(
        "/generate/batch",
        summary="Answer many questions, each with its own error",
        openapi_extra=body(BatchRequest),
        responses=answers(batch_schema, "One answer or error per query, in order"),
    )
    async def generate_batch(request: Request) -> Response:
        host.check()
        queries = (await parsed(BatchRequest, request)).queries
        check_count(queries, host.settings.max_batch_queries, "queries")
        deadline = deadline_of(request.headers, host.settings.request_timeout_s)
        results = await while_connected(
            request.receive,
            answer_all(host.generator, queries, deadline, tenant_of(request.headers)),
        )
        raise_when_nothing_was_done(results)
        return Json([result.as_json(request_id(request.scope)) for result in results])

    return router


def _wants_stream(asked: GenerateRequest, request: Request) -> bool:
    """What the body says counts; when it says nothing, the Accept header does."""
    if asked.stream is not None:
        return asked.stream
    return "text/event-stream" in request.headers.get("accept", "")


async def _events(host: Host, job: Job, chat_id: str) -> AsyncGenerator[bytes]:
    deltas: list[Delta] = []
    async with contextlib.aclosing(host.generator.stream(job)) as stream:
        async for delta in stream:
            deltas.append(delta)
            if delta.text:
                yield event({"chat_id": chat_id, "delta": delta.text})
    answer = whole(deltas)
    yield event(render(chat_id, answer, details=True) | details_of(answer))
    yield DONE
