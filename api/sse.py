"""Server-sent events: encoding, cutting a byte stream into events, and a response that is not a
generator.

The response holds a source with `relay` and an idempotent `aclose`; a generator that was never
started would never run its `finally`, and with it the model host's slot would leak.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import context_of
from api.errors import ApiError

# Of each event in a stream, for the OpenAPI document.
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {
            "type": "string",
            "description": "`error` for the one that ends a broken stream.",
        },
        "data": {"type": "string", "description": "JSON, or `[DONE]`."},
    },
}
DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"
MAX_EVENT = 4 * 1024 * 1024
_BOUNDARY = re.compile(rb"\r?\n\r?\n")
Write = Callable[[bytes], Awaitable[None]]


def encode(data: object) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


async def end_with_error(error: ApiError, scope: Scope, send: Send) -> None:
    """End a stream that has begun: the only place where an error event is made, and counted."""
    context = context_of(scope)
    context.error_code = error.code
    body = b"event: error\n" + encode(error.body(context.request_id))
    await send({"type": "http.response.body", "body": body, "more_body": False})


class EventSplitter:
    """Collects bytes and gives back whole events, each with the empty line that ends it."""

    def __init__(self) -> None:
        self._rest = b""
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        if not self._rest and chunk.find(b"\n\n") == len(chunk) - 2 > 0 and b"\r" not in chunk:
            # One event and no more, as it comes from a model that makes a token at a time.
            return [chunk]
        data = self._rest + chunk
        events = []
        start = 0
        for boundary in _BOUNDARY.finditer(data, self._searched):
            events.append(data[start : boundary.end()])
            start = boundary.end()
        self._rest = data[start:]
        # A boundary may have begun in the last three bytes; what is before need not be read again.
        self._searched = max(0, len(self._rest) - 3)
        if len(self._rest) > MAX_EVENT:
            raise ValueError("an event is longer than any that the model host sends")
        return events


def parse(event: bytes) -> tuple[str, Any]:
    """The event's name and its data: a JSON value, the text "[DONE]", or None for a comment."""
    name, data = "message", b""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            data += line[5:].strip()
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode("ascii", "replace")
    if not data:
        return name, None
    return name, "[DONE]" if data == b"[DONE]" else orjson.loads(data)


class EventSource(Protocol):
    async def relay(self, write: Write) -> None:
        """Write every event, whole ones only. An ApiError that it raises becomes the last one."""

    async def aclose(self) -> None:
        """Let go of everything; may be called in any state and again."""


class EventStream(Response):
    media_type = MEDIA_TYPE

    def __init__(self, source: EventSource, headers: dict[str, str] | None = None) -> None:
        super().__init__(None, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.headers.update(headers or {})
        if "content-length" in self.headers:
            del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            try:
                await self._source.relay(write)
            except ApiError as error:
                await end_with_error(error, scope, send)
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._source.aclose()
