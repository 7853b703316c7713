"""One attempt: one request to one address of a model, up to the head of an answer with status 200,
or what has become of it instead. Knows neither other addresses nor other models.
"""

import asyncio
from dataclasses import dataclass

import httpx

from api.context import Call
from api.errors import ApiError, DeadlineExceeded, ModelHostUnavailable, UpstreamError
from api.keys.salt import tenant_tag
from api.metrics import Metrics
from api.settings import Settings
from api.tracing import current
from api.upstream.pool import HostAddress, Pool, Waiting
from api.upstream.probes import Probes
from api.upstream.refusal import envelope_of, is_ours, refusal, seconds_of
from api.upstream.reply import (
    GRACE_S,
    SERVED_BY,
    Opened,
    Stay,
    kept_headers,
    noted_headers,
    read,
)
from api.upstream.transport import (
    NO_PLACE,
    TRANSPORT_ERRORS,
    failure_of,
    parsed,
    says_nobody_is_there,
)

# Statuses of the host that are about the client's request and therefore the client's to see.
CLIENT_STATUSES = frozenset({400, 404, 413, 415, 422, 429})
UNAVAILABLE_RETRY_S = 2.0


class AttemptFailed(Exception):
    """One attempt broke before the first byte of an answer."""

    def __init__(
        self,
        reason: str,
        error: ApiError,
        retry: bool,
        *,
        once: bool = False,
        elsewhere: bool = False,
        nobody: bool = False,
    ) -> None:
        self.reason = reason
        self.error = error
        self.retry = retry
        self.once = once
        self.elsewhere = elsewhere
        self.nobody = nobody
        """Nobody listens at the address."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request as it goes to whichever address."""

    method: str
    path: str
    call: Call
    body: bytes | None
    accept: str

    @property
    def is_question(self) -> bool:
        """An answer has to be made for it."""
        return self.body is not None

    @property
    def tokens(self) -> int | None:
        """What it may take of a host; None for what is no question."""
        if not self.is_question:
            return None
        return max(1, self.call.charge.tokens) if self.call.charge is not None else 1


class Attempts:
    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        wire: httpx.AsyncBaseTransport,
        probes: Probes,
        *,
        name_models: bool,
    ) -> None:
        """`name_models`: an answer tells by which of the models it was given."""
        self._settings = settings
        self._metrics = metrics
        self._wire = wire
        self._probes = probes
        self._name_models = name_models

    async def make(
        self, pool: Pool, address: HostAddress, message: Message, *, resend: int
    ) -> Opened:
        attempt = current().attempt(message.method, message.path, address.url, pool.name, resend)
        stay = Stay(pool, address, attempt, message.tokens)
        try:
            response = await self._send(stay, message, retry=resend > 0)
            attempt.answered(response.status_code)
            if response.status_code == 200:
                stay.answer_began()
                noted = noted_headers(response)
                served_by = pool.name if self._name_models else None
                kept = kept_headers(noted, served_by)
                model = served_by or noted.get(SERVED_BY)
                media_type = noted.get("content-type", "")
                return Opened(response, stay, message.call, kept, media_type, model)
            await self._raise_refusal(response, message.call, stay)
        except AttemptFailed as failed:
            if failed.reason == NO_PLACE:
                stay.attempt.failed(failed.reason)
                stay.end(whole=False)
            elif not failed.elsewhere:
                surely = failed.reason in ("draining", "not_ready", "frozen")
                stay.failed(failed.reason, surely=surely)
            raise
        except DeadlineExceeded:
            attempt.failed(DeadlineExceeded.code)
            stay.end(whole=False)
            raise
        except BaseException:
            stay.end(whole=False)
            raise
        raise AssertionError("unreachable")

    async def _send(self, stay: Stay, message: Message, *, retry: bool) -> httpx.Response:
        left = message.call.remaining()
        first_byte_s = stay.pool.spec.timeouts.first_byte_s
        patience = left + GRACE_S if first_byte_s is None else min(left + GRACE_S, first_byte_s)
        request = self._build(stay, message, left, retry=retry)
        self._metrics.upstream_attempts.inc()
        if message.body is not None and message.call.charge is not None:
            message.call.charge.sent()
        scope = asyncio.timeout(patience)
        waiting = Waiting(scope)
        try:
            with self._probes.watched(stay.pool, stay.address, waiting):
                async with scope:
                    return await self._wire.handle_async_request(request)
        except TimeoutError as error:
            if waiting.frozen:
                unavailable = ModelHostUnavailable(retry_after_s=UNAVAILABLE_RETRY_S)
                raise AttemptFailed("frozen", unavailable, retry=True, once=True) from error
            if patience < left:
                late = DeadlineExceeded("The model host did not begin its answer in time")
                raise AttemptFailed("first_byte_timeout", late, retry=True, once=True) from error
            raise DeadlineExceeded from error
        except TRANSPORT_ERRORS as error:
            failure = failure_of(error)
            retry_after = UNAVAILABLE_RETRY_S if failure.error is ModelHostUnavailable else None
            made = failure.error(retry_after_s=retry_after)
            raise AttemptFailed(
                failure.reason,
                made,
                failure.retry,
                once=failure.once,
                nobody=says_nobody_is_there(error),
            ) from error

    def _build(self, stay: Stay, message: Message, left: float, *, retry: bool) -> httpx.Request:
        settings, pool, address = self._settings, stay.pool, stay.address
        url = parsed(address.url + message.path)
        # In the form in which they are sent: httpx takes long to read them in any other.
        headers = [
            (b"Host", address.host_header.encode() if address.host_header else url.netloc),
            (b"Accept", message.accept.encode()),
            (b"Accept-Encoding", b"identity"),
            (b"X-Request-Id", message.call.request_id.encode()),
            (b"X-Request-Timeout-Ms", b"%d" % max(1, int(left * 1000))),
        ]
        if address.key:
            headers.append((b"Authorization", b"Bearer " + address.key.encode()))
        if tag := tenant_tag(message.call.caller):
            headers.append((b"X-Tenant", tag.encode()))
        for name, value in stay.attempt.headers.items():
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        if retry:
            # A kept connection may lead to a proxy whose host is gone for good (KServe's agent in a
            # pod that ends): it is used this once more and then closed, so the next one is new.
            headers.append((b"Connection", b"close"))
        if message.body is not None:
            headers.append((b"Content-Type", b"application/json"))
            headers.append((b"Content-Length", b"%d" % len(message.body)))
        connect_s = pool.spec.timeouts.connect_s or settings.connect_timeout_s
        timeouts = {
            "connect": min(connect_s, left),
            "read": left + GRACE_S,
            "write": settings.write_timeout_s,
            "pool": settings.pool_timeout_s,
        }
        request = httpx.Request(
            message.method,
            url,
            headers=headers,
            stream=httpx.ByteStream(message.body or b""),
            extensions={"timeout": timeouts},
        )
        request.read()
        return request

    async def _raise_refusal(self, response: httpx.Response, call: Call, stay: Stay) -> None:
        try:
            content = await read(response, call)
        finally:
            await response.aclose()
        status = response.status_code
        envelope = envelope_of(content)
        retry_after = seconds_of(noted_headers(response).get("retry-after"))
        ours = envelope is not None and is_ours(envelope)
        if status == 503 or (status == 502 and not ours):
            # 502 without our envelope comes from a proxy that could not reach the host's process.
            reason = str(envelope.get("code")) if envelope else f"status_{status}"
            known = reason if reason in ("not_ready", "draining") else f"status_{status}"
            unavailable = ModelHostUnavailable(retry_after_s=retry_after or UNAVAILABLE_RETRY_S)
            raise AttemptFailed(known, unavailable, retry=True)
        if status == 504:
            raise DeadlineExceeded
        if status in (401, 403):
            # Our key, not the caller's. A replica that has been told of it already may take it.
            stranger = UpstreamError("The model host does not accept this server's key")
            raise AttemptFailed("key_refused", stranger, retry=True)
        # 404 without a word comes from a proxy that knows no way to the host.
        if status in CLIENT_STATUSES and (status != 404 or envelope is not None):
            refused = refusal(status, envelope, retry_after)
            stay.end(whole=True)
            if status == 429 and len(stay.pool.addresses) > 1:
                raise AttemptFailed("overloaded", refused, retry=True, elsewhere=True)
            raise refused
        self._metrics.upstream_failures.labels(f"status_{status}").inc()
        stay.failed(f"status_{status}")
        raise UpstreamError
