"""A model runner without a model, and small builders around it.

The fake keeps a real "cache": a token per slot. What it answers is a function of the tokens that
it reads back through a request's blocks, so a scheduler that mixes up blocks, chunks or positions
changes the answer.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

from model.engine.admission import Admission, new_request
from model.engine.block_manager import BlockManager
from model.engine.config import EngineInfo
from model.engine.engine import Engine
from model.engine.errors import EngineError, StepFailed
from model.engine.pace import Pace
from model.engine.request import Request, RequestOutput, SampledToken
from model.engine.sampling_params import SamplingParams
from model.engine.scheduler import Batch, Scheduler

VOCABULARY = 50
EOS = 0


def next_token(context: Sequence[int]) -> int:
    return crc32(bytes(context)) % VOCABULARY


def expected_tokens(prompt: Sequence[int], params: SamplingParams) -> list[int]:
    """What a request gets when it is served alone."""
    context = list(prompt)
    while len(context) - len(prompt) < params.max_tokens:
        token = next_token(context)
        if token == EOS and not params.ignore_eos:
            break
        context.append(token)
    return context[len(prompt) :]


class FakeModelRunner:
    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.batches: list[dict[str, int]] = []
        self.poisoned: set[str] = set()
        self.before_run: Callable[[Batch], None] = lambda batch: None
        self._slots: dict[int, int] = {}

    def run(self, batch: Batch) -> Sequence[SampledToken | EngineError]:
        self.batches.append({s.request.request_id: s.num_tokens for s in batch.scheduled})
        self.before_run(batch)
        results: list[SampledToken | EngineError] = []
        for scheduled in batch.scheduled:
            request = scheduled.request
            start = request.num_computed_tokens
            end = start + scheduled.num_tokens
            for position, token in zip(
                range(start, end), request.token_ids(start, end), strict=True
            ):
                self._slots[self._slot(request, position)] = token
            if scheduled.samples:
                context = [self._slots[self._slot(request, p)] for p in range(end)]
                results.append(self._answer(request, context))
        return results

    def _answer(self, request: Request, context: list[int]) -> SampledToken | EngineError:
        if request.request_id in self.poisoned:
            return StepFailed("poisoned")
        return SampledToken(next_token(context))

    def _slot(self, request: Request, position: int) -> int:
        block = request.block_ids[position // self.block_size]
        return block * self.block_size + position % self.block_size


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_info(
    *,
    num_blocks: int = 32,
    block_size: int = 4,
    max_num_seqs: int = 8,
    budget: int = 16,
    max_queued_requests: int = 1000,
    max_queued_tokens: int = 100_000,
    watchdog_s: float = 30.0,
    prefix_cache: bool = True,
) -> EngineInfo:
    return EngineInfo(
        model_id="fake",
        architecture="Fake",
        device="cpu",
        dtype="float32",
        kernels="plain",
        max_model_len=num_blocks * block_size,
        vocab_size=VOCABULARY,
        eos_token_ids=(EOS,),
        num_kv_blocks=num_blocks,
        block_size=block_size,
        kv_bytes_per_token=1,
        threads=1,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        max_queued_requests=max_queued_requests,
        max_queued_tokens=max_queued_tokens,
        watchdog_s=watchdog_s,
        prefix_cache=prefix_cache,
    )


class Harness:
    """An engine with a fake runner, fed and read as the engine thread does it."""

    def __init__(self, info: EngineInfo | None = None) -> None:
        self.info = info or make_info()
        self.clock = Clock()
        self.runner = FakeModelRunner(self.info.block_size)
        self.blocks = BlockManager(
            self.info.num_kv_blocks, self.info.block_size, prefix_cache=self.info.prefix_cache
        )
        self.scheduler = Scheduler(
            self.blocks,
            max_num_seqs=self.info.max_num_seqs,
            max_num_batched_tokens=self.info.max_num_batched_tokens,
            pace=Pace(),
        )
        self.admission = Admission(
            max_queued_requests=self.info.max_queued_requests,
            max_queued_tokens=self.info.max_queued_tokens,
            clock=self.clock,
        )
        self.engine = Engine(
            self.runner, self.scheduler, self.admission, self.info, clock=self.clock
        )
        self.requests: dict[str, Request] = {}
        self.outputs: dict[str, list[RequestOutput]] = {}

    def submit(
        self,
        request_id: str,
        prompt: Sequence[int] = (1, 2, 3),
        params: SamplingParams | None = None,
        *,
        deadline: float | None = None,
        cache_salt: str | None = None,
        tenant: str | None = None,
    ) -> Request:
        request = new_request(
            request_id,
            prompt,
            params or SamplingParams(max_tokens=4, ignore_eos=True),
            self.info,
            deadline=deadline,
            cache_salt=cache_salt,
            tenant=tenant,
            now=self.clock.now,
        )
        self.admission.admit(request)
        self.requests[request_id] = request
        self.outputs[request_id] = []
        self.engine.add(request)
        return request

    def step(self) -> list[RequestOutput]:
        outputs = self.engine.step()
        for output in outputs:
            self.outputs[output.request_id].append(output)
        return outputs

    def run(self, max_steps: int = 10_000) -> None:
        for _ in range(max_steps):
            if not self.engine.has_requests:
                return
            self.step()
        raise AssertionError(f"still busy after {max_steps} steps")

    def tokens(self, request_id: str) -> list[int]:
        return [t for output in self.outputs[request_id] for t in output.token_ids]

    def assert_nothing_left(self) -> None:
        assert self.blocks.num_used == 0
        assert not self.scheduler.waiting
        assert not self.scheduler.running
        assert not self.engine.has_requests
        assert self.admission.num_queued_requests == 0
        assert self.admission.num_queued_tokens == 0
        stats = self.engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
        for outputs in self.outputs.values():
            assert [o.finish_reason is not None for o in outputs] == [False] * (
                len(outputs) - 1
            ) + [True]
