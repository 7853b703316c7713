"""One replica's share of a limit, as a process of its own: takes as fast as it can.

Arguments: the store's address, the limit, the period and how long to go on, in seconds, and what
becomes of each call: "keep", or "fail" for every second one. Prints the times of what was kept.
"""

import asyncio
import json
import sys
import time

from api.limits.book import Claim
from api.limits.limiter import make_store
from api.settings import Settings
from tests.api.settled import settled


async def main(url: str, limit: int, period_s: float, seconds: float, then: str) -> None:
    store = make_store(Settings(limits_url=url, limits_timeout_s=5))
    await store.open()
    claims = [Claim("key:shared", "requests_per_minute", limit, 1, period_s)]
    admitted: list[float] = []
    until = time.time() + seconds

    async def call() -> None:
        count = 0
        while time.time() < until:
            verdict = await store.take(claims, [])
            if not verdict.admitted:
                await asyncio.sleep(0.01)
                continue
            count += 1
            if then == "fail" and count % 2:
                await store.settle(settled(verdict, [0]))
                await asyncio.sleep(0.002)
            else:
                admitted.append(time.time())

    await asyncio.gather(*(call() for _ in range(4)))
    await store.close()
    sys.stdout.write(json.dumps(admitted))


if __name__ == "__main__":
    url, limit, period_s, seconds, then = sys.argv[1:]
    asyncio.run(main(url, int(limit), float(period_s), float(seconds), then))
