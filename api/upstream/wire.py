"""The wire to the model hosts under httpx's interface: connections that are kept for the next
request, so many at once, and none older than the host keeps them.

httpx's own pool loses slots when requests are cancelled under contention, and what a library does
for any kind of request takes longer than all the rest of this server (ADR 16). This does what the
hop needs: HTTP/1.1, no redirects, no cookies, no proxies, nothing unpacked. On the event loop.
"""

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import httpx

from api.upstream.connection import Connection
from api.upstream.names import Names

Origin = tuple[str, str, int]


class Wire(httpx.AsyncBaseTransport):
    def __init__(self, *, limit: int, keepalive_s: float, names: Names | None = None) -> None:
        self._limit = limit
        self._keepalive_s = keepalive_s
        self._names = names or Names()
        self._idle: dict[Origin, list[Connection]] = {}
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._ssl: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions.get("timeout", {})
        data = _head(request) + request.read()
        await self._take_place(timeouts.get("pool"))
        connection = None
        try:
            origin = _origin(request.url)
            connection = self._kept(origin)
            if connection is None:
                connection = await self._connect(origin, timeouts.get("connect"))
            await self._begin(connection, data, timeouts)
        except BaseException:
            if connection is not None:
                connection.close()
            self._give_place()
            raise
        return httpx.Response(
            connection.status,
            headers=connection.headers,
            stream=Body(self, origin, connection),
            request=request,
        )

    async def aclose(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()

    @staticmethod
    async def _begin(connection: Connection, data: bytes, timeouts: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(timeouts.get("read")):
                await connection.begin(data, timeouts.get("write"))
        except TimeoutError as error:
            raise httpx.ReadTimeout("no answer in time") from error

    # ---- places ---------------------------------------------------------------------------------

    async def _take_place(self, timeout_s: float | None) -> None:
        if self._taken < self._limit:
            self._taken += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(timeout_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # It came in the moment in which nobody wanted it any more.
                self._give_place()
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("no connection was free in time") from error
            raise

    def _give_place(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._taken -= 1

    # ---- connections ----------------------------------------------------------------------------

    def _kept(self, origin: Origin) -> Connection | None:
        """The one that was used last, so that those that are too many grow old."""
        kept = self._idle.get(origin)
        oldest = time.monotonic() - self._keepalive_s
        while kept:
            connection = kept.pop()
            if not connection.closed and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, timeout_s: float | None) -> Connection:
        scheme, host, port = origin
        context = None
        if scheme == "https":
            context = self._ssl = self._ssl or httpx.create_ssl_context(trust_env=False)
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        try:
            addresses = await self._names.addresses(host, port, timeout_s)
            # A name may have several, of which one does not answer: each has its part of the time.
            random.shuffle(addresses)
            while True:
                address = addresses.pop()
                part = None if until is None else (until - loop.time()) / (len(addresses) + 1)
                try:
                    async with asyncio.timeout(part):
                        _, connection = await loop.create_connection(
                            Connection, address, port, ssl=context,
                            server_hostname=host if context else None,
                        )  # fmt: skip
                    return connection
                except OSError:  # TimeoutError is one
                    if not addresses:
                        raise
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error

    def give_back(self, origin: Origin, connection: Connection) -> None:
        if connection.rest() and self._keepalive_s:
            connection.idle_since = time.monotonic()
            self._idle.setdefault(origin, []).append(connection)
            if self._sweep is None:
                self._sweep_later()
        else:
            connection.close()
        self._give_place()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._keepalive_s, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        oldest = time.monotonic() - self._keepalive_s
        for origin, kept in list(self._idle.items()):
            fresh = []
            for connection in kept:
                if connection.closed or connection.idle_since <= oldest:
                    connection.close()
                else:
                    fresh.append(connection)
            if fresh:
                self._idle[origin] = fresh
            else:
                del self._idle[origin]
        if self._idle:
            self._sweep_later()


class Body(httpx.AsyncByteStream):
    """The rest of an answer. Closed before its end, it closes the connection, too: that is what
    tells the host to stop.
    """

    def __init__(self, wire: Wire, origin: Origin, connection: Connection) -> None:
        self._wire = wire
        self._origin = origin
        self._connection: Connection | None = connection

    async def read(self) -> bytes | None:
        """Some of it, None at its end: what `__aiter__` gives, without what a generator costs."""
        return None if self._connection is None else await self._connection.read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (data := await self.read()) is not None:
            yield data

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._wire.give_back(self._origin, connection)


def _origin(url: httpx.URL) -> Origin:
    return (
        url.scheme,
        url.raw_host.decode("ascii"),
        url.port or (443 if url.scheme == "https" else 80),
    )


def _head(request: httpx.Request) -> bytes:
    headers = request.headers.raw
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [name + b": " + value for name, value in headers]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(headers) or head.count(b"\r") != len(headers) or b"\0" in head:
        raise httpx.LocalProtocolError("a header holds a line break")
    return head + b"\r\n\r\n"
