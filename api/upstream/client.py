"""Talks to the model hosts: which model and address is asked, and what is asked again (one attempt:
api.upstream.attempt).

Rules. Nothing is repeated after the first byte of an answer arrived, nor past the deadline. What
is repeated: refused and reset connections, and 502/503 of a host (or of the proxy before it) that
is starting, draining or gone; at another address of the model, if it has one. Generation keeps no
state in the host, so repeating a request that was never answered is safe. But a connection that
broke after the request was sent may mean that the request killed the host, so that is repeated
once and no more: one prompt must not go through all replicas. When no address is left, the
model's fallback is asked; without one, and where nobody is there at all, a question may wait for a
host to be started (api.upstream.room).
"""

import asyncio
import itertools
import logging
import time
from dataclasses import dataclass, replace

import httpx
import orjson

from api import logs
from api.context import Call
from api.errors import ModelHostUnavailable, ModelStarting, UpstreamError
from api.metrics import Metrics
from api.settings import Settings
from api.upstream.attempt import UNAVAILABLE_RETRY_S, AttemptFailed, Attempts, Message
from api.upstream.balancer import Policy
from api.upstream.peers import Peers
from api.upstream.pool import HostAddress, Pool
from api.upstream.probes import Probes
from api.upstream.registry import Registry
from api.upstream.reply import Opened, UpstreamReply, UpstreamStream, read
from api.upstream.retry import RetryBudget, pause_s
from api.upstream.transport import make_transport

logger = logging.getLogger("api.upstream")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model a request is for, and what ties it to the replica that holds its prefix."""

    model: str | None = None
    affinity: str | None = None
    # The body names the model, under `model`.
    in_body: bool = False
    fallback: bool = True


ANY = Wanted()


class _AllOut(Exception):
    """No address of the model is left to be asked."""

    def __init__(self, failed: AttemptFailed | None) -> None:
        self.error = (
            failed.error if failed else ModelHostUnavailable(retry_after_s=UNAVAILABLE_RETRY_S)
        )


class _NobodyThere(Exception):
    """Nobody listens at any address of the model, or it has none."""


class ModelHost:
    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        transport: httpx.AsyncBaseTransport | None,
        policy: Policy | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._budget = RetryBudget(settings.retry_budget, settings.retry_burst)
        self.models = Registry(settings, metrics, policy)
        self._wire = transport or make_transport(settings)
        self.probes = Probes(self._wire, self.models)
        self.peers = Peers(settings, self._wire)
        self._attempts = Attempts(
            settings, metrics, self._wire, self.probes, name_models=not self.models.lenient
        )

    async def start(self) -> None:
        """Begin to look after the addresses: resolve, probe, read the models file again."""
        await self.probes.start()

    async def aclose(self) -> None:
        await self.probes.close()
        await self._wire.aclose()

    async def request(
        self, method: str, path: str, call: Call, body: bytes | None = None, wanted: Wanted = ANY
    ) -> UpstreamReply:
        """The whole answer. Raises ApiError for every status but 200."""
        opened = await self._open(Message(method, path, call, body, "application/json"), wanted)
        stay = opened.stay
        try:
            content = await read(opened.response, opened.call)
            stay.end(whole=True)
        except UpstreamError:
            stay.failed("broken_off")
            raise
        finally:
            stay.end(whole=False)
            await opened.response.aclose()
        return UpstreamReply(content, opened.headers, opened.model)

    async def stream(
        self,
        path: str,
        call: Call,
        body: bytes,
        accept: str = "text/event-stream",
        wanted: Wanted = ANY,
    ) -> UpstreamStream:
        """An answer to be relayed; its status is known to be 200."""
        opened = await self._open(Message("POST", path, call, body, accept), wanted)
        idle_s = opened.stay.pool.spec.timeouts.idle_s or self._settings.stream_idle_timeout_s
        return UpstreamStream(opened, idle_s)

    # ---- which model and address ----------------------------------------------------------------

    async def _open(self, message: Message, wanted: Wanted) -> Opened:
        pool = self.models.find(wanted.model)
        self._budget.deposit()
        while True:
            try:
                sent = self._for_pool(message, wanted, pool)
                return await self._ask_or_wait(pool, sent, wanted)
            except _AllOut as out:
                after = self.models.fallback_of(pool) if wanted.fallback else None
                if after is None:
                    raise out.error from out
                if pool.room.hold_s and message.is_question:
                    # Nobody waits where another model answers; it is wanted all the same.
                    pool.room.want()
                self._metrics.fallbacks.labels(pool.name, after.name).inc()
                pool = after

    async def _ask_or_wait(self, pool: Pool, message: Message, wanted: Wanted) -> Opened:
        """The answer; while no host of the model is there, a question waits for one."""
        if not pool.room.hold_s or (wanted.fallback and pool.spec.fallback is not None):
            return await self._ask(pool, message, wanted)
        until = time.monotonic() + pool.room.hold_s
        nobody = pool.room.is_open
        while True:
            if nobody:
                await self._wait_for_host(pool, message, until)
            try:
                return await self._ask(pool, message, wanted)
            except _NobodyThere:
                nobody = True

    async def _wait_for_host(self, pool: Pool, message: Message, until: float) -> None:
        if not message.is_question:
            # What is no question starts no host, and is not worth the wait.
            raise ModelStarting(pool.room.expected_s())
        patience_s = min(until - time.monotonic(), message.call.remaining())
        self.probes.look_out(pool)
        await pool.room.wait(patience_s, message.tokens or 0)

    def _for_pool(self, message: Message, wanted: Wanted, pool: Pool) -> Message:
        """The request with the name that the host knows the model by, and the model's deadline."""
        total_s = pool.spec.timeouts.total_s
        if total_s is not None:
            deadline = min(message.call.deadline, time.monotonic() + total_s)
            message = replace(message, call=replace(message.call, deadline=deadline))
        renamed = wanted.model is not None and wanted.model != pool.served_name
        if renamed and wanted.in_body and message.body and not self.models.lenient:
            content = orjson.loads(message.body) | {"model": pool.served_name}
            message = replace(message, body=orjson.dumps(content))
        return message

    async def _ask(self, pool: Pool, message: Message, wanted: Wanted) -> Opened:
        failed: AttemptFailed | None = None
        tried: list[HostAddress] = []
        once = nobody = 0
        none_ready = False
        stands_in = wanted.fallback and pool.spec.fallback is not None
        may_wait = bool(pool.room.hold_s) and not stands_in
        for attempt in itertools.count():
            pause = 0.0
            elsewhere = failed is not None and failed.elsewhere
            address = pool.choose(wanted.affinity, tried, healthy_only=elsewhere)
            if address is None and failed is not None and elsewhere:
                raise failed.error
            if address is None and may_wait and (none_ready or nobody == len(tried)):
                raise _NobodyThere from failed
            if address is None and tried and not stands_in:
                tried.clear()
                nobody = 0
                address = pool.choose(wanted.affinity, tried)
                pause = pause_s(attempt - 1)
            if address is None:
                raise _AllOut(failed)
            if failed is not None:
                await self._pause_or_raise(failed, attempt, pause, message.call)
            tried.append(address)
            try:
                return await self._attempts.make(pool, address, message, resend=attempt)
            except AttemptFailed as error:
                failed = error
                if message.call.charge is not None:
                    message.call.charge.not_sent()
                self._metrics.upstream_failures.labels(failed.reason).inc()
                once += failed.once
                nobody += failed.nobody
                # The Service of all pods knows at once that there are none, DNS only later.
                none_ready = none_ready or (failed.nobody and address.standby)
                if not failed.retry or once > 1:
                    self._give_up(failed, attempt, message.call)
        raise AssertionError("unreachable")

    async def _pause_or_raise(
        self, failed: AttemptFailed, attempt: int, pause: float, call: Call
    ) -> None:
        if (
            attempt > self._settings.retry_attempts
            or time.monotonic() + pause >= call.deadline
            or not self._budget.withdraw()
        ):
            self._give_up(failed, attempt - 1, call)
        self._metrics.upstream_retries.labels(failed.reason).inc()
        if pause:
            await asyncio.sleep(pause)

    def _give_up(self, failed: AttemptFailed, attempt: int, call: Call) -> None:
        logs.event(
            logger,
            logging.WARNING,
            "model host failed",
            request_id=call.request_id,
            reason=failed.reason,
            attempts=attempt + 1,
        )
        raise failed.error from failed
