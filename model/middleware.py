"""What every request passes, as plain ASGI: its id, its log line, its metric.

Knows no route and no engine. BaseHTTPMiddleware is not used, because it
hides a client's leaving. Event loop only.
"""

import asyncio
import logging
import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import InternalError
from model.logs import failure
from model.metrics import Metrics
from model.responses import ClientGone, error_response
from model.tracing import Tracing, current, entered

access = logging.getLogger("model.access")
logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
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
