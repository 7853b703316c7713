"""The time as it is stored, milliseconds since 1970 in UTC, and as clients are shown it."""

import time
from datetime import UTC, datetime
from typing import overload


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@overload
def time_text(milliseconds: int) -> str: ...


@overload
def time_text(milliseconds: int | None) -> str | None: ...


def time_text(milliseconds: int | None) -> str | None:
    """As RFC 3339 has it. Raises ValueError or OverflowError outside the years 1 to 9999."""
    if milliseconds is None:
        return None
    when = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
