import pytest

from model.engine import SamplingParams
from model.engine.request import Request


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("end", range(8))
def test_token_ids_read_prompt_and_output_as_one(start: int, end: int) -> None:
    request = Request("a", (1, 2, 3), SamplingParams(max_tokens=9), 0, 0.0)
    request.output_token_ids += [4, 5, 6, 7]
    assert request.token_ids(start, end) == [1, 2, 3, 4, 5, 6, 7][start:end]


def test_timing_splits_the_whole_life_of_a_request() -> None:
    request = Request("a", (1,), SamplingParams(max_tokens=9), 0, arrival=1.0)
    request.scheduled_at, request.first_token_at, request.finished_at = 3.0, 6.0, 10.0
    timing = request.output(now=99.0).timing
    assert (timing.queue_s, timing.prefill_s, timing.decode_s) == (2.0, 3.0, 4.0)


def test_a_request_that_never_ran_has_only_queued() -> None:
    request = Request("a", (1,), SamplingParams(max_tokens=9), 0, arrival=1.0)
    timing = request.output(now=4.0).timing
    assert (timing.queue_s, timing.prefill_s, timing.decode_s) == (3.0, 0.0, 0.0)
