"""Which wire carries httpx, in one place, and what its failures mean.

httpx's own pool loses slots when requests are cancelled under contention and is several times
slower; aiohttp's connector has neither trouble, and `httpx-aiohttp` puts it under httpx's
interface. To change the wire, change `make_transport` and the table.
"""

from dataclasses import dataclass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from api.errors import ApiError, DeadlineExceeded, ModelHostUnavailable, UpstreamError
from api.settings import Settings


def make_transport(settings: Settings) -> httpx.AsyncBaseTransport:
    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            # Admission bounds the work; a smaller pool would be a second, hidden queue.
            limit=settings.max_in_flight + 16,
            keepalive_timeout=settings.keepalive_s,
            ttl_dns_cache=5,
        )
        # No cookies: they would travel from one person's request to another's.
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    return AiohttpTransport(client=session, trust_env=False)


# What an application may be given instead of the wire.
Transport = httpx.AsyncBaseTransport


@dataclass(frozen=True, slots=True)
class Failure:
    """What a broken exchange means before the first byte of its answer arrived.

    `once`: repeated once at most, because the host may have had the whole request and died of it,
    or because finding out has taken long.
    """

    reason: str
    error: type[ApiError]
    retry: bool
    once: bool = False


_DISCONNECTED = Failure("disconnected", ModelHostUnavailable, retry=True, once=True)
_RESET = Failure("reset", ModelHostUnavailable, retry=True, once=True)
# A pod that has just gone still has an address for a moment, and a packet can be lost.
_CONNECT_TIMEOUT = Failure("connect_timeout", ModelHostUnavailable, retry=True, once=True)
# First match wins. The wire's own exception is looked up before httpx's, because the adapter
# reports a connection that was reset as a connect time-out.
FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (aiohttp.SocketTimeoutError, Failure("read_timeout", DeadlineExceeded, retry=False)),
    (aiohttp.ServerTimeoutError, _CONNECT_TIMEOUT),
    (aiohttp.ClientConnectorError, Failure("connect", ModelHostUnavailable, retry=True)),
    (
        aiohttp.ServerDisconnectedError,
        _DISCONNECTED,
    ),
    (aiohttp.ClientOSError, _RESET),
    (
        aiohttp.ClientConnectionError,
        _RESET,
    ),
    (aiohttp.ClientError, Failure("protocol", UpstreamError, retry=False)),
    (httpx.ConnectTimeout, _CONNECT_TIMEOUT),
    (httpx.PoolTimeout, Failure("pool_timeout", ModelHostUnavailable, retry=False)),
    (httpx.TimeoutException, Failure("read_timeout", DeadlineExceeded, retry=False)),
    (httpx.ConnectError, Failure("connect", ModelHostUnavailable, retry=True)),
    (httpx.ReadError, _RESET),
    (httpx.WriteError, _RESET),
    (httpx.RemoteProtocolError, Failure("protocol", UpstreamError, retry=False)),
    (httpx.HTTPError, Failure("protocol", UpstreamError, retry=False)),
    # Not wrapped by any client: the connection's transport was closed under a write.
    (OSError, _RESET),
)
TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, OSError)


def failure_of(error: BaseException) -> Failure:
    for candidate in (error.__cause__, error):
        for kind, failure in FAILURES:
            if isinstance(candidate, kind):
                return failure
    raise error
