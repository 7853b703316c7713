"""Who runs in the next step, and with how many tokens.

Owns the waiting and the running queue and every change of a request's status. Decodes come
first, one token each; what is left of the token budget goes to prefill in chunks, oldest
request first, but no more than the pace allows. Who starts next, the fair queue says. When blocks
run out, the youngest running request is preempted: it gives its blocks back, keeps its tokens and
is prefilled again, before anybody else starts, as far as the cache does not hold them still. The
running ones stay in the order in which they started, so the oldest can always take what it needs
and nobody starves.

Knows no torch and does not compute anything. Engine thread only.
"""

from collections import deque
from dataclasses import dataclass

from model.engine.block_manager import BlockManager
from model.engine.errors import EngineError
from model.engine.fair_queue import FairQueue
from model.engine.pace import Pace
from model.engine.request import FinishReason, Request, RequestStatus


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    request: Request
    num_tokens: int
    samples: bool
    """Whether this step reaches the last known token, so that the next one can be picked."""


@dataclass(frozen=True, slots=True)
class Batch:
    scheduled: tuple[ScheduledRequest, ...]

    @property
    def num_tokens(self) -> int:
        return sum(s.num_tokens for s in self.scheduled)

    @property
    def num_decodes(self) -> int:
        return sum(not _in_prefill(s.request) for s in self.scheduled)

    def __bool__(self) -> bool:
        return bool(self.scheduled)


class Scheduler:
    def __init__(
        self,
        block_manager: BlockManager,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        pace: Pace,
    ) -> None:
        self.block_manager = block_manager
        self.pace = pace
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting = FairQueue()
        self.running: deque[Request] = deque()
        self.num_preemptions = 0

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def overdue(self, now: float) -> list[Request]:
        return [
            r
            for queue in (self.waiting, self.running)
            for r in queue
            if r.deadline is not None and r.deadline <= now
        ]

    def finish(
        self, request: Request, reason: FinishReason, now: float, error: EngineError | None = None
    ) -> None:
        """The one place where a request ends; a second call changes nothing."""
        if request.finished:
            return
        queue = self.waiting if request.status is RequestStatus.WAITING else self.running
        queue.remove(request)
        if error is not None:
            # Whatever it was that went wrong, the next one with this prefix computes it anew.
            self.block_manager.forget(request)
        self.block_manager.free(request)
        request.status = RequestStatus.FINISHED
        request.finish_reason = reason
        request.finished_at = now
        request.error = error
        self.waiting.keep_only(iter(self.running))

    def schedule(self) -> Batch:
        budget = self.max_num_batched_tokens
        scheduled = self._schedule_decodes()
        budget = min(budget - len(scheduled), self._prefill_budget(len(scheduled)))
        for request in self.running:
            if budget > 0 and _in_prefill(request):
                budget -= self._schedule_chunk(request, budget, scheduled)
        while budget > 0 and self.waiting and self._can_start(self.waiting.next()):
            budget -= self._schedule_chunk(self._start(), budget, scheduled)
        return Batch(tuple(scheduled))

    def _prefill_budget(self, decodes: int) -> int:
        coming = min(len(self.waiting), self.max_num_seqs - len(self.running))
        tokens = self.pace.prefill_tokens(decodes, coming + sum(map(_in_prefill, self.running)))
        return self.max_num_batched_tokens if tokens is None else tokens

    def _schedule_decodes(self) -> list[ScheduledRequest]:
        scheduled = []
        for request in list(self.running):
            # A request further up may have preempted this one.
            decoding = request.status is RequestStatus.RUNNING and not _in_prefill(request)
            if decoding and self._make_room(request):
                self.block_manager.append(request)
                self.waiting.give(request, 1)
                scheduled.append(ScheduledRequest(request, 1, samples=True))
        return scheduled

    def _make_room(self, request: Request) -> bool:
        """Preempts younger requests until the newest token fits. The youngest of all waits in
        its place instead, with what it holds: an older one takes it if it needs it."""
        while not self.block_manager.can_append(request):
            if self.running[-1] is request:
                return False
            self._preempt(self.running.pop())
        return True

    def _preempt(self, request: Request) -> None:
        self.block_manager.free(request)
        request.num_computed_tokens = 0
        request.status = RequestStatus.WAITING
        self.waiting.put_back(request)
        self.num_preemptions += 1

    def _schedule_chunk(
        self, request: Request, budget: int, scheduled: list[ScheduledRequest]
    ) -> int:
        num_tokens = min(request.num_uncomputed_tokens, budget)
        samples = num_tokens == request.num_uncomputed_tokens
        self.waiting.give(request, num_tokens)
        scheduled.append(ScheduledRequest(request, num_tokens, samples))
        return num_tokens

    def _can_start(self, request: Request) -> bool:
        # One free block for each running request, or it would be preempted as soon as it has begun.
        return len(self.running) < self.max_num_seqs and self.block_manager.can_allocate(
            request, headroom=len(self.running)
        )

    def _start(self) -> Request:
        request = self.waiting.pop()
        request.num_computed_tokens = self.block_manager.allocate(request)
        if request.scheduled_at is None:
            request.num_cached_tokens = request.num_computed_tokens
        request.status = RequestStatus.RUNNING
        self.running.append(request)
        return request


def _in_prefill(request: Request) -> bool:
    return request.num_uncomputed_tokens > 1 or not request.output_token_ids
