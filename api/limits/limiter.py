"""Which limits hold for a caller, and what a refusal or a store that is away means.

Counts are taken before any work is done and settled when it has ended: a call that failed gives
everything back. Whatever the store does, a request waits for it no longer than
`API_LIMITS_TIMEOUT_S`, and after a failure nobody waits for a moment.
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from api import logs
from api.errors import LimitsUnavailable, RateLimited
from api.keys.records import Caller, Limits
from api.limits.book import Claim, Permit, Settlement, Settlements, State, Verdict
from api.limits.postgres import PostgresStore
from api.limits.settling import Settler
from api.limits.store import LimitStore, MemoryStore
from api.metrics import Metrics
from api.settings import Settings

logger = logging.getLogger("api.limits")
T = TypeVar("T")
MINUTE_S = 60.0
DAY_S = 86_400.0
_REST_S = 1.0
"""After a failure the store is left alone for so long."""
_PERMIT_MARGIN_S = 30.0


class _Away(Exception):
    """The store did not answer in time, or with an error."""


def make_store(settings: Settings) -> LimitStore:
    url = settings.limits_url
    if not url and not settings.database_url.startswith("sqlite"):
        url = settings.database_url
    if url.startswith(("redis://", "rediss://", "unix://")):
        # Not above: the package takes 8 MB, which those who have no Redis shall keep.
        from api.limits.redis import RedisStore

        return RedisStore(url, timeout_s=settings.limits_timeout_s)
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresStore(url, timeout_s=settings.limits_timeout_s)
    return MemoryStore()


class Taken:
    """What was taken for one call, to be settled once."""

    def __init__(self, store: LimitStore, verdict: Verdict) -> None:
        self.store = store
        self.verdict = verdict

    def headers(self, *, kept: bool = True) -> list[tuple[bytes, bytes]]:
        """`kept`: or as if it had not been taken."""
        return _headers(self.verdict, kept=kept)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call of a caller claims. A cost of 0 stands for the call's tokens."""

    claims: Sequence[Claim]
    at_once: Sequence[tuple[str, int]]


class Limiter:
    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        store: LimitStore | None = None,
        *,
        minute_s: float = MINUTE_S,
        day_s: float = DAY_S,
    ) -> None:
        """The periods are other ones in tests only."""
        self._store = store or make_store(settings)
        self._timeout_s = settings.limits_timeout_s
        self._closed = settings.limits_when_away == "closed"
        self._metrics = metrics
        self._meanwhile = MemoryStore()
        self._settler = Settler(
            self._store, self._ask_to_settle, metrics, again_after_s=settings.limits_timeout_s
        )
        self._away_until = 0.0
        self._leaving: set[asyncio.Task[object]] = set()
        self._periods = (
            ("requests_per_minute", minute_s),
            ("tokens_per_minute", minute_s),
            ("tokens_per_day", day_s),
        )
        self._key_default = Limits(
            settings.key_requests_per_minute,
            settings.key_tokens_per_minute,
            settings.key_tokens_per_day,
            settings.key_max_concurrent,
        )
        self._tenant_default = Limits(
            settings.tenant_requests_per_minute,
            settings.tenant_tokens_per_minute,
            settings.tenant_tokens_per_day,
            settings.tenant_max_concurrent,
        )

        # Callers come again and again, and adding up what holds for one takes longer than a claim.
        self._asked_of = lru_cache(maxsize=4096)(self._resolve)

    def _resolve(self, key_id: str, tenant: str, of_key: Limits, of_tenant: Limits) -> "_Asked":
        claims: list[Claim] = []
        at_once: list[tuple[str, int]] = []
        for subject, limits in (
            (f"key:{key_id}", of_key.or_else(self._key_default)),
            (f"tenant:{tenant}", of_tenant.or_else(self._tenant_default)),
        ):
            for name, period_s in self._periods:
                if limit := getattr(limits, name):
                    cost = 1 if name == "requests_per_minute" else 0
                    claims.append(Claim(subject, name, limit, cost, period_s))
            if limits.max_concurrent:
                at_once.append((subject, limits.max_concurrent))
        return _Asked(claims, at_once)

    async def open(self) -> None:
        """A store that is away now may come later."""
        try:
            await self._in_time(self._store.open(), 5.0)
        except _Away:
            logs.event(logger, logging.WARNING, "the store of limits does not answer")

    async def close(self) -> None:
        await self._settler.close(1.0)
        while self._leaving:
            await asyncio.wait(self._leaving, timeout=1)
            for task in self._leaving:
                task.cancel()
        await self._store.close()

    async def take(self, caller: Caller, tokens: int, ttl_s: float) -> Taken | None:
        """None when nothing limits the caller. RateLimited when it does not fit, LimitsUnavailable
        when nobody can tell and the settings say that nobody gets in then.
        """
        asked = self._asked_of(caller.key_id, caller.tenant, caller.limits, caller.tenant_limits)
        claims = [
            one if one.cost else Claim(one.subject, one.name, one.limit, tokens, one.period_s)
            for one in asked.claims
        ]
        permits: list[Permit] = []
        if asked.at_once:
            permit_id, lasts_s = os.urandom(16).hex(), ttl_s + _PERMIT_MARGIN_S
            permits = [Permit(subject, most, permit_id, lasts_s) for subject, most in asked.at_once]
        if not claims and not permits:
            return None
        return await self._admitted(claims, permits)

    async def take_more(self, taken: Taken, tokens: int) -> Taken | None:
        """So many tokens beside those that the call has taken already, which are told as one where
        they do not fit. None when no tokens are limited. Raises as `take` does.
        """
        first = [one for one in taken.verdict.claims if one.name != "requests_per_minute"]
        before = {(one.subject, one.name): one.cost for one in first}
        more = [replace(one, cost=tokens) for one in first]
        return await self._admitted(more, (), before) if more else None

    async def _admitted(
        self,
        claims: Sequence[Claim],
        permits: Sequence[Permit],
        before: Mapping[tuple[str, str], int] | None = None,
    ) -> Taken:
        taken = await self._take(claims, permits)
        if not taken.verdict.admitted:
            error = _refusal(taken.verdict, before or {})
            self._metrics.limited.labels(error.limit_name).inc()
            raise error
        return taken

    async def settle(self, taken: Taken, tokens: int | None) -> None:
        """What the call cost; None: it failed and costs nothing. Never raises. When the store is
        slow or away it hears of it later.
        """
        costs = [
            0 if tokens is None else claim.cost if claim.name == "requests_per_minute" else tokens
            for claim in taken.verdict.claims
        ]
        settlement = Settlement(taken.verdict, costs)
        if isinstance(taken.store, MemoryStore):
            await taken.store.settle(Settlements("", 0, [settlement]))
            return
        done = self._settler.settle(settlement)
        if self._rests:
            return
        await asyncio.wait({done}, timeout=self._timeout_s)

    async def _ask_to_settle(self, asked: Awaitable[None]) -> bool:
        if self._rests:
            asked.close()  # type: ignore[attr-defined]
            return False
        try:
            await self._ask("settle", asked)
        except _Away:
            return False
        return True

    async def _take(self, claims: Sequence[Claim], permits: Sequence[Permit]) -> Taken:
        was_asked = not self._rests
        try:
            verdict = await self._ask("take", self._store.take(claims, permits))
            return Taken(self._store, verdict)
        except asyncio.CancelledError:
            self._give_back(permits)
            raise
        except _Away:
            if was_asked:
                self._give_back(permits)
            if self._closed:
                raise LimitsUnavailable(retry_after_s=_REST_S) from None
            # Counted here for as long as it lasts.
            return Taken(self._meanwhile, await self._meanwhile.take(claims, permits))

    def _give_back(self, permits: Sequence[Permit]) -> None:
        """The store may have granted them and its answer have come too late, or to nobody."""
        if permits:
            granted = Verdict(admitted=True, claims=(), permits=permits, states=(), running=())
            self._settler.settle(Settlement(granted, ()))

    async def _ask(self, operation: str, asked: Awaitable[T]) -> T:
        if isinstance(self._store, MemoryStore):
            return await asked
        try:
            if self._rests:
                asked.close()  # type: ignore[attr-defined]
                raise _Away
            return await self._in_time(asked, self._timeout_s)
        except _Away:
            self._metrics.limit_failures.labels(operation).inc()
            raise

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._away_until

    async def _in_time(self, asked: Awaitable[T], timeout_s: float) -> T:
        """Nor is the end of what was cancelled waited for: a frozen server would not let go."""
        task: asyncio.Task[T] = asyncio.ensure_future(asked)
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            if not task.done():
                self._leave(task)
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is None:
                return task.result()
            self._say(type(error).__name__)
        else:
            self._say("time-out")
        self._away_until = time.monotonic() + _REST_S
        raise _Away

    def _leave(self, task: asyncio.Task[T]) -> None:
        task.cancel()
        self._leaving.add(task)

        def left(done: asyncio.Task[T]) -> None:
            self._leaving.discard(done)
            if not done.cancelled():
                done.exception()

        task.add_done_callback(left)

    def _say(self, reason: str) -> None:
        if not self._rests:
            logs.event(logger, logging.WARNING, "the store of limits failed", reason=reason)


def _refusal(verdict: Verdict, before: Mapping[tuple[str, str], int]) -> RateLimited:
    """The limit that lets the claim wait longest. How long calls that run will take nobody knows,
    so their number is told where nothing is too large to come again at all. `before` is what the
    same call has taken of a limit already.
    """
    claims = [
        (claim, _as_one(claim, state, before.get((claim.subject, claim.name), 0)))
        for claim, state in zip(verdict.claims, verdict.states, strict=True)
    ]
    claim, state = max(claims, key=lambda pair: pair[1].retry_s, default=(None, None))
    never = state is not None and math.isinf(state.retry_s)
    for permit, running in zip(verdict.permits, verdict.running, strict=True):
        if running >= permit.limit and not never:
            return RateLimited(
                "max_concurrent", permit.subject.split(":")[0], permit.limit, running, 1, 1.0,
                _headers(verdict),
            )  # fmt: skip
    assert claim is not None and state is not None, "refused by no limit"
    retry = None if never else state.retry_s
    kind = claim.subject.split(":")[0]
    own = before.get((claim.subject, claim.name), 0)
    return RateLimited(
        claim.name, kind, claim.limit, state.used, own + claim.cost, retry, _headers(verdict)
    )


def _as_one(claim: Claim, state: State, own: int) -> State:
    """As if the call had not taken its own part of it before."""
    if own + claim.cost > claim.limit:
        return replace(state, used=state.used - own, retry_s=math.inf)
    return replace(state, used=state.used - own)


def _headers(verdict: Verdict, *, kept: bool = True) -> list[tuple[bytes, bytes]]:
    """As OpenAI names them; of the key's and the tenant's limit the one with less left."""
    counted = verdict.admitted and kept
    least: dict[str, tuple[int, int, float]] = {}
    for claim, state in zip(verdict.claims, verdict.states, strict=True):
        if claim.name == "tokens_per_day":
            continue
        kind = "requests" if claim.name == "requests_per_minute" else "tokens"
        left = max(0, claim.limit - state.used - (claim.cost if counted else 0))
        reset = claim.period_s if counted else state.reset_s
        if kind not in least or left < least[kind][1]:
            least[kind] = (claim.limit, left, reset)
    headers = []
    for kind, (limit, left, reset) in least.items():
        headers += [
            (f"x-ratelimit-limit-{kind}".encode(), str(limit).encode()),
            (f"x-ratelimit-remaining-{kind}".encode(), str(left).encode()),
            (f"x-ratelimit-reset-{kind}".encode(), f"{reset:.3f}s".encode()),
        ]
    return headers
