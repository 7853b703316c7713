"""One step after another: aborts and deadlines, schedule, run, update, outputs.

Owns the requests from the moment they are added until they end, and the scope of each failure:
a bad row ends one request, a failed step ends the requests of its batch, three failed steps in
a row end the engine. Knows neither torch nor threads: the model runner is behind a protocol, and
one thread calls everything here.
"""

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from model.engine.admission import Admission
from model.engine.config import EngineInfo, EngineStats
from model.engine.errors import EngineDead, EngineError, StepFailed
from model.engine.request import (
    FinishReason,
    Request,
    RequestOutput,
    SampledToken,
)
from model.engine.scheduler import Batch, Scheduler

logger = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
MIN_MEASURED_STEPS = 16
"""Full steps before their speed is trusted."""
SPEED_MARGIN = 2.0
"""A prefill may be so many times as fast as the fastest step seen."""
STEP_TOKEN_BUCKETS = (*(float(2**i) for i in range(14)), float("inf"))


class ModelRunner(Protocol):
    def run(self, batch: Batch) -> Sequence[SampledToken | EngineError]:
        """Computes the batch; one result for each scheduled request that samples, in order."""


@dataclass(slots=True)
class Counters:
    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0


class Engine:
    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        admission: Admission,
        info: EngineInfo,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = admission
        self.info = info
        self.runner = runner
        self._scheduler = scheduler
        self._clock = clock
        self._requests: dict[str, Request] = {}
        self._aborted: dict[Request, FinishReason] = {}
        self._failed_steps = 0
        self._counters = Counters()
        self._cancelled: Counter[str] = Counter(queue=0, prefill=0, decode=0)
        self._step_tokens = [0] * len(STEP_TOKEN_BUCKETS)
        self._step_tokens_sum = 0
        self._full_steps = 0
        self._fastest = 0.0
        """Tokens per second of the fastest full step."""

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

    def add(self, request: Request) -> None:
        """Takes a request that admission has let in."""
        self._requests[request.request_id] = request
        self._scheduler.add(request)

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """Takes effect at the start of the next step; unknown ids are ignored. With STOP, the
        caller has what it wants, and the request does not count as cancelled."""
        if (request := self._requests.get(request_id)) is not None:
            self._aborted.setdefault(request, reason)

    def step(self) -> list[RequestOutput]:
        now = self._clock()
        outputs = self._end_cancelled(now)
        batch = self._scheduler.schedule()
        self._release_started(batch, now)
        if batch:
            try:
                results = self.runner.run(batch)
            except Exception as error:  # noqa: BLE001 - whatever the model raises is this step's failure
                outputs += self._fail(batch, error)
            else:
                self._measure(batch, self._clock() - now)
                outputs += self._update(batch, results)
        return outputs

    def stats(self) -> EngineStats:
        blocks = self._scheduler.block_manager
        total = 0
        histogram = []
        for bound, count in zip(STEP_TOKEN_BUCKETS, self._step_tokens, strict=True):
            total += count
            histogram.append((bound, total))
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            num_waiting_tokens=sum(r.max_num_tokens for r in self._scheduler.waiting),
            num_running_tokens=sum(r.max_num_tokens for r in self._scheduler.running),
            kv_blocks_total=blocks.num_blocks,
            kv_blocks_used=blocks.num_used,
            num_preemptions=self._scheduler.num_preemptions,
            steps=self._counters.steps,
            prompt_tokens_total=self._counters.prompt_tokens,
            generation_tokens_total=self._counters.generation_tokens,
            prefix_cache_queries_total=self._counters.prefix_cache_queries,
            prefix_cache_hits_total=self._counters.prefix_cache_hits,
            cancelled=dict(self._cancelled),
            step_batch_tokens=tuple(histogram),
            step_batch_tokens_sum=self._step_tokens_sum,
        )

    def _end_cancelled(self, now: float) -> list[RequestOutput]:
        aborted, self._aborted = self._aborted, {}
        outputs = [self._cancel(r, why, now) for r, why in aborted.items() if not r.finished]
        for late in (self._scheduler.overdue, self._hopeless):
            outputs += [self._cancel(r, FinishReason.DEADLINE, now) for r in late(now)]
        return outputs

    def _hopeless(self, now: float) -> list[Request]:
        """Waiting requests whose deadline cannot be met even by the fastest prefill. An engine
        with nothing to run tries all the same: it harms nobody, and its speed is measured anew."""
        if self._full_steps < MIN_MEASURED_STEPS or not self._scheduler.running:
            return []
        speed = self._fastest * SPEED_MARGIN
        return [
            r
            for r in self._scheduler.waiting
            if r.scheduled_at is None
            and r.deadline is not None
            and self._computes_more_than(speed * (r.deadline - now), r)
        ]

    def _computes_more_than(self, num_tokens: float, request: Request) -> bool:
        """Before its first token; the cache is asked only where it can make the difference."""
        excess = request.num_prompt_tokens - num_tokens
        return excess > 0 and self._scheduler.block_manager.num_cached_tokens(request) < excess

    def _measure(self, batch: Batch, seconds: float) -> None:
        if seconds > 0:
            decodes = batch.num_decodes
            self._scheduler.pace.observe(decodes, batch.num_tokens - decodes, seconds)
        # Only a full step shows the speed of a prefill: smaller ones are slower for each token.
        if batch.num_tokens >= self.info.max_num_batched_tokens and seconds > 0:
            self._full_steps += 1
            self._fastest = max(self._fastest, batch.num_tokens / seconds)

    def _cancel(self, request: Request, reason: FinishReason, now: float) -> RequestOutput:
        if reason is not FinishReason.STOP:
            stage = "decode" if request.output_token_ids else "prefill"
            self._cancelled[stage if request.scheduled_at is not None else "queue"] += 1
        self._finish(request, reason, now)
        return request.output(now)

    def _finish(
        self, request: Request, reason: FinishReason, now: float, error: EngineError | None = None
    ) -> None:
        if request.scheduled_at is None:
            self.admission.release(request)
        self._scheduler.finish(request, reason, now, error)
        del self._requests[request.request_id]

    def _release_started(self, batch: Batch, now: float) -> None:
        for scheduled in batch.scheduled:
            request = scheduled.request
            if request.scheduled_at is None:
                request.scheduled_at = now
                self.admission.release(request)
                if self.info.prefix_cache:
                    self._counters.prefix_cache_queries += request.num_prompt_tokens
                    self._counters.prefix_cache_hits += request.num_cached_tokens

    def _update(
        self, batch: Batch, results: Sequence[SampledToken | EngineError]
    ) -> list[RequestOutput]:
        now = self._clock()
        self._failed_steps = 0
        self._count(batch)
        sampling = [s.request for s in batch.scheduled if s.samples]
        for scheduled in batch.scheduled:
            scheduled.request.num_computed_tokens += scheduled.num_tokens
        outputs = []
        for request, result in zip(sampling, results, strict=True):
            if request.first_token_at is None:
                request.first_token_at = now
                request.batch_size = len(batch.scheduled)
                self._counters.prompt_tokens += request.num_prompt_tokens
            if isinstance(result, EngineError):
                self._finish(request, FinishReason.ERROR, now, result)
                outputs.append(request.output(now))
            else:
                # Not before: keys and values that are not numbers show in what follows them.
                self._scheduler.block_manager.publish(request)
                outputs.append(self._append(request, result, now))
        return outputs

    def _append(self, request: Request, sampled: SampledToken, now: float) -> RequestOutput:
        if sampled.token_id in request.stop_token_ids:
            self._finish(request, FinishReason.STOP, now)
            return request.output(now)
        self._counters.generation_tokens += 1
        request.output_token_ids.append(sampled.token_id)
        if len(request.output_token_ids) == request.params.max_tokens:
            self._finish(request, FinishReason.LENGTH, now)
        logprobs = None if sampled.logprob is None else (sampled.logprob,)
        return request.output(now, (sampled.token_id,), logprobs)

    def _fail(self, batch: Batch, error: Exception) -> list[RequestOutput]:
        self._failed_steps += 1
        logger.error("step failed (%d in a row)", self._failed_steps, exc_info=error)
        if self._failed_steps == MAX_FAILED_STEPS:
            raise EngineDead(f"{MAX_FAILED_STEPS} steps in a row have failed") from error
        now = self._clock()
        outputs = []
        for scheduled in batch.scheduled:
            self._finish(scheduled.request, FinishReason.ERROR, now, StepFailed())
            outputs.append(scheduled.request.output(now))
        return outputs

    def _count(self, batch: Batch) -> None:
        tokens = batch.num_tokens
        self._counters.steps += 1
        self._step_tokens[bisect_left(STEP_TOKEN_BUCKETS, tokens)] += 1
        self._step_tokens_sum += tokens
