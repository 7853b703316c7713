"""When a request must be done: the smallest of the server's, the header's and the body's time."""

import re
import time
from collections.abc import Mapping

from model.errors import InvalidRequest
from model.fields import MAX_TIMEOUT_MS

HEADER = "X-Request-Timeout-Ms"


def deadline_of(
    headers: Mapping[str, str], server_timeout_s: float, timeout_ms: int | None = None
) -> float:
    """On time.monotonic(). `headers` has lower-case names."""
    seconds = [server_timeout_s]
    if timeout_ms is not None:
        seconds.append(timeout_ms / 1000)
    if (text := headers.get(HEADER.lower())) is not None:
        if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= MAX_TIMEOUT_MS:
            raise InvalidRequest(
                f"{HEADER}: must be a whole number from 1 to {MAX_TIMEOUT_MS}", param=HEADER
            )
        seconds.append(int(text) / 1000)
    return time.monotonic() + min(seconds)
