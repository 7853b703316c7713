"""The load generator: its schedule, and its figures against a server with known times.

The stub's delays are lower bounds of what must be measured; above them only a wide margin is
asked for, because other work may run on the machine.
"""

import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from bench import load
from bench.load import Options
from tests.bench.stub_server import ITL_S, TTFT_S, Stub, stub_server

SLACK = 4.0
"""A busy machine makes everything longer, but not so many times."""


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stub_server() as stub:
        yield stub


@pytest.fixture
def options(stub: Stub) -> Options:
    stub.bodies.clear()
    stub.refuse = False
    return Options(url=stub.url, model="m", num_prompts=6, output_len=5, warm_ups=0)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("chat", [False, True])
def test_the_figures_are_the_stubs(options: Options, processes: int, chat: bool) -> None:
    found = load.run(replace(options, processes=processes, chat=chat))
    assert (found["completed"], found["failed"]) == (6, 0)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (42, 30)
    within = {
        "ttft": TTFT_S,
        "itl": ITL_S,
        "tpot": ITL_S,
        "e2el": TTFT_S + 4 * ITL_S,
    }
    for name, seconds in within.items():
        assert 990 * seconds <= found[f"mean_{name}_ms"] <= 1000 * SLACK * seconds, name
    assert found["mean_scheduled_ttft_ms"] >= found["mean_ttft_ms"]


def test_waiting_for_a_place_counts_from_schedule_only(options: Options) -> None:
    found = load.run(replace(options, max_concurrency=1, num_prompts=3))
    one = 1000 * (TTFT_S + 4 * ITL_S)
    assert found["max_concurrent_requests"] == 1
    assert found["mean_e2el_ms"] <= SLACK * one
    assert found["mean_scheduled_e2el_ms"] >= found["mean_e2el_ms"] + 0.99 * one
    assert load.warnings(replace(options, max_concurrency=1), found) == []


def test_a_late_client_is_told(options: Options) -> None:
    assert load.warnings(options, {"p99_send_lag_ms": 4.9}) == []
    (warning,) = load.warnings(options, {"p99_send_lag_ms": 5.1})
    assert "--processes" in warning


def test_refusals_are_failures_with_the_servers_words(options: Options, stub: Stub) -> None:
    stub.refuse = True
    found = load.run(options)
    assert (found["completed"], found["failed"]) == (0, 6)
    (error,) = found["errors"]
    assert "429" in error
    assert "too busy" in error
    with pytest.raises(ValueError, match="429"):
        load.run(replace(options, warm_ups=1))


def test_the_bodies_are_what_vllms_client_sends(options: Options, stub: Stub) -> None:
    load.run(replace(options, vocab_size=500, input_len=9, ignore_eos=True, num_prompts=1))
    (body,) = stub.bodies
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    prompt = body["prompt"]
    assert isinstance(prompt, list)
    assert len(prompt) == 9
    assert all(50 <= token < 500 for token in prompt)


def test_a_schedule_is_the_same_for_the_same_seed(options: Options) -> None:
    wanted = replace(options, request_rate=10.0, range_ratio=0.5, vocab_size=100)
    assert load.schedule(wanted) == load.schedule(wanted)
    assert load.schedule(wanted) != load.schedule(replace(wanted, seed=1))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_arrivals_keep_the_rate_and_have_the_asked_burstiness(burstiness: float) -> None:
    times = load.arrivals(4000, 20.0, burstiness, random.Random(3))
    assert times[-1] == pytest.approx(200.0)
    gaps = [after - before for before, after in pairwise(times)]
    variation = statistics.pstdev(gaps) / statistics.fmean(gaps)
    assert variation == pytest.approx(burstiness**-0.5, rel=0.1)


def test_without_a_rate_all_leave_at_once() -> None:
    assert load.arrivals(3, float("inf"), 1.0, random.Random(0)) == [0.0, 0.0, 0.0]


def test_lengths_stay_within_their_share() -> None:
    rng = random.Random(0)
    found = [load.length(100, 0.2, rng) for _ in range(500)]
    assert (min(found), max(found)) == (80, 120)
    assert load.length(7, 0.0, rng) == 7


def test_the_limit_is_shared_out_among_processes(options: Options) -> None:
    shares = load.split_limit(replace(options, processes=3, max_concurrency=8))
    assert [share.max_concurrency for share in shares] == [3, 3, 2]
    with pytest.raises(ValueError, match="--max-concurrency"):
        load.split_limit(replace(options, processes=3, max_concurrency=2))
