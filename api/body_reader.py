"""The layer that reads a request's whole body before anything is answered: its size, its time, its
kind.

Reading it first is not a nicety: proxies that share connections cut other answers when a server
answers early (KServe's agent does).
"""

import asyncio
import time

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.context import context_of
from api.errors import ApiError, BodyTooLarge, RequestTimedOut, UnsupportedMediaType
from api.middleware import header, send_error

# Beyond the limit this much more is read and thrown away, so that the refusal reaches the client.
DISCARD_FACTOR = 8


class BodyReader:
    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = context_of(scope)
        try:
            # From when the request began, not from when somebody had the time to read it.
            until = context.started + self._timeout_s
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                body = await self._read(receive, 0 if context.refusal else self._max_bytes)
        except TimeoutError:
            refusal = context.refusal or RequestTimedOut()
            await send_error(refusal, scope, receive, send, close=True)
            return
        except BodyTooLarge as error:
            refusal = context.refusal or error
            await send_error(refusal, scope, receive, send, close=True)
            return
        if body is None:
            context.abort("client")
            return
        if refused := context.refusal or _media_type(scope):
            await send_error(refused, scope, receive, send)
            return
        await self.app(scope, _Replay(body, receive), send)

    async def _read(self, receive: Receive, keep: int) -> bytes | None:
        """The body, or None when the client left before its end. BodyTooLarge beyond `keep`, but
        what may be sent at all is read first.
        """
        body = bytearray()
        seen = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            seen += len(chunk)
            if seen <= keep:
                body += chunk
            else:
                body.clear()
            if not message.get("more_body", False) or seen > self._max_bytes * DISCARD_FACTOR:
                break
        if seen > keep:
            raise BodyTooLarge(
                f"The body is larger than {self._max_bytes} bytes",
                extra={"limit": self._max_bytes},
            )
        return bytes(body)


def _media_type(scope: Scope) -> ApiError | None:
    if scope["method"] not in ("POST", "PUT", "PATCH"):
        return None
    kind = (header(scope, b"content-type") or "").split(";")[0].strip().lower()
    coding = (header(scope, b"content-encoding") or "identity").strip().lower()
    if kind == "application/json" and coding == "identity":
        return None
    # Where nothing takes a body, that is what the client has to hear: 404 or 405.
    served = any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)
    return UnsupportedMediaType() if served else None


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
