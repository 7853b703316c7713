"""The one way from a checked request to the engine and back, for every door.

Owns: encoding off the event loop, the context check, the deadline, detokenising, stop strings,
the abort when a caller stops reading, and what is counted. Knows no route and no JSON. Everything
runs on the event loop, except encoding, which runs in a small pool of threads.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

from model.detokenizer import Detokenizer, StopMatcher
from model.engine import (
    AsyncEngine,
    EngineError,
    FinishReason,
    Overloaded,
    RequestOutput,
    RequestStream,
    RequestTiming,
    TokenLogprob,
)
from model.errors import DeadlineExceeded, HostError, InternalError, draining, from_engine
from model.metrics import Metrics
from model.prompt import Prompt, PromptEncoder
from model.sampling import SamplingDefaults, check_context, for_choice
from model.schemas import Sampling
from model.streams import merged
from model.token_bytes import token_bytes
from model.tokenizer import Tokenizer
from model.tracing import Generation, current

ENCODING_THREADS = 2
ENCODING_RETRY_AFTER_S = 2.0
# The engine ends a request at its deadline by itself; this is for an engine that is in a long step.
DEADLINE_SLACK_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every door makes of a request."""

    prompt: Prompt
    sampling: Sampling
    deadline: float
    """On time.monotonic()."""
    tenant: str | None = None
    call: str | None = None
    """Jobs that were asked for at once, all or none, have the same."""
    min_tokens: int = 0
    ignore_eos: bool = False
    max_tokens_param: str = "max_tokens"
    """What its caller calls the number of new tokens."""


@dataclass(frozen=True, slots=True)
class TokenText:
    text: str
    raw: bytes
    """Also where the token is part of a character only, which the text cannot tell."""
    logprob: float


@dataclass(frozen=True, slots=True)
class TextLogprob:
    token: TokenText
    top: tuple[TokenText, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of one answer; the last one has `end`."""

    text: str
    logprobs: tuple[TextLogprob, ...] = ()
    end: "End | None" = None


@dataclass(frozen=True, slots=True)
class End:
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    timing: RequestTiming


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    logprobs: tuple[TextLogprob, ...]
    end: End


def whole(deltas: Sequence[Delta]) -> Answer:
    """The pieces of one finished stream as the answer they are."""
    end = deltas[-1].end
    assert end is not None, "a stream that ends without an error has an end"
    logprobs = tuple(item for delta in deltas for item in delta.logprobs)
    return Answer("".join(delta.text for delta in deltas), logprobs, end)


class Readiness(Protocol):
    """The host's state, as far as a request depends on it."""

    def check(self) -> None:
        """Raises NotReady or ServerDraining."""

    @property
    def is_draining(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What exists once loading has ended."""

    engine: AsyncEngine
    tokenizer: Tokenizer
    encoder: PromptEncoder
    defaults: SamplingDefaults
    end_token_ids: tuple[int, ...] = ()
    """The tokenizer's, besides those of the model's config that the engine has read: that may have
    none, or another than its chats end with."""
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(ENCODING_THREADS, thread_name_prefix="encode")
    )


class Generator:
    def __init__(self, loaded: LoadedModel, readiness: Readiness, metrics: Metrics) -> None:
        self._loaded = loaded
        self._readiness = readiness
        self._metrics = metrics
        self._num_encoding = 0

    def text_of(self, prompt: Prompt) -> str:
        """A text, or what its token ids say; the ids have been checked before."""
        return prompt.text or self._loaded.tokenizer.decode(prompt.token_ids or ())

    async def answer(self, job: Job) -> Answer:
        async with contextlib.aclosing(self.stream(job)) as deltas:
            return whole([delta async for delta in deltas])

    async def stream(self, job: Job) -> AsyncGenerator[Delta]:
        """Raises HostError. Closing it before its end aborts the request."""
        async with contextlib.aclosing(self.choices(job, 1)) as deltas:
            async for _, delta in deltas:
                yield delta

    async def choices(self, job: Job, count: int) -> AsyncGenerator[tuple[int, Delta]]:
        """The pieces of all answers as they come, each with its answer's number."""
        self._readiness.check()
        token_ids = await self._encode(job)
        ones = [self._one(job, token_ids, index) for index in range(count)]
        async with contextlib.aclosing(merged(ones)) as deltas:
            async for item in deltas:
                yield item

    async def _one(self, job: Job, token_ids: list[int], choice: int) -> AsyncGenerator[Delta]:
        stream, record = self._submit(job, token_ids, choice)
        try:
            async with stream, contextlib.aclosing(self._deltas(job, stream, record)) as deltas:
                async for delta in deltas:
                    yield delta
        except EngineError as error:
            raise from_engine(error) from error
        finally:
            record.close(stream)

    async def _encode(self, job: Job) -> list[int]:
        loaded, limit = self._loaded, self._loaded.engine.info.max_model_len
        if time.monotonic() >= job.deadline:
            raise DeadlineExceeded
        self._check_room()
        self._num_encoding += 1
        encoding = asyncio.get_running_loop().run_in_executor(
            loaded.pool, loaded.encoder.encode, job.prompt
        )
        try:
            async with asyncio.timeout(job.deadline - time.monotonic()):
                token_ids = await encoding
        except TimeoutError:
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            self._metrics.cancelled_before_engine()
            raise
        finally:
            self._num_encoding -= 1
        names = job.prompt.param, job.max_tokens_param
        check_context(len(token_ids), job.sampling, limit, *names)
        return token_ids

    def _check_room(self) -> None:
        """No more prompts are encoded, or wait for it, than the engine could take afterwards."""
        info = self._loaded.engine.info
        if self._num_encoding >= info.max_num_seqs + info.max_queued_requests:
            raise self._refused(Overloaded(ENCODING_RETRY_AFTER_S))

    def _submit(
        self, job: Job, token_ids: Sequence[int], choice: int
    ) -> tuple[RequestStream, Generation]:
        engine = self._loaded.engine
        params = self._loaded.defaults.resolve(
            job.sampling,
            len(token_ids),
            engine.info.max_model_len,
            min_tokens=job.min_tokens,
            ignore_eos=job.ignore_eos,
            stop_token_ids=() if job.ignore_eos else self._loaded.end_token_ids,
        )
        try:
            # A key of our own: a caller's request id may stand twice.
            stream = engine.submit(
                uuid4().hex,
                token_ids,
                for_choice(params, choice),
                deadline=job.deadline,
                cache_salt=job.sampling.cache_salt,
                tenant=job.tenant,
                call=job.call,
            )
        except EngineError as error:
            raise self._refused(error) from None
        operation = "text_completion" if job.prompt.messages is None else "chat"
        return stream, current().generation(operation, params)

    def _refused(self, error: EngineError) -> HostError:
        refusal = from_engine(error)
        self._metrics.rejected(refusal.code)
        return refusal

    async def _deltas(
        self, job: Job, stream: RequestStream, record: Generation
    ) -> AsyncGenerator[Delta]:
        detokenizer = Detokenizer(self._loaded.tokenizer)
        stops = StopMatcher([*(job.sampling.stop or ()), *self._chat_stops(job)])
        clock = self._metrics.clock()
        logprobs: list[TextLogprob] = []
        while True:
            output = await self._next(job, stream)
            clock.output(output)
            record.seen(output)
            logprobs.extend(self._text_logprob(item) for item in output.logprobs or ())
            text = detokenizer.add(output.token_ids)
            if output.num_output_tokens > job.min_tokens:
                text = stops.add(text)
            if output.finish_reason is not None and not stops.matched:
                self._check_end(output)
                text += stops.add(detokenizer.finish())
                text += stops.finish()
            ended = stops.matched or output.finish_reason is not None
            end = self._end(output, stopped=stops.matched) if ended else None
            if end is not None:
                stream.finish()
            if text or logprobs or end:
                yield Delta(text, tuple(logprobs), end)
                logprobs.clear()
            if end is not None:
                clock.finished(output)
                record.finished(end.finish_reason)
                return

    def _chat_stops(self, job: Job) -> tuple[str, ...]:
        return self._loaded.encoder.stops if job.prompt.messages is not None else ()

    async def _next(self, job: Job, stream: RequestStream) -> RequestOutput:
        try:
            async with asyncio.timeout(job.deadline + DEADLINE_SLACK_S - time.monotonic()):
                return await anext(stream)
        except TimeoutError:
            raise DeadlineExceeded from None
        except StopAsyncIteration:
            raise InternalError from None

    def _check_end(self, output: RequestOutput) -> None:
        """Raise for an end that is no answer."""
        if output.error is not None:
            raise from_engine(output.error)
        match output.finish_reason:
            case FinishReason.DEADLINE:
                raise DeadlineExceeded
            case FinishReason.ABORT if self._readiness.is_draining:
                raise draining()
            case FinishReason.ABORT | FinishReason.ERROR:
                raise InternalError

    def _end(self, output: RequestOutput, *, stopped: bool) -> End:
        reason = FinishReason.STOP if stopped or not output.finish_reason else output.finish_reason
        return End(
            finish_reason=reason.value,
            prompt_tokens=output.num_prompt_tokens,
            completion_tokens=output.num_output_tokens,
            cached_tokens=output.num_cached_tokens,
            timing=output.timing,
        )

    def _text_logprob(self, item: TokenLogprob) -> TextLogprob:
        top = tuple(self._token_text(token_id, logprob) for token_id, logprob in item.top)
        return TextLogprob(self._token_text(item.token_id, item.logprob), top)

    def _token_text(self, token_id: int, logprob: float) -> TokenText:
        tokenizer = self._loaded.tokenizer
        text = tokenizer.token_text(token_id)
        return TokenText(text, token_bytes(tokenizer.original, token_id, text), logprob)
