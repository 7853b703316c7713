"""The layer that reads a request's whole body before anything is answered: its size, its time, its
kind.

Reading it first is not a nicety: proxies that share connections cut other answers when a server
answers early (KServe's agent does).
"""

import asyncio
import time

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.buffer_room import SMALL_BYTES, BufferRoom
from api.context import context_of
from api.errors import ApiError, BodyTooLarge, Overloaded, RequestTimedOut, UnsupportedMediaType
from api.middleware import header, send_error

# What a request holds of its body while it runs: as it came, as text, as it goes to the host, and
# what the interpreter takes; measured.
COPIES = 5
# Beyond the limit this much more is read and thrown away, so that the refusal reaches the client.
DISCARD_FACTOR = 8


class BodyReader:
    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float, room: BufferRoom) -> None:
        self.app = app
        self._room = room
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
            async with asyncio.timeout(max(0.0, until - time.monotonic())) as patience:
                body = await self._read(scope, receive, patience)
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

    async def _read(
        self, scope: Scope, receive: Receive, patience: asyncio.Timeout
    ) -> bytes | None:
        """The body, or None when the client left before its end. BodyTooLarge beyond the limit, but
        what may be sent at all is read first; of a request that is refused nothing is kept.
        """
        context = context_of(scope)
        body = bytearray()
        seen = 0
        has_room = False
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            seen += len(chunk)
            if seen > SMALL_BYTES and not has_room and not context.refusal:
                has_room = True
                await self._take_room(scope, patience)
            keep = 0 if context.refusal else self._max_bytes
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

    async def _take_room(self, scope: Scope, patience: asyncio.Timeout) -> None:
        """For all of the body. The client does not answer for the time that it waits for that."""
        told = header(scope, b"content-length")
        size = int(told) if told else self._max_bytes
        if size > self._max_bytes:
            return
        context, until, began = context_of(scope), patience.when(), time.monotonic()
        patience.reschedule(None)
        try:
            await self._room.enter(context, COPIES * size)
        except Overloaded as error:
            context.refusal = error
        finally:
            if until is not None:
                patience.reschedule(until + time.monotonic() - began)


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
