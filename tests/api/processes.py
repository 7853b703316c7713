"""The API server as a process of its own, which a test may signal, kill and start again."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.api.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Process:
    process: asyncio.subprocess.Process
    url: str
    client: httpx.AsyncClient
    lines: list[str] = field(default_factory=list)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()

    @property
    def log(self) -> str:
        return "".join(self.lines)


async def _read_into(lines: list[str], stream: asyncio.StreamReader) -> None:
    async for line in stream:
        lines.append(line.decode())


@contextlib.asynccontextmanager
async def process(
    host_url: str, database_url: str, *flags: str, **environ: str
) -> AsyncIterator[Process]:
    """A server that is ready; killed at the end if it still runs."""
    values = {
        "API_PORT": "0",
        "API_MODEL_HOST_URL": host_url,
        "API_DATABASE_URL": database_url,
        "PATH": os.environ["PATH"],
    }
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", *flags, cwd=ROOT, env=values | environ,
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    lines: list[str] = []
    assert made.stderr is not None
    reader = asyncio.create_task(_read_into(lines, made.stderr))

    def address() -> str | None:
        assert made.returncode is None, "".join(lines)
        found = re.search(r'"address":"(http://[^"]+)"', "".join(lines))
        return found.group(1) if found else None

    try:
        # On a machine that does much else it takes long.
        url = await eventually(address, 90)
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, 20)
            yield Process(made, url, client, lines)
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
        await made.wait()
        await reader
        made._transport.close()  # type: ignore[attr-defined]
