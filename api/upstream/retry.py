"""When a failed attempt may be repeated: a budget for the whole process, a pause with jitter.

The budget is a bucket: every request puts a fraction of a retry into it, every retry takes one
out. A single restart is bridged from what has been saved; an outage cannot multiply the load.
"""

import random

BASE_PAUSE_S = 0.1


class RetryBudget:
    def __init__(self, ratio: float, burst: int) -> None:
        self._ratio = ratio
        self._burst = float(burst)
        self._saved = float(burst)

    def deposit(self) -> None:
        self._saved = min(self._burst, self._saved + self._ratio)

    def withdraw(self) -> bool:
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def pause_s(attempt: int) -> float:
    """0.1, 0.2, 0.4, … seconds, each between half and one and a half times as long."""
    return float(BASE_PAUSE_S * 2.0**attempt * random.uniform(0.5, 1.5))
