from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.engine import EngineDead, FinishReason, Overloaded, SamplingParams, StepFailed
from model.engine.engine import MIN_MEASURED_STEPS
from model.engine.scheduler import Batch
from tests.model.engine.fakes import EOS, Harness, expected_tokens, make_info, next_token


def params(max_tokens: int = 4, **values: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, **{"ignore_eos": True, **values})  # type: ignore[arg-type]


def prompt_that_ends_after(num_tokens: int) -> list[int]:
    for first in range(1, 50):
        for second in range(1, 50):
            tokens = expected_tokens([first, second], SamplingParams(max_tokens=num_tokens + 1))
            if len(tokens) == num_tokens:
                return [first, second]
    raise AssertionError("no prompt found")


def test_a_request_gets_the_tokens_of_its_own_context() -> None:
    harness = Harness()
    harness.submit("a", [1, 2, 3], params(10))
    harness.run()
    assert harness.tokens("a") == expected_tokens([1, 2, 3], params(10))
    harness.assert_nothing_left()


def test_the_end_token_stops_a_request_and_is_not_part_of_it() -> None:
    harness = Harness()
    prompt = prompt_that_ends_after(3)
    harness.submit("a", prompt, SamplingParams(max_tokens=20))
    harness.run()
    assert EOS not in harness.tokens("a")
    last = harness.outputs["a"][-1]
    assert (last.finish_reason, last.num_output_tokens) == (FinishReason.STOP, 3)
    harness.assert_nothing_left()


def test_a_callers_stop_token_stops_a_request() -> None:
    harness = Harness()
    tokens = expected_tokens([1, 2, 3], params(10))
    harness.submit("a", [1, 2, 3], params(10, stop_token_ids=(tokens[4],)))
    harness.run()
    assert harness.tokens("a") == tokens[: tokens.index(tokens[4])]
    assert harness.outputs["a"][-1].finish_reason is FinishReason.STOP


def test_max_tokens_ends_a_request_by_length() -> None:
    harness = Harness()
    harness.submit("a", [1], params(1))
    harness.run()
    last = harness.outputs["a"][-1]
    assert (last.finish_reason, last.num_output_tokens) == (FinishReason.LENGTH, 1)


def test_a_request_as_long_as_the_whole_cache_is_served() -> None:
    harness = Harness(make_info(num_blocks=4, block_size=4))
    harness.submit("a", [1, 2, 3], params(13))
    harness.run()
    assert len(harness.tokens("a")) == 13
    harness.assert_nothing_left()


def test_a_request_that_joins_late_changes_nobodys_tokens() -> None:
    harness = Harness()
    harness.submit("a", [1, 2], params(12))
    for _ in range(5):
        harness.step()
    harness.submit("b", [3, 4, 5], params(12))
    harness.run()
    assert harness.tokens("a") == expected_tokens([1, 2], params(12))
    assert harness.tokens("b") == expected_tokens([3, 4, 5], params(12))


def test_a_long_prompt_does_not_hold_up_running_requests() -> None:
    harness = Harness(make_info(num_blocks=64, budget=8))
    harness.submit("a", [1], params(30))
    harness.step()
    harness.submit("long", [2] * 100, params(2))
    while not harness.outputs["long"]:
        produced = {output.request_id for output in harness.step()}
        assert "a" in produced
    harness.run()
    harness.assert_nothing_left()


def test_first_tokens_come_in_order_of_arrival() -> None:
    harness = Harness(make_info(max_num_seqs=2, budget=4))
    names = [f"r{i}" for i in range(9)]
    for i, name in enumerate(names):
        harness.submit(name, [1] * (1 + i % 3), params(3))
    first: list[str] = []
    while harness.engine.has_requests:
        for output in harness.step():
            if output.request_id not in first:
                first.append(output.request_id)
    assert first == names


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_an_abort_frees_everything_at_the_next_step(steps: int) -> None:
    """After 0 steps the request is queued, after 1 and 2 in prefill, after 4 in decode."""
    harness = Harness(make_info(budget=8))
    harness.submit("a", [1] * 20, params(50))
    for _ in range(steps):
        harness.step()
    harness.engine.abort("a")
    ran = len(harness.runner.batches)
    harness.step()
    assert harness.outputs["a"][-1].finish_reason is FinishReason.ABORT
    assert len(harness.runner.batches) == ran
    stage = {0: "queue", 1: "prefill", 2: "prefill", 4: "decode"}[steps]
    assert harness.engine.stats().cancelled == {"queue": 0, "prefill": 0, "decode": 0, stage: 1}
    harness.assert_nothing_left()


def test_a_request_whose_caller_has_all_it_wants_ends_and_is_no_cancel() -> None:
    harness = Harness()
    harness.submit("a", params=params(50))
    harness.step()
    harness.engine.abort("a", FinishReason.STOP)
    harness.engine.abort("a")  # its reader leaves: the first reason counts
    harness.step()
    assert harness.outputs["a"][-1].finish_reason is FinishReason.STOP
    assert not any(harness.engine.stats().cancelled.values())
    harness.assert_nothing_left()


def test_a_preempted_request_can_be_aborted() -> None:
    harness = Harness(make_info(num_blocks=4, block_size=2))
    harness.submit("old", [1, 2], params(6))
    harness.submit("young", [3], params(6))
    while not harness.engine.stats().num_preemptions:
        harness.step()
    harness.engine.abort("young")
    harness.run()
    assert harness.tokens("old") == expected_tokens([1, 2], params(6))
    harness.assert_nothing_left()


def test_aborts_of_unknown_and_finished_requests_do_nothing() -> None:
    harness = Harness()
    harness.engine.abort("nobody")
    harness.submit("a", [1], params(1))
    harness.run()
    harness.engine.abort("a")
    harness.submit("a", [1], params(3))
    harness.engine.abort("a")
    harness.engine.abort("a")
    harness.run()
    assert harness.engine.stats().cancelled["queue"] == 1
    harness.assert_nothing_left()


def test_an_abort_does_not_reach_a_later_request_of_the_same_id() -> None:
    harness = Harness()
    harness.submit("a", [1], params(1))
    harness.engine.abort("a")
    harness.run()
    harness.submit("a", [1], params(1))
    harness.run()
    assert harness.outputs["a"][-1].finish_reason is FinishReason.LENGTH


def test_a_queued_request_past_its_deadline_runs_no_forward_step() -> None:
    harness = Harness()
    harness.submit("a", deadline=harness.clock.now + 1)
    harness.clock.now += 1
    harness.run()
    assert harness.outputs["a"][-1].finish_reason is FinishReason.DEADLINE
    assert harness.runner.batches == []
    harness.assert_nothing_left()


def engine_of_known_speed() -> Harness:
    """16 tokens a second in a full step, and one request that runs on."""
    harness = Harness(make_info(num_blocks=400))
    harness.runner.before_run = lambda batch: setattr(harness.clock, "now", harness.clock.now + 1)
    harness.submit("measured", [1] * 16 * (MIN_MEASURED_STEPS + 1), params(50))
    while not harness.outputs["measured"]:
        harness.step()
    return harness


def test_a_deadline_that_no_prefill_can_meet_ends_a_request_before_its_first_step() -> None:
    harness = engine_of_known_speed()
    # 160 tokens need 10 s at the speed seen, 5 s at twice that.
    harness.submit("hopeless", [2] * 160, params(1), deadline=harness.clock.now + 4.9)
    harness.submit("perhaps", [3] * 160, params(1), deadline=harness.clock.now + 5.1)
    before = len(harness.runner.batches)
    harness.step()
    assert harness.outputs["hopeless"][-1].finish_reason is FinishReason.DEADLINE
    assert "perhaps" in harness.runner.batches[before]
    assert harness.engine.stats().cancelled["queue"] == 1
    harness.run()
    assert not any("hopeless" in batch for batch in harness.runner.batches)
    harness.assert_nothing_left()


def test_an_engine_with_nothing_else_to_do_tries_to_meet_any_deadline() -> None:
    harness = engine_of_known_speed()
    harness.run()
    harness.submit("a", [2] * 160, params(1), deadline=harness.clock.now + 1.5)
    harness.step()
    assert "a" in harness.runner.batches[-1]


def test_a_cold_engine_drops_nothing_for_a_speed_it_does_not_know() -> None:
    harness = Harness(make_info(num_blocks=400))
    harness.runner.before_run = lambda batch: setattr(harness.clock, "now", harness.clock.now + 1)
    harness.submit("first", [1] * 16 * 4, params(50))
    while not harness.outputs["first"]:
        harness.step()
    harness.submit("a", [2] * 160, params(1), deadline=harness.clock.now + 1.5)
    harness.step()
    assert "a" in harness.runner.batches[-1]


def test_a_running_request_is_ended_at_its_deadline() -> None:
    harness = Harness()
    harness.submit("a", [1], params(50), deadline=harness.clock.now + 3)
    harness.submit("b", [2], params(6))
    for _ in range(3):
        harness.step()
        harness.clock.now += 1
    harness.run()
    assert harness.outputs["a"][-1].finish_reason is FinishReason.DEADLINE
    assert harness.tokens("a") == expected_tokens([1], params(3))
    assert harness.tokens("b") == expected_tokens([2], params(6))
    harness.assert_nothing_left()


def test_a_row_without_usable_numbers_fails_alone() -> None:
    harness = Harness()
    harness.submit("good", [1, 2], params(5))
    harness.submit("bad", [3, 4], params(5))
    harness.runner.poisoned.add("bad")
    harness.run()
    last = harness.outputs["bad"][-1]
    assert last.finish_reason is FinishReason.ERROR
    assert isinstance(last.error, StepFailed)
    assert harness.tokens("good") == expected_tokens([1, 2], params(5))
    harness.assert_nothing_left()


def fail_with(*request_ids: str) -> object:
    def before_run(batch: Batch) -> None:
        if any(s.request.request_id in request_ids for s in batch.scheduled):
            raise RuntimeError("out of memory")

    return before_run


def test_a_failed_step_fails_its_batch_and_the_engine_goes_on() -> None:
    harness = Harness(make_info(max_num_seqs=2))
    for name in ("a", "b", "c"):
        harness.submit(name, [1, 2], params(5))
    harness.runner.before_run = fail_with("a")  # type: ignore[assignment]
    harness.run()
    for name in ("a", "b"):
        last = harness.outputs[name][-1]
        assert last.finish_reason is FinishReason.ERROR
        assert isinstance(last.error, StepFailed)
    assert harness.tokens("c") == expected_tokens([1, 2], params(5))
    harness.assert_nothing_left()


def test_three_failed_steps_in_a_row_are_the_end() -> None:
    harness = Harness(make_info(max_num_seqs=1))
    for name in ("a", "b", "c", "d"):
        harness.submit(name)
    harness.runner.before_run = fail_with("a", "b", "c", "d")  # type: ignore[assignment]
    harness.step()
    harness.step()
    with pytest.raises(EngineDead):
        harness.step()


def test_failed_steps_with_a_good_one_between_are_not_the_end() -> None:
    harness = Harness(make_info(max_num_seqs=1))
    for i in range(12):
        harness.submit(f"r{i}", [1], params(1))
    harness.runner.before_run = fail_with(*(f"r{i}" for i in range(12) if i % 3))  # type: ignore[assignment]
    harness.run()
    harness.assert_nothing_left()


def test_admission_counts_only_what_has_not_started() -> None:
    harness = Harness(make_info(max_num_seqs=1, max_queued_requests=1))
    harness.submit("a", [1], params(9))
    with pytest.raises(Overloaded):
        harness.submit("b")
    harness.step()
    harness.submit("b")
    harness.run()
    harness.assert_nothing_left()


def test_preemption_does_not_count_against_admission() -> None:
    harness = Harness(make_info(num_blocks=4, block_size=2, max_queued_requests=2))
    harness.submit("old", [1, 2], params(6))
    harness.submit("young", [3], params(6))
    while not harness.engine.stats().num_preemptions:
        harness.step()
    assert harness.admission.num_queued_requests == 0
    assert harness.engine.stats().num_waiting == 1
    harness.run()
    harness.assert_nothing_left()


def test_batch_size_is_that_of_the_step_that_ended_the_prefill() -> None:
    harness = Harness()
    for name in ("a", "b", "c"):
        harness.submit(name, [1], params(2))
    harness.run()
    assert harness.outputs["b"][-1].timing.batch_size == 3


def test_stats_count_tokens_and_steps() -> None:
    harness = Harness(make_info(budget=8))
    harness.submit("a", [1] * 10, params(3))
    harness.run()
    stats = harness.engine.stats()
    assert (stats.prompt_tokens_total, stats.generation_tokens_total) == (10, 3)
    assert stats.steps == 4  # 8 + 2 of prefill, then two decodes
    assert stats.step_batch_tokens_sum == 12
    histogram = dict(stats.step_batch_tokens)
    assert (histogram[1.0], histogram[2.0], histogram[8.0]) == (2, 3, 4)


@dataclass(frozen=True)
class Arrival:
    step: int
    prompt: list[int]
    max_tokens: int
    ends: str
    ends_at: int


ARRIVAL = st.builds(
    Arrival,
    step=st.integers(0, 12),
    prompt=st.lists(st.integers(1, 49), min_size=1, max_size=14),
    max_tokens=st.integers(1, 10),
    ends=st.sampled_from(["itself", "itself", "itself", "abort", "deadline", "poison", "crash"]),
    ends_at=st.integers(0, 15),
)
LIMITS = st.builds(
    make_info,
    num_blocks=st.sampled_from([12, 14, 24]),
    block_size=st.just(2),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(6, 20),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrivals=st.lists(ARRIVAL, min_size=1, max_size=12), info=LIMITS)
def test_any_schedule_gives_the_tokens_of_a_request_served_alone(
    arrivals: list[Arrival], info: object
) -> None:
    """Joining, chunking, preemption, aborts, deadlines and failures of others change nothing."""
    harness = Harness(info)  # type: ignore[arg-type]
    by_name = {f"r{i}": a for i, a in enumerate(arrivals)}
    harness.runner.poisoned = {n for n, a in by_name.items() if a.ends == "poison"}
    crashes = [n for n, a in by_name.items() if a.ends == "crash"][:2]  # three are the end
    harness.runner.before_run = fail_with(*crashes)  # type: ignore[assignment]
    start = harness.clock.now
    for step in range(2000):
        for name, a in by_name.items():
            if a.step == step:
                deadline = start + a.ends_at if a.ends == "deadline" else None
                sampling = SamplingParams(max_tokens=a.max_tokens)
                harness.submit(name, a.prompt, sampling, deadline=deadline)
            if a.ends == "abort" and a.ends_at == step:
                harness.engine.abort(name)
        if step > 12 and not harness.engine.has_requests:
            break
        before = len(harness.runner.batches)
        harness.step()
        harness.clock.now += 1
        for batch in harness.runner.batches[before:]:
            assert sum(batch.values()) <= harness.info.max_num_batched_tokens
            assert len(batch) <= harness.info.max_num_seqs
    harness.assert_nothing_left()
    for name, a in by_name.items():
        whole = expected_tokens(a.prompt, SamplingParams(max_tokens=a.max_tokens))
        got, reason = harness.tokens(name), harness.outputs[name][-1].finish_reason
        assert got == whole[: len(got)]
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            assert got == whole
        elif a.ends == "itself":
            # Only a batch-mate's crash can end it otherwise.
            assert crashes
            assert reason is FinishReason.ERROR


LONG = list(range(1, 20))


def cached(harness: Harness, request_id: str) -> int:
    return harness.outputs[request_id][-1].num_cached_tokens


def test_a_second_turn_computes_only_what_is_new() -> None:
    harness = Harness()
    harness.submit("first", LONG, params(7))
    harness.run()
    turn = [*LONG, *harness.tokens("first"), 1, 2, 3]
    harness.submit("second", turn, params(5))
    harness.run()
    # 19 + 7 tokens, of which the last is not computed, in blocks of 4.
    assert cached(harness, "second") == 24
    assert harness.tokens("second") == expected_tokens(turn, params(5))
    assert sum(batch.get("second", 0) for batch in harness.runner.batches) == 5 + 4
    stats = harness.engine.stats()
    assert stats.prefix_cache_queries_total == len(LONG) + len(turn)
    assert stats.prefix_cache_hits_total == 24
    harness.assert_nothing_left()


def test_without_the_cache_everything_is_computed() -> None:
    harness = Harness(make_info(prefix_cache=False))
    for name in ("a", "b"):
        harness.submit(name, LONG, params())
        harness.run()
        assert harness.tokens(name) == expected_tokens(LONG, params())
    stats = harness.engine.stats()
    assert cached(harness, "b") == stats.prefix_cache_queries_total == 0


def test_each_salt_has_a_cache_of_its_own() -> None:
    harness = Harness()
    for name, salt in (("a", "x"), ("b", "y"), ("c", None), ("d", "x")):
        harness.submit(name, LONG, params(), cache_salt=salt)
        harness.run()
    assert [cached(harness, name) for name in "abcd"] == [0, 0, 0, 16]


def test_a_running_requests_prompt_is_found_once_it_is_computed() -> None:
    harness = Harness(make_info(budget=16))
    harness.submit("a", LONG, params(20))
    harness.step()
    harness.submit("too soon", LONG, params())
    harness.step()
    harness.submit("b", LONG, params())
    harness.run()
    assert [cached(harness, name) for name in ("too soon", "b")] == [0, 16]
    for name in ("too soon", "b"):
        assert harness.tokens(name) == expected_tokens(LONG, params())
    harness.assert_nothing_left()


def test_unusable_numbers_are_found_by_nobody() -> None:
    harness = Harness(make_info(budget=8))
    harness.submit("good", LONG[:9], params())
    harness.run()
    harness.runner.poisoned.add("bad")
    harness.submit("bad", LONG, params())
    harness.submit("beside", LONG, params())
    harness.run()
    for name in ("next", "later"):
        harness.submit(name, LONG, params())
        harness.run()
    # What had been good is computed once more: it might be what was wrong with the bad one.
    assert [cached(harness, n) for n in ("bad", "beside", "next", "later")] == [8, 8, 0, 16]
    assert harness.tokens("beside") == expected_tokens(LONG, params())
    harness.assert_nothing_left()


def test_a_failed_step_leaves_nothing_to_be_found() -> None:
    harness = Harness()
    harness.runner.before_run = fail_with("a")  # type: ignore[assignment]
    harness.submit("a", LONG, params())
    harness.run()
    harness.submit("b", LONG, params())
    harness.run()
    assert cached(harness, "b") == 0


def test_preemption_does_not_change_what_the_cache_has_saved() -> None:
    harness = Harness(make_info(num_blocks=8, block_size=2))
    harness.submit("first", LONG[:5], params(1))
    harness.run()
    harness.submit("old", [1, 2], params(12))
    harness.submit("young", LONG[:5], params(8))
    harness.run()
    assert harness.engine.stats().num_preemptions > 0
    assert {output.num_cached_tokens for output in harness.outputs["young"]} == {4}
    assert harness.tokens("young") == expected_tokens(LONG[:5], params(8))
    assert harness.engine.stats().prefix_cache_hits_total == 4
    harness.assert_nothing_left()


def test_a_deadline_is_no_reason_to_drop_what_is_in_the_cache() -> None:
    harness = engine_of_known_speed()
    harness.submit("same", [1] * 160, params(1), deadline=harness.clock.now + 1.5)
    harness.submit("new", [2] * 160, params(1), deadline=harness.clock.now + 1.5)
    harness.step()
    assert harness.outputs["new"][-1].finish_reason is FinishReason.DEADLINE
    assert "same" in harness.runner.batches[-1]


def test_the_fake_reads_tokens_through_blocks() -> None:
    """The property above means nothing if a mixed-up block went unseen."""
    harness = Harness()
    request = harness.submit("a", [1, 2, 3], params(3))
    harness.submit("b", [4, 5, 6], params(3))
    harness.step()
    request.block_ids[0] = harness.requests["b"].block_ids[0]
    harness.run()
    assert harness.tokens("a") != expected_tokens([1, 2, 3], params(3))
    assert next_token([1, 2, 3]) == harness.tokens("a")[0]
