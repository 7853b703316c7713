"""The stub host as a process of its own, which a test may kill, stop and start again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.api.conftest import eventually
from tests.api.stub_host import StubHost, running
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class HostProcess:
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *, delay_s: float = 0, gap_s: float = 0) -> None:
        """Runs and is ready."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.api.host_process",
            str(self.port), str(delay_s), str(gap_s),
            cwd=ROOT, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, 20)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process._transport.close()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def host_process() -> AsyncIterator[HostProcess]:
    """Not started yet."""
    host = HostProcess(free_port())
    try:
        yield host
    finally:
        await host.kill()


async def serve(port: int, delay_s: float, gap_s: float) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running(StubHost(delay_s=delay_s, gap_s=gap_s), port=port):
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
