"""What is asked: lists of requests as token ids, the same for every engine, decided by a seed.

Owns the shapes (lengths, order, who waits for whom). Knows no engine and no clock.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 49_152
SPECIAL_IDS = 16
"""The first ids stand for control tokens in `bench/model_folder.py`, and no prompt has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    prompt: tuple[int, ...]
    max_tokens: int
    """Exactly so many come: the end token is ignored."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Empty is greedy; names as in OpenAI's bodies."""
    after: tuple[int, ...] = ()
    """Requests, by index, that this one waits for …"""
    after_tokens: int | None = None
    """… until each has so many tokens; None: until each has ended."""
    tag: str = ""
    """What the report tells this request by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    what: str
    requests: tuple[Request, ...]
    concurrency: int
    """At most so many at once; the others wait at the client, in order."""

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.prompt) for request in self.requests)

    @property
    def output_tokens(self) -> int:
        return sum(request.max_tokens for request in self.requests)

    @property
    def computed_tokens(self) -> int:
        """Through the layers, without a prefix cache: the last token of an answer goes nowhere."""
        return self.prompt_tokens + self.output_tokens - len(self.requests)

    @property
    def longest(self) -> int:
        return max(len(request.prompt) + request.max_tokens for request in self.requests)


def tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(SPECIAL_IDS, VOCABULARY) for _ in range(count))


def uniform(
    name: str,
    *,
    count: int,
    concurrency: int,
    prompt: tuple[int, int] = (32, 256),
    output: tuple[int, int] = (32, 128),
    seed: int = 1,
) -> Workload:
    rng = random.Random(seed)
    lengths = [(rng.randint(*prompt), rng.randint(*output)) for _ in range(count)]
    return Workload(
        name=name,
        what=f"{count} requests, {concurrency} at once, prompts of {prompt[0]}-{prompt[1]} and "
        f"outputs of {output[0]}-{output[1]} tokens, uniform, greedy",
        requests=tuple(Request(prompt=tokens(rng, p), max_tokens=o) for p, o in lengths),
        concurrency=concurrency,
    )


MIXED_SAMPLING: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 50},
    {"temperature": 0.7, "top_p": 0.95, "top_k": 40, "repetition_penalty": 1.1},
)


def sampled() -> Workload:
    """W1 where three of four requests sample, each in its own way and with its own seed."""
    base = uniform("w1-sampled", count=32, concurrency=32)
    requests = []
    for index, request in enumerate(base.requests):
        sampling = MIXED_SAMPLING[index % len(MIXED_SAMPLING)]
        requests.append(
            Request(
                prompt=request.prompt,
                max_tokens=request.max_tokens,
                sampling={**sampling, "seed": index} if sampling else {},
            )
        )
    what = base.what.replace("greedy", "three of four sample (temperature, top-p, top-k, penalty)")
    return Workload(name=base.name, what=what, requests=tuple(requests), concurrency=32)


def second_turn(*, history: int = 1024, new: int = 32, pairs: int = 4) -> Workload:
    """One chat after the other: a cold turn, then a turn that repeats all of it and adds a little.

    What the second repeats is the prompt of the first alone, which is known beforehand.
    """
    rng = random.Random(1)
    requests: list[Request] = []
    for index in range(pairs):
        past = tokens(rng, history)
        before = (2 * index - 1,) if index else ()
        requests.append(Request(prompt=past, max_tokens=2, after=before, tag="cold"))
        again = past + tokens(rng, new)
        requests.append(Request(prompt=again, max_tokens=16, after=(2 * index,), tag="second turn"))
    return Workload(
        name="second-turn",
        what=f"{pairs} chats, one at a time: {history} tokens, then the same and {new} more",
        requests=tuple(requests),
        concurrency=1,
    )


def long_arrival(*, streams: int = 32, prompt: int = 1024) -> Workload:
    """A long prompt comes while others are being answered: how long do they stand still?"""
    rng = random.Random(1)
    running = [Request(prompt=tokens(rng, 64), max_tokens=96, tag="stream") for _ in range(streams)]
    late = Request(
        prompt=tokens(rng, prompt),
        max_tokens=8,
        after=tuple(range(streams)),
        after_tokens=24,
        tag="long prompt",
    )
    return Workload(
        name="long-arrival",
        what=f"{streams} streams of 64 + 96 tokens; at the 24th of each comes a prompt of {prompt}",
        requests=(*running, late),
        concurrency=streams + 1,
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "w1": lambda: uniform("w1", count=32, concurrency=32),
    # Few requests, or one at a time would take minutes; as long as W1's first eight.
    "w1-c1": lambda: uniform("w1-c1", count=8, concurrency=1),
    "w1-c8": lambda: uniform("w1-c8", count=32, concurrency=8),
    "w1-c128": lambda: uniform("w1-c128", count=128, concurrency=128),
    "w1-sampled": sampled,
    "second-turn": second_turn,
    "long-arrival": long_arrival,
    # For trying the bench itself.
    "tiny": lambda: uniform("tiny", count=4, concurrency=4, prompt=(4, 16), output=(4, 8)),
    "tiny-c1": lambda: uniform("tiny-c1", count=2, concurrency=1, prompt=(4, 16), output=(4, 8)),
    "tiny-c2": lambda: uniform("tiny-c2", count=4, concurrency=2, prompt=(4, 16), output=(4, 8)),
}


def warm_up() -> Workload:
    """Touches every path once, with other tokens than the measured ones."""
    return uniform("warm-up", count=4, concurrency=4, prompt=(16, 64), output=(4, 8), seed=99)
