"""A limit on each of many short waits, with one timer for all of them.

`asyncio.timeout` sets and drops a timer for every wait, which is a tenth of what an event of a
stream takes. Here the timer stays and looks, when it fires, whether the wait that is on now has
lasted too long. Limits must not get shorter by more than time passes. On the event loop.
"""

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType


class Patience(AbstractContextManager[None]):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._until = 0.0
        self._cancelling = 0
        self._over = False

    def for_s(self, seconds: float) -> "Patience":
        """As a context: the wait in it raises TimeoutError after so long."""
        self._until = self._loop.time() + seconds
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._over:
            self._over = False
            assert task is not None
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._over = True
            self._task.cancel()
