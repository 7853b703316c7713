"""What an engine is to the measurements, and our own two forms of one.

One engine lives in one process and runs one round. What there is and what it may be told is in
`bench/registry.py`, which does not import torch.
"""

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from bench import sse
from bench.driver import Record, drive
from bench.metrics import Timing
from bench.model_folder import CACHE, model_folder
from bench.process import ServerProcess, free_port
from bench.workloads import Request, Workload
from model.engine import AsyncEngine, EngineConfig, SamplingParams

SERVED_NAME = "bench"


class Engine(ABC):
    """Made for one workload, so that it can be as large as that needs; used once."""

    def __init__(self, workload: Workload, options: Mapping[str, Any]) -> None:
        self.workload = workload
        self.given = options
        self.facts: dict[str, Any] = {}
        """What the report should know: versions, sizes, time to load."""

    @abstractmethod
    def running(self) -> contextlib.AbstractAsyncContextManager[None]: ...

    @abstractmethod
    async def run(self, workload: Workload) -> tuple[list[Timing], float]: ...


class Streaming(Engine):
    """An engine that is asked request by request."""

    async def run(self, workload: Workload) -> tuple[list[Timing], float]:
        return await drive(workload, self.send)

    @abstractmethod
    async def send(self, request: Request, record: Record) -> None: ...


def our_config(workload: Workload, options: Mapping[str, Any]) -> dict[str, Any]:
    """As large as the workload, where nothing else is said: peers are sized the same way."""
    seqs = max(32, workload.concurrency)
    tokens = max(512, seqs)
    return {"max_num_seqs": seqs, "max_num_batched_tokens": tokens, **options}


class Ours(Streaming):
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        folder = str(self.given.get("model") or model_folder())
        config = EngineConfig(**{**our_config(self.workload, self.given), "model": folder})
        self._engine = AsyncEngine(config)
        await self._engine.start(lambda message: None)
        info = self._engine.info
        self.facts = {"dtype": info.dtype, "kernels": info.kernels, "threads": info.threads}
        self._number = 0
        try:
            yield
        finally:
            self.facts["steps"] = self._engine.stats.steps
            self.facts["preemptions"] = self._engine.stats.num_preemptions
            await self._engine.stop()

    async def send(self, request: Request, record: Record) -> None:
        params = SamplingParams(max_tokens=request.max_tokens, ignore_eos=True, **request.sampling)
        self._number += 1
        async with self._engine.submit(str(self._number), request.prompt, params) as stream:
            async for output in stream:
                if output.error is not None:
                    raise output.error
                for _ in output.token_ids:
                    record.piece()
                record.timing.prompt_tokens = output.num_prompt_tokens
                record.timing.cached_tokens = output.num_cached_tokens
                record.timing.output_tokens = output.num_output_tokens


class OverHttp(Streaming):
    """A server that speaks OpenAI's text completions, in a process of its own."""

    path: ClassVar[str]

    @abstractmethod
    def server(self, port: int, folder: Path) -> ServerProcess: ...

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        port = free_port()
        folder = Path(self.given.get("model") or model_folder())
        with self.server(port, folder) as server:
            self.facts["start_s"] = round(server.start_s, 1)
            self._url = f"http://127.0.0.1:{port}{self.path}"
            async with sse.session() as self._client:
                yield

    async def send(self, request: Request, record: Record) -> None:
        await sse.ask(self._client, self._url, completion_body(request), record)

    @property
    def client(self) -> aiohttp.ClientSession:
        return self._client

    @property
    def url(self) -> str:
        return self._url

    def log(self) -> Path:
        return CACHE / "logs" / f"{type(self).__name__}.log"


def completion_body(request: Request) -> dict[str, Any]:
    return {
        "model": SERVED_NAME,
        "prompt": list(request.prompt),
        "max_tokens": request.max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        **request.sampling,
    }


class OursHttp(OverHttp):
    path = "/openai/v1/completions"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with super().running():
            yield
            metrics = self.url.removesuffix(self.path) + "/metrics"
            async with self.client.get(metrics) as response:
                lines = (await response.text()).splitlines()
            lag = next(line for line in lines if line.startswith("qna_event_loop_lag_seconds "))
            self.facts["loop_lag_ms"] = round(float(lag.split()[1]) * 1000, 1)

    def server(self, port: int, folder: Path) -> ServerProcess:
        flags = {
            **our_config(self.workload, self.given),
            "model": folder,
            "model_name": SERVED_NAME,
            "port": port,
            "log_level": "error",
        }
        arguments = [
            part for key, value in flags.items() for part in (f"--{key.replace('_', '-')}", value)
        ]
        return ServerProcess(
            [sys.executable, "-m", "model", *map(str, arguments)],
            ready_url=f"http://127.0.0.1:{port}/readyz",
            log=self.log(),
            env={},
        )
