import math
from typing import Any

import pytest

from model.engine import InvalidParameter, SamplingParams


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("min_tokens", 11),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", -1),
        ("seed", 2**63),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 2.1),
        ("stop_token_ids", (3, -1)),
        ("logprobs", -1),
        ("logprobs", 21),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(param: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as error:
        SamplingParams(**{"max_tokens": 10, param: value})
    assert error.value.param == param
    assert error.value.message.startswith(param)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "min_p": 1.0},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0, "repetition_penalty": 2.0},
        {"logprobs": 0},
        {"logprobs": 20, "min_tokens": 10, "stop_token_ids": (0,)},
    ],
)
def test_the_ends_of_every_range_are_allowed(values: dict[str, Any]) -> None:
    SamplingParams(max_tokens=10, **values)


def test_a_temperature_too_small_to_divide_by_is_greedy() -> None:
    assert SamplingParams(max_tokens=1, temperature=1e-300).greedy
    assert not SamplingParams(max_tokens=1, temperature=0.01).greedy
