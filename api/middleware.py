"""The layers around every route, as plain ASGI. From the outside in:

    RequestScope   request id, access log, metrics, the answer when nothing else answered
    BodyReader     the whole body is read before anything is answered; size and time limits
    Supervisor     bound on requests in flight; ends the work when the client
                   leaves or a drain runs out

Reading the body first is not a nicety: proxies that share connections cut other answers when a
server answers early (KServe's agent does).
"""

import asyncio
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs
from api.context import SCOPE_KEY, Lifecycle, RequestContext, context_of, request_id_from
from api.errors import (
    ApiError,
    BodyTooLarge,
    Draining,
    InternalError,
    Overloaded,
    RequestTimedOut,
    UnsupportedMediaType,
)
from api.metrics import Metrics
from api.sse import MEDIA_TYPE, end_with_error

logger = logging.getLogger("api.access")
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
# Beyond the limit this much more is read and thrown away, so that the refusal reaches the client.
DISCARD_FACTOR = 8


def header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def send_error(
    error: ApiError, scope: Scope, receive: Receive, send: Send, *, close: bool = False
) -> None:
    context = context_of(scope)
    context.error_code = error.code
    response = error.response(context.request_id)
    if close:
        response.headers["Connection"] = "close"
    await response(scope, receive, send)


class RequestScope:
    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self.app = app
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = RequestContext(request_id_from(header(scope, b"x-request-id")))
        scope[SCOPE_KEY] = context
        send = self._observed(context, send)
        probe = scope["path"] in PROBES
        if not probe:
            self._lifecycle.running.add(context)
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes one clean answer
            logs.event(
                logger,
                logging.ERROR,
                "request failed",
                request_id=context.request_id,
                exception=type(error).__name__,
                frames=logs.frames_of(error),
            )
            await self._answer_bug(context, scope, receive, send)
        finally:
            for cleanup in context.cleanups:
                await cleanup()
            self._lifecycle.running.discard(context)
            self._record(context, scope, probe)

    async def _answer_bug(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not context.status:
            await send_error(InternalError(), scope, receive, send)
        elif context.streaming and not context.ended:
            await end_with_error(InternalError(), scope, send)

    def _observed(self, context: RequestContext, send: Send) -> Send:
        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._start(context, message)
            elif message["type"] == "http.response.body":
                if context.streaming and context.first_event is None and message.get("body"):
                    context.first_event = time.monotonic()
                context.ended = context.ended or not message.get("more_body", False)
            await send(message)

        return observed

    def _start(self, context: RequestContext, message: Message) -> None:
        context.status = message["status"]
        own = [(b"x-request-id", context.request_id.encode())]
        if self._lifecycle.draining:
            own.append((b"connection", b"close"))
        kept = []
        for key, value in message.get("headers", ()):
            if key == b"content-type" and value.startswith(MEDIA_TYPE.encode()):
                context.streaming = True
            if key not in (b"x-request-id", b"connection") or (
                key == b"connection" and not self._lifecycle.draining
            ):
                kept.append((key, value))
        message["headers"] = kept + own

    def _record(self, context: RequestContext, scope: Scope, probe: bool) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        seconds = time.monotonic() - context.started
        outcome = self._outcome(context)
        self._metrics.requests.labels(route, outcome).inc()
        self._metrics.duration.labels(route).observe(seconds)
        if context.first_event is not None:
            self._metrics.first_event.labels(route).observe(context.first_event - context.started)
        logs.event(
            logger,
            logging.DEBUG if probe else logging.INFO,
            "request",
            request_id=context.request_id,
            method=scope["method"],
            route=route,
            status=context.status,
            outcome=outcome,
            error_code=context.error_code,
            seconds=round(seconds, 4),
        )

    @staticmethod
    def _outcome(context: RequestContext) -> str:
        if context.abort_reason == "client":
            return "cancelled"
        if context.error_code or not context.status:
            return context.error_code or "no_answer"
        return "ok" if context.status < 400 else str(context.status)


class BodyReader:
    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive)
        except TimeoutError:
            await send_error(RequestTimedOut(), scope, receive, send, close=True)
            return
        except BodyTooLarge as error:
            await send_error(error, scope, receive, send, close=True)
            return
        if body is None:
            context_of(scope).abort("client")
            return
        if refusal := self._media_type(scope):
            await send_error(refusal, scope, receive, send)
            return
        await self.app(scope, _Replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or None when the client left before its end."""
        body = bytearray()
        seen = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            seen += len(chunk)
            if seen <= self._max_bytes:
                body += chunk
            else:
                body.clear()
            if not message.get("more_body", False) or seen > self._max_bytes * DISCARD_FACTOR:
                break
        if seen > self._max_bytes:
            raise BodyTooLarge(
                f"The body is larger than {self._max_bytes} bytes",
                extra={"limit": self._max_bytes},
            )
        return bytes(body)

    @staticmethod
    def _media_type(scope: Scope) -> ApiError | None:
        if scope["method"] != "POST":
            return None
        kind = (header(scope, b"content-type") or "").split(";")[0].strip().lower()
        coding = (header(scope, b"content-encoding") or "identity").strip().lower()
        if kind != "application/json" or coding != "identity":
            return UnsupportedMediaType()
        return None


class _Replay:
    """`receive` for the route: the body that was read, then whatever the server says next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


class Supervisor:
    """Runs the route as a task and cancels it when its answer is of no use any more."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self.app = app
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        slots = self._lifecycle.admit()
        if not slots:
            self._metrics.rejected.labels("in_flight").inc()
            await send_error(Overloaded(retry_after_s=1), scope, receive, send)
            return
        self._metrics.in_flight.inc()
        try:
            await self._supervise(scope, receive, send)
        finally:
            self._lifecycle.release(slots)
            self._metrics.in_flight.dec()

    async def _supervise(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        body = await receive()
        route = asyncio.ensure_future(self.app(scope, _only(body), send))
        watcher = asyncio.ensure_future(_watch(receive, context))
        try:
            waits: set[asyncio.Future[Any]] = {route, context.aborted}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            if not route.done():
                # Here for an abort, and when the server itself cancels this request.
                route.cancel()
                await asyncio.wait({route})
        if not route.cancelled():
            # An abort that raced with the last byte changes nothing.
            route.result()
            return
        await self._after_abort(context, scope, receive, send)

    async def _after_abort(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if context.abort_reason == "client":
            stage = "streaming" if context.status else "waiting"
            self._metrics.cancelled.labels(stage).inc()
        elif not context.status:
            await send_error(Draining(retry_after_s=1), scope, receive, send)
        elif context.streaming and not context.ended:
            await end_with_error(Draining(), scope, send)


def _only(message: Message) -> Receive:
    """The route gets the body once; that the client left is told by cancelling, not by a
    message.
    """
    waiting = asyncio.Event()
    messages = [message]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await waiting.wait()
        raise AssertionError("unreachable")

    return receive


async def _watch(receive: Receive, context: RequestContext) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    # After the whole answer the server says the same.
    if not context.ended:
        context.abort("client")
