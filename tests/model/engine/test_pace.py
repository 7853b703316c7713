"""A prompt may hold up running requests for so long and no longer."""

from model.engine.block_manager import BlockManager
from model.engine.pace import CROWD, LEAST_CHUNK, SLOWDOWN, Pace
from model.engine.request import Request
from model.engine.sampling_params import SamplingParams
from model.engine.scheduler import Scheduler


def learnt(decode_s: float = 0.1, token_s: float = 0.001) -> Pace:
    pace = Pace()
    for _ in range(5):
        pace.observe(32, 0, decode_s)
        pace.observe(32, 100, decode_s + 100 * token_s)
    return pace


def test_nothing_is_held_back_before_both_kinds_of_step_were_seen() -> None:
    pace = Pace()
    assert pace.prefill_tokens(32, 1) is None
    pace.observe(0, 512, 0.5)
    assert pace.prefill_tokens(32, 1) is None
    pace.observe(32, 0, 0.1)
    assert pace.prefill_tokens(32, 1) is not None


def test_a_chunk_adds_what_the_slowdown_allows() -> None:
    assert abs((learnt().prefill_tokens(32, 1) or 0) - (SLOWDOWN - 1) * 100) <= 1


def test_nobody_in_decode_is_nobody_to_hold_up() -> None:
    assert learnt().prefill_tokens(0, 5) is None


def test_the_more_wait_for_their_first_token_the_more_a_chunk_may_add() -> None:
    pace = learnt()
    alone = pace.prefill_tokens(2 * CROWD, 1) or 0
    assert abs((pace.prefill_tokens(CROWD, 4) or 0) - 4 * alone) <= 4


def test_a_prompt_goes_on_however_slow_it_is() -> None:
    assert learnt(decode_s=0.001, token_s=1.0).prefill_tokens(32, 1) == LEAST_CHUNK


def test_an_old_speed_is_forgotten() -> None:
    pace = learnt()
    for _ in range(40):
        pace.observe(32, 0, 0.2)
    assert abs((pace.prefill_tokens(32, 1) or 0) - (SLOWDOWN - 1) * 200) < 5


def test_the_scheduler_keeps_the_pace_and_still_serves_decodes_first() -> None:
    scheduler = Scheduler(
        BlockManager(100, 16), max_num_seqs=4, max_num_batched_tokens=512, pace=learnt(0.01)
    )

    def add(name: str, tokens: int) -> Request:
        request = Request(name, tuple(range(tokens)), SamplingParams(max_tokens=9), 0, 0.0)
        scheduler.add(request)
        return request

    running = add("running", 10)
    (first,) = scheduler.schedule().scheduled
    assert first.num_tokens == 10
    running.num_computed_tokens = 10
    running.output_token_ids.append(1)
    add("long", 500)
    batch = scheduler.schedule()
    assert [s.num_tokens for s in batch.scheduled] == [1, int((SLOWDOWN - 1) * 10 * CROWD)]
    assert batch.num_decodes == 1
