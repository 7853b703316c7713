"""How one request picks its tokens: a checked value object.

Owns the ranges. Knows no defaults of a model or a server: every value here is resolved.
Immutable, so any thread may read it.
"""

from dataclasses import dataclass

from model.engine.errors import InvalidParameter

MIN_REPETITION_PENALTY = 1e-3
"""A logit is divided by it, and must stay a number."""
MAX_SEED = 2**63 - 1
MAX_LOGPROBS = 20
GREEDY_BELOW = 1e-5
"""Dividing logits by less than this only makes numbers that overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    seed: int | None = None
    """None draws a new one at submit."""
    presence_penalty: float = 0.0
    """Over the output only, as is frequency_penalty."""
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and output."""
    stop_token_ids: tuple[int, ...] = ()
    """Besides the model's own end-of-sequence ids."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """None is off; n gives the chosen token and the n likeliest ones."""

    def __post_init__(self) -> None:
        # Comparisons are written so that NaN fails them.
        _check("max_tokens", self.max_tokens >= 1, "must be at least 1")
        _check(
            "min_tokens",
            0 <= self.min_tokens <= self.max_tokens,
            f"must be between 0 and max_tokens, which is {self.max_tokens} here",
        )
        _check("temperature", 0.0 <= self.temperature <= 2.0, "must be between 0 and 2")
        _check("top_p", 0.0 < self.top_p <= 1.0, "must be greater than 0 and at most 1")
        _check("top_k", self.top_k >= 0, "must be 0 (off) or at least 1")
        _check("min_p", 0.0 <= self.min_p <= 1.0, "must be between 0 and 1")
        _check(
            "seed",
            self.seed is None or 0 <= self.seed <= MAX_SEED,
            f"must be between 0 and {MAX_SEED}",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            _check(name, -2.0 <= getattr(self, name) <= 2.0, "must be between -2 and 2")
        _check(
            "repetition_penalty",
            MIN_REPETITION_PENALTY <= self.repetition_penalty <= 2.0,
            f"must be between {MIN_REPETITION_PENALTY} and 2",
        )
        _check("stop_token_ids", all(i >= 0 for i in self.stop_token_ids), "must not be negative")
        _check(
            "logprobs",
            self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
            f"must be between 0 and {MAX_LOGPROBS}",
        )

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


def _check(param: str, ok: bool, rule: str) -> None:
    if not ok:
        raise InvalidParameter(param, f"{param} {rule}")
