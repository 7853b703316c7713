from collections.abc import Sequence

import pytest

from model.engine import InvalidParameter, Overloaded, PromptTooLong, SamplingParams
from model.engine.admission import (
    DEFAULT_RETRY_AFTER_S,
    MAX_RETRY_AFTER_S,
    WINDOW_S,
    Admission,
    new_request,
)
from model.engine.request import Request
from tests.model.engine.fakes import EOS, VOCABULARY, Clock, make_info

INFO = make_info(num_blocks=5, block_size=4)


def request_of(num_tokens: int, call: str | None = None) -> Request:
    return Request("a", (1,), SamplingParams(max_tokens=num_tokens - 1), 0, 0.0, call=call)


def make(prompt: Sequence[int] = (1,), params: SamplingParams | None = None) -> Request:
    return new_request("a", prompt, params or SamplingParams(max_tokens=1), INFO, now=0.0)


def test_a_request_of_exactly_the_limit_is_taken_and_one_more_token_is_not() -> None:
    make([1] * 15, SamplingParams(max_tokens=5))
    with pytest.raises(PromptTooLong) as error:
        make([1] * 15, SamplingParams(max_tokens=6))
    assert (error.value.num_tokens, error.value.max_tokens, error.value.limit) == (15, 6, 20)
    assert "15" in error.value.message
    assert "20" in error.value.message


@pytest.mark.parametrize("prompt", [[], [-1], [VOCABULARY]])
def test_a_prompt_without_real_tokens_is_refused(prompt: list[int]) -> None:
    with pytest.raises(InvalidParameter) as error:
        make(prompt)
    assert error.value.param == "prompt_token_ids"


def test_a_stop_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidParameter) as error:
        make(params=SamplingParams(max_tokens=1, stop_token_ids=(VOCABULARY,)))
    assert error.value.param == "stop_token_ids"


def test_the_models_own_end_tokens_stop_unless_ignored() -> None:
    stop = SamplingParams(max_tokens=1, stop_token_ids=(7,))
    assert make(params=stop).stop_token_ids == {EOS, 7}
    ignore = SamplingParams(max_tokens=1, stop_token_ids=(7,), ignore_eos=True)
    assert make(params=ignore).stop_token_ids == {7}


def test_an_unseeded_request_draws_a_seed_of_its_own() -> None:
    assert make(params=SamplingParams(max_tokens=1, seed=3)).seed == 3
    assert len({make().seed for _ in range(8)}) == 8


def test_the_queue_is_bounded_by_tokens() -> None:
    admission = Admission(max_queued_requests=99, max_queued_tokens=100)
    admission.admit(request_of(60))
    admission.admit(request_of(40))
    with pytest.raises(Overloaded):
        admission.admit(request_of(2))


def test_the_queue_is_bounded_by_requests() -> None:
    admission = Admission(max_queued_requests=2, max_queued_tokens=10_000)
    admission.admit(request_of(2))
    admission.admit(request_of(2))
    with pytest.raises(Overloaded):
        admission.admit(request_of(2))


def test_a_refused_request_takes_no_room() -> None:
    admission = Admission(max_queued_requests=99, max_queued_tokens=100)
    first = request_of(60)
    admission.admit(first)
    with pytest.raises(Overloaded):
        admission.admit(request_of(50))
    assert (admission.num_queued_requests, admission.num_queued_tokens) == (1, 60)
    admission.release(first)
    admission.admit(request_of(50))


def test_an_empty_queue_takes_a_request_larger_than_its_bound() -> None:
    Admission(max_queued_requests=1, max_queued_tokens=10).admit(request_of(50))


def test_what_one_call_asks_for_does_not_keep_itself_out() -> None:
    admission = Admission(max_queued_requests=2, max_queued_tokens=100)
    choices = [request_of(60, "n = 8") for _ in range(8)]
    for choice in choices:
        admission.admit(choice)
    for other in (None, "another"):
        with pytest.raises(Overloaded):
            admission.admit(request_of(2, other))
    for choice in choices:
        admission.release(choice)
    admission.admit(request_of(60, "another"))
    with pytest.raises(Overloaded):
        admission.admit(request_of(60, "n = 8"))


def refused(admission: Admission, num_tokens: int) -> float:
    with pytest.raises(Overloaded) as error:
        admission.admit(request_of(num_tokens))
    return error.value.retry_after_s


def test_retry_after_has_a_default_before_anything_has_drained() -> None:
    admission = Admission(max_queued_requests=1, max_queued_tokens=100, clock=Clock())
    admission.admit(request_of(10))
    assert refused(admission, 10) == DEFAULT_RETRY_AFTER_S


def test_retry_after_comes_from_the_measured_drain_rate() -> None:
    clock = Clock()
    admission = Admission(max_queued_requests=99, max_queued_tokens=100, clock=clock)
    requests = [request_of(20) for _ in range(5)]
    for request in requests:
        admission.admit(request)
    clock.now += 10
    admission.release(requests[0])
    admission.release(requests[1])  # 40 tokens in 10 s; 60 are left
    assert refused(admission, 60) == pytest.approx(5.0)


def test_retry_after_is_at_least_one_second_and_bounded() -> None:
    clock = Clock()
    admission = Admission(max_queued_requests=99, max_queued_tokens=1000, clock=clock)
    requests = [request_of(500), request_of(2), request_of(498)]
    for request in requests:
        admission.admit(request)
    clock.now += 20
    admission.release(requests[1])
    assert refused(admission, 900) == MAX_RETRY_AFTER_S
    admission.release(requests[0])
    assert refused(admission, 503) == 1.0


def test_the_drain_rate_forgets_what_was_long_ago() -> None:
    clock = Clock()
    admission = Admission(max_queued_requests=99, max_queued_tokens=1000, clock=clock)
    requests = [request_of(500), request_of(200), request_of(300)]
    for request in requests:
        admission.admit(request)
    admission.release(requests[0])
    clock.now += 1000
    admission.admit(request_of(500))
    assert refused(admission, 10) == DEFAULT_RETRY_AFTER_S


def test_a_queue_that_never_empties_and_refuses_nobody_keeps_no_more_than_its_window() -> None:
    clock = Clock()
    admission = Admission(max_queued_requests=99, max_queued_tokens=1000, clock=clock)
    admission.admit(request_of(2))
    for _ in range(1000):
        admission.admit(request_of(2))
        admission.release(request_of(2))
        clock.now += 1
    assert len(admission._released) <= WINDOW_S + 1
