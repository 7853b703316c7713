"""The line before the server's own limit, and when the refused are told to come back."""

import asyncio
import time

import pytest

from api.errors import DeadlineExceeded, Overloaded
from api.lifecycle import DrainRate, Lifecycle

pytestmark = pytest.mark.anyio


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = DrainRate()
    assert rate.per_second(0.0) == 0.0
    for tenth in range(200):
        rate.add(1, tenth / 10)
    assert 9 < rate.per_second(20.0) < 11
    assert rate.per_second(60.0) < 0.1


def test_a_rate_that_was_just_begun_is_not_too_small() -> None:
    rate = DrainRate()
    for tenth in range(10):
        rate.add(1, 100 + tenth / 10)
    assert 8 < rate.per_second(101.0) < 13


async def test_places_go_round_in_order() -> None:
    line = Lifecycle(1, max_queued=3)
    await line.enter()
    order: list[int] = []

    async def one(number: int) -> None:
        await line.enter()
        order.append(number)
        line.release(1)

    tasks = [asyncio.create_task(one(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert line.waiting == 3
    with pytest.raises(Overloaded):
        await line.enter()
    line.release(1)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    assert (line.slots_taken, line.waiting) == (0, 0)


async def test_a_place_that_comes_as_its_waiter_leaves_is_not_lost() -> None:
    line = Lifecycle(1, max_queued=3)
    await line.enter()
    waiting = asyncio.create_task(line.enter())
    await asyncio.sleep(0)
    line.release(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (line.slots_taken, line.waiting) == (0, 0)
    await line.enter()


@pytest.mark.parametrize(
    ("patience_s", "left_s", "why"), [(30, 0.05, DeadlineExceeded), (0.05, 30, Overloaded)]
)
async def test_a_wait_ends_with_what_comes_first(
    patience_s: float, left_s: float, why: type[Exception]
) -> None:
    line = Lifecycle(1, max_queued=3, queue_timeout_s=patience_s)
    await line.enter()
    with pytest.raises(why):
        await line.enter(lambda: time.monotonic() + left_s)
    assert (line.slots_taken, line.waiting) == (1, 0)


async def test_a_waiter_that_is_leaving_is_passed_by() -> None:
    line = Lifecycle(1, max_queued=3)
    await line.enter()
    leaving, staying = (asyncio.create_task(line.enter()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    line.release(1)
    await staying
    await asyncio.gather(leaving, return_exceptions=True)
    assert (line.slots_taken, line.waiting) == (1, 0)


async def test_the_longer_the_line_the_later_to_come_back() -> None:
    line = Lifecycle(1, max_queued=100)
    assert line.wait_s() == 1.0
    await line.enter()
    for _ in range(20):
        line.release(1)
        await line.enter()
        await asyncio.sleep(0.02)
    tasks = [asyncio.create_task(line.enter()) for _ in range(90)]
    await asyncio.sleep(0)
    rate = 20 / 0.5
    assert 0.3 * 91 / rate < line.wait_s() < 3 * 91 / rate
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_batch_does_not_pass_the_line() -> None:
    line = Lifecycle(2, max_queued=3)
    assert line.admit(2) == 2
    waiting = asyncio.create_task(line.enter())
    await asyncio.sleep(0)
    line.release(1)
    await waiting
    assert line.admit() == 0
