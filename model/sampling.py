"""From what a caller left open to resolved sampling values.

Owns the defaults: the model's own generation_config, greedy where it does not sample. Knows no
HTTP. Read once while loading, immutable afterwards.
"""

import hashlib
import math
import reprlib
from dataclasses import dataclass, replace
from typing import Any

from transformers import GenerationConfig

from model.engine import InvalidParameter, ModelLoadError, SamplingParams
from model.engine.errors import first_line
from model.engine.loader import GENERATION_CONFIG
from model.engine.sampling_params import MIN_REPETITION_PENALTY
from model.errors import context_length_exceeded, from_engine
from model.schemas import Sampling

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def resolve(
        self, sampling: Sampling, num_prompt_tokens: int, limit: int, **fixed: Any
    ) -> SamplingParams:
        """`limit` is what the context holds; absent max_tokens takes what is left of it."""
        max_tokens = sampling.max_tokens
        if max_tokens is None:
            max_tokens = max(1, min(DEFAULT_MAX_TOKENS, limit - num_prompt_tokens))
        given = sampling.model_dump(
            include={
                "temperature",
                "top_p",
                "top_k",
                "min_p",
                "seed",
                "presence_penalty",
                "frequency_penalty",
                "repetition_penalty",
                "logprobs",
            },
            exclude_none=True,
        )
        defaults = {name: getattr(self, name) for name in self.__slots__}
        try:
            return SamplingParams(max_tokens=max_tokens, **{**defaults, **given, **fixed})
        except InvalidParameter as error:
            raise from_engine(error) from None


def check_context(
    num_tokens: int, sampling: Sampling, limit: int, prompt_param: str, answer_param: str
) -> None:
    """One new token at least must fit behind the prompt. The params are the caller's names."""
    max_tokens = sampling.max_tokens or 1
    if num_tokens + max_tokens > limit:
        raise context_length_exceeded(num_tokens, max_tokens, limit, prompt_param, answer_param)


def for_choice(params: SamplingParams, index: int) -> SamplingParams:
    """Several choices of one request differ, and each is repeatable. The seeds of others would be
    too near if they were counted on from the first: the next request often takes the next one.
    """
    if params.seed is None or index == 0:
        return params
    digest = hashlib.blake2b(f"{params.seed}:{index}".encode(), digest_size=8).digest()
    return replace(params, seed=int.from_bytes(digest) % 2**63)


def load_defaults(model: str) -> SamplingDefaults:
    """The file is optional; one that is there and wrong is not passed over."""
    try:
        config = GenerationConfig.from_pretrained(model)
    except OSError:
        return SamplingDefaults()
    except ValueError as error:
        said = first_line(error)
        raise ModelLoadError(f"{model}: {GENERATION_CONFIG} cannot be used: {said}") from error
    return defaults_of(config)


def defaults_of(config: Any) -> SamplingDefaults:
    penalty = _number(config, "repetition_penalty", 1.0, MIN_REPETITION_PENALTY, 2.0)
    samples = config.do_sample
    if samples is not None and not isinstance(samples, bool):
        raise _wrong("do_sample", "true or false", samples)
    if not samples:
        return SamplingDefaults(repetition_penalty=penalty)
    top_k = _number(config, "top_k", 0.0, 0.0, 2.0**31 - 1)
    if not top_k.is_integer():
        raise _wrong("top_k", "a whole number", config.top_k)
    return SamplingDefaults(
        temperature=_number(config, "temperature", 1.0, 0.0, 2.0),
        top_p=_number(config, "top_p", 1.0, 1e-3, 1.0),
        top_k=int(top_k),
        min_p=_number(config, "min_p", 0.0, 0.0, 1.0),
        repetition_penalty=penalty,
    )


def _number(config: Any, name: str, default: float, low: float, high: float) -> float:
    value = getattr(config, name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise _wrong(name, "a number", value)
    return float(min(max(value, low), high))


def _wrong(name: str, kind: str, value: object) -> ModelLoadError:
    return ModelLoadError(f"{GENERATION_CONFIG}: {name} must be {kind}, not {reprlib.repr(value)}")
