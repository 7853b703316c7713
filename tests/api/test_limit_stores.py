"""The three places where limits are counted behave alike, and hold across processes."""

import asyncio
import bisect
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from api.errors import LimitsUnavailable, RateLimited
from api.keys.records import Caller, Limits
from api.limits import settling
from api.limits.book import Claim, Permit, Verdict
from api.limits.limiter import Limiter, make_store
from api.limits.postgres import PostgresStore
from api.limits.redis import RedisStore
from api.limits.store import LimitStore, MemoryStore
from api.metrics import Metrics
from api.settings import Settings
from tests.api.conftest import eventually
from tests.api.redis_server import running_redis
from tests.api.settled import settled

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600.0


@pytest.fixture
async def store(limits_url: str) -> AsyncIterator[LimitStore]:
    made = make_store(Settings(limits_url=limits_url, limits_timeout_s=5))
    await made.open()
    yield made
    await made.close()


def test_the_store_follows_the_addresses() -> None:
    def kind(**settings: str) -> str:
        return type(make_store(Settings(**settings))).__name__  # type: ignore[arg-type]

    assert kind() == "MemoryStore"
    assert kind(database_url="postgresql://h/d") == "PostgresStore"
    assert kind(limits_url="postgresql://h/d") == "PostgresStore"
    assert kind(database_url="postgresql://h/d", limits_url="redis://h") == "RedisStore"


async def test_every_store_decides_as_the_memory_does(store: LimitStore) -> None:
    """The same random calls, in both; an hour's window, so that no time passes."""
    random.seed(7)
    plain = MemoryStore()
    open_calls: list[tuple[Verdict, Verdict]] = []
    admitted = 0
    name = f"{random.random()}"
    for step in range(150):
        if open_calls and random.random() < 0.4:
            ours, theirs = open_calls.pop(random.randrange(len(open_calls)))
            costs = [random.choice([0, claim.cost, claim.cost + 3]) for claim in ours.claims]
            await store.settle(settled(ours, costs))
            await plain.settle(settled(theirs, costs))
            continue
        cost = random.randrange(1, 60)
        claims = [
            Claim(f"key:{name}", "requests_per_minute", 60, 1, HOUR),
            Claim(f"key:{name}", "tokens_per_minute", 900, cost, HOUR),
            Claim(f"tenant:{name}", "tokens_per_day", 1500, cost, HOUR),
        ][: random.randrange(1, 4)]
        permits = [Permit(f"key:{name}", 5, str(step), 60)] if random.random() < 0.5 else []
        ours, theirs = await store.take(claims, permits), await plain.take(claims, permits)
        assert ours.admitted == theirs.admitted
        assert [state.used for state in ours.states] == [state.used for state in theirs.states]
        assert list(ours.running) == list(theirs.running)
        assert [state.retry_s == 0 for state in ours.states] == [
            state.retry_s == 0 for state in theirs.states
        ]
        if ours.admitted:
            admitted += 1
            open_calls.append((ours, theirs))
    assert admitted > 20


async def test_a_window_slides_and_a_refusal_says_when(store: LimitStore) -> None:
    claims = [Claim(f"key:{random.random()}", "requests_per_minute", 3, 1, 1.0)]
    for _ in range(3):
        assert (await store.take(claims, [])).admitted
    refused = await store.take(claims, [])
    assert not refused.admitted
    retry = refused.states[0].retry_s
    assert 0.5 < retry < 1.1
    await asyncio.sleep(retry + 0.03)
    assert (await store.take(claims, [])).admitted


@pytest.mark.parametrize("limits_url", ["postgres", "redis"], indirect=True)
async def test_a_clock_that_was_ahead_for_a_moment_keeps_nobody_out(store: LimitStore) -> None:
    subject = f"key:{random.random()}"
    claims = [Claim(subject, "requests_per_minute", 3, 3, 60.0)]
    before = time.time()
    (part,) = (await store.take(claims, [])).parts
    await move(store, subject, part, part + 59)
    # It may have been right, and a window may hold this.
    assert not (await store.take(claims, [])).admitted
    await move(store, subject, part + 59, part + 3600)
    verdict = await store.take(claims, [])
    assert verdict.admitted
    assert before - 1 <= verdict.parts[0] <= time.time() + 1
    assert not (await store.take(claims, [])).admitted


async def move(store: LimitStore, subject: str, part: int, to: int) -> None:
    """What was counted in one part of the window of requests: its clock was elsewhere then."""
    if isinstance(store, RedisStore):
        key = f"{{qna-limits}}:{subject}:requests_per_minute"
        count = await store._redis.hget(key, str(part))
        await store._redis.delete(key)
        await store._redis.hset(key, str(to), count)
        return
    assert isinstance(store, PostgresStore)
    async with store._connection() as connection:
        books = await store._locked(connection, [subject])
        window = books[subject].windows["requests_per_minute"]
        window.counts[to] = window.counts.pop(part)
        await store._write(connection, books)


async def test_a_lease_whose_process_died_ends(store: LimitStore) -> None:
    subject = f"key:{random.random()}"
    assert (await store.take([], [Permit(subject, 1, "dead", 0.4)])).admitted
    assert not (await store.take([], [Permit(subject, 1, "next", 5)])).admitted
    await asyncio.sleep(0.5)
    verdict = await store.take([], [Permit(subject, 1, "next", 5)])
    assert verdict.admitted
    await store.settle(settled(verdict, []))
    assert (await store.take([], [Permit(subject, 1, "last", 5)])).admitted


def most_in_a_window(times: list[float], period_s: float) -> int:
    return max(
        index + 1 - bisect.bisect_left(times, at - period_s) for index, at in enumerate(times)
    )


@pytest.mark.parametrize("then", ["keep", "fail"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("kind", ["postgres", "redis"])
async def test_processes_share_a_limit_exactly(
    request: pytest.FixtureRequest, kind: str, replicas: int, then: str
) -> None:
    """By a period of 3 s instead of a minute; nothing else differs."""
    url = request.getfixturevalue(f"{kind}_url")
    if kind == "redis":
        server = request.getfixturevalue("redis_url")
        client = RedisStore(server, timeout_s=5)
        await client._redis.flushall()
        await client.close()
    limit, period_s, periods = 60, 3.0, 3
    arguments = [url, str(limit), str(period_s), str(period_s * periods), then]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.api.limit_client", *arguments,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(replicas)
    ]  # fmt: skip
    printed = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0] * replicas
    times = sorted(at for output, _ in printed for at in json.loads(output))
    assert most_in_a_window(times, period_s) <= 1.05 * limit
    # From the first on; the last window is whole because nothing is admitted beyond it.
    seconds = times[-1] - times[0] + period_s
    assert len(times) >= 0.95 * limit * (periods - 0.35), len(times)
    assert len(times) <= 1.05 * limit * (seconds / period_s + 1)


@pytest.mark.parametrize("limits_url", ["postgres", "redis"], indirect=True)
async def test_what_is_settled_again_counts_once(store: LimitStore) -> None:
    subject = f"key:{random.random()}"
    claims = [Claim(subject, "tokens_per_minute", 100, 40, HOUR)]
    verdicts = [await store.take(claims, []) for _ in range(2)]
    settlements = settled(verdicts[0], [10])
    for _ in range(3):
        await store.settle(settlements)
    state = (await store.take([replace(claims[0], cost=0)], [])).states[0]
    assert state.used == 50


async def used_of(limiter: Limiter) -> int:
    """Tokens of the caller, as the store has them."""
    claim = Claim("key:k", "tokens_per_minute", 10**6, 0, 60.0)
    return (await limiter._store.take([claim], [])).states[0].used


async def test_a_slow_redis_loses_no_settlement_and_takes_none_twice() -> None:
    with running_redis() as (url, process):
        metrics = Metrics()
        limiter = Limiter(Settings(limits_url=url, limits_timeout_s=0.1), metrics)
        await limiter.open()
        who = caller(tokens_per_minute=10**6)
        first = await limiter.take(who, 100, 10)
        assert first is not None
        # From here on Redis knows the script, and does what it is sent.
        await limiter.settle(first, 7)
        # One batch's worth and more, so that later ones wait behind it.
        taken = [await limiter.take(who, 100, 10) for _ in range(250)]
        process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for one in taken:
                assert one is not None
                await limiter.settle(one, 7)
            # The first is waited for, and after it nobody waits.
            assert time.monotonic() - began < 5
        finally:
            # What it was sent while it stood, it does now.
            process.send_signal(signal.SIGCONT)
        await eventually(lambda: limiter._settler.waiting == 0)
        assert await used_of(limiter) == 7 * 251
        await limiter.close()
        assert metrics.registry.get_sample_value("qna_api_limit_settlements_lost_total") == 0


async def test_a_postgres_that_holds_its_rows_loses_no_settlement(postgres_url: str) -> None:
    limiter = Limiter(Settings(limits_url=postgres_url, limits_timeout_s=0.1), Metrics())
    await limiter.open()
    who = caller(tokens_per_minute=10**6)
    taken = [await limiter.take(who, 100, 10) for _ in range(5)]
    async with await psycopg.AsyncConnection.connect(postgres_url) as other:
        await other.execute("SELECT 1 FROM qna_limits FOR UPDATE")
        for one in taken:
            assert one is not None
            await limiter.settle(one, 7)
        assert limiter._settler.waiting == 5
    await eventually(lambda: limiter._settler.waiting == 0)
    assert await used_of(limiter) == 7 * 5
    await limiter.close()


async def test_a_permit_that_was_granted_too_late_is_given_back() -> None:
    with running_redis() as (url, process):
        limiter = Limiter(Settings(limits_url=url, limits_timeout_s=0.1), Metrics())
        await limiter.open()
        who = caller(max_concurrent=1)
        first = await limiter.take(who, 1, 600)
        assert first is not None
        await limiter.settle(first, 1)
        process.send_signal(signal.SIGSTOP)
        try:
            late = await limiter.take(who, 1, 600)
        finally:
            # What it was sent while it stood, it does now.
            process.send_signal(signal.SIGCONT)
        assert late is not None
        assert isinstance(late.store, MemoryStore)
        await limiter.settle(late, 1)
        await eventually(lambda: limiter._settler.waiting == 0)
        again = await limiter.take(who, 1, 600)
        assert again is not None
        assert not isinstance(again.store, MemoryStore)
        await limiter.close()


async def test_a_postgres_that_restarted_is_asked_at_once(postgres_url: str) -> None:
    metrics = Metrics()
    limiter = Limiter(Settings(limits_url=postgres_url, limits_timeout_s=1), metrics)
    await limiter.open()
    who = caller(tokens_per_minute=10**6)
    # As many connections as there may be.
    await asyncio.gather(*(limiter.take(who, 1, 10) for _ in range(8)))
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as other:
        ended = await other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'qna-api-server limits' AND datname = current_database()"
        )
        assert len(await ended.fetchall()) > 1
    taken = await limiter.take(who, 1, 10)
    assert taken is not None
    assert not isinstance(taken.store, MemoryStore)
    assert await used_of(limiter) == 9
    await limiter.close()


async def test_what_waits_to_be_settled_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "MOST_WAITING", 3)
    with running_redis() as (url, process):
        metrics = Metrics()
        limiter = Limiter(Settings(limits_url=url, limits_timeout_s=0.1), metrics)
        await limiter.open()
        taken = [await limiter.take(caller(tokens_per_minute=10**6), 1, 10) for _ in range(5)]
        process.send_signal(signal.SIGSTOP)
        for one in taken:
            assert one is not None
            await limiter.settle(one, 0)
        assert metrics.registry.get_sample_value("qna_api_limit_settlements_lost_total") == 2
        process.send_signal(signal.SIGCONT)
        await limiter.close()


async def test_postgres_is_left_as_a_pooler_lent_it(postgres_url: str) -> None:
    """Behind one, whoever gets the server's connection next must not meet our settings, and ours
    must hold on whichever connection a transaction gets.
    """
    store = PostgresStore(postgres_url, timeout_s=0.3)
    await store.open()
    names = ("statement_timeout", "lock_timeout", "synchronous_commit")

    async def settings(connection: psycopg.AsyncConnection) -> list[str]:
        found = [await connection.execute(f"SHOW {name}") for name in names]  # type: ignore[call-overload]
        return [(await one.fetchone())[0] for one in found]

    await store.take([Claim("key:a", "requests_per_minute", 5, 1, HOUR)], [])
    (kept,) = store._idle
    assert await settings(kept) == ["0", "0", "on"]
    async with store._connection() as ours:
        assert ours is kept
        assert await settings(ours) == ["300ms", "300ms", "off"]
    await store.close()


def caller(**limits: int) -> Caller:
    return Caller("k", "t", limits=Limits(**limits))


@pytest.mark.parametrize("when_away", ["open", "closed"])
async def test_a_frozen_store_is_waited_for_no_longer_than_the_limit(when_away: str) -> None:
    with running_redis() as (url, process):
        metrics = Metrics()
        settings = Settings(limits_url=url, limits_timeout_s=0.2, limits_when_away=when_away)
        limiter = Limiter(settings, metrics)
        await limiter.open()
        taken = await limiter.take(caller(requests_per_minute=5), 1, 10)
        process.send_signal(signal.SIGSTOP)
        try:
            results = []
            for _ in range(7):
                began = time.monotonic()
                try:
                    found = await limiter.take(caller(requests_per_minute=5), 1, 10)
                    assert found is not None
                    await limiter.settle(found, 1)
                    results.append("in")
                except LimitsUnavailable:
                    results.append("unavailable")
                except RateLimited:
                    results.append("limited")
                assert time.monotonic() - began < 0.2 + 1  # the machine is shared
            # Open: the process counts for itself meanwhile.
            expected = ["in"] * 5 + ["limited"] * 2 if when_away == "open" else ["unavailable"] * 7
            assert results == expected
            value = metrics.registry.get_sample_value(
                "qna_api_limit_store_failures_total", {"operation": "take"}
            )
            assert value == 7
        finally:
            process.send_signal(signal.SIGCONT)
        assert taken is not None
        await asyncio.sleep(1.1)
        found = await limiter.take(caller(requests_per_minute=5), 1, 10)
        assert found is not None
        assert not isinstance(found.store, MemoryStore)
        await limiter.close()


async def test_a_postgres_that_is_away_is_not_waited_for(tmp_path: Path) -> None:
    settings = Settings(limits_url=f"postgresql://u@/d?host={tmp_path}")
    limiter = Limiter(settings, Metrics())
    began = time.monotonic()
    await limiter.open()
    taken = await limiter.take(caller(requests_per_minute=1), 1, 10)
    assert taken is not None
    assert isinstance(taken.store, MemoryStore)
    assert time.monotonic() - began < 2
    await limiter.close()


async def test_a_store_that_comes_later_is_used(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    limiter = Limiter(Settings(limits_url=f"unix://{socket}"), Metrics())
    await limiter.open()
    before = await limiter.take(caller(requests_per_minute=1), 1, 10)
    assert before is not None
    assert isinstance(before.store, MemoryStore)
    with running_redis() as (url, _):
        socket.symlink_to(url.removeprefix("unix://"))

        async def is_used() -> bool:
            taken = await limiter.take(caller(requests_per_minute=10**6), 1, 10)
            return taken is not None and not isinstance(taken.store, MemoryStore)

        deadline = time.monotonic() + 10
        while not await is_used():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        with pytest.raises(RateLimited) as caught:
            await limiter.take(caller(requests_per_minute=1), 1, 10)
        assert caught.value.retry_after_s is not None
        await limiter.close()
