"""Which wire carries httpx, in one place, and what its failures mean. To change the wire, change
`make_transport` and the table.
"""

import errno
from dataclasses import dataclass
from functools import lru_cache

import httpx

from api.errors import ApiError, DeadlineExceeded, ModelHostUnavailable, UpstreamError
from api.settings import Settings
from api.upstream.connection import Disconnected
from api.upstream.names import is_gone
from api.upstream.wire import Wire


def make_transport(settings: Settings) -> httpx.AsyncBaseTransport:
    # Admission bounds the work; a smaller pool would be a second, hidden queue.
    return Wire(limit=settings.max_in_flight + 16, keepalive_s=settings.keepalive_s)


@lru_cache(maxsize=1024)
def parsed(url: str) -> httpx.URL:
    """Addresses and paths are few, and reading one takes longer than sending it."""
    return httpx.URL(url)


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


NO_PLACE = "pool_timeout"
"""All of our own connections are taken: this says nothing of the address."""
_DISCONNECTED = Failure("disconnected", ModelHostUnavailable, retry=True, once=True)
_RESET = Failure("reset", ModelHostUnavailable, retry=True, once=True)
# A pod that has just gone still has an address for a moment, and a packet can be lost.
_CONNECT_TIMEOUT = Failure("connect_timeout", ModelHostUnavailable, retry=True, once=True)
# First match wins.
FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (Disconnected, _DISCONNECTED),
    (httpx.ConnectTimeout, _CONNECT_TIMEOUT),
    (httpx.PoolTimeout, Failure(NO_PLACE, ModelHostUnavailable, retry=False)),
    (httpx.WriteTimeout, Failure("write_timeout", ModelHostUnavailable, retry=True, once=True)),
    (httpx.TimeoutException, Failure("read_timeout", DeadlineExceeded, retry=False)),
    (httpx.ConnectError, Failure("connect", ModelHostUnavailable, retry=True)),
    (httpx.ReadError, _RESET),
    (httpx.WriteError, _RESET),
    (httpx.RemoteProtocolError, Failure("protocol", UpstreamError, retry=False)),
    (httpx.HTTPError, Failure("protocol", UpstreamError, retry=False)),
    # The socket's own.
    (OSError, _RESET),
)
TRANSPORT_ERRORS = (httpx.HTTPError, OSError)


def failure_of(error: BaseException) -> Failure:
    for kind, failure in FAILURES:
        if isinstance(error, kind):
            return failure
    raise error


_NOBODY = (errno.ECONNREFUSED, errno.EHOSTUNREACH)


def says_nobody_is_there(error: BaseException) -> bool:
    """Nobody listens, which is what a Service without pods says: there is no host that could be
    sick, slow or full.
    """
    cause = error.__cause__ if isinstance(error, httpx.ConnectError) else error
    return is_gone(cause) or (isinstance(cause, OSError) and cause.errno in _NOBODY)
