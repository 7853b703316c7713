"""Stands at the engine's seam, for what a real engine does too rarely or too slowly."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from model.config import Settings
from model.engine import (
    AsyncEngine,
    EngineConfig,
    EngineDead,
    EngineError,
    EngineInfo,
    EngineStats,
    FinishReason,
    RequestOutput,
    RequestTiming,
    SamplingParams,
)
from model.generation import LoadedModel
from model.prompt import PromptEncoder
from model.sampling import SamplingDefaults
from model.tokenizer import Tokenizer
from tests.model.hosts import byte_level

TIMING = RequestTiming(queue_s=0.001, prefill_s=0.002, decode_s=0.003, batch_size=1)
INFO = EngineInfo(
    model_id="fake",
    architecture="Fake",
    device="cpu",
    dtype="float32",
    kernels="plain",
    max_model_len=512,
    vocab_size=321,
    eos_token_ids=(2,),
    num_kv_blocks=1,
    block_size=16,
    kv_bytes_per_token=1,
    threads=1,
    max_num_seqs=1,
    max_num_batched_tokens=1,
    max_queued_requests=8,
    max_queued_tokens=1,
    watchdog_s=30.0,
)


def output(
    token_ids: Sequence[int] = (),
    finish_reason: FinishReason | None = None,
    error: EngineError | None = None,
) -> RequestOutput:
    return RequestOutput(
        request_id="fake",
        token_ids=tuple(token_ids),
        logprobs=None,
        finish_reason=finish_reason,
        num_prompt_tokens=3,
        num_cached_tokens=0,
        num_output_tokens=len(token_ids),
        timing=TIMING,
        error=error,
    )


class FakeStream:
    """Gives its outputs, then waits for ever, or until the engine ends it."""

    def __init__(self, outputs: Sequence[RequestOutput]) -> None:
        self.arrived: asyncio.Queue[RequestOutput] = asyncio.Queue()
        for item in outputs:
            self.arrived.put_nowait(item)
        self.closed = False

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> RequestOutput:
        return await self.arrived.get()

    async def __aenter__(self) -> "FakeStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True

    def finish(self) -> None:
        self.closed = True


class FakeEngine(AsyncEngine):
    def __init__(
        self,
        outputs: Sequence[RequestOutput] = (),
        refusal: EngineError | None = None,
        loading: bool = False,
    ) -> None:
        super().__init__(EngineConfig(model="fake"))
        self.outputs, self.refusal, self.loading = outputs, refusal, loading
        self.streams: list[FakeStream] = []
        self.params: list[SamplingParams] = []
        self.prompts: list[Sequence[int]] = []
        self.ready = False
        self.draining = False
        self.hung = False
        self.dead: BaseException | None = None
        self.died = asyncio.Event()
        self.before_submit: Callable[[], None] = lambda: None
        self.on_submit: Callable[[], None] = lambda: None

    async def start(self, on_progress: Callable[[str], None] | None = None) -> None:
        if self.loading:
            await asyncio.Event().wait()
        self.ready = True

    async def stop(self, drain_s: float = 0.0) -> None:
        self.draining = True
        if drain_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), drain_s)
        for stream in self.streams:
            if not stream.closed:
                stream.arrived.put_nowait(output(finish_reason=FinishReason.ABORT))

    def begin_drain(self) -> None:
        self.draining = True

    def submit(  # type: ignore[override]  # a stand-in for the stream, too
        self, request_id: str, prompt_token_ids: Sequence[int], params: Any, **_: Any
    ) -> Any:
        self.before_submit()
        if self.refusal is not None:
            raise self.refusal
        self.params.append(params)
        self.prompts.append(prompt_token_ids)
        stream = FakeStream(self.outputs)
        self.on_submit()
        self.streams.append(stream)
        return stream

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        pass

    def die(self) -> None:
        self.dead = RuntimeError("a secret detail")
        self.died.set()
        for stream in self.streams:
            error = EngineDead()
            stream.arrived.put_nowait(output(finish_reason=FinishReason.ERROR, error=error))

    @property
    def stats(self) -> EngineStats:
        return EngineStats()

    @property
    def info(self) -> EngineInfo:
        return INFO

    @property
    def is_ready(self) -> bool:
        return self.ready and not self.draining and self.dead is None

    @property
    def is_live(self) -> bool:
        return self.dead is None and not self.hung

    @property
    def fatal_error(self) -> BaseException | None:
        return self.dead

    async def wait_dead(self) -> BaseException:
        await self.died.wait()
        assert self.dead
        return self.dead


async def load_scripted(_: Settings, engine: AsyncEngine) -> LoadedModel:
    """A model that needs no weights: a real tokenizer before an engine that follows a script."""
    await engine.start()
    tokenizer = Tokenizer(byte_level())
    encoder = PromptEncoder(tokenizer, INFO.max_model_len, INFO.vocab_size)
    return LoadedModel(engine, tokenizer, encoder, SamplingDefaults())
