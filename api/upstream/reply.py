"""What an address answered: a whole reply, a stream, or a refusal, and the place that a request
holds at its address until its answer has been read.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx

from api import logs
from api.context import Call
from api.errors import DeadlineExceeded, UpstreamError
from api.tracing import Attempt
from api.upstream.patience import Patience
from api.upstream.pool import HostAddress, Pool
from api.upstream.transport import TRANSPORT_ERRORS
from api.upstream.wire import Body

logger = logging.getLogger("api.upstream")
MAX_REPLY = 64 * 1024 * 1024
# The host enforces the same deadline and its answer says more; wait for it a moment longer.
GRACE_S = 0.2
KEPT_HEADERS = ("server-timing", "x-finish-reason")
SERVED_BY = "x-served-by-model"
_NOTED = frozenset(
    name.encode() for name in (*KEPT_HEADERS, "content-type", "retry-after", SERVED_BY)
)


class Stay:
    """A request's time at an address; ends once."""

    def __init__(
        self, pool: Pool, address: HostAddress, attempt: Attempt, tokens: int | None
    ) -> None:
        self.pool = pool
        self.address = address
        self.attempt = attempt
        self._began = time.monotonic()
        self._open = True
        self._tokens = tokens
        pool.began(address, tokens)

    def answer_began(self) -> None:
        self.pool.answer_began(self.address, time.monotonic() - self._began)

    def failed(self, reason: str, *, surely: bool = False) -> None:
        self.pool.failed(self.address, reason, surely=surely)
        self.attempt.failed(reason)
        self.end(whole=False)

    def end(self, *, whole: bool) -> None:
        if self._open:
            self._open = False
            self.pool.ended(self.address, self._tokens, whole=whole)
            self.attempt.end(whole=whole)


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer with status 200 whose body has not been read."""

    response: httpx.Response
    stay: Stay
    call: Call
    """With the deadline of the model that was asked, if that is sooner."""
    headers: dict[str, str]
    content_type: str
    model: str | None
    """Who answers: by the models file, else by the host's own word."""


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """A whole answer with status 200."""

    body: bytes
    headers: dict[str, str]
    model: str | None


class UpstreamStream:
    """An answer with status 200 whose bytes still come. The owner must `aclose` it."""

    def __init__(self, opened: Opened, idle_s: float) -> None:
        self._response = opened.response
        self._stay = opened.stay
        self.call = opened.call
        self._idle_s = idle_s
        self._read = reader_of(opened.response)
        self._patience = Patience()
        self.headers = opened.headers
        self.model = opened.model
        self.content_type = opened.content_type

    async def next_chunk(self) -> bytes | None:
        """Some bytes, or None at the end. Raises ApiError when they stop coming."""
        left = self.call.remaining() + GRACE_S
        try:
            with self._patience.for_s(min(left, self._idle_s)):
                chunk = await self._read()
        except TimeoutError as error:
            if left <= self._idle_s:
                self._stay.attempt.failed(DeadlineExceeded.code)
                raise DeadlineExceeded from error
            self._stay.failed("silent")
            raise UpstreamError("The model host fell silent in the middle of its answer") from error
        except TRANSPORT_ERRORS as error:
            self._stay.failed("broken_off")
            raise broken_off(self.call, error) from error
        if chunk is None:
            self._stay.end(whole=True)
        return chunk

    async def rest(self) -> bytes:
        """All of it, of an answer that is not streamed."""
        try:
            content = await read(self._response, self.call)
        except UpstreamError:
            self._stay.failed("broken_off")
            raise
        self._stay.end(whole=True)
        return content

    def ended_early(self) -> UpstreamError:
        """The error for an answer whose end came before its last event."""
        self._stay.pool.failed(self._stay.address, "broken_off")
        return broken_off(self.call)

    async def aclose(self) -> None:
        """Closing before the end is what tells the host to abort the request."""
        self._patience.close()
        self._stay.end(whole=False)
        try:
            await self._response.aclose()
        except TRANSPORT_ERRORS:
            logger.debug("the connection to the model host was already broken")


def body_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """As it comes: httpx's own iterators count and cut it up."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)


def reader_of(response: httpx.Response) -> Callable[[], Awaitable[bytes | None]]:
    """Gives the next part of the body with each call, None at its end."""
    if isinstance(response.stream, Body):
        return response.stream.read
    parts = body_of(response)

    async def read_on() -> bytes | None:
        return await anext(parts, None)

    return read_on


async def read(response: httpx.Response, call: Call) -> bytes:
    """The body of a short answer; it came only once it was complete, so it comes at once."""
    content = bytearray()
    try:
        async with asyncio.timeout(call.remaining() + GRACE_S):
            async for chunk in body_of(response):
                content += chunk
                if len(content) > MAX_REPLY:
                    raise UpstreamError("The model host's answer is too large")
    except TimeoutError as error:
        raise DeadlineExceeded from error
    except TRANSPORT_ERRORS as error:
        raise broken_off(call, error) from error
    return bytes(content)


def broken_off(call: Call, error: Exception | None = None) -> UpstreamError:
    """What the client is told of an answer that ended too soon; the log says by what."""
    cause = error and (error.__cause__ or error)
    logs.event(
        logger,
        logging.WARNING,
        "answer broken off",
        request_id=call.request_id,
        reason=type(cause).__name__ if cause else "ended early",
    )
    return UpstreamError("The model host broke off its answer")


def noted_headers(response: httpx.Response) -> dict[str, str]:
    """Those that mean something here, by their names in lower case."""
    return {
        name.decode("ascii"): value.decode("latin-1")
        for given, value in response.headers.raw
        if (name := given.lower()) in _NOTED
    }


def kept_headers(noted: dict[str, str], served_by: str | None) -> dict[str, str]:
    kept = {name: noted[name] for name in KEPT_HEADERS if name in noted}
    return kept if served_by is None else kept | {SERVED_BY: served_by}
