"""Talks to the model host: deadline, retries, and what its answers and failures mean for our
clients.

Rules. Nothing is repeated after the first byte of an answer arrived, nor past the deadline. What
is repeated: refused and reset connections, and 502/503 of a host (or of the proxy before it) that
is starting, draining or gone. Generation keeps no state in the host, so repeating a request that
was never answered is safe. But a connection that broke after the request was sent may mean that
the request killed the host, so that is repeated once and no more: one prompt must not go through
all replicas.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from api import logs
from api.context import Call
from api.errors import (
    ApiError,
    DeadlineExceeded,
    HostRefusal,
    ModelHostUnavailable,
    UpstreamError,
)
from api.metrics import Metrics
from api.settings import Settings
from api.upstream.retry import RetryBudget, pause_s
from api.upstream.transport import TRANSPORT_ERRORS, failure_of, make_transport

logger = logging.getLogger("api.upstream")
MAX_REPLY = 64 * 1024 * 1024
# The host enforces the same deadline and its answer says more; wait for it a moment longer.
GRACE_S = 0.2
# Statuses of the host that are about the client's request and therefore the client's to see.
CLIENT_STATUSES = frozenset({400, 404, 413, 415, 422, 429})
KEPT_HEADERS = ("server-timing", "x-finish-reason")


class _AttemptFailed(Exception):
    """One attempt broke before the first byte of an answer."""

    def __init__(self, reason: str, error: ApiError, retry: bool, *, once: bool = False) -> None:
        self.reason = reason
        self.error = error
        self.retry = retry
        self.once = once


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """A whole answer with status 200."""

    body: bytes
    headers: dict[str, str]
    content_type: str


class UpstreamStream:
    """An answer with status 200 whose bytes still come. The owner must `aclose` it."""

    def __init__(self, response: httpx.Response, call: Call, idle_s: float) -> None:
        self._response = response
        self.call = call
        self._idle_s = idle_s
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self.headers = _kept(response)
        self.content_type = response.headers.get("content-type", "")

    async def next_chunk(self) -> bytes | None:
        """Some bytes, or None at the end. Raises ApiError when they stop coming."""
        left = self.call.remaining() + GRACE_S
        try:
            async with asyncio.timeout(min(left, self._idle_s)):
                return await anext(self._chunks, None)
        except TimeoutError as error:
            if left <= self._idle_s:
                raise DeadlineExceeded from error
            raise UpstreamError("The model host fell silent in the middle of its answer") from error
        except TRANSPORT_ERRORS as error:
            raise broken_off(self.call, error) from error

    async def aclose(self) -> None:
        """Closing before the end is what tells the host to abort the request."""
        try:
            await self._response.aclose()
        except TRANSPORT_ERRORS:
            logger.debug("the connection to the model host was already broken")


class ModelHost:
    def __init__(
        self, settings: Settings, metrics: Metrics, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._budget = RetryBudget(settings.retry_budget, settings.retry_burst)
        self._client = httpx.AsyncClient(
            base_url=settings.model_host_url.rstrip("/"),
            transport=transport or make_transport(settings),
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def request(
        self, method: str, path: str, call: Call, body: bytes | None = None
    ) -> UpstreamReply:
        """The whole answer. Raises ApiError for every status but 200."""
        response = await self._open(method, path, call, body, "application/json")
        try:
            content = await _read(response, call)
        finally:
            await response.aclose()
        return UpstreamReply(content, _kept(response), response.headers.get("content-type", ""))

    async def stream(
        self, path: str, call: Call, body: bytes, accept: str = "text/event-stream"
    ) -> UpstreamStream:
        """An answer to be relayed; its status is known to be 200."""
        response = await self._open("POST", path, call, body, accept)
        return UpstreamStream(response, call, self._settings.stream_idle_timeout_s)

    async def is_ready(self, call: Call) -> bool:
        """One look at the host's readiness, without retries."""
        try:
            response = await self._attempt("GET", "/readyz", call, None, "application/json")
        except (_AttemptFailed, ApiError):
            return False
        await response.aclose()
        return response.status_code == 200

    async def _open(
        self, method: str, path: str, call: Call, body: bytes | None, accept: str
    ) -> httpx.Response:
        self._budget.deposit()
        attempt = once = 0
        while True:
            try:
                response = await self._attempt(method, path, call, body, accept, retry=attempt > 0)
                if response.status_code == 200:
                    return response
                await self._raise_refusal(response, call)
            except _AttemptFailed as failed:
                self._metrics.upstream_failures.labels(failed.reason).inc()
                once += failed.once
                failed.retry = failed.retry and once <= 1
                await self._pause_or_raise(failed, attempt, call)
            attempt += 1

    async def _pause_or_raise(self, failed: _AttemptFailed, attempt: int, call: Call) -> None:
        pause = pause_s(attempt)
        if (
            not failed.retry
            or attempt >= self._settings.retry_attempts
            or time.monotonic() + pause >= call.deadline
            or not self._budget.withdraw()
        ):
            logs.event(
                logger,
                logging.WARNING,
                "model host failed",
                request_id=call.request_id,
                reason=failed.reason,
                attempts=attempt + 1,
            )
            raise failed.error from failed
        self._metrics.upstream_retries.labels(failed.reason).inc()
        await asyncio.sleep(pause)

    async def _attempt(
        self,
        method: str,
        path: str,
        call: Call,
        body: bytes | None,
        accept: str,
        *,
        retry: bool = False,
    ) -> httpx.Response:
        left = call.remaining()
        settings = self._settings
        headers = {
            "Accept": accept,
            "X-Request-Id": call.request_id,
            "X-Request-Timeout-Ms": str(max(1, int(left * 1000))),
        }
        if retry:
            # A kept connection may lead to a proxy whose host is gone for good (KServe's agent in a
            # pod that ends): it is used this once more and then closed, so the next one is new.
            headers["Connection"] = "close"
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(
            method,
            path,
            content=body,
            headers=headers,
            timeout=httpx.Timeout(
                connect=min(settings.connect_timeout_s, left),
                read=left + GRACE_S,
                write=settings.write_timeout_s,
                pool=settings.pool_timeout_s,
            ),
        )
        self._metrics.upstream_attempts.inc()
        try:
            async with asyncio.timeout(left + GRACE_S):
                return await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise DeadlineExceeded from error
        except TRANSPORT_ERRORS as error:
            failure = failure_of(error)
            retry_after = 2.0 if failure.error is ModelHostUnavailable else None
            made = failure.error(retry_after_s=retry_after)
            raise _AttemptFailed(failure.reason, made, failure.retry, once=failure.once) from error

    async def _raise_refusal(self, response: httpx.Response, call: Call) -> None:
        try:
            content = await _read(response, call)
        finally:
            await response.aclose()
        status = response.status_code
        envelope = _envelope(content)
        retry_after = _seconds(response.headers.get("retry-after"))
        if status == 503 or (status == 502 and envelope is None):
            # 502 without our envelope comes from a proxy that could not reach the host's process.
            reason = str(envelope.get("code")) if envelope else f"status_{status}"
            known = reason if reason in ("not_ready", "draining") else f"status_{status}"
            raise _AttemptFailed(
                known, ModelHostUnavailable(retry_after_s=retry_after or 2.0), retry=True
            )
        if status == 504:
            raise DeadlineExceeded
        if status in CLIENT_STATUSES and envelope is not None:
            raise _refusal(status, envelope, retry_after)
        self._metrics.upstream_failures.labels(f"status_{status}").inc()
        raise UpstreamError


async def _read(response: httpx.Response, call: Call) -> bytes:
    """The body of a short answer; it came only once it was complete, so it comes at once."""
    content = bytearray()
    try:
        async with asyncio.timeout(call.remaining() + GRACE_S):
            async for chunk in response.aiter_raw():
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


def _kept(response: httpx.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}


def _envelope(content: bytes) -> dict[str, Any] | None:
    """The error object of design.md, if that is what the body holds."""
    try:
        error = orjson.loads(content)["error"]
        if isinstance(error["message"], str) and isinstance(error["code"], str):
            return dict(error)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return None


def _refusal(status: int, envelope: dict[str, Any], retry_after: float | None) -> HostRefusal:
    fixed = {"message", "type", "code", "param", "request_id"}
    return HostRefusal(
        status,
        str(envelope.get("type", "invalid_request_error")),
        envelope["message"],
        code=envelope["code"],
        param=envelope.get("param"),
        retry_after_s=retry_after if retry_after or status != 429 else 1.0,
        extra={key: value for key, value in envelope.items() if key not in fixed},
    )


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isascii() and value.isdigit() else None
