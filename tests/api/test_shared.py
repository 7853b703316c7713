"""Work that many want at once is done once, for all of them."""

import asyncio

import pytest

from api.shared import Shared

pytestmark = pytest.mark.anyio


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.may_end.wait()
        return self.begun


async def under_way(shared: Shared[str, int], work: Work, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(shared.of("one", work)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert work.begun == 1
    return tasks


async def test_all_who_want_it_meanwhile_get_the_same() -> None:
    shared: Shared[str, int] = Shared()
    work = Work()
    tasks = await under_way(shared, work, 20)
    work.may_end.set()
    assert await asyncio.gather(*tasks) == [1] * 20
    # What has ended is done again.
    assert await shared.of("one", work) == 2


async def test_who_leaves_takes_it_from_nobody() -> None:
    shared: Shared[str, int] = Shared()
    work = Work()
    first, second = await under_way(shared, work, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(TimeoutError):
        await shared.of("one", work, timeout_s=0.01)
    work.may_end.set()
    assert await second == 1


async def test_an_error_is_everybodys() -> None:
    shared: Shared[str, int] = Shared()

    async def fails() -> int:
        raise ValueError("no")

    found = await asyncio.gather(
        *(shared.of("one", fails) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in found] == [ValueError] * 3
