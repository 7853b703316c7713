"""What the server holds: at rest, for each stream that is open, and after very many requests."""

import asyncio

from bench.hop.client import Answer, Connection
from bench.hop.figures import CONNECTIONS, Ask, Figures
from bench.hop.servers import Target

OPEN = 512
SLOW_STEP_MS = 1000
SETTLED = 10_000
"""After so many requests caches and the allocator have what they need."""
PATIENCE_S = 30.0


async def memory(target: Target, requests: int) -> Figures:
    idle_kb = target.memory_kb()
    ask = Ask(target)
    await _open_streams(ask, OPEN // 8)
    before_kb = target.memory_kb()
    open_kb = await _open_streams(ask, OPEN)
    load = ask.load()
    settled = min(SETTLED, requests // 2)
    await load.many(ask.completion(), CONNECTIONS, settled)
    settled_kb = target.memory_kb()
    tally = await load.many(ask.completion(), CONNECTIONS, requests - settled)
    return {
        "idle_mb": idle_kb / 1024,
        "stream_kb": (open_kb - before_kb) / OPEN,
        "settled_mb": settled_kb / 1024,
        "growth_mb": (target.memory_kb() - settled_kb) / 1024,
        "requests": float(settled + len(tally.answers)),
        "failed": float(sum(tally.failures().values())),
    }


async def _open_streams(ask: Ask, count: int) -> int:
    """What the server holds while so many streams have begun and go on."""
    load = ask.load()
    make = ask.completion(events=60, step_ms=SLOW_STEP_MS)

    def done(connection: Connection, answer: Answer) -> None:
        raise AssertionError(f"a stream ended: {answer.status} {answer.error}")

    async with load.connections(count) as streams:
        for stream in streams:
            stream.ask(make(), done)
        async with asyncio.timeout(PATIENCE_S):
            while not all(stream.began for stream in streams):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(2 * SLOW_STEP_MS / 1000)
        held = ask.target.memory_kb()
    # So that the next load does not meet these on their way out.
    await asyncio.sleep(1.0)
    return held
