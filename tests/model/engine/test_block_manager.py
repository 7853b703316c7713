from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.engine import SamplingParams
from model.engine.block_manager import BlockManager
from model.engine.request import Request


def make_request(num_tokens: int, salt: str | None = None) -> Request:
    return request_of(range(num_tokens), salt)


def request_of(tokens: Iterable[int], salt: str | None = None) -> Request:
    params = SamplingParams(max_tokens=100)
    return Request("a", tuple(tokens), params, 0, 0.0, cache_salt=salt)


def compute(blocks: BlockManager, request: Request) -> Request:
    """Starts it and computes all that is known of it."""
    blocks.allocate(request)
    request.num_computed_tokens = request.num_tokens
    blocks.publish(request)
    return request


def serve(blocks: BlockManager, request: Request) -> list[int]:
    """From start to end; returns the blocks that it had."""
    block_ids = list(compute(blocks, request).block_ids)
    blocks.free(request)
    return block_ids


def test_a_block_is_taken_for_each_started_block_of_tokens() -> None:
    blocks = BlockManager(num_blocks=10, block_size=4)
    for num_tokens, expected in ((1, 1), (4, 1), (5, 2), (8, 2)):
        request = make_request(num_tokens)
        blocks.allocate(request)
        assert len(request.block_ids) == expected
        blocks.free(request)


def test_headroom_must_stay_free() -> None:
    blocks = BlockManager(num_blocks=3, block_size=4)
    assert blocks.can_allocate(make_request(8), headroom=1)
    assert not blocks.can_allocate(make_request(8), headroom=2)
    assert not blocks.can_allocate(make_request(13))


def test_append_takes_a_block_only_when_the_last_one_is_full() -> None:
    blocks = BlockManager(num_blocks=2, block_size=2)
    request = make_request(1)
    blocks.allocate(request)
    request.output_token_ids.append(7)
    blocks.append(request)
    assert blocks.num_used == 1
    request.output_token_ids.append(7)
    blocks.append(request)
    assert blocks.num_used == 2


def test_nothing_can_be_appended_when_all_blocks_are_taken() -> None:
    blocks = BlockManager(num_blocks=1, block_size=2)
    request = make_request(2)
    blocks.allocate(request)
    assert blocks.can_append(request)
    request.output_token_ids.append(7)
    assert not blocks.can_append(request)


def test_free_gives_everything_back() -> None:
    blocks = BlockManager(num_blocks=4, block_size=2)
    request = make_request(7)
    blocks.allocate(request)
    blocks.free(request)
    assert (blocks.num_used, blocks.num_free, request.block_ids) == (0, 4, [])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=60))
def test_no_block_ever_has_two_owners(actions: list[tuple[int, int]]) -> None:
    blocks = BlockManager(num_blocks=12, block_size=3)
    owners: dict[int, Request] = {}
    for owner, num_tokens in actions:
        if (request := owners.get(owner)) is None:
            request = make_request(num_tokens)
            if blocks.can_allocate(request):
                blocks.allocate(request)
                owners[owner] = request
        elif num_tokens < 7:
            request.output_token_ids.append(1)
            if blocks.can_append(request):
                blocks.append(request)
            else:
                request.output_token_ids.pop()
        else:
            blocks.free(owners.pop(owner))
        held = [block for r in owners.values() for block in r.block_ids]
        assert len(held) == len(set(held)) == blocks.num_used
        assert all(len(r.block_ids) * 3 >= r.num_tokens for r in owners.values())


def test_a_prefix_is_found_up_to_its_last_full_block_and_one_token_is_left() -> None:
    blocks = BlockManager(num_blocks=20, block_size=4)
    held = serve(blocks, make_request(10))
    for num_tokens, cached in ((4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (30, 8)):
        request = make_request(num_tokens)
        assert blocks.num_cached_tokens(request) == cached
        assert blocks.allocate(request) == cached
        assert request.block_ids[: cached // 4] == held[: cached // 4]
        blocks.free(request)


def test_the_same_tokens_behind_others_are_not_the_same_block() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    serve(blocks, request_of([1, 2, 7, 7, 0]))
    assert blocks.allocate(request_of([3, 4, 7, 7, 0])) == 0
    assert blocks.allocate(request_of([7, 7, 0])) == 0


@pytest.mark.parametrize("other", [None, "b", "", "A", "a\ud800"])
def test_other_salts_find_nothing(other: str | None) -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    serve(blocks, make_request(5, "a"))
    assert blocks.allocate(make_request(5, other)) == 0
    assert blocks.allocate(make_request(5, "a")) == 4


def test_nothing_is_found_before_it_is_published() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    first = make_request(9)
    blocks.allocate(first)
    assert blocks.num_cached_tokens(make_request(9)) == 0
    first.num_computed_tokens = 5
    blocks.publish(first)
    assert blocks.num_cached_tokens(make_request(9)) == 4


def test_running_requests_share_and_the_last_one_frees() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    first = compute(blocks, make_request(5))
    second = make_request(5)
    blocks.allocate(second)
    assert second.block_ids[:2] == first.block_ids[:2]
    assert [blocks.ref_counts[block] for block in second.block_ids] == [2, 2, 1]
    assert blocks.num_used == 4
    blocks.free(first)
    assert blocks.num_used == 3
    blocks.free(second)
    assert blocks.num_used == 0


def test_what_two_compute_at_the_same_time_is_found_once() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    first, second = make_request(5), make_request(5)
    blocks.allocate(first)
    blocks.allocate(second)
    for request in (first, second):
        request.num_computed_tokens = 5
        blocks.publish(request)
    third = make_request(5)
    blocks.allocate(third)
    assert third.block_ids[:2] == first.block_ids[:2]
    for request in (first, second, third):
        blocks.free(request)
    assert blocks.num_used == 0


def test_blank_blocks_are_taken_before_any_that_can_be_found() -> None:
    blocks = BlockManager(num_blocks=6, block_size=2)
    serve(blocks, make_request(5))
    serve(blocks, request_of([9] * 7))  # four more, one of them the first one's third
    assert blocks.num_cached_tokens(make_request(5)) == 4


def test_the_least_recently_used_goes_first_and_of_a_prefix_its_end() -> None:
    blocks = BlockManager(num_blocks=5, block_size=2)
    serve(blocks, request_of([1, 1, 1, 1]))
    serve(blocks, request_of([2, 2, 2, 2]))
    compute(blocks, request_of([3, 3, 3, 3]))  # the blank one, and one more
    assert blocks.num_cached_tokens(request_of([1] * 9)) == 2
    assert blocks.num_cached_tokens(request_of([2] * 9)) == 4


def test_to_be_found_is_to_be_used() -> None:
    blocks = BlockManager(num_blocks=3, block_size=2)
    serve(blocks, request_of([1, 1]))
    serve(blocks, request_of([2, 2]))
    serve(blocks, request_of([1, 1, 0]))
    compute(blocks, request_of([3, 3, 3, 3]))
    assert blocks.num_cached_tokens(request_of([1] * 9)) == 2
    assert blocks.num_cached_tokens(request_of([2] * 9)) == 0


def test_shared_blocks_need_no_room() -> None:
    blocks = BlockManager(num_blocks=4, block_size=2)
    running = compute(blocks, make_request(5))
    assert blocks.can_allocate(make_request(5))
    assert not blocks.can_allocate(make_request(5), headroom=1)
    assert not blocks.can_allocate(request_of([9] * 5))
    # A block that nobody holds is as good as a free one, whether it is found or not.
    blocks.free(running)
    assert blocks.can_allocate(make_request(8))
    assert not blocks.can_allocate(make_request(9))


def test_what_is_forgotten_is_found_by_nobody_and_kept_by_who_holds_it() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2)
    first, second = compute(blocks, make_request(5)), make_request(5)
    blocks.allocate(second)
    blocks.forget(first)
    blocks.free(first)
    assert blocks.num_cached_tokens(make_request(5)) == 0
    assert [blocks.ref_counts[block] for block in second.block_ids] == [1, 1, 1]
    blocks.free(second)
    assert blocks.num_used == 0
    serve(blocks, make_request(5))
    assert blocks.num_cached_tokens(make_request(5)) == 4


def test_the_cache_can_be_off() -> None:
    blocks = BlockManager(num_blocks=20, block_size=2, prefix_cache=False)
    request = make_request(5)
    serve(blocks, request)
    assert blocks.allocate(make_request(5)) == 0
    assert request.block_hashes == []
