"""Which keys are known, for how long, and what it costs to look one up. On the event loop alone.

A key that was looked up stays known for `API_KEY_CACHE_S`. That there is none of an id is known for
a moment too, apart from the keys, so that a flood of made-up ids drives none of them out; and few
ids that were never seen are looked up at once, so that it does not take the database either.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from api.errors import Overloaded, StoreUnavailable
from api.keys.records import Caller, Key

MOST_KNOWN = 10_000
UNKNOWN_S = 5.0
AGAIN_S = 1.0
STRANGERS_AT_ONCE = 2
"""A part of what one process has of connections: chats need theirs."""
MOST_STRANGERS = 1_000
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Known:
    """A key, and who calls with it."""

    key: Key
    caller: Caller
    until: float


class KnownKeys:
    def __init__(self, find: Callable[[str], Awaitable[Key | None]], fresh_s: float) -> None:
        self._find = find
        self._fresh_s = fresh_s
        self._known: dict[str, Known] = {}
        self._unknown: dict[str, float] = {}
        self._again_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Known | None]] = {}
        self._strangers = asyncio.Semaphore(STRANGERS_AT_ONCE)

    async def get(self, key_id: str) -> Known | None:
        """None when there is no such key. Overloaded while too many ask, StoreUnavailable."""
        now = time.monotonic()
        entry = self._known.get(key_id)
        if entry is not None and now < entry.until:
            return entry
        if now < self._unknown.get(key_id, 0.0):
            return None
        # Callers with the same key wait for one look-up, which remembers before it ends: nobody
        # comes in between.
        if key_id not in self._asking and entry is None and len(self._asking) >= MOST_STRANGERS:
            raise Overloaded(retry_after_s=1)
        return await self._ask(key_id, stranger=entry is None)

    async def get_again(self, entry: Known) -> Known | None:
        """The key as the database has it now, for a text that is not right: another process may
        have given the key that text a moment ago. Wrong texts cost a look-up a second.
        """
        key_id, now = entry.key.key_id, time.monotonic()
        if key_id not in self._asking:
            if now < self._again_at.get(key_id, 0.0):
                return self._known.get(key_id, entry)
            self._again_at.pop(key_id, None)
            _make_room(self._again_at)
            self._again_at[key_id] = now + AGAIN_S
        return await self._ask(key_id, stranger=True)

    async def _ask(self, key_id: str, *, stranger: bool) -> Known | None:
        task = self._asking.get(key_id)
        if task is None:
            task = asyncio.create_task(
                self._look_up(key_id, stranger=stranger), context=contextvars.Context()
            )
            self._asking[key_id] = task
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    def forget(self, key_id: str) -> None:
        """It was changed. A look-up under way may have seen it before: it is not remembered."""
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)
        self._asking.pop(key_id, None)

    def forget_all(self) -> None:
        self._known.clear()
        self._asking.clear()

    async def _look_up(self, key_id: str, *, stranger: bool) -> Known | None:
        try:
            async with self._place() if stranger else nullcontext():
                key = await self._find(key_id)
            entry = None if key is None else self._entry(key)
            if self._asking.get(key_id) is asyncio.current_task():
                self._remember(key_id, entry)
            return entry
        finally:
            if self._asking.get(key_id) is asyncio.current_task():
                del self._asking[key_id]

    def _entry(self, key: Key) -> Known:
        caller = Caller(
            key.key_id, key.tenant, key.scopes, key.models, key.limits, key.tenant_limits
        )
        return Known(key, caller, time.monotonic() + self._fresh_s)

    def _remember(self, key_id: str, entry: Known | None) -> None:
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)
        if entry is None:
            _make_room(self._unknown)
            self._unknown[key_id] = time.monotonic() + UNKNOWN_S
        else:
            _make_room(self._known)
            self._known[key_id] = entry

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the few, for which nobody waits longer than the patience goes."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._strangers.acquire()
        except TimeoutError:
            raise StoreUnavailable(retry_after_s=2) from None
        try:
            yield
        finally:
            self._strangers.release()


def _make_room(entries: dict[str, Any]) -> None:
    """The oldest goes."""
    while len(entries) >= MOST_KNOWN:
        del entries[next(iter(entries))]


def _retrieve(task: asyncio.Task[Known | None]) -> None:
    """Whoever waited may have left."""
    if not task.cancelled():
        task.exception()
