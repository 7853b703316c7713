"""Where limits are counted: the interface, and the form in one process's memory."""

import time
from collections.abc import Sequence
from typing import Protocol

from api.limits.book import Book, Claim, Permit, Settlements, Verdict, settle, subjects, take

_SWEEP_EVERY = 1000


class LimitStore(Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def take(self, claims: Sequence[Claim], permits: Sequence[Permit]) -> Verdict:
        """Take all or nothing, at once as seen by everybody who shares the store."""

    async def settle(self, settlements: Settlements) -> None:
        """Correct what was taken to what it cost, and end the permits: once, however often it is
        asked for.
        """


class MemoryStore:
    """For one process. On the event loop alone, so nothing comes between."""

    def __init__(self) -> None:
        self._books: dict[str, Book] = {}
        self._taken = 0

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        self._books.clear()

    async def take(self, claims: Sequence[Claim], permits: Sequence[Permit]) -> Verdict:
        now = time.monotonic()
        self._taken += 1
        if self._taken % _SWEEP_EVERY == 0:
            self._sweep(now)
        books = {name: self._book(name) for name in subjects(claims, permits)}
        return take(books, claims, permits, now)

    async def settle(self, settlements: Settlements) -> None:
        """Once: nothing here fails half-way, so nobody asks again."""
        names = subjects((claim for claim, *_ in settlements.claims), settlements.permits)
        settle({name: self._book(name) for name in names}, settlements)

    def _book(self, subject: str) -> Book:
        book = self._books.get(subject)
        if book is None:
            book = self._books[subject] = Book()
        return book

    def _sweep(self, now: float) -> None:
        for name in [name for name, book in self._books.items() if book.is_empty(now)]:
            del self._books[name]
