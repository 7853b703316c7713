"""vLLM's CPU build: its server, and its engine without one."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.engines import SERVED_NAME, Engine, OverHttp
from bench.metrics import Timing
from bench.model_folder import CACHE, ROOT, model_folder
from bench.peers.places import installed
from bench.process import ServerProcess
from bench.spec import NotForThis
from bench.workloads import Workload

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Every core, and no pinning: the client and the API server need some of it too.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def environment(options: dict[str, Any]) -> dict[str, str]:
    return {
        **ENVIRONMENT,
        "VLLM_CPU_KVCACHE_SPACE": str(options.get("kv_gib", 4)),
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }


class VllmHttp(OverHttp):
    path = "/v1/completions"

    def server(self, port: int, folder: Path) -> ServerProcess:
        command = [
            str(installed("vllm", "bin", "python")),
            # Not `vllm serve`: it looks for a package named vllm, and this one is vllm-cpu.
            *("-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(folder)),
            *("--served-model-name", SERVED_NAME),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", str(self.given.get("dtype", "float32"))),
            *("--max-model-len", str(max(2048, self.workload.longest + 16))),
            *("--max-num-seqs", str(max(32, self.workload.concurrency))),
            "--disable-uvicorn-access-log",
        ]
        if not self.given.get("prefix_cache", True):
            command.append("--no-enable-prefix-caching")
        if self.given.get("eager", False):
            command.append("--enforce-eager")
        return ServerProcess(
            command,
            ready_url=f"http://127.0.0.1:{port}/health",
            log=self.log(),
            env=environment(dict(self.given)),
        )


class VllmOffline(Engine):
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # Its process runs the warm-up as well, so there is nothing to do before `run`.
        self._python = installed("vllm", "bin", "python")
        yield

    async def run(self, workload: Workload) -> tuple[list[Timing], float]:
        if workload is not self.workload:
            return [], 0.0
        if any(request.after for request in workload.requests):
            raise NotForThis("all requests are handed over at once")
        if any(request.sampling for request in workload.requests):
            raise NotForThis("measured with greedy requests only")
        if workload.concurrency < len(workload.requests):
            raise NotForThis("all requests are handed over at once")
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder) / "asked.json", Path(folder) / "answered.json"
            asked.write_text(json.dumps(self._asked(workload)))
            log = CACHE / "logs" / "VllmOffline.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    str(self._python),
                    *("-m", "bench.peers.vllm_offline", str(asked), str(answered)),
                    cwd=ROOT,
                    env={**os.environ, **environment(dict(self.given))},
                    stdout=output,
                    stderr=output,
                    # A group of its own, so that it and its workers can be ended together.
                    start_new_session=True,
                )
                try:
                    code = await process.wait()
                finally:
                    # A round that is broken off would leave them to disturb the next ones.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
            if code != 0:
                raise RuntimeError(f"vLLM ended with {code}; its words: {log}")
            answer = json.loads(answered.read_text())
        self.facts.update(answer["facts"])
        return [Timing(**item) for item in answer["timings"]], answer["duration_s"]

    def _asked(self, workload: Workload) -> dict[str, Any]:
        return {
            "model": str(self.given.get("model") or model_folder()),
            "dtype": self.given.get("dtype", "float32"),
            "eager": bool(self.given.get("eager", False)),
            "prefix_cache": bool(self.given.get("prefix_cache", True)),
            "max_model_len": max(2048, workload.longest + 16),
            "max_num_seqs": max(32, workload.concurrency),
            "requests": [asdict(request) for request in workload.requests],
        }
