"""A streamed answer of the model host as whole events, each with the bytes that the host sent."""

import asyncio
import logging
from collections import deque
from typing import Any

from api.errors import ApiError, HostRefusal, UpstreamError
from api.sse import MEDIA_TYPE, EventSplitter
from api.upstream.reply import UpstreamStream

logger = logging.getLogger("api.upstream")
DRAIN_S = 1.0


class UpstreamEvents:
    def __init__(self, upstream: UpstreamStream) -> None:
        self._upstream = upstream
        self._splitter = EventSplitter()
        self._events: deque[bytes] = deque()

    async def first(self) -> None:
        """Wait for the first event, which stays the next one. UpstreamError when none comes."""
        if not self._upstream.content_type.startswith(MEDIA_TYPE):
            raise UpstreamError("The model host did not stream its answer")
        await self._fill()

    async def next(self) -> bytes:
        """The next event. UpstreamError when the stream ends instead."""
        await self._fill()
        return self._events.popleft()

    async def at_hand(self) -> list[bytes]:
        """The next event, and those that came with it."""
        await self._fill()
        events = list(self._events)
        self._events.clear()
        return events

    async def _fill(self) -> None:
        while not self._events:
            chunk = await self._upstream.next_chunk()
            if chunk is None:
                raise self._upstream.ended_early()
            try:
                self._events.extend(self._splitter.feed(chunk))
            except ValueError as error:
                raise UpstreamError("The model host's answer cannot be read") from error

    async def drain(self) -> None:
        """Read on to the end: a connection that is closed before it looks like a client that
        left.
        """
        try:
            async with asyncio.timeout(DRAIN_S):
                while await self._upstream.next_chunk() is not None:
                    pass
        except (ApiError, TimeoutError):
            logger.debug("the model host left its stream open after the answer")

    async def aclose(self) -> None:
        await self._upstream.aclose()


def told_error(name: str, data: Any) -> ApiError | None:
    """The error that an event or a whole answer tells, by its name or, as hosts of other makes do
    it, in its data alone. What the host says about itself is kept, if it says it in our form.
    """
    said = data if isinstance(data, dict) else {}
    error = said.get("error")
    # The latter is vLLM's of old and SGLang's.
    if name != "error" and not error and said.get("object") != "error":
        return None
    code = error.get("code") if isinstance(error, dict) else None
    if code == "draining":
        return HostRefusal(503, "unavailable_error", "The model host is shutting down", code=code)
    if code == "deadline_exceeded":
        return HostRefusal(
            504, "timeout_error", "The deadline passed before the answer was complete", code=code
        )
    return UpstreamError()
