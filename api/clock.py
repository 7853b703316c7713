"""The time as it is stored and shown: milliseconds since 1970, UTC."""

import time


def now_ms() -> int:
    return time.time_ns() // 1_000_000
