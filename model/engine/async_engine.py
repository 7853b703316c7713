"""The engine as an event loop sees it: submit, stream, abort, drain, die.

Owns the one thread that touches the model. Work enters that thread through one inbox and one
wake event; everything leaves it through `_post`, once per step. Everything but the methods
named `_thread_*` runs on the event loop that called `start`. Knows no torch.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from types import TracebackType
from typing import Self

from model.engine.admission import new_request
from model.engine.build import build_engine
from model.engine.config import EngineConfig, EngineInfo, EngineStats
from model.engine.engine import Engine
from model.engine.errors import (
    Draining,
    DuplicateRequestId,
    EngineDead,
    EngineError,
    ModelLoadError,
    first_line,
)
from model.engine.request import FinishReason, Request, RequestOutput
from model.engine.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10.0
"""How long stop() waits for the thread's last step before it leaves the thread behind."""

Progress = Callable[[str], None]
Build = Callable[[EngineConfig, Progress], Engine]


class EngineState(IntEnum):
    """May only rise."""

    NEW = 0
    LOADING = 1
    READY = 2
    DRAINING = 3
    STOPPING = 4
    STOPPED = 5
    DEAD = 6


class RequestStream(AsyncIterator[RequestOutput]):
    """The outputs of one request, in order; the last one has a finish reason.

    Leaving `async with`, or `aclose()`, aborts a request that has not finished. What waits here
    is bounded by the request's max_tokens, and a slow reader holds up nobody.
    """

    def __init__(self, request: Request, abort: Callable[[str, FinishReason], None]) -> None:
        self.request_id = request.request_id
        self._request = request
        self._abort = abort
        self._outputs: deque[RequestOutput] = deque()
        self._arrived = asyncio.Event()
        self._finished = False

    @property
    def has_output(self) -> bool:
        """Whether the next output is here already."""
        return bool(self._outputs)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RequestOutput:
        while not self._outputs:
            if self._finished:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._outputs.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if not self._finished:
            self._abort(self.request_id, FinishReason.ABORT)

    def finish(self) -> None:
        """Its reader has all that it wants, such as a text up to a stop string: no cancel."""
        if not self._finished:
            self._abort(self.request_id, FinishReason.STOP)

    def put(self, output: RequestOutput) -> None:
        self._outputs.append(output)
        self._finished = output.finish_reason is not None
        self._arrived.set()

    def fail(self, reason: FinishReason, error: EngineError | None) -> None:
        """Ends the stream without the engine, which may hold the request no longer."""
        now = time.monotonic()
        self.put(replace(self._request.output(now), finish_reason=reason, error=error))


class AsyncEngine:
    def __init__(self, config: EngineConfig, *, build: Build = build_engine) -> None:
        self._config = config
        self._build = build
        self._state = EngineState.NEW
        self._fatal_error: BaseException | None = None
        self._engine: Engine | None = None
        self._streams: dict[str, RequestStream] = {}
        self._dead = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy_since = 0.0
        # Written by the engine thread as whole values, read by the event loop.
        self._last_step_at = 0.0
        self._snapshot = EngineStats()
        self._inbox: deque[Request | tuple[str, FinishReason]] = deque()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._thread_main, name="engine", daemon=True)

    async def start(self, on_progress: Progress | None = None) -> None:
        """Loads, tests and warms up. Raises an EngineError of one clear line."""
        if self._state is not EngineState.NEW:
            raise Draining("the engine can be started once")
        self._state = EngineState.LOADING
        self._loop = asyncio.get_running_loop()
        self._on_progress = on_progress or logger.info
        self._loaded: asyncio.Future[Engine] = self._loop.create_future()
        self._thread.start()
        self._engine = await self._loaded
        self._advance(EngineState.READY)
        if self._state is not EngineState.READY:
            raise Draining("the engine was stopped while it was loading")

    async def stop(self, drain_s: float = 0.0) -> None:
        """Refuses new work, lets running work finish for `drain_s`, then aborts what is left.

        For a step that hangs it does not wait: nothing would come of it.
        """
        self._advance(EngineState.DRAINING)
        if not self._thread.is_alive() or self._state >= EngineState.STOPPED:
            self._advance(EngineState.STOPPED)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), drain_s if self.is_live else 0.0)
        for request_id in list(self._streams):
            self.abort(request_id)
        self._advance(EngineState.STOPPING)
        self._wake.set()
        await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S if self.is_live else 0.0)
        self._advance(EngineState.STOPPED)
        self._end_streams(FinishReason.ABORT, None)

    def begin_drain(self) -> None:
        self._advance(EngineState.DRAINING)

    def submit(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        deadline: float | None = None,
        cache_salt: str | None = None,
        tenant: str | None = None,
        call: str | None = None,
    ) -> RequestStream:
        """`deadline` is on time.monotonic(). Cached prefixes are shared with requests of the same
        salt only; tenants that wait are served by turns; requests of one `call` do not keep each
        other out. Raises Overloaded, PromptTooLong,
        InvalidParameter, DuplicateRequestId, Draining or EngineDead, all before any work is done.
        """
        engine = self._accepting()
        if request_id in self._streams:
            raise DuplicateRequestId(request_id)
        now = time.monotonic()
        request = new_request(
            request_id,
            prompt_token_ids,
            params,
            engine.info,
            deadline=deadline,
            cache_salt=cache_salt,
            tenant=tenant,
            call=call,
            now=now,
        )
        engine.admission.admit(request)
        if not self._streams:
            self._busy_since = now
            self._idle.clear()
        # Registered before the engine can know of it, or a fast answer would have nowhere to go.
        stream = self._streams[request_id] = RequestStream(request, self.abort)
        self._send(request)
        return stream

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """Idempotent, in any state; takes effect at the start of the next step. The first
        reason that is given counts."""
        if request_id in self._streams:
            self._send((request_id, reason))

    @property
    def stats(self) -> EngineStats:
        stats = replace(self._snapshot, last_step_age_s=self._last_step_age_s())
        if self._engine is None:
            return stats
        admission = self._engine.admission
        return replace(
            stats,
            num_waiting=max(stats.num_waiting, admission.num_queued_requests),
            num_waiting_tokens=max(stats.num_waiting_tokens, admission.num_queued_tokens),
        )

    @property
    def info(self) -> EngineInfo:
        if self._engine is None:
            raise Draining("the engine is not loaded yet")
        return self._engine.info

    @property
    def is_ready(self) -> bool:
        return self._state is EngineState.READY

    @property
    def is_live(self) -> bool:
        if self._state is EngineState.DEAD:
            return False
        watchdog_s = self._engine.info.watchdog_s if self._engine else self._config.watchdog_s
        return self._last_step_age_s() <= watchdog_s

    @property
    def fatal_error(self) -> BaseException | None:
        return self._fatal_error

    async def wait_dead(self) -> BaseException:
        """Returns when the engine loop has died, which is when this process should end."""
        await self._dead.wait()
        assert self._fatal_error is not None
        return self._fatal_error

    def _last_step_age_s(self) -> float:
        if not self._streams:
            return 0.0
        return max(time.monotonic() - max(self._last_step_at, self._busy_since), 0.0)

    def _accepting(self) -> Engine:
        if self._state is EngineState.DEAD:
            raise EngineDead
        if self._state > EngineState.READY:
            raise Draining
        if self._engine is None or self._state is not EngineState.READY:
            raise Draining("the engine is not loaded yet")
        return self._engine

    def _advance(self, state: EngineState) -> None:
        self._state = max(self._state, state)

    def _send(self, item: Request | tuple[str, FinishReason]) -> None:
        self._inbox.append(item)
        self._wake.set()

    # What the engine thread has posted, on the event loop.

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is not None:
                stream.put(output)
            if output.finish_reason is not None:
                self._forget(output.request_id)

    def _forget(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        if not self._streams:
            self._idle.set()

    def _end_streams(self, reason: FinishReason, error: EngineError | None) -> None:
        for request_id, stream in list(self._streams.items()):
            stream.fail(reason, error)
            self._forget(request_id)

    def _loading_ended(self, engine: Engine | None, error: BaseException | None) -> None:
        if self._loaded.done():  # start() was cancelled
            return
        if error is not None:
            self._advance(EngineState.STOPPED)
            self._loaded.set_exception(error)
        elif engine is not None:
            self._loaded.set_result(engine)

    def _died(self, error: BaseException) -> None:
        self._advance(EngineState.DEAD)
        self._fatal_error = error
        self._end_streams(FinishReason.ERROR, EngineDead())
        self._dead.set()

    # On the engine thread.

    def _thread_main(self) -> None:
        try:
            engine = self._build(self._config, self._thread_progress)
        except BaseException as error:  # noqa: BLE001 - start() raises it
            self._post(self._loading_ended, None, self._thread_named(error))
            return
        self._snapshot = engine.stats()
        self._post(self._loading_ended, engine, None)
        try:
            self._thread_loop(engine)
        except BaseException as error:
            logger.critical("the engine loop has died", exc_info=error)
            self._post(self._died, error)

    def _thread_named(self, error: BaseException) -> BaseException:
        """Torch and drivers raise anything while a model is loaded; who started it gets one line,
        the log the rest."""
        if isinstance(error, EngineError) or not isinstance(error, Exception):
            return error
        logger.error("loading has failed", exc_info=error)
        named = ModelLoadError(f"{self._config.model}: cannot be loaded: {first_line(error)}")
        named.__cause__ = error
        return named

    def _thread_loop(self, engine: Engine) -> None:
        while self._state < EngineState.STOPPING or self._inbox or engine.has_requests:
            self._thread_receive(engine)
            if not engine.has_requests:
                self._wake.wait()
                self._wake.clear()
                continue
            outputs = engine.step()
            self._last_step_at = time.monotonic()
            self._snapshot = engine.stats()
            if outputs:
                self._post(self._deliver, outputs)

    def _thread_receive(self, engine: Engine) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, Request):
                engine.add(item)
            else:
                engine.abort(*item)

    def _thread_progress(self, message: str) -> None:
        self._post(self._on_progress, message)

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        """The one place where anything leaves the engine thread."""
        # A closed loop means that the process is ending and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)
