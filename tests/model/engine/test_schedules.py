"""Ten thousand random schedules, each held against the run of every request alone.

Slots hold what a real cache holds: a token's key depends on the token, its position and all that
came before it, and garbage stays garbage for whoever reads it. Requests begin alike, arrive at
any time, under several salts, are aborted, late, poisoned or in a step that fails half-way.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest

from model.engine import FinishReason, SamplingParams
from model.engine.errors import EngineError, StepFailed
from model.engine.pace import LEAST_CHUNK
from model.engine.request import Request, SampledToken
from model.engine.scheduler import Batch
from tests.model.engine.fakes import VOCABULARY, Clock, Harness, make_info

SCHEDULES = 10_000
PARTS = 10
BLOCK = 2
LAST_ARRIVAL = 8
START = 1
STEP_S, TOKEN_S = 0.02, 0.2
"""Of a step, and of each token of a prompt: slow enough for the pace to hold prompts back."""

Key = tuple[int, int, str | None]
"""A hash of the token and all before it, its position, the salt of who wrote it."""


class Broken(BaseException):
    """Not an Exception: the engine must not take it for a step that failed."""


def hold(truth: bool, otherwise: str) -> None:
    if not truth:
        raise Broken(otherwise)


def extend(before: int, token: int) -> int:
    return hash((before, token))


def alone(prompt: Sequence[int], max_tokens: int) -> list[int]:
    """Tokens of a request that has the model to itself."""
    state, tokens = START, []
    for token in prompt:
        state = extend(state, token)
    for _ in range(max_tokens):
        tokens.append(state % VOCABULARY)
        state = extend(state, tokens[-1])
    return tokens


@dataclass(frozen=True)
class Plan:
    arrival: int
    prompt: list[int]
    max_tokens: int
    salt: str | None
    abort_at: int | None
    deadline: int | None
    poisoned_from: int | None
    """The position from which on this request's keys are no numbers."""


class SimulatedRunner:
    """Computes keys from the keys before them, read through the request's blocks."""

    def __init__(
        self, clock: Clock, poisoned: dict[str, int], failing: set[int], budget: int
    ) -> None:
        self._clock = clock
        self._budget = budget
        self._poisoned = poisoned
        self._failing = failing
        self._steps = 0
        self._slots: dict[int, Key | None] = {}
        self.batches: list[Batch] = []
        self.held_back = 0
        """Steps with room left for a prompt that was not given it."""

    def run(self, batch: Batch) -> Sequence[SampledToken | EngineError]:
        self._steps += 1
        prefill_tokens = batch.num_tokens - batch.num_decodes
        self._clock.now += STEP_S + TOKEN_S * prefill_tokens
        self.batches.append(batch)
        self.held_back += self._leaves_some_out(batch)
        written: set[int] = set()
        for s in batch.scheduled:
            written |= self._write(s.request, s.num_tokens)
        hold(len(written) == batch.num_tokens, "two requests write to one slot")
        if self._steps in self._failing:
            self._slots |= dict.fromkeys(written)
            raise RuntimeError("out of memory")
        return [self._sample(s.request) for s in batch.scheduled if s.samples]

    def _leaves_some_out(self, batch: Batch) -> bool:
        whole = all(s.samples for s in batch.scheduled)
        return not whole and batch.num_tokens < self._budget

    def _write(self, request: Request, num_tokens: int) -> set[int]:
        start = request.num_computed_tokens
        state = self._read(request, start - 1) if start else START
        poisoned_from = self._poisoned.get(request.request_id, 10**9)
        slots = set()
        for position in range(start, start + num_tokens):
            (token,) = request.token_ids(position, position + 1)
            slots.add(slot := slot_of(request, position))
            state = None if state is None or position >= poisoned_from else extend(state, token)
            self._slots[slot] = None if state is None else (state, position, request.cache_salt)
        return slots

    def _read(self, request: Request, position: int) -> int | None:
        key = self._slots[slot_of(request, position)]
        if key is None:
            return None
        hold(key[1:] == (position, request.cache_salt), "another one's block")
        return key[0]

    def _sample(self, request: Request) -> SampledToken | EngineError:
        state = START
        for position, token in enumerate(request.token_ids(0, request.num_tokens)):
            found = self._read(request, position)
            if found is None:
                return StepFailed("no usable numbers")
            state = extend(state, token)
            hold(found == state, "not this request's context")
        return SampledToken(state % VOCABULARY)


def slot_of(request: Request, position: int) -> int:
    return request.block_ids[position // BLOCK] * BLOCK + position % BLOCK


def make_plans(random: Random) -> dict[str, Plan]:
    beginnings = [[random.randrange(3) for _ in range(8)] for _ in range(2)]

    def maybe(share: float, low: int, high: int) -> int | None:
        return random.randint(low, high) if random.random() < share else None

    burst = random.randint(0, LAST_ARRIVAL)

    def plan() -> Plan:
        prompt = random.choice(beginnings)[: random.randint(1, 8)]
        prompt += [random.randrange(3) for _ in range(random.randint(0, 4))]
        return Plan(
            arrival=random.choice([random.randint(0, LAST_ARRIVAL), burst]),
            prompt=prompt,
            max_tokens=random.randint(1, 8),
            salt=random.choice([None, None, "a", "b"]),
            abort_at=maybe(0.1, 0, 15),
            deadline=maybe(0.1, 0, 15),
            poisoned_from=maybe(0.1, 0, 14),
        )

    return {f"r{i}": plan() for i in range(random.randint(3, 8))}


@dataclass(frozen=True)
class Played:
    harness: Harness
    plans: dict[str, Plan]
    failing: set[int]
    """Steps that fail half-way."""
    held_back: int


def play(seed: int) -> Played:
    random = Random(seed)
    plans = make_plans(random)
    max_num_seqs = random.randint(1, 6)
    budget = random.choice([random.randint(max_num_seqs, 12), 40])
    harness = Harness(
        make_info(
            block_size=BLOCK,
            num_blocks=random.choice([10, 10, 12, 16, 30, 30]),
            max_num_seqs=max_num_seqs,
            budget=budget,
            prefix_cache=random.random() < 0.9,
        )
    )
    # What it would learn in a longer run.
    harness.scheduler.pace.observe(1, 0, STEP_S)
    harness.scheduler.pace.observe(0, LEAST_CHUNK, LEAST_CHUNK * TOKEN_S)
    poisoned = {n: p.poisoned_from for n, p in plans.items() if p.poisoned_from is not None}
    failing = {random.randint(1, 20)} if random.random() < 0.2 else set[int]()
    runner = SimulatedRunner(harness.clock, poisoned, failing, budget)
    harness.engine.runner = runner
    start = harness.clock.now
    # The oldest request gets a token at least in every step, so that their sum is enough.
    bound = LAST_ARRIVAL + sum(len(p.prompt) + p.max_tokens for p in plans.values())
    for step in range(bound + 1):
        for name, plan in plans.items():
            if plan.arrival == step:
                harness.submit(
                    name,
                    plan.prompt,
                    SamplingParams(max_tokens=plan.max_tokens, ignore_eos=True),
                    deadline=None if plan.deadline is None else start + plan.deadline,
                    cache_salt=plan.salt,
                )
            if plan.abort_at == step:
                harness.engine.abort(name)
        if step > LAST_ARRIVAL and not harness.engine.has_requests:
            break
        harness.step()
        check_blocks(harness)
    for batch in runner.batches:
        assert batch.num_tokens <= harness.info.max_num_batched_tokens
        assert len(batch.scheduled) <= max_num_seqs
    harness.assert_nothing_left()
    return Played(harness, plans, failing, runner.held_back)


def check_blocks(harness: Harness) -> None:
    running = harness.scheduler.running
    assert len(running) <= harness.info.max_num_seqs
    holders = Counter(block for request in running for block in request.block_ids)
    assert not any(request.block_ids for request in harness.scheduler.waiting)
    assert harness.blocks.num_used == len(holders)
    for block, count in enumerate(harness.blocks.ref_counts):
        assert count == holders[block]
    for request in running:
        # What is still to be computed goes where nobody else reads.
        own = request.block_ids[request.num_computed_tokens // BLOCK :]
        assert all(holders[block] == 1 for block in own)


def check_outputs(played: Played) -> Counter[FinishReason]:
    harness, ends = played.harness, Counter[FinishReason]()
    for name, plan in played.plans.items():
        last, got = harness.outputs[name][-1], harness.tokens(name)
        whole = alone(plan.prompt, plan.max_tokens)
        assert got == whole[: len(got)]
        assert last.finish_reason is not None
        ends[last.finish_reason] += 1
        match last.finish_reason:
            case FinishReason.LENGTH:
                assert got == whole
            case FinishReason.ABORT:
                assert plan.abort_at is not None
            case FinishReason.DEADLINE:
                assert plan.deadline is not None
            case FinishReason.ERROR if str(last.error) == "no usable numbers":
                assert plan.poisoned_from is not None, "a neighbour's garbage"
            case FinishReason.ERROR:
                assert played.failing, "no step was to fail"
        assert last.num_cached_tokens % BLOCK == 0
        assert last.num_cached_tokens < len(plan.prompt)
        assert len({output.num_cached_tokens for output in harness.outputs[name]}) == 1
    cached = [outputs[-1].num_cached_tokens for outputs in harness.outputs.values()]
    assert harness.engine.stats().prefix_cache_hits_total == sum(cached)
    return ends


@pytest.mark.parametrize("part", range(PARTS))
def test_any_schedule_gives_the_tokens_of_a_request_served_alone(
    part: int, caplog: pytest.LogCaptureFixture
) -> None:
    ends: Counter[FinishReason] = Counter()
    preemptions = hits = held_back = 0
    caplog.set_level(logging.CRITICAL, "model.engine")
    for number in range(SCHEDULES // PARTS):
        seed = part * SCHEDULES + number
        try:
            played = play(seed)
            ends += check_outputs(played)
        except (Exception, Broken) as error:
            raise AssertionError(f"schedule {seed}") from error
        stats = played.harness.engine.stats()
        preemptions += stats.num_preemptions
        hits += stats.prefix_cache_hits_total
        held_back += played.held_back
    assert all(ends[reason] > 20 for reason in FinishReason if reason is not FinishReason.STOP)
    assert preemptions > 100
    assert hits > 1000
    assert held_back > 10
