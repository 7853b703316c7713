"""Whether a new request can be served at all and may join the queue: decided before any work.

Owns the checks on token ids and lengths, the count of queued requests and tokens, and the
measured rate at which the queue drains.
A request counts from submit until it is first scheduled or ends. Knows no torch. The event loop
admits, the engine thread releases: a lock guards the few numbers, held for no longer than it
takes to change them.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from secrets import randbelow

from model.engine.config import EngineInfo
from model.engine.errors import InvalidParameter, Overloaded, PromptTooLong
from model.engine.request import Request
from model.engine.sampling_params import MAX_SEED, SamplingParams

WINDOW_S = 30.0
DEFAULT_RETRY_AFTER_S = 2.0
"""Said when nothing has left the queue yet, so that there is no rate to go by."""
MAX_RETRY_AFTER_S = 120.0


def new_request(
    request_id: str,
    prompt_token_ids: Sequence[int],
    params: SamplingParams,
    info: EngineInfo,
    *,
    deadline: float | None = None,
    cache_salt: str | None = None,
    tenant: str | None = None,
    call: str | None = None,
    now: float,
) -> Request:
    """Refuses what this engine could never serve."""
    prompt = tuple(prompt_token_ids)
    if not prompt:
        raise InvalidParameter("prompt_token_ids", "the prompt must have at least one token")
    ids_by_name = {"prompt_token_ids": prompt, "stop_token_ids": params.stop_token_ids}
    for name, token_ids in ids_by_name.items():
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < info.vocab_size:
            raise InvalidParameter(name, f"token ids must be between 0 and {info.vocab_size - 1}")
    if len(prompt) + params.max_tokens > info.max_model_len:
        raise PromptTooLong(len(prompt), params.max_tokens, info.max_model_len)
    own = () if params.ignore_eos else info.eos_token_ids
    return Request(
        request_id=request_id,
        prompt_token_ids=prompt,
        params=params,
        seed=params.seed if params.seed is not None else randbelow(MAX_SEED + 1),
        arrival=now,
        stop_token_ids=frozenset((*own, *params.stop_token_ids)),
        deadline=deadline,
        cache_salt=cache_salt,
        tenant=tenant,
        call=call,
    )


class Admission:
    def __init__(
        self,
        *,
        max_queued_requests: int,
        max_queued_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_queued_requests = max_queued_requests
        self.max_queued_tokens = max_queued_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._num_requests = 0
        self._num_tokens = 0
        self._of_call: Counter[str | None] = Counter()
        self._busy_since = 0.0
        self._released: deque[tuple[float, int]] = deque()

    @property
    def num_queued_requests(self) -> int:
        return self._num_requests

    @property
    def num_queued_tokens(self) -> int:
        return self._num_tokens

    def admit(self, request: Request) -> None:
        """Raises Overloaded. A queue that is empty but for what belongs to the same call takes any
        request, however large: a call that would be refused for its own choices never fits.
        """
        tokens = request.max_num_tokens
        with self._lock:
            now = self._clock()
            excess = self._num_tokens + tokens - self.max_queued_tokens
            if self._num_requests >= self.max_queued_requests:
                excess = max(excess, self._num_tokens // self._num_requests)
            own = self._of_call[request.call] if request.call is not None else 0
            if self._num_requests > own and excess > 0:
                raise Overloaded(self._retry_after_s(excess, now))
            if not self._num_requests:
                self._busy_since = now
                self._released.clear()
            self._num_requests += 1
            self._num_tokens += tokens
            self._of_call[request.call] += 1

    def release(self, request: Request) -> None:
        """Called once for each admitted request, when it leaves the queue."""
        with self._lock:
            now = self._clock()
            self._num_requests -= 1
            self._num_tokens -= request.max_num_tokens
            self._of_call[request.call] -= 1
            if not self._of_call[request.call]:
                del self._of_call[request.call]
            self._released.append((now, request.max_num_tokens))
            # Here too: a queue that neither empties nor refuses anybody would grow this for ever.
            self._forget_released(now)

    def _retry_after_s(self, excess: int, now: float) -> float:
        """How long the queue needs, at its present rate, to make room for `excess` tokens."""
        self._forget_released(now)
        drained = sum(tokens for _, tokens in self._released)
        if not drained:
            return DEFAULT_RETRY_AFTER_S
        rate = drained / max(now - max(self._busy_since, now - WINDOW_S), 1.0)
        return min(max(excess / rate, 1.0), MAX_RETRY_AFTER_S)

    def _forget_released(self, now: float) -> None:
        while self._released and self._released[0][0] < now - WINDOW_S:
            self._released.popleft()
