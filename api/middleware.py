"""The layers around every route, as plain ASGI. From the outside in:

RequestScope   request id, access log, metrics, the answer when nothing else answered
Gate           asks for a key (api.keys.gate); or, without keys, HostNames (api.host_names)
BodyReader     the whole body is read before anything is answered (api.body_reader)
Supervisor     bound on requests in flight; ends the work when the client
               leaves or a drain runs out
"""

import asyncio
import contextlib
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs
from api.context import PROBES, SCOPE_KEY, RequestContext, context_of, request_id_from
from api.errors import ApiError, DeadlineExceeded, Draining, InternalError, Overloaded
from api.lifecycle import Lifecycle
from api.loops import attempt
from api.metrics import Metrics
from api.sse import MEDIA_TYPE, end_with_error
from api.tracing import Tracing, current, entered
from api.validation import timeout_header

logger = logging.getLogger("api.access")


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
    def __init__(
        self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics, tracing: Tracing
    ) -> None:
        self.app = app
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with entered(self._tracing.begin(scope)):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            try:
                for ending in (*context.cleanups, context.settle):
                    await attempt(ending, logger, "a request was not cleaned up")
            finally:
                self._lifecycle.running.discard(context)
                self._record(context, scope, probe)
                context.let_go()

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
                if context.ended:
                    # Whoever has the whole answer finds everything settled.
                    await context.settle()
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
        message["headers"] = kept + own + context.headers

    def _record(self, context: RequestContext, scope: Scope, probe: bool) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        seconds = time.monotonic() - context.started
        outcome = self._outcome(context)
        requests, duration = self._metrics.of_request(route, outcome)
        requests.inc()
        duration.observe(seconds)
        first_event_s = None
        if context.first_event is not None:
            first_event_s = context.first_event - context.started
            self._metrics.first_event.labels(route).observe(first_event_s)
        current().end(route, context.status, outcome, first_event_s)
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
            key_id=context.caller.key_id or None,
            seconds=round(seconds, 4),
        )

    @staticmethod
    def _outcome(context: RequestContext) -> str:
        if context.abort_reason == "client":
            return "cancelled"
        if context.error_code or not context.status:
            return context.error_code or "no_answer"
        return "ok" if context.status < 400 else str(context.status)


class Supervisor:
    """Runs the route and cancels it when its answer is of no use any more."""

    def __init__(
        self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics, request_timeout_s: float
    ) -> None:
        self.app = app
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._request_timeout_s = request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        await self._supervise(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._lifecycle.enter(lambda: self._deadline(scope))
        except (Overloaded, DeadlineExceeded) as error:
            if isinstance(error, Overloaded):
                self._metrics.rejected.labels("in_flight").inc()
            await send_error(error, scope, receive, send)
            return
        self._metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send)
        finally:
            self._lifecycle.release(1)
            self._metrics.in_flight.dec()

    def _deadline(self, scope: Scope) -> float:
        """As far as it is known before the body is looked into; what is wrong with the header, the
        route says.
        """
        named = None
        with contextlib.suppress(ApiError):
            named = timeout_header(header(scope, b"x-request-timeout-ms"))
        return context_of(scope).call(self._request_timeout_s, named).deadline

    async def _supervise(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        body = await receive()
        task = asyncio.current_task()
        assert task is not None
        watcher = asyncio.ensure_future(_watch(receive, context))
        try:
            if context.abort_reason is None:
                context.task = task
                await self._in_turn(scope, _only(body), send)
                # An abort that raced with the last byte changes nothing.
                return
        except asyncio.CancelledError:
            # Also when the server itself cancels this request, which is then not ours to answer.
            if context.abort_reason is None or task.uncancel():
                raise
        finally:
            context.task = None
            watcher.cancel()
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
