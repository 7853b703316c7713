"""One function for each figure: some seconds of load, and what came of it.

A figure is a flat dict of numbers. `per_cpu_s` are by the server's own processor time, which
neighbours on the machine disturb least; `per_s` are by the clock.
"""

import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.hop.client import Answer, Load, Make, Tally, request
from bench.hop.servers import Target
from bench.hop.stub import MODEL
from bench.metrics import percentile

Figures = dict[str, float]
CONNECTIONS = 32
WRITERS = 64
"""Connections of the figure with history: commits are shared by those who wait together."""
CHATS, TURNS = 256, 4
"""So many chats are in use at once, each for so many questions."""
EVENTS = 256
STREAMS = 64
STEP_MS = 2
SYSTEM = "You are a helpful assistant. Answer in one short sentence."
QUESTION = (
    "Which city is the capital of India, on which river does it lie, and since when has it been"
    " the capital? Answer briefly, please, and name no other city."
)


@dataclass(frozen=True, slots=True)
class Ask:
    """How to ask a target."""

    target: Target

    def load(self) -> Load:
        return Load(*self.target.urls)

    def completion(self, *, events: int = 0, step_ms: int = 0) -> Make:
        """With events: streamed, so many of them."""
        body: dict[str, object] = {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": QUESTION},
            ],
            "max_tokens": events or 16,
        }
        if events:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if step_ms:
            body["user"] = f"step-{step_ms}"
        whole = request(self.target.path, json.dumps(body).encode(), self.target.key)
        return lambda: whole

    def chat(self) -> Make:
        """Turns of chats. One comes back after so many others that nobody writes to it twice at
        once.
        """
        numbers = itertools.count()
        run = time.monotonic_ns()

        def make() -> bytes:
            number = next(numbers)
            block, place = divmod(number, CHATS * TURNS)
            body = {
                "chat_id": f"{run}-{block}-{place % CHATS}",
                "system_prompt": SYSTEM,
                "user_prompt": QUESTION,
                "max_tokens": 16,
            }
            return request("/chat", json.dumps(body).encode(), self.target.key)

        return make


async def completions(target: Target, seconds: float) -> Figures:
    """Whole answers of /v1/chat/completions, from 32 connections."""
    ask = Ask(target)
    return await _measured(
        target, lambda: ask.load().closed(ask.completion(), CONNECTIONS, seconds)
    )


async def chat(target: Target, seconds: float) -> Figures:
    """Turns of /chat, each stored before and after its answer, from 64 connections."""
    ask = Ask(target)
    return await _measured(target, lambda: ask.load().closed(ask.chat(), WRITERS, seconds))


async def chunks(target: Target, seconds: float) -> Figures:
    """Events of streams that come as fast as they are taken, 32 streams of 256 events at once."""
    ask = Ask(target)
    make = ask.completion(events=EVENTS)
    return await _measured(target, lambda: ask.load().closed(make, CONNECTIONS, seconds))


async def paced(target: Target, seconds: float) -> Figures:
    """Events that come one by one: 64 streams with an event every 2 ms each, 32,000 a second. Who
    falls behind finds several at once.
    """
    ask = Ask(target)
    make = ask.completion(events=EVENTS, step_ms=STEP_MS)
    return await _measured(
        target, lambda: ask.load().closed(make, STREAMS, seconds, note_gaps=True)
    )


async def first_event(target: Target, seconds: float, rate: float, seed: int) -> Figures:
    """Time from when a stream was asked for to its first event, at a rate that holds."""
    ask = Ask(target)
    make = ask.completion(events=16)
    figures = await _measured(target, lambda: ask.load().open(make, rate, seconds, seed))
    return {**figures, "rate": rate}


async def streams(target: Target, seconds: float) -> Figures:
    """The most streams of 16 events each in a second, which is what half of capacity is half of."""
    ask = Ask(target)
    make = ask.completion(events=16)
    return await _measured(target, lambda: ask.load().closed(make, CONNECTIONS, seconds))


async def _measured(target: Target, load: Callable[[], Awaitable[Tally]]) -> Figures:
    before, begun = target.cpu_s(), time.perf_counter()
    tally = await load()
    cpu_s, took = target.cpu_s() - before, time.perf_counter() - begun
    good = tally.good
    gaps = [1000 * gap for answer in good for gap in answer.gaps]
    figures = {
        "requests": float(len(tally.answers)),
        "failed": float(sum(tally.failures().values())),
        "per_s": tally.per_second,
        "per_cpu_s": len(good) / cpu_s if cpu_s else 0.0,
        "cpu_share": cpu_s / took,
        "cpu_ms": 1000 * cpu_s / max(len(good), 1),
        **{f"latency_{name}": value for name, value in tally.spread_ms(_whole).items()},
        **{f"first_{name}": value for name, value in tally.spread_ms(_first).items()},
    }
    if tally.events:
        figures |= {
            "events_per_s": tally.events / took,
            "events_per_cpu_s": tally.events / cpu_s if cpu_s else 0.0,
        }
    if gaps:
        figures |= {f"gap_p{share}_ms": percentile(gaps, share) for share in (50, 99)}
    return figures


def _whole(answer: Answer) -> float:
    return answer.ended - answer.due


def _first(answer: Answer) -> float:
    return answer.first - answer.sent
