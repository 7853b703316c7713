"""One HTTP/1.1 connection to a model host: one exchange at a time, on the event loop.

    idle ──begin──▶ busy ──the answer is whole──▶ done ──rest──▶ idle
                     │                                    │
                     └── lost, or given up ──▶ closed ◀───┘ when it cannot be kept

Bytes of an answer wait here until they are asked for; when too many wait, the socket is not read.
Knows neither pools nor what answers mean.
"""

import asyncio
import socket
from collections import deque
from contextlib import suppress
from typing import cast

import httptools
import httpx

Headers = list[tuple[bytes, bytes]]
HIGH_WATER = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
# Of the kernel, which would take megabytes of an answer that its client does not read, and hand
# them on at once.
RECEIVE_BUFFER = 64 * 1024


class Disconnected(httpx.ReadError):
    """The other side closed the connection without a byte of an answer."""


class BrokenOff(httpx.ReadError):
    """The connection ended, or went wrong, in the middle of an answer."""


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reading_paused = self._writing_paused = False
        self._error: BaseException | None = None
        self._busy = self._head_done = self._whole = self._keep = False
        self._head_bytes = 0
        self._framed = False
        self.closed = False
        self.status = 0
        self.headers: Headers = []
        self.idle_since = 0.0

    # ---- an exchange ----------------------------------------------------------------------------

    async def begin(self, data: bytes, write_timeout_s: float | None) -> None:
        """Send a request and wait for the head of its answer."""
        if self._transport is None:
            raise Disconnected("closed as soon as it was made")
        self._busy, self._head_done, self._whole, self._keep = True, False, False, False
        self._head_bytes, self._framed = 0, False
        self.status, self.headers = 0, []
        self._transport.write(data)
        if self._writing_paused:
            try:
                async with asyncio.timeout(write_timeout_s):
                    # An answer may come before the whole request has been taken.
                    while self._writing_paused and not self._head_done:
                        await self._something()
            except TimeoutError as error:
                raise httpx.WriteTimeout("the request was not taken in time") from error
        while not self._head_done:
            await self._something()

    async def read(self) -> bytes | None:
        """What has come of the body since the last time, None at its end."""
        while not self._chunks:
            if self._whole:
                return None
            await self._something()
        if len(self._chunks) == 1:
            data = self._chunks.popleft()
        else:
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._waiting_bytes = 0
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def rest(self) -> bool:
        """End the exchange. False when the connection is of no more use, and closed."""
        usable = self._whole and self._keep and not self._chunks and not self.closed
        self._busy = False
        if not usable:
            self.close()
        return usable

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    async def _something(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self.close()
        self._wake()

    # ---- the socket -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._busy and not self._whole:
            if exc is None and self._head_done and not self._framed:
                # The end of the connection is how such an answer ends.
                self._whole = True
            elif not self.status:
                # The socket's own time-out is not one of ours.
                lost = (
                    httpx.ReadError(str(exc)) if exc else Disconnected("closed without an answer")
                )
                lost.__cause__ = exc
                self._error = self._error or lost
            else:
                broken = BrokenOff("the answer was not complete")
                broken.__cause__ = exc
                self._error = self._error or broken
        self._transport = None
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._whole:
            # Nobody asked.
            self.close()
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = BrokenOff if self._head_done else httpx.RemoteProtocolError
            made = broken("the answer is not HTTP")
            made.__cause__ = error
            self._fail(made)
            return
        if not self._head_done and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(httpx.RemoteProtocolError("the headers of the answer are too large"))
        elif self._waiting_bytes > HIGH_WATER and not self._whole and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    # ---- the parser's callbacks -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("a second answer")  # which ends the parsing

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._keep = self._parser.should_keep_alive()
        self._framed = self._framed or self.status in (204, 304)
        self._head_done = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._waiting_bytes += len(body)
        self._wake()

    def on_message_complete(self) -> None:
        if self.status < 200:
            # "Continue", and its like: the answer itself still comes.
            self.status, self.headers = 0, []
            return
        self._whole = True
        self._wake()
