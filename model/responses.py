"""How an answer leaves: JSON, a stream of server-sent events, or the error envelope.

Owns the wire form, the keep-alive comment and what happens when a client leaves or stops
reading. Knows no engine. Event loop only.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.errors import HostError, InternalError
from model.generation import Answer
from model.logs import failure

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_ALIVE_S = 5.0
# A client that takes nothing for so long is gone, whatever its socket says.
STALLED_CLIENT_S = 60.0
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def request_id(scope: Scope) -> str:
    return str(scope["state"]["request_id"])


def error_response(error: HostError, scope: Scope) -> Json:
    scope["state"]["outcome"] = error.code
    return Json(error.envelope(request_id(scope)), error.status, error.headers)


def timing_headers(answer: Answer) -> dict[str, str]:
    timing = answer.end.timing
    parts = {"queue": timing.queue_s, "prefill": timing.prefill_s, "decode": timing.decode_s}
    return {
        "Server-Timing": ", ".join(f"{name};dur={s * 1000:.3f}" for name, s in parts.items()),
        "X-Finish-Reason": answer.end.finish_reason,
    }


def event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Cancel `work` when the client leaves. The request's body has been read before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        # Wait until the cancelled work has let go of the engine.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """The status and headers wait for the first event, so a refusal before it keeps its own.

    After it, an error is one `error` event and the end.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(None, 200)
        del self.headers["content-length"]
        # Proxies must neither store nor gather the events.
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._run(scope, send))

    async def _run(self, scope: Scope, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            first = await anext(events)
            writer = _Writer(send)
            await writer.start(self)
            keeping_alive = asyncio.create_task(writer.keep_alive())
            try:
                await writer.write(first)
                async for chunk in events:
                    await writer.write(chunk)
            except HostError as error:
                await writer.write(_error_event(error, scope))
            except ClientGone:
                raise
            except Exception as error:  # noqa: BLE001 - only an event can tell the client now
                logger.error("a stream failed", extra=failure(error))
                await writer.write(_error_event(InternalError(), scope))
            finally:
                keeping_alive.cancel()
            await writer.end()


def _error_event(error: HostError, scope: Scope) -> bytes:
    scope["state"]["outcome"] = error.code
    return event(error.envelope(request_id(scope)), "error")


class _Writer:
    def __init__(self, send: Send) -> None:
        self._send = send
        self._last = time.monotonic()

    async def start(self, response: Response) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": response.raw_headers}
        await self._send(head)

    async def write(self, chunk: bytes) -> None:
        self._last = time.monotonic()
        try:
            async with asyncio.timeout(STALLED_CLIENT_S):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (TimeoutError, OSError):
            raise ClientGone from None

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self) -> None:
        with contextlib.suppress(ClientGone):  # the writer of events finds out by itself
            while True:
                silent = time.monotonic() - self._last
                if silent >= KEEP_ALIVE_S:
                    await self.write(KEEP_ALIVE)
                    silent = 0.0
                await asyncio.sleep(KEEP_ALIVE_S - silent)
