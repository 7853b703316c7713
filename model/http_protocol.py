"""The connection itself: what never becomes a request is refused in the one envelope, too.

uvicorn's own protocol answers bad HTTP in plain text, in the middle of another answer if need be,
takes headers of any size and waits for their end for ever. Here the request line and the headers
have a size and a time; after a refusal the connection is read no further and closed. An upgrade is
not made; its request is one like any other. Requests that are sent ahead wait unparsed for their
turn. Event loop only. What is in a body is the middleware's to bound.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from model.errors import HeadersTooLarge, HostError, InvalidHttp, RequestTimeout
from model.responses import Json

logger = logging.getLogger("model.access")
MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
# How long a refused client may go on sending: closed at once, it would be reset before it has
# read why.
LINGER_S = 2.0
# So much at a time, which bounds how many requests are parsed before the first one is answered.
PIECE_BYTES = 16 * 1024
# What is kept of requests that are sent ahead. Beyond it nothing is read, nor a leaving seen.
MAX_AHEAD_BYTES = 256 * 1024


class HttpProtocol(HttpToolsProtocol):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = False
        self._num_heads = 0
        # What is counted exactly, once a line has ended, and what has come of one that has not.
        self._head_bytes = self._unended_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._ahead = bytearray()
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn begins to count the time without a request after the first one.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        running = self._running
        if running is not None and not running.response_complete:
            # uvicorn tells the newest request only, which may still wait for its turn.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._ahead += data
            self._read_on()

    def _read_on(self) -> None:
        """Parse what has come, as far as the end of a request that is not answered yet."""
        while self._ahead and not self._refused and not self._is_busy():
            piece = self._ahead[:PIECE_BYTES]
            del self._ahead[:PIECE_BYTES]
            self._parse(piece)
        if self._is_busy():
            # uvicorn reads nothing while a request waits, and would not see that the client leaves.
            self.flow.resume_reading()
            if len(self._ahead) > MAX_AHEAD_BYTES:
                # Not by way of `flow`, which every look of the application at its body undoes.
                self.transport.pause_reading()
        elif self._in_head and not self._refused and self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _parse(self, piece: bytearray) -> None:
        num_heads = self._num_heads
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ahead[:0] = self._begin_again() + piece[upgrade.args[0] :]
            return
        except httptools.HttpParserError:
            self._refuse(
                HeadersTooLarge(MAX_HEAD_BYTES)
                if self._too_large()
                else InvalidHttp("what was sent is not an HTTP/1.1 request")
            )
            return
        if self._in_head:
            if num_heads == self._num_heads:
                self._unended_bytes += len(piece)
            if self._too_large():
                self._refuse(HeadersTooLarge(MAX_HEAD_BYTES))

    def _begin_again(self) -> bytes:
        """The head without its upgrade, and a parser for it: to the one that has read it, no body
        follows, and what does is the next request.
        """
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn does.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n"])

    def _is_busy(self) -> bool:
        """Whether all of a request is there, and its answer is not."""
        return bool(self.pipeline) or (self._is_answering() and not self.cycle.more_body)

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
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnel")  # which ends the parsing
            return  # this head comes again (_begin_again)
        self._in_head = False
        self._stop_timer()
        # An answer to the request before may have set it while this head was on its way.
        self._unset_keepalive_if_required()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._too_large():
            raise ValueError("too large")  # which ends the parsing

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refused:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.resume_reading()
            self._read_on()

    # --- refusals -------------------------------------------------------------------------------

    def _too_large(self) -> bool:
        return max(self._head_bytes, self._unended_bytes) > MAX_HEAD_BYTES

    def _head_is_late(self) -> None:
        self._refuse(RequestTimeout("the headers did not arrive in time"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: HostError) -> None:
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


def _answer(error: HostError) -> bytes:
    request_id = uuid4().hex
    headers = {**error.headers, "X-Request-Id": request_id, "Connection": "close"}
    response = Json(error.envelope(request_id), error.status, headers)
    fields = {"request_id": request_id, "status": error.status, "outcome": error.code}
    logger.info("refused before it was a request", extra=fields)
    status = HTTPStatus(error.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
