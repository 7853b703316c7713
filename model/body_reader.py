"""A request's whole body, before the application sees the request: its size, its time, its room.

Reading it first is not a nicety: KServe's agent loses answers that begin before the body is read.
So a request that is refused (`gate.py`) is read to its end as well, and nothing of it is kept.
Knows no route. Event loop only.
"""

import asyncio
from typing import TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.body_room import PATIENCE_S, ROOM_BYTES, SMALL_BYTES, BodyRoom
from model.errors import BodyTooLarge, HostError, RequestTimeout, TooBusy, draining
from model.host import Host
from model.parsing import parse
from model.responses import ClientGone, error_response

T = TypeVar("T", bound=BaseModel)
BODY_TIMEOUT_S = 30.0
# A body that is on its way when the drain begins gets so long: to answer before its end and close
# would reset a client that is still sending.
DRAIN_GRACE_S = 0.5
# Beyond this much of the limit the connection is closed instead.
MAX_DISCARD = 16


class Body:
    """What is read of one body, and the room that it takes, until it is let go."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._taken = 0
        self.content = bytearray()

    async def take_room(self, size: int) -> None:
        self._taken = await self._room.enter(size)

    def let_go(self) -> None:
        self.content = bytearray()
        if self._taken:
            taken, self._taken = self._taken, 0
            self._room.leave(taken)


async def parsed(model: type[T], request: Request) -> T:
    """The body as a checked value; the bytes are let go then, not held until the answer ends."""
    # `request.body()` would keep them.
    content = b"".join([piece async for piece in request.stream()])
    try:
        return parse(model, request.headers, content)
    finally:
        del content
        request.scope["state"]["body"].let_go()


class BodyReader:
    def __init__(self, app: ASGIApp, host: Host) -> None:
        self._app = app
        self._host = host
        self._limit = host.settings.max_body_bytes
        self._room = BodyRoom(ROOM_BYTES, PATIENCE_S)
        self._reading: set[asyncio.Timeout] = set()
        host.when_draining(self._hurry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = scope["state"]["body"] = Body(self._room)
        try:
            if error := await self._read_in_time(body, scope, receive):
                await error_response(error, scope)(scope, receive, send)
                return
            await self._app(scope, _replay(body, receive), send)
        finally:
            body.let_go()

    async def _read_in_time(self, body: Body, scope: Scope, receive: Receive) -> HostError | None:
        """What the request has to be told instead of an answer."""
        refusal: HostError | None = scope["state"].get("refusal")
        try:
            async with asyncio.timeout(self._patience_s()) as patience:
                self._reading.add(patience)
                try:
                    seen = await self._read(body, scope, receive, patience)
                finally:
                    self._reading.discard(patience)
        except TimeoutError:
            late = refusal or self._late()
            late.headers["Connection"] = "close"
            return late
        except TooBusy as error:
            self._host.metrics.rejected("bodies")
            return error
        if refusal is None and seen > self._limit:
            text = f"the body is larger than {self._limit} bytes"
            refusal = BodyTooLarge(text, limit=self._limit)
        if refusal is not None and seen > self._limit * MAX_DISCARD:
            refusal.headers["Connection"] = "close"
        return refusal

    async def _read(
        self, body: Body, scope: Scope, receive: Receive, patience: asyncio.Timeout
    ) -> int:
        """How much has come. TooBusy when there was no room, once the rest has been read away."""
        keep = 0 if scope["state"].get("refusal") else self._limit
        seen, has_room = 0, False
        busy: TooBusy | None = None
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            seen += len(chunk)
            if keep and seen > SMALL_BYTES and not has_room:
                has_room = True
                try:
                    await self._take_room(body, scope, patience)
                except TooBusy as error:
                    busy, keep = error, 0
            if seen <= keep:
                body.content += chunk
            else:
                body.let_go()
            if seen > self._limit * MAX_DISCARD or not message.get("more_body", False):
                break
        if busy is not None:
            raise busy
        return seen

    async def _take_room(self, body: Body, scope: Scope, patience: asyncio.Timeout) -> None:
        """For all of the body. The client does not answer for the time that it waits for that."""
        told = Headers(scope=scope).get("content-length", "")
        size = int(told) if told.isdecimal() else self._limit
        if size > self._limit:
            return
        loop, until = asyncio.get_running_loop(), patience.when()
        began = loop.time()
        if not self._host.is_draining:
            patience.reschedule(None)
        try:
            await body.take_room(size)
        finally:
            if until is not None and not patience.expired() and not self._host.is_draining:
                patience.reschedule(until + loop.time() - began)

    def _patience_s(self) -> float:
        return DRAIN_GRACE_S if self._host.is_draining else BODY_TIMEOUT_S

    def _late(self) -> HostError:
        if self._host.is_draining:
            return draining()
        return RequestTimeout(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} seconds")

    def _hurry(self) -> None:
        """A body that may never come whole must not hold the end of the process."""
        soon = asyncio.get_running_loop().time() + DRAIN_GRACE_S
        for patience in self._reading:
            if not patience.expired():
                patience.reschedule(min(soon, patience.when() or soon))


def _replay(body: Body, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        content, body.content = bytes(body.content), bytearray()
        return {"type": "http.request", "body": content, "more_body": False}

    return replay
