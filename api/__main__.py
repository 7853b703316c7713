"""`python -m api [serve|migrate|purge|openapi|settings|keys]`: the only place that touches
arguments, signals and exit codes.

Drain: SIGTERM turns `/readyz` to 503 at once. The listener stays open and requests are still
answered, with `Connection: close`, because others learn only little by little that this process
leaves. When nothing runs any more, or after `API_DRAIN_TIMEOUT_S`, the process ends with exit
code 0; streams that are still open then get an error event that says they may be retried. A
second signal ends it at once.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

import uvicorn

from api import logs
from api.app import create_app, make_store
from api.history import StoreError
from api.history.retention import oldest_ms
from api.http_protocol import HttpProtocol
from api.keys import cli
from api.lifecycle import Lifecycle
from api.metrics import Metrics
from api.settings import Settings, SettingsError
from api.settings_sources import read

logger = logging.getLogger("api")
DOCUMENT = Path("docs/openapi/api-server.json")
SEND_BUFFER = 128 * 1024
# After that the kernel lets go of an answer that nobody takes, also when nothing else holds it: who
# is away, as on a train, has so long.
UNTAKEN_S = 30.0
# What aborted requests get to say goodbye and to store their turns.
FAREWELL_S = 5


class Server(uvicorn.Server):
    """uvicorn's server with a drain that keeps listening."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._drain_began: float | None = None
        self._aborted_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again at the end, which makes the exit code not 0.
        if self._drain_began is not None:
            self._drain_s = 0.0
            return
        self._lifecycle.draining = True
        self._drain_began = time.monotonic()
        if sig == signal.SIGINT:
            # A person at a terminal does not wait for other people's streams.
            self._drain_s = min(self._drain_s, 1.0)

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        if self._drain_began is None:
            return False
        if not self._lifecycle.running:
            return True
        now = time.monotonic()
        if self._aborted_at is not None:
            return now - self._aborted_at > FAREWELL_S
        if now - self._drain_began >= self._drain_s:
            self._aborted_at = now
            self._lifecycle.abort_all("draining")
        return False


def bind(settings: Settings) -> socket.socket:
    """Take the port before anything else starts, so that a taken one is one line."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Of each connection: the kernel would take megabytes for a client that does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            untaken_ms = int(UNTAKEN_S * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, untaken_ms)
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror} "
            "(API_PORT sets another)"
        ) from error
    return listener


async def serve(settings: Settings) -> None:
    listener = bind(settings)
    app = create_app(settings)
    parts = app.state.parts
    try:
        # Before uvicorn, whose own report of a failed start is a traceback.
        await parts.store.open()
    except StoreError:
        listener.close()
        await parts.store.close()
        raise
    # What is there now stays: the collector need not look through all of it again and again.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.client_keepalive_s,
        timeout_graceful_shutdown=FAREWELL_S,
        lifespan="on",
        http=HttpProtocol,
        ws="none",
    )
    host, port = listener.getsockname()[:2]
    logs.event(
        logger,
        logging.INFO,
        "listening",
        address=f"http://{host}:{port}",
        model_host=settings.models_file or settings.model_host_url,
        max_in_flight=settings.max_in_flight,
        request_timeout_s=settings.request_timeout_s,
        drain_timeout_s=settings.drain_timeout_s,
    )
    server = Server(config, parts.lifecycle, settings.drain_timeout_s)
    await server.serve(sockets=[listener])
    logs.event(logger, logging.INFO, "ended", requests_cut=len(parts.lifecycle.running))


async def migrate(settings: Settings) -> None:
    store = make_store(settings, Metrics())
    try:
        await store.open()
    finally:
        await store.close()


async def purge(settings: Settings, *, dry_run: bool) -> None:
    store = make_store(settings, Metrics())
    try:
        await store.open()
        purged = await store.purge(oldest_ms(settings.retention_days), dry_run=dry_run)
    finally:
        await store.close()
    print(
        f"{'would purge' if dry_run else 'purged'}: {purged.chats} chats with {purged.turns} turns,"
        f" {purged.keys} idempotency keys"
    )


def write_openapi() -> None:
    document = create_app(Settings()).openapi()
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    DOCUMENT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(DOCUMENT)


def main(argv: list[str]) -> int:
    try:
        if argv[:1] == ["keys"]:
            print(cli.run(os.environ, argv[1:]))
            return 0
        given = read(os.environ, argv)
        command, settings = given.command, given.settings
        logs.configure(settings.log_level, settings.log_format, access=settings.access_log == "on")
        if "--dry-run" in argv and command != "purge":
            raise SettingsError("--dry-run: only purge takes it")
        if command == "openapi":
            write_openapi()
        elif command == "settings":
            print("\n".join(given.lines()))
        elif command == "migrate":
            asyncio.run(migrate(settings))
        elif command == "purge":
            asyncio.run(purge(settings, dry_run="--dry-run" in argv))
        else:
            uvicorn_loop = uvicorn.Config("", log_config=None).get_loop_factory()
            with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
                runner.run(serve(settings))
    except (SettingsError, StoreError) as error:
        print(f"api: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C before the server had taken over the signals.
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
