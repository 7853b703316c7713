"""A request's two forms: `Request`, mutable, and `RequestOutput`, a value that crosses threads.

Knows no torch and no text. A `Request` is touched by the engine thread only, once it is
submitted; only the scheduler assigns its `status`.
"""

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from model.engine.errors import EngineError
from model.engine.sampling_params import SamplingParams


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    DEADLINE = "deadline"
    ERROR = "error"


class RequestStatus(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probabilities of the model itself: before temperature, penalties and cuts."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class RequestTiming:
    queue_s: float
    prefill_s: float
    decode_s: float
    batch_size: int
    """Requests in the step that finished this request's prefill."""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    request_id: str
    token_ids: tuple[int, ...]
    """New tokens of this step only, without a token that ended the request."""
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason | None
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    timing: RequestTiming
    error: EngineError | None


@dataclass(slots=True, eq=False)
class Request:
    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    """`params.seed`, or one drawn at submit."""
    arrival: float
    """time.monotonic() at submit, as all times here."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end this request: the model's own, unless ignored, and the caller's."""
    deadline: float | None = None
    cache_salt: str | None = None
    """Cached prefixes are shared only with requests of the same salt."""
    tenant: str | None = None
    """Whose request it is: tenants that wait are served by turns."""
    call: str | None = None
    """What its caller asked for at once, as several choices, has the same here."""
    status: RequestStatus = RequestStatus.WAITING
    output_token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    """Tokens, from the first one on, whose keys and values are in the cache."""
    num_cached_tokens: int = 0
    """Prompt tokens that were not computed, at its first start, because the cache held them."""
    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    """Of its full blocks, as far as anybody asked; kept through preemption."""
    num_findable_blocks: int = 0
    """Blocks, from the first one on, that other requests have been let find."""
    scheduled_at: float | None = None
    first_token_at: float | None = None
    finished_at: float | None = None
    batch_size: int = 0
    finish_reason: FinishReason | None = None
    error: EngineError | None = None

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        return self.num_tokens - self.num_computed_tokens

    @property
    def max_num_tokens(self) -> int:
        return self.num_prompt_tokens + self.params.max_tokens

    @property
    def finished(self) -> bool:
        return self.status is RequestStatus.FINISHED

    def token_ids(self, start: int, end: int) -> list[int]:
        """Tokens [start, end) of prompt and output together."""
        split = self.num_prompt_tokens
        prompt = self.prompt_token_ids[start : min(end, split)] if start < split else ()
        return [*prompt, *self.output_token_ids[max(start - split, 0) : max(end - split, 0)]]

    def output(
        self,
        now: float,
        token_ids: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] | None = None,
    ) -> RequestOutput:
        return RequestOutput(
            request_id=self.request_id,
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=len(self.output_token_ids),
            timing=self._timing(now),
            error=self.error,
        )

    def _timing(self, now: float) -> RequestTiming:
        end = self.finished_at if self.finished_at is not None else now
        scheduled = self.scheduled_at if self.scheduled_at is not None else end
        first = self.first_token_at if self.first_token_at is not None else end
        return RequestTiming(
            queue_s=scheduled - self.arrival,
            prefill_s=first - scheduled,
            decode_s=end - first,
            batch_size=self.batch_size,
        )
