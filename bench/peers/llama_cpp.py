"""llama.cpp: its server with a slot for each stream, fed with the very same token ids."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import sse
from bench.driver import Record
from bench.engines import OverHttp
from bench.model_folder import CACHE, ROOT
from bench.peers.places import installed
from bench.process import ServerProcess
from bench.spec import NotForThis
from bench.workloads import Request

TYPES = ("f32", "q8_0")
PADDING = 8
"""Tokens of context beyond what a slot needs."""


def gguf(folder: Path, kind: str) -> Path:
    """The folder's weights in llama.cpp's form, made once; other types are made from f32."""
    target = CACHE / f"{folder.name}-{kind}.gguf"
    if target.exists():
        return target
    making = target.with_suffix(f".part{os.getpid()}")
    if kind == "f32":
        package = installed("llama.cpp", "gguf-py")
        subprocess.run(
            [sys.executable, "-m", "bench.peers.write_gguf", folder, making],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])},
            check=True,
        )
    else:
        quantize = installed("llama.cpp", "bin", "llama-quantize")
        command = [str(quantize), str(gguf(folder, "f32")), str(making), kind.upper()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    making.rename(target)
    return target


class LlamaCpp(OverHttp):
    path = "/completion"

    def server(self, port: int, folder: Path) -> ServerProcess:
        kind = str(self.given.get("type", "f32"))
        if kind not in TYPES:
            raise NotForThis(f"type: must be one of {', '.join(TYPES)}")
        binary = installed("llama.cpp", "bin", "llama-server")
        model = gguf(folder, kind)
        slots = self.workload.concurrency
        self.facts["dtype"] = kind
        command = [
            str(binary),
            *("--model", str(model)),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--parallel", str(slots)),
            *("--ctx-size", str(slots * (self.workload.longest + PADDING))),
            *("--threads", str(os.cpu_count())),
            *("--batch-size", str(self.given.get("batch", 2048))),
            *("--ubatch-size", str(self.given.get("ubatch", 512))),
        ]
        return ServerProcess(
            command,
            ready_url=f"http://127.0.0.1:{port}/health",
            log=self.log(),
            env={},
        )

    async def send(self, request: Request, record: Record) -> None:
        await sse.ask_llama_cpp(self.client, self.url, body(request), record)


def body(request: Request) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "prompt": list(request.prompt),
        "n_predict": request.max_tokens,
        "ignore_eos": True,
        "stream": True,
        "return_tokens": True,
    }
    if not request.sampling:
        # One sampler that keeps the likeliest token; its default chain does more work.
        return {**asked, "samplers": ["top_k"], "top_k": 1}
    names = {"repetition_penalty": "repeat_penalty"}
    return {**asked, **{names.get(k, k): v for k, v in request.sampling.items()}}
