"""Workloads: the same requests every time, in the stated shape."""

import pytest

from bench.workloads import SPECIAL_IDS, VOCABULARY, WORKLOADS, second_turn, uniform


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_every_time(name: str) -> None:
    assert WORKLOADS[name]() == WORKLOADS[name]()
    assert WORKLOADS[name]().name == name


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_request_waits_for_a_later_one(name: str) -> None:
    for index, request in enumerate(WORKLOADS[name]().requests):
        assert all(earlier < index for earlier in request.after)
        assert all(SPECIAL_IDS <= token < VOCABULARY for token in request.prompt)


def test_w1_is_what_the_documents_say() -> None:
    w1 = WORKLOADS["w1"]()
    assert (len(w1.requests), w1.concurrency) == (32, 32)
    assert all(32 <= len(request.prompt) <= 256 for request in w1.requests)
    assert all(32 <= request.max_tokens <= 128 for request in w1.requests)


def test_fewer_at_once_are_the_same_requests() -> None:
    w1 = WORKLOADS["w1"]()
    assert WORKLOADS["w1-c8"]().requests == w1.requests
    lengths = [len(request.prompt) for request in WORKLOADS["w1-c1"]().requests]
    assert lengths == [len(request.prompt) for request in w1.requests][:8]


def test_another_seed_gives_other_requests() -> None:
    one, two = (uniform("x", count=4, concurrency=4, seed=seed) for seed in (1, 2))
    assert one.requests != two.requests


def test_a_second_turn_repeats_the_first_as_a_whole() -> None:
    requests = second_turn(history=64, new=8, pairs=2).requests
    for first, second in zip(requests[::2], requests[1::2], strict=True):
        assert second.prompt[:64] == first.prompt
        assert len(second.prompt) == 72
    assert requests[0].prompt[:8] != requests[2].prompt[:8]
