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
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from api import __version__, logs
from api.body_reader import BodyReader
from api.buffer_room import BufferRoom
from api.chat import ChatService
from api.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound
from api.history import SqlStore
from api.history.retention import sweep_for_ever
from api.host_names import HostNames, needs_check
from api.keys.gate import OPEN, Gate
from api.keys.schemas import KEY_BODIES
from api.keys.service import KeyService
from api.lifecycle import Lifecycle
from api.limits.limiter import Limiter
from api.meter import Meter
from api.metrics import Metrics
from api.middleware import RequestScope, Supervisor
from api.routes import admin, chat, chats, export, health, load, openai, page, usage
from api.routes.common import KEY_REFUSALS, Parts, error_answer
from api.schemas import BODIES
from api.settings import Settings
from api.settings_sources import read
from api.shortcut import Shortcut
from api.tracing import make_tracing
from api.upstream import Catalogue, ModelHost, Transport
from api.usage.recorder import UsageRecorder
from api.watch import HostWatch, measure_lag

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DESCRIPTION = "Ask a language model questions, in chats that are kept."
# FastAPI's own spans and records hold query strings and what exceptions say.
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)


def make_store(settings: Settings, metrics: Metrics) -> SqlStore:
    return SqlStore(
        settings.database_url,
        metrics,
        lease_s=settings.lease_s,
        timeout_s=settings.database_timeout_s,
        connections=settings.database_connections,
        key_s=settings.idempotency_s,
    )


def create_app(
    settings: Settings | None = None,
    transport: Transport | None = None,
    store: SqlStore | None = None,
    limiter: Limiter | None = None,
) -> FastAPI:
    """The ASGI application. Plain `uvicorn --factory api.app:create_app` reads the environment."""
    if settings is None:
        settings = read(os.environ).settings
        logs.configure(settings.log_level, settings.log_format, access=settings.access_log == "on")
    metrics = Metrics()
    tracing = make_tracing(settings, metrics)
    lifecycle = Lifecycle(
        settings.max_in_flight,
        max_queued=settings.max_queued,
        queue_timeout_s=settings.queue_timeout_s,
    )
    store = store or make_store(settings, metrics)
    host = ModelHost(settings, metrics, transport)
    models = Catalogue(host)
    service = ChatService(settings, store, host, models, metrics)
    keys = KeyService(settings, store)
    meter = Meter(limiter or Limiter(settings, metrics), UsageRecorder(store, metrics))
    # The pages under /docs bring their scripts along: a closed cluster reaches no public address.
    app = FastAPIOffline(
        title="qna API server",
        description=DESCRIPTION,
        version=__version__,
        lifespan=_lifespan,
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    buffer_room = BufferRoom(
        settings.max_buffered_bytes,
        metrics,
        share=0.5 if settings.auth == "on" else 1.0,
        queue_timeout_s=settings.queue_timeout_s,
    )
    app.state.parts = Parts(
        settings, metrics, lifecycle, store, host, models, service, keys, meter, buffer_room
    )
    app.state.host_watch = HostWatch(host, metrics)
    app.state.tracing = tracing
    for part in (chat, export, chats, openai, admin, usage, health, load, page):
        app.include_router(part.router)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    # The last one added is the outermost.
    app.add_middleware(Shortcut, routes=[*chat.router.routes, *openai.router.routes])
    app.add_middleware(
        Supervisor,
        lifecycle=lifecycle,
        metrics=metrics,
        request_timeout_s=settings.request_timeout_s,
    )
    app.add_middleware(
        BodyReader,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        room=buffer_room,
    )
    app.add_middleware(RawChatPath)
    if settings.auth == "on":
        app.add_middleware(Gate, keys=keys, docs=settings.open_docs == "on")
    elif needs_check(settings):
        app.add_middleware(HostNames, allowed=settings.allowed_hosts)
    app.add_middleware(RequestScope, lifecycle=lifecycle, metrics=metrics, tracing=tracing)
    _document_bodies(app, needs_key=settings.auth == "on")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    beside = {asyncio.create_task(measure_lag(parts.metrics))}
    try:
        await parts.store.open()
        await parts.host.start()
        await parts.meter.limiter.open()
        parts.meter.usage.start()
        beside.add(asyncio.create_task(sweep_for_ever(parts.store, parts.settings.retention_days)))
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await app.state.host_watch.close()
        await parts.chat.close()
        await parts.host.aclose()
        await parts.meter.limiter.close()
        await parts.meter.usage.close()
        await parts.store.close()
        await app.state.tracing.close()


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
        return error_answer(request, MethodNotAllowed(", ".join(_methods_of(request))))
    if error.status_code == 404:
        return error_answer(request, NotFound())
    return error_answer(request, InvalidRequest())


def _methods_of(request: Request) -> list[str]:
    """Of every route at this path: the framework names those of the first one only."""
    scope = request.scope
    return [
        method
        for method in METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """FastAPI's own checks have nothing to check here; should one ever run, it must not echo its
    input.
    """
    return error_answer(request, InvalidRequest())


def _document_bodies(app: FastAPI, *, needs_key: bool) -> None:
    """Add the bodies, which the routes read themselves, to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, extra = models_json_schema(
            [(model, "validation") for model in (*BODIES, *KEY_BODIES)],
            ref_template="#/components/schemas/{model}",
        )
        schemas = document["components"]["schemas"]
        for name, schema in extra["$defs"].items():
            schemas.setdefault(name, schema)
        schemas["ChatBatch"]["properties"]["chats"]["items"] = {
            "$ref": "#/components/schemas/ChatItem"
        }
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        refusals = {str(status): answer for status, answer in KEY_REFUSALS.items()}
        wrong_host = {"421": refusals.pop("421")}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                # FastAPI's own validation answer, which this server never gives.
                if "HTTPValidationError" in str(operation.get("responses", {}).get("422")):
                    del operation["responses"]["422"]
                operation["responses"] |= wrong_host
                if path not in OPEN:
                    # None is needed where API_AUTH is off.
                    operation["security"] = [{"key": []}, *([] if needs_key else [{}])]
                    operation["responses"] |= refusals
        return document

    app.openapi = openapi  # type: ignore[method-assign]
