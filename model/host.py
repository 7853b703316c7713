"""The model host's life: loading → ready → draining → stopped, or dead.

Owns the engine, the tokenizer and the state that probes and requests ask for. Knows no HTTP.
Runs on the event loop; only `begin_drain` may be called from a signal handler.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import fields
from enum import Enum, auto
from typing import Any

from model.config import Settings, variable
from model.engine import AsyncEngine, EngineDead, EngineError, EngineInfo, EngineStats
from model.errors import NotReady, draining
from model.generation import Generator, LoadedModel
from model.loading import load_model
from model.logs import failure
from model.metrics import Metrics
from model.tracing import make_tracing

logger = logging.getLogger(__name__)

RETRY_WHILE_LOADING_S = 5
HOST_SIZES = (
    "request_timeout_s",
    "max_body_bytes",
    "drain_timeout_s",
    "max_batch_queries",
    "max_predict_instances",
)


Load = Callable[[Settings, AsyncEngine], Awaitable[LoadedModel]]


class State(Enum):
    LOADING = auto()
    READY = auto()
    DRAINING = auto()
    FAILED = auto()


class Host:
    def __init__(
        self, settings: Settings, engine: AsyncEngine | None = None, load: Load = load_model
    ) -> None:
        self.settings = settings
        self._load_model = load
        self.engine = engine or AsyncEngine(settings.engine_config())
        self.metrics = Metrics(self._stats)
        self.tracing = make_tracing(settings, self.metrics)
        self.created = int(time.time())
        self._state = State.LOADING
        self._stop = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._on_drain: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generator: Generator | None = None
        self._running = False

    # --- what probes and requests ask ---------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        return self._state is State.READY and self.engine.is_ready and self.is_live

    @property
    def is_draining(self) -> bool:
        return self._state is State.DRAINING

    @property
    def is_live(self) -> bool:
        """Loading is life; a failed load, a dead loop or a step that hangs is not."""
        return self._state is not State.FAILED and self.engine.is_live

    def check_live(self) -> None:
        """Raises what a probe gets when only a restart helps."""
        if not self.is_live:
            raise NotReady("the engine has stopped; the server must be restarted", retry_after_s=5)

    def check(self) -> None:
        """Raises what a request gets while the model cannot answer."""
        if self.is_ready:
            return
        if self.is_draining:
            raise draining()
        if self._state is State.LOADING:
            raise NotReady("the model is loading", retry_after_s=RETRY_WHILE_LOADING_S)
        raise NotReady("the engine has stopped; the server is restarting", retry_after_s=5)

    @property
    def generator(self) -> Generator:
        self.check()
        if self._generator is None:
            raise NotReady("the model is loading", retry_after_s=RETRY_WHILE_LOADING_S)
        return self._generator

    @property
    def info(self) -> EngineInfo:
        self.check()
        return self.engine.info

    def _stats(self) -> EngineStats | None:
        return self.engine.stats

    # --- its life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Loads, serves until `stop`. Raises EngineError when loading fails or the loop dies."""
        if self._running:
            raise RuntimeError("the host is running already")
        self._running = True
        self._loop = asyncio.get_running_loop()
        lag = asyncio.create_task(self.metrics.watch_event_loop())
        try:
            await self._until_stopped(self._load())
            if not self._stop.is_set():
                await self._until_stopped(self._until_dead())
        except EngineError:
            self._state = State.FAILED
            raise
        finally:
            lag.cancel()
            await self._finish()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, stopping):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, EngineError):
                    await task

    async def _load(self) -> None:
        started, settings = time.monotonic(), self.settings
        logger.info("loading the model", extra={"model": settings.model})
        loaded = await self._load_model(settings, self.engine)
        self._log_sizes(self.engine.info)
        self._generator = Generator(loaded, self, self.metrics)
        if self._state is State.LOADING:
            self._state = State.READY
            seconds = round(time.monotonic() - started, 2)
            logger.info("ready", extra={"model_name": settings.model_name, "load_seconds": seconds})

    def _log_sizes(self, info: EngineInfo) -> None:
        """Every size with its reason: the engine's, or the setting that it comes from."""
        sizes = {item.name: getattr(info, item.name) for item in fields(info)}
        reasons = dict(sizes.pop("reasons"))
        sizes |= {name: getattr(self.settings, name) for name in HOST_SIZES}
        for name, value in sizes.items():
            set_by = variable(name) if hasattr(self.settings, name) else "read from the model"
            logger.info(
                f"resolved {name}", extra={"value": value, "why": reasons.get(name, set_by)}
            )

    async def _until_dead(self) -> None:
        error = await self.engine.wait_dead()
        logger.critical("the engine has died; the process ends", extra=failure(error))
        raise EngineDead

    def begin_drain(self) -> None:
        """Readiness goes at once; running requests get the drain time, then an error."""
        if self._state in (State.DRAINING, State.FAILED):
            return
        self._state = State.DRAINING
        self.engine.begin_drain()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._start_drain)

    def when_draining(self, call: Callable[[], None]) -> None:
        """On the event loop, as soon as the drain has begun."""
        self._on_drain.append(call)

    def _start_drain(self) -> None:
        for call in self._on_drain:
            call()
        if self._drain is None and not self._stop.is_set():
            logger.info("draining", extra={"running": self.engine.stats.num_running})
            self._drain = asyncio.ensure_future(self.engine.stop(self.settings.drain_timeout_s))

    def stop(self) -> None:
        """Lets `run` return; the server calls it when its connections are closed."""
        self.begin_drain()
        self._stop.set()

    async def _finish(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._drain
        # A thread that is still loading cannot be stopped; it ends with the process.
        if self._generator is not None:
            await self.engine.stop()
