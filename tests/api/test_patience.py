"""The limit on each wait of a stream: as asyncio.timeout has it, with one timer for all."""

import asyncio
import time

import pytest

from api.upstream.patience import Patience

pytestmark = pytest.mark.anyio


async def test_a_wait_that_lasts_too_long_is_a_time_out_and_the_task_goes_on() -> None:
    patience = Patience()
    for _ in range(2):
        begun = time.monotonic()
        with pytest.raises(TimeoutError), patience.for_s(0.05):
            await asyncio.sleep(20)
        assert 0.04 < time.monotonic() - begun < 5
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_many_short_waits_may_last_longer_together() -> None:
    patience = Patience()
    for _ in range(30):
        with patience.for_s(1.0):
            await asyncio.sleep(0.05)


async def test_time_between_waits_does_not_count() -> None:
    patience = Patience()
    for _ in range(3):
        with patience.for_s(0.1):
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)


async def test_who_cancels_the_task_is_heard() -> None:
    async def wait() -> None:
        with Patience().for_s(20):
            await asyncio.sleep(20)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_wait_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), Patience().for_s(20):
        raise ValueError("mine")


async def test_closed_it_leaves_no_timer() -> None:
    patience = Patience()
    with patience.for_s(20):
        await asyncio.sleep(0)
    patience.close()
    assert patience._timer is None
