"""What is counted, and of what."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Where:
    hour_ms: int
    tenant: str
    key_id: str
    model: str


@dataclass(slots=True)
class Counts:
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, other: "Counts") -> None:
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process adds at once. A writer's numbers only grow."""

    writer: str
    number: int
    rows: Sequence[tuple[Where, Counts]]


COUNTED = tuple(spec.name for spec in fields(Counts))


@dataclass(frozen=True, slots=True)
class Asked:
    """Which usage, and by what it is added up: of hour, day, tenant, key and model."""

    start_ms: int
    end_ms: int
    group_by: tuple[str, ...]
    tenant: str | None = None
    key_id: str | None = None
    limit: int = 10_000
    after: tuple[str | int, ...] = ()
    """The last row that was seen, as its groups have it; the next ones come after it."""
