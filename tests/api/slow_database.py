"""A database whose transactions end when the test says so, over a real store."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from api.history import SqlStore


class SlowDatabase:
    """`held` are the names of those transactions that wait, done but for their commit."""

    def __init__(self, store: SqlStore, *held: str) -> None:
        self._store = store
        self.held = set(held)
        self.reached = threading.Event()
        self.let_go = threading.Event()

    async def run(self, name: str, operation: Callable[[Any], Any], **how: Any) -> Any:
        if name not in self.held:
            return await self._store.run(name, operation, **how)

        def slowly(connection: Any) -> Any:
            done = operation(connection)
            self.reached.set()
            self.let_go.wait(10)
            return done

        return await self._store.run(name, slowly, **how)

    async def release(self) -> None:
        """Let what is held go on, and what comes pass."""
        await asyncio.to_thread(self.reached.wait, 10)
        self.held.clear()
        self.let_go.set()
