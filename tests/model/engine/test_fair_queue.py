"""Who waits is served by turns, measured in tokens, and nobody gains by staying away."""

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from model.engine import SamplingParams
from model.engine.block_manager import BlockManager
from model.engine.pace import Pace
from model.engine.request import FinishReason, Request
from model.engine.scheduler import Scheduler

numbers = count()


def request(tenant: str | None, prompt: int = 10, new: int = 10) -> Request:
    return Request(
        request_id=str(next(numbers)),
        prompt_token_ids=tuple(range(prompt)),
        params=SamplingParams(max_tokens=new),
        seed=0,
        arrival=0.0,
        tenant=tenant,
    )


def scheduler(running: int = 2) -> Scheduler:
    blocks = BlockManager(1000, 4, prefix_cache=False)
    return Scheduler(blocks, max_num_seqs=running, max_num_batched_tokens=64, pace=Pace())


def step(made: Scheduler) -> list[Request]:
    """The requests that end in it."""
    ended = []
    for scheduled in made.schedule().scheduled:
        one = scheduled.request
        one.num_computed_tokens += scheduled.num_tokens
        if scheduled.samples:
            one.output_token_ids.append(1)
            if len(one.output_token_ids) == one.params.max_tokens:
                made.finish(one, FinishReason.LENGTH, 0.0)
                ended.append(one)
    return ended


def test_a_flood_of_one_tenant_holds_nobody_up() -> None:
    made = scheduler()
    for _ in range(100):
        made.add(request("flood"))
    step(made)
    late = request("late")
    made.add(late)
    order: list[Request] = []
    while not late.finished:
        order += step(made)
    # Those that ran when it came, and one that started beside it.
    assert len(order) <= 4


def test_tenants_get_the_same_number_of_tokens_whatever_they_ask_at_once() -> None:
    made = scheduler(running=4)
    for _ in range(60):
        made.add(request("long", prompt=40, new=40))
    for _ in range(240):
        made.add(request("short", prompt=10, new=10))
    given_to: Counter[str | None] = Counter()
    while {r.tenant for r in made.waiting} == {"long", "short"}:
        for scheduled in made.schedule().scheduled:
            one = scheduled.request
            one.num_computed_tokens += scheduled.num_tokens
            given_to[one.tenant] += scheduled.num_tokens
            if scheduled.samples:
                one.output_token_ids.append(1)
                if len(one.output_token_ids) == one.params.max_tokens:
                    made.finish(one, FinishReason.LENGTH, 0.0)
    assert 0.9 < given_to["long"] / given_to["short"] < 1.1


def test_being_away_earns_nothing() -> None:
    made = scheduler(running=1)
    for _ in range(20):
        made.add(request("busy"))
    for _ in range(100):
        step(made)
    for _ in range(20):
        made.add(request("back"))
    ended: list[Request] = []
    while len(ended) < 8:
        ended += step(made)
    assert 3 <= sum(one.tenant == "back" for one in ended) <= 5


def test_one_tenant_is_served_in_order_of_arrival() -> None:
    made = scheduler(running=3)
    requests = [request(None) for _ in range(30)]
    for one in requests:
        made.add(one)
    ended: list[Request] = []
    while len(ended) < 30:
        ended += step(made)
    assert ended == requests


def test_what_is_known_of_tenants_does_not_grow() -> None:
    made = scheduler()
    for number in range(500):
        made.add(request(f"tenant {number}", new=1))
        step(made)
        step(made)
    assert len(made.waiting._given) <= 3


ASKED = st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.integers(1, 8))


@given(st.lists(ASKED, max_size=30))
def test_everybody_is_served_to_the_end(asked: list[tuple[str, int, int]]) -> None:
    made = scheduler()
    for tenant, prompt, new in asked:
        made.add(request(tenant, prompt, new))
    ended: list[Request] = []
    for _ in range(2000):
        ended += step(made)
    assert len(ended) == len(asked)
    assert len(made.waiting) == 0
    assert not made.waiting
