from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.engine import SamplingParams
from model.engine.block_manager import BlockManager
from model.engine.request import Request


def make_request(num_tokens: int) -> Request:
    return Request("a", tuple(range(num_tokens)), SamplingParams(max_tokens=100), 0, 0.0)


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
