"""What one answer costs: reserved before any work, settled after it, counted as usage.

    reserve (an estimate) → the answer → used (the model host's own count) → close

An answer that failed costs nothing. One whose client left costs its whole prompt, with the turns
that went along, and what had been said by then; where nobody can know that, because the answer was
to come whole, what answers have lately said in such a time. `close` is awaited before the last byte
goes out, so whoever has an answer can rely on the counts.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.context import Call, RequestContext
from api.limits.limiter import Limiter, Taken
from api.tracing import current
from api.trimming import DEFAULT_ANSWER, estimated_tokens
from api.usage.counts import Counts
from api.usage.recorder import UsageRecorder

_NEWEST_COUNTS = 0.1
"""How much the newest answer counts for how fast answers are made."""


class Charge:
    def __init__(
        self,
        meter: "Meter",
        context: RequestContext,
        call: Call,
        model: str,
        prompt: int,
        answer: int,
    ) -> None:
        self._meter = meter
        self._context = context
        self._call = call
        self._model = model
        self.prompt = prompt
        self._answer = answer
        self._reserved = prompt + answer
        self._sent_at: float | None = None
        self._served_by: str | None = None
        self.taken: Taken | None = None
        self._more: Taken | None = None
        self.pieces: int | None = None
        self._counts: Counts | None = None
        self._failed = self._closed = False

    @property
    def tokens(self) -> int:
        return self._reserved

    async def cover(self) -> None:
        """Reserve what the prompt has turned out to be larger by: earlier turns go along. Raises
        RateLimited when that does not fit.
        """
        more = self.prompt + self._answer - self._reserved
        if more <= 0 or self.taken is None:
            return
        self._more = await self._meter.limiter.take_more(self.taken, more)
        self._reserved += more
        if self._more is not None:
            # What is left now; of the requests as much as before.
            newest = dict(self.taken.headers()) | dict(self._more.headers())
            self._context.headers = list(newest.items())

    def sent(self) -> None:
        """From now on a model host works on it."""
        self._sent_at = time.monotonic()

    def not_sent(self) -> None:
        """It did not reach one, or was turned away there."""
        self._sent_at = None

    def streams(self, model: str | None) -> None:
        """The answer comes piece by piece; from this model, once that is known."""
        self.pieces = 0
        self._served_by = model

    def used(self, usage: Any, model: str | None = None) -> None:
        """The model host's own count, in its `/generate` or OpenAI's form."""
        counts = usage if isinstance(usage, Mapping) else {}
        details = counts.get("prompt_tokens_details")
        cached = counts.get("cached_tokens")
        if cached is None and isinstance(details, Mapping):
            cached = details.get("cached_tokens")
        self._counts = count = Counts(
            1,
            0,
            _number(counts.get("prompt_tokens")),
            _number(counts.get("completion_tokens")),
            _number(cached),
        )
        self._served_by = model or ""
        if self._sent_at is not None:
            self._meter.note_pace(count.completion_tokens, self._sent_at)
        current().used(count.prompt_tokens, count.completion_tokens, count.cached_tokens)

    def untold(self, model: str | None) -> None:
        """A good answer has ended. Where its host told no usage, it costs what can be known of it,
        as where a client left.
        """
        if self._counts is None:
            self._counts = self._abandoned()
            self._served_by = model or ""

    def failed(self) -> None:
        """Whatever becomes of the request that it is part of: who failed costs nothing."""
        self._failed = True

    def nothing(self) -> None:
        """There was no work: the answer was there already."""
        self._counts = Counts()
        if self.taken is not None:
            self._context.headers = self.taken.headers(kept=False)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        counts = self._counts
        if counts is None and not self._failed and self._context.abort_reason == "client":
            counts = self._abandoned()
        if counts is None or counts.requests:
            # What a caller asked for need not exist, who answered does.
            answered_by = self._served_by if counts is not None else None
            self._meter.usage.record(
                self._call.caller,
                answered_by or self._model,
                counts or Counts(requests=1, errors=1),
                answered=bool(answered_by),
            )
        if self.taken is not None:
            charged = counts is not None and counts.requests
            tokens = counts.prompt_tokens + counts.completion_tokens if counts and charged else None
            await self._meter.limiter.settle(self.taken, tokens)
        if self._more is not None:
            # What the call cost is of the first part already.
            await self._meter.limiter.settle(self._more, None)

    def _abandoned(self) -> Counts | None:
        """What it cost until the client left; None before any work was done."""
        if self._sent_at is None:
            return None
        # Each piece of a stream is a token or more.
        said = self.pieces
        if said is None:
            said = min(self._answer, self._meter.tokens_since(self._sent_at))
        return Counts(1, 0, _number(self.prompt), said, 0)


class Meter:
    def __init__(self, limiter: Limiter, usage: UsageRecorder) -> None:
        self.limiter = limiter
        self.usage = usage
        self._tokens_per_s = 0.0
        """Of one answer, waiting included."""

    def note_pace(self, tokens: int, sent_at: float) -> None:
        pace = tokens / max(time.monotonic() - sent_at, 1e-3)
        self._tokens_per_s += (pace - self._tokens_per_s) * (
            _NEWEST_COUNTS if self._tokens_per_s else 1
        )

    def tokens_since(self, sent_at: float) -> int:
        return int(self._tokens_per_s * (time.monotonic() - sent_at))

    async def reserve(
        self, context: RequestContext, call: Call, model: str | None, prompt: int, answer: int
    ) -> Call:
        """The call with its charge, which the request's end closes. RateLimited when it does not
        fit.
        """
        charge = Charge(self, context, call, model or "", prompt, answer)
        charge.taken = await self.limiter.take(call.caller, prompt + answer, call.remaining())
        if charge.taken is not None:
            context.headers = charge.taken.headers()
        context.charges.append(charge)
        return replace(call, charge=charge)


def answer_tokens(max_tokens: int | None, answers: int = 1) -> int:
    return (DEFAULT_ANSWER if max_tokens is None else max_tokens) * answers


def chat_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Estimates of prompt and answer of an OpenAI chat completion, from the fields that count for
    it alone: the model host passes over others. A body that makes no sense is the host's to refuse.
    """
    most = _most_tokens(body, "max_completion_tokens", "max_tokens")
    return _prompt_tokens(body.get("messages")), answer_tokens(most, _choices(body))


def completion_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """The same of an OpenAI text completion, which may have several prompts."""
    prompt: Any = body.get("prompt")
    prompts = len(prompt) if _is_list_of_prompts(prompt) else 1
    most = _most_tokens(body, "max_tokens")
    return _prompt_tokens(prompt), answer_tokens(most, _choices(body) * prompts)


def _most_tokens(body: Mapping[str, Any], *names: str) -> int | None:
    given = (body[name] for name in names if type(body.get(name)) is int and body[name] > 0)
    return next((min(most, _MOST_TOKENS) for most in given), None)


def _choices(body: Mapping[str, Any]) -> int:
    count = body.get("n")
    return count if type(count) is int and 1 <= count <= _MOST_CHOICES else 1


_MOST_CHOICES = 128
_MOST_TOKENS = 2**32


def _is_list_of_prompts(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)


def _prompt_tokens(value: object) -> int:
    if isinstance(value, str):
        return estimated_tokens(value)
    if not isinstance(value, list):
        return 0
    if value and isinstance(value[0], int):
        return len(value)
    total = 0
    for item in value:
        if isinstance(item, Mapping):
            content = item.get("content")
            parts = content if isinstance(content, list) else [content]
            texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
            total += estimated_tokens(*(text for text in texts if isinstance(text, str)))
        elif isinstance(item, str):
            total += estimated_tokens(item)
        elif isinstance(item, list):
            total += len(item)
    return total


def _number(value: object) -> int:
    """A host may say anything; what no database holds would keep all other counts out of it."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0
