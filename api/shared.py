"""Work that many may want at once and one does: the others wait for the same. On the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shared(Generic[K, T]):
    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Task[T]] = {}

    async def of(
        self, key: K, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None
    ) -> T:
        """The result of the work that is under way for this key, or is begun now. It goes on for
        the others when one of them leaves. TimeoutError for who has no time left.
        """
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            raise TimeoutError
        return task.result()

    def _ended(self, key: K, done: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            # Nobody may be left who would take it.
            done.exception()
