"""Several asynchronous streams as one. Knows nothing of what flows. Event loop only."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def merged(sources: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """Every item with its source's number, as it comes. Closing it closes every source; the first
    failure of a source ends all.
    """
    if len(sources) == 1:  # the usual case, without a queue between two tasks
        async with contextlib.aclosing(sources[0]) as only:
            async for item in only:
                yield 0, item
        return
    arrived: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue()

    async def follow(index: int, source: AsyncGenerator[T]) -> None:
        try:
            async with contextlib.aclosing(source):
                async for item in source:
                    arrived.put_nowait((index, item))
            arrived.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - raised again by the reader below
            arrived.put_nowait(error)

    tasks = [asyncio.create_task(follow(i, source)) for i, source in enumerate(sources)]
    running = len(tasks)
    try:
        while running:
            arrival = await arrived.get()
            if arrival is None:
                running -= 1
            elif isinstance(arrival, BaseException):
                raise arrival
            else:
                yield arrival
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
