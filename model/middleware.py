"""What every request passes, as plain ASGI: its id, its log line, its metric, its body.

Owns the body limit. Knows no route and no engine. BaseHTTPMiddleware is not used, because it
hides a client's leaving. Event loop only.
"""

import asyncio
import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import BodyTooLarge, HostError, InternalError, RequestTimeout
from model.logs import failure
from model.metrics import Metrics
from model.responses import ClientGone, error_response
from model.tracing import Tracing, current, entered

access = logging.getLogger("model.access")
logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
BODY_TIMEOUT_S = 30.0
# KServe's agent loses answers that begin before the body is read; beyond this much the connection
# is closed instead.
MAX_DISCARD = 16
CLIENT_GONE_STATUS = 499


class RequestContext:
    """Outermost: gives the request its id, says which model it met, and turns what nobody handled
    into the envelope.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing, model_name: str) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._model_name = model_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with entered(self._tracing.begin(scope)):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        state = scope.setdefault("state", {})
        state["request_id"] = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        started, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = state["request_id"]
                # What callers name is not always what answers.
                headers["X-Served-By-Model"] = self._model_name
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            status, state["outcome"] = CLIENT_GONE_STATUS, "cancelled"
        except asyncio.CancelledError:
            status, state["outcome"] = CLIENT_GONE_STATUS, "cancelled"
            raise
        except Exception as error:  # noqa: BLE001 - the last resort: a failure is told as ours
            logger.error("a request failed", extra=_identity(scope) | failure(error))
            if status == 0:
                await error_response(InternalError(), scope)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.monotonic() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        state, route = scope["state"], _route(scope)
        outcome = state.get("outcome") or ("ok" if status < 400 else "error")
        if scope["method"] == "POST":
            self._metrics.request(route, outcome)
        # Probes ask many times a second; what they find is logged where it changes.
        quiet = scope["method"] == "GET" and (status < 400 or status == 503)
        level = logging.DEBUG if quiet else logging.INFO
        fields = _identity(scope) | {
            "method": scope["method"] if route != "other" else "",
            "status": status,
            "outcome": outcome,
            "seconds": round(seconds, 4),
        }
        access.log(level, "request", extra=fields)
        current().end(route, status, outcome)


def _route(scope: Scope) -> str:
    """The route as it was declared: neither a path nor a query that a client made up."""
    return str(getattr(scope.get("route"), "path", "other"))


def _identity(scope: Scope) -> dict[str, str]:
    return {"request_id": scope["state"]["request_id"], "route": _route(scope)}


class BodyReader:
    """Reads the whole body, or refuses it, before the application sees the request."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await self._read(receive)
        except TimeoutError:
            error = RequestTimeout(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} seconds")
            await self._refuse(error, scope, receive, send, close=True)
            return
        if isinstance(body, int):
            large = BodyTooLarge(f"the body is larger than {self._limit} bytes", limit=self._limit)
            await self._refuse(large, scope, receive, send, close=body > self._limit * MAX_DISCARD)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | int:
        """The body, or how much was thrown away of one that is too large."""
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._limit:
                chunks.append(chunk)
            else:
                chunks.clear()
            if size > self._limit * MAX_DISCARD or not message.get("more_body", False):
                return size if size > self._limit else b"".join(chunks)

    async def _refuse(
        self, error: HostError, scope: Scope, receive: Receive, send: Send, *, close: bool
    ) -> None:
        if close:
            error.headers["Connection"] = "close"
        await error_response(error, scope)(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
