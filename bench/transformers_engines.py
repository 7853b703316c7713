"""transformers' own three ways to generate: one by one, padded batches, continuous batching.

They return whole answers, so the times of single tokens are taken inside. Greedy only.
"""

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from bench.engines import Engine
from bench.metrics import Timing
from bench.model_folder import model_folder
from bench.spec import NotForThis
from bench.workloads import Request, Workload

PAD = 0
NO_END = -1
"""An end token that no model makes."""


class Clock(StoppingCriteria):
    """Asked after every step, it notes when that was, and never stops anything."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.steps.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Transformers(Engine):
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        folder = self.given.get("model") or model_folder()
        device = self.given.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, self.given.get("dtype", "float32"))
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
        self.facts = {"dtype": str(dtype).removeprefix("torch."), "device": device}
        yield

    async def run(self, workload: Workload) -> tuple[list[Timing], float]:
        if any(request.sampling for request in workload.requests):
            raise NotForThis("measured with greedy requests only")
        if any(request.after_tokens is not None for request in workload.requests):
            raise NotForThis("nothing can be sent while it generates")
        with torch.inference_mode():
            return await asyncio.to_thread(self.generate, workload)

    @abstractmethod
    def generate(self, workload: Workload) -> tuple[list[Timing], float]: ...


class OneByOne(Transformers):
    def generate(self, workload: Workload) -> tuple[list[Timing], float]:
        return batches(self.model, workload, 1)


class Padded(Transformers):
    def generate(self, workload: Workload) -> tuple[list[Timing], float]:
        return batches(self.model, workload, int(self.given.get("batch", workload.concurrency)))


def batches(model: Any, workload: Workload, size: int) -> tuple[list[Timing], float]:
    started = time.perf_counter()
    timings: list[Timing] = []
    for first in range(0, len(workload.requests), size):
        timings += one_batch(model, workload.requests[first : first + size], started)
    return timings, time.perf_counter() - started


def one_batch(model: Any, requests: tuple[Request, ...], started: float) -> list[Timing]:
    """Every row is computed until the longest answer is done; only what was asked for counts."""
    width = max(len(request.prompt) for request in requests)
    ids = torch.full((len(requests), width), PAD)
    mask = torch.zeros((len(requests), width), dtype=torch.long)
    for row, request in enumerate(requests):
        ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask[row, width - len(request.prompt) :] = 1
    clock = Clock()
    longest = max(request.max_tokens for request in requests)
    sent = time.perf_counter() - started
    model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=GenerationConfig(
            max_new_tokens=longest, do_sample=False, pad_token_id=PAD, eos_token_id=None
        ),
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    assert len(clock.steps) == longest, "no answer ended early"
    return [
        Timing(
            scheduled_s=0.0,
            sent_s=sent,
            pieces_s=[step - started for step in clock.steps[: request.max_tokens]],
            ended_s=clock.steps[request.max_tokens - 1] - started,
            prompt_tokens=len(request.prompt),
            output_tokens=request.max_tokens,
            tag=request.tag,
        )
        for request in requests
    ]


class ContinuousBatching(Transformers):
    def generate(self, workload: Workload) -> tuple[list[Timing], float]:
        from transformers import ContinuousBatchingConfig

        page = int(self.given.get("page_size", 256))
        in_use = workload.concurrency * (-(-workload.longest // page) + 1)
        config = ContinuousBatchingConfig(
            page_size=page,
            # Stated, because it takes nearly all memory of a CPU machine otherwise.
            num_blocks=int(self.given.get("blocks", in_use + 8)),
            max_batch_tokens=int(self.given.get("max_batch_tokens", 512)),
            allow_block_sharing=bool(self.given.get("prefix_cache", True)),
            max_requests_per_batch=max(32, workload.concurrency),
        )
        generation = GenerationConfig(do_sample=False, eos_token_id=NO_END, pad_token_id=PAD)
        with self.model.continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=config, timeout=5
        ) as manager:
            return self._feed(manager, workload)

    def _feed(self, manager: Any, workload: Workload) -> tuple[list[Timing], float]:
        started = time.perf_counter()
        waiting = list(range(len(workload.requests)))
        timings = [Timing(scheduled_s=0.0, tag=request.tag) for request in workload.requests]
        running = 0
        ended: set[int] = set()
        while len(ended) < len(timings):
            for index in list(waiting):
                request = workload.requests[index]
                if running < workload.concurrency and ended.issuperset(request.after):
                    waiting.remove(index)
                    running += 1
                    timings[index].sent_s = time.perf_counter() - started
                    manager.add_request(
                        list(request.prompt),
                        request_id=str(index),
                        max_new_tokens=request.max_tokens,
                        record_timestamps=True,
                        eos_token_id=NO_END,
                    )
            result = manager.get_result(timeout=1)
            if result is None:
                if not manager.is_running():
                    raise RuntimeError("its generation thread has ended")
                continue
            if result.is_finished():
                running -= 1
                index = int(result.request_id)
                ended.add(index)
                _fill(timings[index], result, started)
        return timings, time.perf_counter() - started


def _fill(timing: Timing, result: Any, started: float) -> None:
    timing.error = result.error or ""
    timing.pieces_s = [stamp - started for stamp in result.timestamps or ()]
    timing.ended_s = timing.pieces_s[-1] if timing.pieces_s else time.perf_counter() - started
    timing.prompt_tokens = len(result.prompt_ids)
    timing.output_tokens = len(result.generated_tokens)
