"""The arithmetic of limits: windows that slide, and permits of calls that run. No I/O, no clock.

A window is cut into 60 parts. What was taken in a part counts until the whole part has left the
window, so never more than the limit is taken in any window, wherever it begins; and at least 60/61
of the limit, because a part is counted for at most one part too long. What is given back leaves
the part that it was taken in.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PARTS = 60


@dataclass(frozen=True, slots=True)
class Claim:
    """So much of a subject's limit. `subject` is "key:…" or "tenant:…"."""

    subject: str
    name: str
    limit: int
    cost: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Permit:
    """One call of a subject that may have `limit` at once; it ends by itself after `ttl_s`."""

    subject: str
    limit: int
    permit_id: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class State:
    """Of one limit after a claim. `retry_s`: when the claim will fit; 0 now, infinite never."""

    used: int
    retry_s: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """All claims were admitted, or none. `parts` says where each was counted."""

    admitted: bool
    claims: Sequence[Claim]
    permits: Sequence[Permit]
    states: Sequence[State]
    running: Sequence[int]
    parts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an admitted call turned out to cost, claim by claim."""

    verdict: Verdict
    costs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Settlements:
    """What one process settles at once. A writer's numbers only grow, so a store that has done
    this number has done these.
    """

    writer: str
    number: int
    items: Sequence[Settlement]

    @property
    def claims(self) -> Iterator[tuple[Claim, int, int]]:
        """Each with the part that it was counted in, and by how much that changes."""
        for item in self.items:
            verdict = item.verdict
            for claim, part, cost in zip(verdict.claims, verdict.parts, item.costs, strict=True):
                yield claim, part, cost - claim.cost

    @property
    def permits(self) -> Iterator[Permit]:
        for item in self.items:
            yield from item.verdict.permits


class Window:
    __slots__ = ("counts", "total", "width")

    def __init__(self, period_s: float, counts: Mapping[int, int] | None = None) -> None:
        self.width = period_s / PARTS
        self.counts: dict[int, int] = dict(counts or {})
        self.total = sum(self.counts.values())

    def advance(self, now: float) -> int:
        """Forget what has left the window; the part of now. A clock that steps back stands, unless
        by more than a window: then it was wrong before, and what it wrote would count for too long.
        """
        part = int(now / self.width)
        counts = self.counts
        while counts and (newest := next(reversed(counts))) > part + PARTS:
            self.total -= counts.pop(newest)
        if counts:
            part = max(part, next(reversed(counts)))
            oldest = part - PARTS
            while counts and (first := next(iter(counts))) < oldest:
                self.total -= counts.pop(first)
        return part

    def state(self, claim: Claim, now: float) -> State:
        """After `advance`."""
        reset = (next(reversed(self.counts)) + PARTS + 1) * self.width - now if self.counts else 0.0
        return State(self.total, self._retry_s(claim, now), max(0.0, reset))

    def _retry_s(self, claim: Claim, now: float) -> float:
        over = self.total + claim.cost - claim.limit
        if over <= 0:
            return 0.0
        if claim.cost > claim.limit:
            return math.inf
        for part, count in self.counts.items():
            over -= count
            if over <= 0:
                return max(0.001, (part + PARTS + 1) * self.width - now)
        return math.inf

    def add(self, part: int, count: int) -> None:
        self.counts[part] = self.counts.get(part, 0) + count
        self.total += count

    def change(self, part: int, difference: int) -> None:
        """Correct what was taken in a part, unless it has left the window already."""
        if part in self.counts:
            difference = max(difference, -self.counts[part])
            self.counts[part] += difference
            self.total += difference


@dataclass(slots=True)
class Book:
    """What one subject has taken."""

    windows: dict[str, Window] = field(default_factory=dict)
    permits: dict[str, float] = field(default_factory=dict)

    def window(self, claim: Claim) -> Window:
        window = self.windows.get(claim.name)
        if window is None or window.width != claim.period_s / PARTS:
            window = self.windows[claim.name] = Window(claim.period_s)
        return window

    def running(self, now: float) -> int:
        ended = [permit_id for permit_id, until in self.permits.items() if until <= now]
        for permit_id in ended:
            del self.permits[permit_id]
        return len(self.permits)

    def is_empty(self, now: float) -> bool:
        for window in self.windows.values():
            window.advance(now)
        return not self.running(now) and not any(w.total for w in self.windows.values())

    def dump(self) -> dict[str, Any]:
        return {
            "windows": {
                name: [window.width * PARTS, list(window.counts.items())]
                for name, window in self.windows.items()
            },
            # Under the name that it has where books are stored.
            "leases": self.permits,
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> "Book":
        windows = {
            name: Window(period_s, dict(counts))
            for name, (period_s, counts) in data["windows"].items()
        }
        return cls(windows, dict(data["leases"]))


def subjects(claims: Iterable[Claim], permits: Iterable[Permit]) -> list[str]:
    """In the order in which they have to be locked."""
    return sorted({item.subject for group in (claims, permits) for item in group})


def take(
    books: Mapping[str, Book], claims: Sequence[Claim], permits: Sequence[Permit], now: float
) -> Verdict:
    windows = [books[claim.subject].window(claim) for claim in claims]
    parts = [window.advance(now) for window in windows]
    states = [window.state(claim, now) for window, claim in zip(windows, claims, strict=True)]
    running = [books[permit.subject].running(now) for permit in permits]
    admitted = all(state.retry_s == 0 for state in states) and all(
        count < permit.limit for count, permit in zip(running, permits, strict=True)
    )
    if admitted:
        for window, part, claim in zip(windows, parts, claims, strict=True):
            window.add(part, claim.cost)
        for permit in permits:
            books[permit.subject].permits[permit.permit_id] = now + permit.ttl_s
    return Verdict(admitted, claims, permits, states, running, parts)


def settle(books: Mapping[str, Book], settlements: Settlements) -> None:
    for claim, part, difference in settlements.claims:
        if difference:
            books[claim.subject].window(claim).change(part, difference)
    for permit in settlements.permits:
        books[permit.subject].permits.pop(permit.permit_id, None)
