"""The choice of an address, and when one is out: rules that hold for any sequence of events."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from api.upstream.balancer import Address, Balancer, Policy, State

POLICY = Policy(failures=3, base_s=1.0, max_s=30.0, bound=1.25)


def made(*weights: float) -> tuple[Balancer, list[Address]]:
    addresses = [Address(f"http://{n}", weight) for n, weight in enumerate(weights)]
    return Balancer(POLICY, addresses), addresses


def out(balancer: Balancer, address: Address, now: float = 0.0) -> None:
    while address.state is not State.OUT:
        balancer.failed(address, now)


KEYS = st.text(min_size=1, max_size=20)
WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=8)


@given(KEYS, WEIGHTS)
def test_a_key_keeps_its_address(key: str, weights: list[float]) -> None:
    balancer, _ = made(*weights)
    chosen = {id(balancer.choose(key, [], random.Random(seed))) for seed in range(5)}
    assert len(chosen) == 1


@given(KEYS, st.integers(2, 8), st.data())
def test_a_new_address_moves_only_the_keys_that_it_takes(
    key: str, count: int, data: st.DataObject
) -> None:
    balancer, addresses = made(*[1] * count)
    before = balancer.choose(key, [], random.Random(1))
    new = Address("http://new")
    balancer.addresses.insert(data.draw(st.integers(0, count)), new)
    assert balancer.choose(key, [], random.Random(1)) in (before, new)
    assert before in addresses


@given(KEYS, WEIGHTS, st.lists(st.integers(0, 50), min_size=8, max_size=8), st.integers(0, 2**32))
def test_nobody_gets_more_than_its_bound_while_another_has_room(
    key: str, weights: list[float], flying: list[int], seed: int
) -> None:
    balancer, addresses = made(*weights)
    for address, count in zip(addresses, flying, strict=False):
        address.in_flight = count
    chosen = balancer.choose(key, [], random.Random(seed))
    assert chosen is not None
    share = chosen.weight / sum(weights)
    bound = POLICY.bound * share * (sum(one.in_flight for one in addresses) + 1)
    assert chosen.in_flight < bound + 1


def test_a_favourite_is_left_when_it_has_too_much() -> None:
    balancer, _ = made(1, 1, 1, 1)
    favourite = balancer.choose("chat", [], random.Random(1))
    assert favourite is not None
    favourite.in_flight = 4
    other = balancer.choose("chat", [], random.Random(1))
    assert other is not favourite
    favourite.in_flight = 0
    assert balancer.choose("chat", [], random.Random(1)) is favourite


def test_without_a_key_the_least_loaded_gets_it() -> None:
    balancer, addresses = made(1, 1, 1)
    for address, flying in zip(addresses, (3, 1, 2), strict=True):
        address.in_flight = flying
    assert balancer.choose(None, [], random.Random(1)) is addresses[1]


def test_weights_split_chats_and_single_requests_alike() -> None:
    balancer, addresses = made(95, 5)
    for keys in ([f"chat {n}" for n in range(10_000)], [None] * 10_000):
        draw = random.Random(7)
        got = Counter(balancer.choose(key, [], draw) for key in keys)
        assert 400 < got[addresses[1]] < 600


def test_a_weight_of_nothing_gets_nothing_until_nothing_else_is_there() -> None:
    balancer, (canary, rest) = made(0, 100)
    draw = random.Random(1)
    assert {balancer.choose(str(n), [], draw) for n in range(100)} == {rest}
    assert balancer.choose("x", [rest], draw) is None
    assert balancer.last_resort([rest]) is canary


@given(WEIGHTS, st.integers(0, 8), st.integers(0, 2**32))
def test_what_was_tried_or_is_out_is_not_chosen(
    weights: list[float], skipped: int, seed: int
) -> None:
    balancer, addresses = made(*weights)
    tried, rest = addresses[:skipped], addresses[skipped:]
    if len(rest) > 1:
        out(balancer, rest[0])
    chosen = balancer.choose("k", tried, random.Random(seed))
    if rest:
        assert chosen in rest
        assert chosen is not None
        assert chosen.state is State.IN
    else:
        assert chosen is None


def test_failures_in_a_row_take_an_address_out_and_a_whole_answer_starts_the_count_again() -> None:
    balancer, (one, _) = made(1, 1)
    for _ in range(10):
        assert not balancer.failed(one, 0)
        assert not balancer.failed(one, 0)
        balancer.answer_ended(one)
    assert not balancer.failed(one, 0)
    assert not balancer.failed(one, 0)
    assert balancer.failed(one, 0)
    assert one.state is State.OUT


def test_each_further_time_out_is_twice_as_long_up_to_the_longest() -> None:
    balancer, (one, _) = made(1, 1)
    now, times = 0.0, []
    out(balancer, one, now)
    for _ in range(8):
        times.append(one.out_until - now)
        now = one.out_until
        balancer.probed(one, passed=True, now=now)
        assert balancer.failed(one, now)
    assert times == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_long_good_time_makes_the_next_time_out_short_again() -> None:
    balancer, (one, _) = made(1, 1)
    out(balancer, one, 0)
    balancer.probed(one, passed=False, now=1)
    balancer.probed(one, passed=True, now=3)
    balancer.answer_began(one, 3)
    balancer.answer_ended(one)
    out(balancer, one, 100)
    assert one.out_until == 101


def test_on_trial_one_request_at_a_time_until_an_answer_begins() -> None:
    balancer, (one, other) = made(1, 1)
    out(balancer, one)
    draw = random.Random(1)
    assert balancer.choose(None, [other], draw) is None
    balancer.probed(one, passed=True, now=2)
    assert balancer.choose(None, [other], draw) is one
    one.in_flight = 1
    assert balancer.choose(None, [other], draw) is None
    balancer.answer_began(one, 3)
    assert balancer.choose(None, [other], draw) is one
    # The answer broke off: no second chance.
    assert balancer.failed(one, 4)


def test_one_failure_is_enough_when_the_host_says_it_itself() -> None:
    balancer, (one, _) = made(1, 1)
    assert balancer.failed(one, 0, surely=True)


EVENT = st.tuples(
    st.sampled_from(["fail", "surely", "began", "ended", "probe", "miss"]),
    st.integers(0, 4),
    st.floats(0, 5),
)


@given(st.integers(1, 5), st.booleans(), st.lists(EVENT, max_size=80))
def test_never_all_are_out_unless_another_model_stands_in(
    count: int, may_empty: bool, events: list[tuple[str, int, float]]
) -> None:
    balancer, addresses = made(*[1] * count)
    balancer.may_empty = may_empty
    now = 0.0
    for what, index, later in events:
        address = addresses[index % count]
        now += later
        match what:
            case "fail":
                balancer.failed(address, now)
            case "surely":
                balancer.failed(address, now, surely=True)
            case "began":
                balancer.answer_began(address, now)
            case "ended":
                balancer.answer_ended(address)
            case _ if address in balancer.due(now):
                balancer.probed(address, what == "probe", now)
        assert all(
            one.out_until - now <= POLICY.max_s for one in addresses if one.state is State.OUT
        )
        if not may_empty:
            assert any(one.state is State.IN for one in addresses)
            assert balancer.choose("k", [], random.Random(1)) is not None


def test_all_may_be_out_when_another_model_stands_in() -> None:
    balancer, (one,) = made(1)
    out_now = [balancer.failed(one, 0) for _ in range(5)]
    assert not any(out_now)
    balancer.may_empty = True
    assert balancer.failed(one, 0)
    assert balancer.choose("k", [], random.Random(1)) is None


def test_the_last_may_go_out_when_something_stands_by_and_is_asked_then() -> None:
    balancer, (pod, service) = made(1, 0)
    service.standby = True
    draw = random.Random(1)
    assert balancer.choose("k", [], draw) is pod
    out(balancer, pod)
    assert balancer.choose("k", [], draw) is None
    assert balancer.last_resort([]) is service
    # What stands by is never out for good while nothing else is in.
    assert not any(balancer.failed(service, 0) for _ in range(5))
    balancer.probed(pod, passed=True, now=1)
    assert balancer.choose("k", [], draw) is pod
