"""KServe's ModelServer around our application.

KServe's own REST server serves a module-level FastAPI with its handlers, which repeat exceptions
to clients; and it stops listening only after the fact. What is kept of it: registering the model,
the engine's coroutine whose failure ends the process, and the signal that stops both. What is
replaced: the application, the socket, and the order of the end. Main thread.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import uvicorn
from fastapi import FastAPI

from model.config import Settings, SettingsError
from model.engine import EngineError
from model.http_protocol import HttpProtocol
from model.kserve_sdk import ModelServer
from model.predictor import Predictor

logger = logging.getLogger(__name__)

# After the drain: time for the last error events to leave.
CLOSING_S = 5.0
# After the engine's death: time for its callers' errors to leave.
LAST_WORDS_S = 2.0
KEEP_ALIVE_S = 65


def listen(settings: Settings) -> socket.socket:
    """Take the port before anything is loaded, so that a taken one is said at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise SettingsError(_why(error, settings)) from None
    sock.listen(2048)
    return sock


def _why(error: OSError, settings: Settings) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"MODEL_HOST_PORT: port {settings.port} is taken; choose another one with --port"
    if error.errno == errno.EACCES:
        return f"MODEL_HOST_PORT: port {settings.port} is not allowed for this user"
    return f"MODEL_HOST_HOST: cannot listen on {settings.host} ({error.strerror})"


class Server(ModelServer):  # type: ignore[misc]  # the SDK has no types
    def __init__(self, settings: Settings, app: FastAPI, sock: socket.socket) -> None:
        super().__init__(
            http_port=settings.port,
            workers=1,
            enable_grpc=False,
            enable_latency_logging=False,
            grace_period=int(settings.drain_timeout_s + CLOSING_S),
        )
        self._sock = sock
        self._http = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                http=HttpProtocol,
                # Who asks is whom the connection comes from: KServe's agent names its callers in
                # a header that uvicorn would believe, and the gate knows the agent by its address.
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=self.grace_period,
            )
        )

    def start(self, models: list[Predictor]) -> None:
        """Returns after a signal; raises EngineError when loading fails or the loop dies."""
        self._register_and_check_atleast_one_model_is_ready(models)  # appends start_engine()
        self.register_signal_handler()
        with asyncio.Runner(loop_factory=self._http.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    def register_signal_handler(self) -> None:
        """uvicorn takes these while it serves, and raises them again when it has finished."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self.stop(number))

    async def _serve(self) -> None:
        engines = [asyncio.ensure_future(work) for work in _coroutines(self.servers)]
        http = asyncio.ensure_future(self._http.serve([self._sock]))
        await asyncio.wait({http, *engines}, return_when=asyncio.FIRST_COMPLETED)
        if not http.done():
            # The engine has ended by itself: its callers get their errors, then all ends.
            self._http.config.timeout_graceful_shutdown = int(LAST_WORDS_S)
            self._http.should_exit = True
        await http
        for name in list(self.registered_models.get_models()):
            self.registered_models.unload(name)
        for engine in engines:
            await engine

    def run(self, predictor: Predictor) -> str | None:
        """None after a clean end, else the one line that says why."""
        try:
            with contextlib.suppress(KeyboardInterrupt):
                self.start([predictor])
        except EngineError as error:
            return error.message
        return None


def _coroutines(items: list[Any]) -> list[Coroutine[Any, Any, None]]:
    return list(items)
