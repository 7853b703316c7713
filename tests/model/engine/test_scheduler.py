from model.engine import FinishReason, SamplingParams
from model.engine.block_manager import BlockManager
from model.engine.errors import StepFailed
from model.engine.pace import Pace
from model.engine.request import Request, RequestStatus
from model.engine.scheduler import Batch, Scheduler


def make_scheduler(
    *, num_blocks: int = 100, block_size: int = 4, max_num_seqs: int = 8, budget: int = 16
) -> Scheduler:
    blocks = BlockManager(num_blocks, block_size)
    return Scheduler(blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget, pace=Pace())


def add(scheduler: Scheduler, request_id: str, prompt_len: int) -> Request:
    request = Request(request_id, (1,) * prompt_len, SamplingParams(max_tokens=1000), 0, 0.0)
    scheduler.add(request)
    return request


def compute(scheduler: Scheduler, batch: Batch) -> None:
    """What the engine does after a step: one token for everybody who samples."""
    for scheduled in batch.scheduled:
        scheduled.request.num_computed_tokens += scheduled.num_tokens
        if scheduled.samples:
            scheduler.block_manager.publish(scheduled.request)
            scheduled.request.output_token_ids.append(1)


def sizes(batch: Batch) -> dict[str, int]:
    return {s.request.request_id: s.num_tokens for s in batch.scheduled}


def test_requests_start_in_order_of_arrival_within_the_token_budget() -> None:
    scheduler = make_scheduler(budget=10)
    for name, length in (("a", 4), ("b", 4), ("c", 4), ("d", 4)):
        add(scheduler, name, length)
    assert sizes(scheduler.schedule()) == {"a": 4, "b": 4, "c": 2}


def test_a_long_prompt_is_prefilled_in_chunks_and_samples_after_the_last() -> None:
    scheduler = make_scheduler(budget=10)
    add(scheduler, "a", 25)
    chunks = []
    for _ in range(3):
        batch = scheduler.schedule()
        chunks.append((batch.scheduled[0].num_tokens, batch.scheduled[0].samples))
        compute(scheduler, batch)
    assert chunks == [(10, False), (10, False), (5, True)]


def test_decodes_come_before_a_long_prefill() -> None:
    scheduler = make_scheduler(budget=8)
    add(scheduler, "a", 3)
    compute(scheduler, scheduler.schedule())
    add(scheduler, "long", 100)
    for _ in range(5):
        batch = scheduler.schedule()
        assert sizes(batch) == {"a": 1, "long": 7}
        compute(scheduler, batch)


def test_no_more_than_max_num_seqs_run() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    for name in "abc":
        add(scheduler, name, 2)
    assert sizes(scheduler.schedule()).keys() == {"a", "b"}


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    scheduler = make_scheduler(num_blocks=4)
    add(scheduler, "a", 8)
    compute(scheduler, scheduler.schedule())
    add(scheduler, "large", 12)
    add(scheduler, "small", 1)
    assert sizes(scheduler.schedule()).keys() == {"a"}


def test_the_youngest_is_preempted_and_keeps_its_tokens() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=2)
    old, young = add(scheduler, "old", 2), add(scheduler, "young", 1)
    compute(scheduler, scheduler.schedule())
    tokens = []
    while not scheduler.num_preemptions:
        tokens = list(young.output_token_ids)
        compute(scheduler, scheduler.schedule())
    assert young.status is RequestStatus.WAITING
    assert (young.block_ids, young.num_computed_tokens) == ([], 0)
    assert young.output_token_ids == tokens
    assert old.status is RequestStatus.RUNNING


def test_a_preempted_request_is_the_next_to_start() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=2, max_num_seqs=2)
    old, young = add(scheduler, "old", 2), add(scheduler, "young", 1)
    add(scheduler, "newcomer", 1)
    while not scheduler.num_preemptions:
        compute(scheduler, scheduler.schedule())
    scheduler.finish(old, FinishReason.ABORT, 0.0)
    assert next(iter(sizes(scheduler.schedule()))) == "young"
    assert young.status is RequestStatus.RUNNING


def test_a_preempted_request_computes_only_what_the_cache_no_longer_holds() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=2)
    old, young = add(scheduler, "old", 2), add(scheduler, "young", 1)
    while not scheduler.num_preemptions:
        compute(scheduler, scheduler.schedule())
    scheduler.finish(old, FinishReason.ABORT, 0.0)
    assert young.num_tokens == 4
    assert sizes(scheduler.schedule()) == {"young": 2}
    assert young.num_computed_tokens == 2


def test_a_cached_beginning_costs_no_token_budget() -> None:
    scheduler = make_scheduler(budget=12)
    first = add(scheduler, "a", 11)
    compute(scheduler, scheduler.schedule())
    scheduler.finish(first, FinishReason.STOP, 0.0)
    for name, length in (("same", 11), ("longer", 14), ("short", 3)):
        add(scheduler, name, length)
    batch = scheduler.schedule()
    assert sizes(batch) == {"same": 3, "longer": 6, "short": 3}
    assert all(scheduled.samples for scheduled in batch.scheduled)


def test_what_a_failed_request_held_is_found_by_nobody() -> None:
    scheduler = make_scheduler()
    first = add(scheduler, "a", 9)
    compute(scheduler, scheduler.schedule())
    scheduler.finish(first, FinishReason.ERROR, 0.0, StepFailed())
    add(scheduler, "b", 9)
    assert sizes(scheduler.schedule()) == {"b": 9}


def test_the_youngest_waits_in_its_place_rather_than_preempt_itself() -> None:
    scheduler = make_scheduler(num_blocks=3, block_size=2, max_num_seqs=2)
    old, young = add(scheduler, "old", 2), add(scheduler, "young", 1)
    compute(scheduler, scheduler.schedule())
    compute(scheduler, scheduler.schedule())
    # Old took the last block; young is at the end of its own.
    assert scheduler.block_manager.num_free == 0
    assert sizes(scheduler.schedule()).keys() == {"old"}
    assert young.status is RequestStatus.RUNNING
    assert old.num_tokens == 4


def test_finish_frees_the_blocks_once() -> None:
    scheduler = make_scheduler()
    request = add(scheduler, "a", 5)
    scheduler.schedule()
    scheduler.finish(request, FinishReason.STOP, 1.0)
    scheduler.finish(request, FinishReason.ABORT, 2.0)
    assert scheduler.block_manager.num_used == 0
    assert (request.finish_reason, request.finished_at) == (FinishReason.STOP, 1.0)


def test_overdue_requests_are_found_in_both_queues() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    running, waiting, later = (add(scheduler, name, 1) for name in ("r", "w", "l"))
    running.deadline, waiting.deadline, later.deadline = 1.0, 2.0, 3.0
    scheduler.schedule()
    assert {r.request_id for r in scheduler.overdue(2.0)} == {"r", "w"}
