import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.engine import EngineError, SamplingParams, TokenLogprob
from model.engine.request import Request, SampledToken
from model.engine.sampler import CompiledPicker, Picker, PlainPicker, sample, uniform

VOCABULARY = 16
PICKERS: list[Picker] = [PlainPicker(), CompiledPicker()]


def make_request(
    output: tuple[int, ...] = (), prompt: tuple[int, ...] = (1, 2), **values: Any
) -> Request:
    stop = frozenset(values.get("stop_token_ids", ()))
    params = SamplingParams(max_tokens=100, **values)
    request = Request("a", prompt, params, params.seed or 0, 0.0, stop_token_ids=stop)
    request.output_token_ids += output
    return request


def tokens(logits: Tensor, requests: list[Request], picker: Picker = PICKERS[0]) -> list[int]:
    results = sample(logits.clone(), requests, picker)
    assert all(isinstance(r, SampledToken) for r in results)
    return [r.token_id for r in results if isinstance(r, SampledToken)]


def random_logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def reference(row: Tensor, request: Request) -> dict[int, float]:
    """The distribution that the settings describe, one step at a time, in plain Python."""
    p = request.params
    scores = row.tolist()
    for t in {*request.prompt_token_ids, *request.output_token_ids}:
        factor = p.repetition_penalty
        scores[t] = scores[t] / factor if scores[t] > 0 else scores[t] * factor
    for t, n in Counter(request.output_token_ids).items():
        scores[t] -= p.presence_penalty + p.frequency_penalty * n
    if len(request.output_token_ids) < p.min_tokens:
        for t in request.stop_token_ids:
            scores[t] = -math.inf
    weights = {t: math.exp(s / p.temperature) for t, s in enumerate(scores)}
    ordered = sorted(weights, key=lambda t: -weights[t])
    ordered = ordered[: p.top_k or None]
    total = sum(weights[t] for t in ordered)
    kept, before = [], 0.0
    for t in ordered:
        if not kept or before < p.top_p * total:
            kept.append(t)
        before += weights[t]
    kept = [t for t in kept if weights[t] >= p.min_p * weights[ordered[0]]]
    total = sum(weights[t] for t in kept)
    return {t: weights[t] / total for t in kept}


SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 2.0]),
        "top_k": st.sampled_from([0, 1, 3, 7, 99]),
        "top_p": st.sampled_from([0.05, 0.4, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.1, 1.0]),
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.7]),
        "presence_penalty": st.sampled_from([-1.0, 0.0, 1.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "min_tokens": st.sampled_from([0, 2, 3]),
        "stop_token_ids": st.sampled_from([(), (0, 5)]),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SETTINGS, min_size=1, max_size=5), st.integers(0, 1000))
@pytest.mark.parametrize("picker", PICKERS, ids=["plain", "compiled"])
def test_each_row_draws_from_the_distribution_its_settings_describe(
    picker: Picker, rows: list[dict[str, Any]], seed: int
) -> None:
    logits = random_logits(len(rows), seed)
    requests = [make_request(output=(5, 5, 3)[: i % 4], **values) for i, values in enumerate(rows)]
    for row, request, token in zip(logits, requests, tokens(logits, requests, picker), strict=True):
        expected = reference(row, request)
        point = uniform(request.seed, len(request.output_token_ids))
        reached = 0.0
        for t, probability in expected.items():
            if t == token:
                assert reached - 1e-6 <= point <= reached + probability + 1e-6
                break
            reached += probability
        else:
            raise AssertionError(f"token {token} is not allowed: {expected}")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SETTINGS, min_size=2, max_size=5), st.integers(0, 1000))
@pytest.mark.parametrize("picker", PICKERS, ids=["plain", "compiled"])
def test_a_row_does_not_depend_on_its_batch_mates(
    picker: Picker, rows: list[dict[str, Any]], seed: int
) -> None:
    logits = random_logits(len(rows), seed)
    requests = [make_request(**values) for values in rows]
    alone = [tokens(logits[i : i + 1], [request], picker)[0] for i, request in enumerate(requests)]
    assert tokens(logits, requests, picker) == alone


def test_greedy_rows_take_the_likeliest_token_beside_random_ones() -> None:
    logits = random_logits(4)
    requests = [make_request(), make_request(temperature=1.0), make_request(), make_request()]
    result = tokens(logits, requests)
    assert [result[i] for i in (0, 2, 3)] == logits.argmax(-1)[[0, 2, 3]].tolist()


def test_many_draws_follow_the_distribution() -> None:
    """10,000 draws: a token of probability p is off by 5 % of the draws with probability below
    1e-24 (Hoeffding), for each of the 16 tokens."""
    logits = random_logits(1)
    expected = reference(logits[0], make_request(temperature=1.0))
    requests = [make_request(temperature=1.0, seed=seed) for seed in range(10_000)]
    drawn = Counter(tokens(logits.expand(10_000, -1), requests))
    for token, probability in expected.items():
        assert abs(drawn[token] / 10_000 - probability) < 0.05


def test_the_uniform_numbers_are_uniform_over_positions_and_seeds() -> None:
    for numbers in (
        [uniform(7, position) for position in range(4000)],
        [uniform(seed, 7) for seed in range(4000)],
    ):
        assert all(0 <= n < 1 for n in numbers)
        for tenth, count in Counter(int(n * 10) for n in numbers).items():
            assert 300 < count < 500, tenth


def test_a_seed_gives_the_same_token_at_the_same_position_only() -> None:
    logits = torch.zeros(1, VOCABULARY)
    first = [tokens(logits, [make_request((1,) * n, temperature=1.0, seed=9)])[0] for n in range(9)]
    again = [tokens(logits, [make_request((1,) * n, temperature=1.0, seed=9)])[0] for n in range(9)]
    assert first == again
    assert len(set(first)) > 1


def test_end_tokens_are_banned_until_min_tokens() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3] = 10.0
    banned = make_request((1,), min_tokens=2, stop_token_ids=(3,))
    allowed = make_request((1, 1), min_tokens=2, stop_token_ids=(3,))
    assert tokens(logits, [banned]) != [3]
    assert tokens(logits, [allowed]) == [3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_fails_alone(bad: float) -> None:
    logits = random_logits(3)
    logits[1, 4] = bad
    requests = [make_request(temperature=1.0, logprobs=2) for _ in range(3)]
    results = sample(logits, requests)
    assert isinstance(results[1], EngineError)
    assert results[0] == sample(logits[:1], requests[:1])[0]
    assert isinstance(results[2], SampledToken)


def test_a_token_that_the_model_rules_out_is_no_failure() -> None:
    logits = random_logits(1)
    logits[0, 2] = -math.inf
    assert isinstance(sample(logits, [make_request(temperature=2.0)])[0], SampledToken)


def test_logprobs_are_those_of_the_model_before_any_setting() -> None:
    logits = random_logits(2)
    changed = make_request(
        (4,), logprobs=3, temperature=0.5, top_k=2, presence_penalty=2.0, repetition_penalty=1.5
    )
    results = sample(logits.clone(), [make_request(), changed])
    assert isinstance(results[0], SampledToken)
    assert results[0].logprob is None
    assert isinstance(results[1], SampledToken)
    got = results[1].logprob
    assert isinstance(got, TokenLogprob)
    expected = torch.log_softmax(logits[1], dim=-1)
    assert got.token_id == results[1].token_id
    assert got.logprob == pytest.approx(expected[got.token_id].item())
    assert [t for t, _ in got.top] == expected.topk(3).indices.tolist()
    assert [v for _, v in got.top] == pytest.approx(expected.topk(3).values.tolist())


def test_zero_logprobs_give_the_chosen_token_alone() -> None:
    result = sample(random_logits(1), [make_request(logprobs=0)])[0]
    assert isinstance(result, SampledToken)
    assert result.logprob is not None
    assert result.logprob.top == ()


@pytest.mark.parametrize("spread", [0.02, 1.0, 8.0])
@pytest.mark.parametrize("vocabulary", [5, 700, 20_000])
def test_the_compiled_draw_is_the_sorted_one(vocabulary: int, spread: float) -> None:
    """Over flat and steep distributions, with equal logits, ruled out tokens and every cut."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(96, vocabulary, generator=generator) * spread
    logits[::3] = (logits[::3] * 4).round() / 4
    logits[1::4, 2] = -math.inf
    requests = [
        make_request(
            temperature=(0.2, 0.8, 1.0, 1.7)[i % 4],
            top_p=(1.0, 0.9, 0.3, 1e-6)[i // 4 % 4],
            top_k=(0, 1, 3, 50, 2000)[i % 5],
            min_p=(0.0, 0.05, 0.5)[i % 3],
            seed=i,
        )
        for i in range(96)
    ]
    expected = tokens(logits, requests)
    got = tokens(logits, requests, PICKERS[1])
    order = logits.sort(dim=-1, descending=True, stable=True).indices.tolist()
    apart = [abs(o.index(a) - o.index(b)) for o, a, b in zip(order, expected, got, strict=True)]
    # Sums are added in another order: a point, or a cut between equals, on the edge of two tokens
    # may fall to either.
    assert max(apart) <= 1
    assert sum(apart) <= 4


@pytest.mark.parametrize("picker", PICKERS, ids=["plain", "compiled"])
def test_a_row_that_its_own_settings_ruin_fails_alone(picker: Picker) -> None:
    """Every token banned: nothing is left to draw."""
    ban = tuple(range(VOCABULARY))
    requests = [
        make_request(temperature=1.0, seed=1),
        make_request(temperature=1.0, min_tokens=5, stop_token_ids=ban),
        make_request(temperature=1.0, seed=3),
    ]
    results = sample(random_logits(3), requests, picker)
    assert [isinstance(r, EngineError) for r in results] == [False, True, False]


def test_the_compiled_picker_keeps_its_scratch_from_one_step_to_the_next() -> None:
    picker = CompiledPicker()
    for rows, vocabulary in ((5, 300), (2, 300), (3, 50), (8, 300)):
        logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows))
        requests = [make_request(temperature=1.0, top_p=0.9, seed=i) for i in range(rows)]
        assert tokens(logits, requests, picker) == tokens(logits, requests)


@pytest.mark.parametrize("vocabulary", [1, 15, 16, 511, 512, 513, 5000])
def test_the_likeliest_token_is_the_first_of_equal_ones(vocabulary: int) -> None:
    plain, compiled = PICKERS
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    logits = (logits * 4).round() / 4  # many equal ones
    logits[1, vocabulary // 2] = math.nan
    logits[2] = -math.inf
    logits[3, -1] = math.inf
    logits[4] = -0.0
    expected, tops = plain.likeliest(logits)
    got, same_tops = compiled.likeliest(logits)
    assert torch.isfinite(tops).tolist() == [True, False, False, False, True, True]
    torch.testing.assert_close(same_tops, tops, rtol=0, atol=0, equal_nan=True)
    assert [int(token) for token in got[3:]] == [int(token) for token in expected[3:]]
    assert got[0] == expected[0]


@pytest.mark.parametrize("vocabulary", [16, 3000])
def test_both_pickers_penalise_alike(vocabulary: int) -> None:
    """Tokens of the prompt only, of the answer only, of both, many times; rows that ask for nothing
    stay, and so does the scratch."""
    plain, compiled = PICKERS
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, vocabulary, generator=generator) * 5
    requests = [
        make_request((3, 3, 3, 5), (1, 2, 3), repetition_penalty=1.3),
        make_request((), (1, 1, 2), repetition_penalty=0.7, frequency_penalty=1.0),
        make_request((9, 9, 2), (2,), presence_penalty=-0.5, frequency_penalty=0.25),
        make_request(tuple(range(16)) * 3, (0,), repetition_penalty=2.0, presence_penalty=1.5),
    ]
    rows = [0, 2, 3, 4]
    expected, got = logits.clone(), logits.clone()
    plain.penalise(expected, rows, requests)
    for _ in range(2):
        got = logits.clone()
        compiled.penalise(got, rows, requests)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(got[rows], logits[rows])
    assert torch.equal(got[1], logits[1])
