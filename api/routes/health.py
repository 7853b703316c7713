"""Probes, metrics, and what `GET /` says to programs.

`/livez` asks nobody. `/readyz` asks the database and says whether the server is draining, but
does not depend on the model host: all replicas would leave the Service at once while the host
restarts, and clients would get refused connections instead of a clear 503. The host's state is in
its body.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import __version__
from api.errors import ApiError, Draining
from api.routes.common import Parts, errors, json_answer, parts_of

router = APIRouter(tags=["health"])


def index() -> Response:
    """What this is and where to go; the chat page gives it to who asks for JSON."""
    return json_answer(
        {
            "name": "qna API server",
            "version": __version__,
            "docs": "/docs",
            "openapi": "/openapi.json",
            "routes": {
                "POST /chat": "ask a question in a chat",
                "POST /chat/batch": "ask many at once",
                "GET /chats": "list the chats",
                "GET /chats/{chat_id}": "read one",
                "GET /chats/{chat_id}/export": "export one as JSON or Markdown",
                "PATCH /chats/{chat_id}": "give one a title",
                "DELETE /chats/{chat_id}": "delete one",
                "POST /chats/{chat_id}/regenerate": "ask its last question again",
                "POST /chats/{chat_id}/branch": "go on from an earlier turn in a new chat",
                "POST /v1/chat/completions": "OpenAI's chat completions",
                "GET /v1/models": "OpenAI's list of models",
                "GET /livez": "is the process alive",
                "GET /readyz": "can it answer",
                "GET /metrics": "Prometheus metrics",
                "GET /load": "what the models are asked for at this moment",
            },
        }
    )


@router.get("/livez", summary="Alive: the process answers")
async def livez() -> Response:
    return json_answer({"status": "live"})


@router.get("/readyz", responses=errors(503), summary="Ready: the database answers, no drain")
async def readyz(request: Request) -> Response:
    parts = parts_of(request)
    hosts = request.app.state.host_watch.state()
    if parts.lifecycle.draining:
        raise Draining(retry_after_s=1)
    try:
        await parts.store.check()
    except ApiError as error:
        error.extra = hosts
        raise
    return json_answer({"status": "ready", "database": "ready", **hosts})


@router.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    summary="Prometheus metrics",
)
async def metrics(request: Request) -> Response:
    parts = parts_of(request)
    own = parts.metrics
    own.queued.set(parts.lifecycle.waiting)
    own.draining.set(parts.lifecycle.draining)
    _show_load(parts)
    # Whoever scrapes need not wait: the next scrape shows what this look finds.
    request.app.state.host_watch.state()
    return Response(own.render(), headers={"Content-Type": own.content_type})


def _show_load(parts: Parts) -> None:
    # One that has left the models file shall not be wanted for ever.
    parts.metrics.load_requests.clear()
    parts.metrics.load_tokens.clear()
    for pool in parts.host.models.pools:
        load = pool.load()
        parts.metrics.load_requests.labels(pool.name).set(load.requests)
        parts.metrics.load_tokens.labels(pool.name).set(load.tokens)
