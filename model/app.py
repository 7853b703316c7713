"""The one ASGI application: routes, middleware, exception handlers, lifespan.

`uvicorn --factory model.app:create_app` and `python -m model` serve the same one. Owns how the
parts are put together; each part owns its own behaviour.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match

from model import __version__
from model.body_reader import BodyReader
from model.config import Settings, load_settings
from model.engine import AsyncEngine, EngineError
from model.errors import HostError, InvalidRequest, MethodNotAllowed, NotFound
from model.gate import Gate
from model.host import Host
from model.logs import configure
from model.middleware import RequestContext
from model.openapi_document import document
from model.predictor import Predictor
from model.responses import error_response
from model.routes import generate, health, kserve, openai

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DESCRIPTION = "Answers from one language model, by KServe's protocols, OpenAI's and its own."
# FastAPI's own spans and records hold query strings and what exceptions say.
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, engine: AsyncEngine | None = None) -> FastAPI:
    """Reads the environment when no settings are given; starts the engine in its lifespan."""
    if settings is None:
        settings = load_settings()
        configure(settings.log_level, settings.log_format, access=settings.access_log)
    host = Host(settings, engine)
    return build_app(host, Predictor(host))


def build_app(host: Host, predictor: Predictor, *, runs_engine: bool = True) -> FastAPI:
    """With `runs_engine` false, somebody else runs the predictor's engine: KServe's server."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(_run_engine(predictor)) if runs_engine else None
        with _drain_on_signals(host):
            yield
        if running is not None:
            predictor.stop()
            await running
        await host.tracing.close()

    # The pages under /docs bring their scripts along: a closed cluster reaches no public address.
    app = FastAPIOffline(
        title="Model host",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        static_url="/docs/assets",
        telemetry=NO_TELEMETRY,
    )
    app.state.host = host
    for router in (
        generate.create_router(host),
        openai.create_router(host),
        kserve.create_router(host, predictor),
        health.create_router(host),
    ):
        app.include_router(router)
    app.add_exception_handler(HostError, _host_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    # What is added later lies further out.
    app.add_middleware(BodyReader, host=host)
    if host.settings.api_key:
        app.add_middleware(
            Gate, keys=host.settings.api_key, trust_batcher=host.settings.trust_batcher
        )
    app.add_middleware(
        RequestContext,
        metrics=host.metrics,
        tracing=host.tracing,
        model_name=host.settings.model_name,
    )
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


async def _run_engine(predictor: Predictor) -> None:
    """Under a plain uvicorn, the end of the engine must be the end of the process."""
    try:
        await predictor.start_engine()
    except EngineError as error:
        logger.critical(error.message)
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _drain_on_signals(host: Host) -> Iterator[None]:
    """Begin to drain before uvicorn's own handler, which waits for the running requests."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        host.begin_drain()
        then: Callable[[int, FrameType | None], Any] | Any = previous[number]
        if callable(then):
            then(number, frame)

    number: int
    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.getsignal(number)
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)


async def _host_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HostError)
    return error_response(error, request.scope)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            answer: HostError = NotFound("there is nothing at this path")
        case 405:
            answer = MethodNotAllowed("this path does not take that method")
            answer.headers["Allow"] = ", ".join(_methods_of(request))
        case _:
            answer = InvalidRequest("the request cannot be served")
    return error_response(answer, request.scope)


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


async def _validation_error(request: Request, _: Exception) -> Response:
    """Path parameters are all the framework parses here; its own answer would echo them."""
    return error_response(InvalidRequest("the path is not valid"), request.scope)
