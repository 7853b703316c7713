"""The connection itself: what never becomes a request is refused in the one envelope, too.

uvicorn's own protocol answers bad HTTP in plain text, in the middle of another answer if need be,
takes headers of any size and waits for their end for ever. Here the request line and the headers
have a size and a time; after a refusal the connection is read no further and closed. Event loop
only. What is in a body is the middleware's to bound.
"""

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import logs
from api.errors import ApiError, HeadersTooLarge, InvalidHttp, RequestTimedOut
from api.reader_watch import ReaderWatch

logger = logging.getLogger("api.access")
MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
# How long a refused client may go on sending: closed at once, it would be reset before it has
# read why.
LINGER_S = 2.0


class HttpProtocol(HttpToolsProtocol):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = False
        self._num_heads = 0
        # What is counted exactly, once a line has ended, and what has come of one that has not.
        self._head_bytes = self._unended_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._reader: ReaderWatch | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = ReaderWatch(self.loop, transport, self._is_answering)
        # uvicorn begins to count the time without a request after the first one.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        num_heads = self._num_heads
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # answered like any request: there is nothing to upgrade to
        except httptools.HttpParserError:
            self._refuse(HeadersTooLarge(MAX_HEAD_BYTES) if self._too_large() else InvalidHttp())
            return
        if self._in_head:
            if num_heads == self._num_heads:
                self._unended_bytes += len(data)
            if self._too_large():
                self._refuse(HeadersTooLarge(MAX_HEAD_BYTES))
            elif self._timer is None:
                self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # --- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        # Not with any byte: an empty line begins no request, and would hold the connection.
        self._unset_keepalive_if_required()
        self._in_head = True
        self._num_heads += 1
        self._head_bytes = self._unended_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        # Trailers come after the body, when the application has the headers already.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        # An answer to the request before may have set it while this head was on its way.
        self._unset_keepalive_if_required()
        super().on_headers_complete()
        if self._reader is not None:
            self._reader.begin()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._too_large():
            raise ValueError("too large")  # which ends the parsing

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refused:
            self.transport.close()

    # --- refusals -------------------------------------------------------------------------------

    def _too_large(self) -> bool:
        return max(self._head_bytes, self._unended_bytes) > MAX_HEAD_BYTES

    def _head_is_late(self) -> None:
        self._refuse(RequestTimedOut("The headers did not arrive in time", code="headers_timeout"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: ApiError) -> None:
        self._refused = True
        self._stop_timer()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or not cycle.more_body:
                # The fault is in what follows the request that is being answered, which ends well.
                cycle.keep_alive = False
                self.pipeline.clear()
                return
            # The application learns that its client has gone, and says nothing any more.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        self.transport.write(_answer(error))
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)


def _answer(error: ApiError) -> bytes:
    request_id = uuid.uuid4().hex
    response = error.response(request_id)
    response.headers["X-Request-Id"] = request_id
    response.headers["Connection"] = "close"
    logs.event(
        logger,
        logging.INFO,
        "refused before it was a request",
        request_id=request_id,
        status=error.http_status,
        error_code=error.code,
    )
    status = HTTPStatus(error.http_status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
