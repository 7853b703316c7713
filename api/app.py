"""Builds the application: parts, layers, routes, and the one place where errors become answers.

Nothing exists before `create_app` is called and nothing is shared between two applications. The
lifespan owns the client to the model host and the store.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api import __version__, logs
from api.chat import ChatService
from api.context import Lifecycle
from api.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound
from api.history import ChatStore, SqlStore
from api.metrics import Metrics
from api.middleware import BodyReader, RequestScope, Supervisor
from api.routes import chat, chats, health, openai
from api.routes.common import Parts, error_answer
from api.schemas import ChatBatch, ChatItem, ChatQuery, ChatView
from api.settings import Settings, read
from api.upstream import ModelHost, Transport
from api.watch import HostWatch, measure_lag

DESCRIPTION = "Ask a language model questions, in chats that are kept."


def make_store(settings: Settings, metrics: Metrics) -> SqlStore:
    return SqlStore(
        settings.database_url,
        metrics,
        lease_s=settings.lease_s,
        timeout_s=settings.database_timeout_s,
        connections=settings.database_connections,
    )


def create_app(
    settings: Settings | None = None,
    transport: Transport | None = None,
    store: ChatStore | None = None,
) -> FastAPI:
    """The ASGI application. Plain `uvicorn --factory api.app:create_app` reads the environment."""
    if settings is None:
        settings = read(os.environ)[1]
        logs.configure(settings.log_level, settings.log_format)
    metrics = Metrics()
    lifecycle = Lifecycle(settings.max_in_flight)
    store = store or make_store(settings, metrics)
    host = ModelHost(settings, metrics, transport)
    service = ChatService(settings, store, host, metrics)
    # The pages under /docs bring their scripts along: a closed cluster reaches no public address.
    app = FastAPIOffline(
        title="qna API server",
        description=DESCRIPTION,
        version=__version__,
        lifespan=_lifespan,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
    )
    app.state.parts = Parts(settings, metrics, lifecycle, store, host, service)
    app.state.host_watch = HostWatch(host)
    for router in (chat.router, chats.router, openai.router, health.router):
        app.include_router(router)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    # The last one added is the outermost.
    app.add_middleware(RawChatPath)
    app.add_middleware(Supervisor, lifecycle=lifecycle, metrics=metrics)
    app.add_middleware(
        BodyReader, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
    )
    app.add_middleware(RequestScope, lifecycle=lifecycle, metrics=metrics)
    _document_bodies(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    lag = asyncio.create_task(measure_lag(parts.metrics))
    try:
        await parts.store.open()
        yield
    finally:
        lag.cancel()
        await asyncio.wait({lag})
        await app.state.host_watch.close()
        await parts.chat.close()
        await parts.host.aclose()
        await parts.store.close()


class RawChatPath:
    """Leaves `/chats/…` percent-encoded for routing, so that a chat id may hold slashes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/chats/"):
            raw: bytes = scope.get("raw_path") or b""
            if raw.startswith(b"/chats/"):
                scope["path"] = raw.split(b"?")[0].decode("latin-1")
        await self.app(scope, receive, send)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_answer(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return error_answer(request, MethodNotAllowed(allow))
    if error.status_code == 404:
        return error_answer(request, NotFound())
    return error_answer(request, InvalidRequest())


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """FastAPI's own checks have nothing to check here; should one ever run, it must not echo its
    input.
    """
    return error_answer(request, InvalidRequest())


def _document_bodies(app: FastAPI) -> None:
    """Add the bodies, which the routes read themselves, to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, extra = models_json_schema(
            [(model, "validation") for model in (ChatQuery, ChatBatch, ChatItem, ChatView)],
            ref_template="#/components/schemas/{model}",
        )
        schemas = document["components"]["schemas"]
        for name, schema in extra["$defs"].items():
            schemas.setdefault(name, schema)
        schemas["ChatBatch"]["properties"]["chats"]["items"] = {
            "$ref": "#/components/schemas/ChatItem"
        }
        for path in document["paths"].values():
            for operation in path.values():
                # FastAPI's own validation answer, which this server never gives.
                operation.get("responses", {}).pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
