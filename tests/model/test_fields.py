"""The sampling fields: one range for every door, and the engine's own is the same."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from model.engine import InvalidParameter, SamplingParams
from model.fields import MAX_SEED, SamplingFields
from model.openai_schemas import ChatCompletionRequest, CompletionRequest
from model.schemas import Query, Sampling

# The first two are the last ones inside; then the first ones outside, if there is an outside.
EDGES: dict[str, tuple[Any, Any, list[Any]]] = {
    "max_tokens": (1, 1, [0]),
    "temperature": (0.0, 2.0, [-0.01, 2.01]),
    "top_p": (0.01, 1.0, [0.0, 1.01]),
    "top_k": (0, 2**31 - 1, [-1]),
    "min_p": (0.0, 1.0, [-0.01, 1.01]),
    "seed": (0, MAX_SEED, [-1, MAX_SEED + 1]),
    "presence_penalty": (-2.0, 2.0, [-2.01, 2.01]),
    "frequency_penalty": (-2.0, 2.0, [-2.01, 2.01]),
    "repetition_penalty": (0.01, 2.0, [0.0, 2.01]),
    "logprobs": (0, 20, [-1, 21]),
}


@pytest.mark.parametrize("name", EDGES)
def test_the_engine_takes_what_a_body_may_say_and_no_more(name: str) -> None:
    low, high, outside = EDGES[name]
    for value in (low, high):
        assert getattr(Sampling(**{name: value}), name) == value
        assert getattr(SamplingParams(**{"max_tokens": 1, name: value}), name) == value
    for value in outside:
        with pytest.raises(ValidationError):
            Sampling(**{name: value})
        with pytest.raises(InvalidParameter):
            SamplingParams(**{"max_tokens": 1, name: value})


@pytest.mark.parametrize("body", [Query, ChatCompletionRequest, CompletionRequest])
def test_every_body_has_the_same_sampling_fields(body: type[BaseModel]) -> None:
    for name, field in SamplingFields.model_fields.items():
        assert body.model_fields[name].annotation == field.annotation, name
        assert body.model_fields[name].metadata == field.metadata, name
