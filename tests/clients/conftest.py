"""Both servers as processes, with the bundled model: what the clients of the field talk to."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 200.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Servers:
    api: str
    host: str

    def openai(self, side: str) -> str:
        """Where an OpenAI client finds this side."""
        return f"{self.api}/v1" if side == "api" else f"{self.host}/openai/v1"


class StartApi(Protocol):
    def __call__(self, host: str, **environ: str) -> str: ...


@contextlib.contextmanager
def process(module: str, folder: Path, url: str, **environ: str) -> Iterator[str]:
    log = folder / f"{module}-{url.rpartition(':')[2]}.log"
    with log.open("wb") as output:
        made = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _is_ready(url):
            assert made.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        made.terminate()
        made.wait(PATIENCE_S)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    return False


@contextlib.contextmanager
def running_api(folder: Path, host: str, **environ: str) -> Iterator[str]:
    port = free_port()
    values = {
        "API_PORT": str(port),
        "API_MODEL_HOST_URL": host,
        "API_DATABASE_URL": f"sqlite:///{folder}/chats-{port}.db",
        "API_DRAIN_TIMEOUT_S": "1",
    }
    with process("api", folder, f"http://127.0.0.1:{port}", **(values | environ)) as url:
        yield url


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def servers(folder: Path) -> Iterator[Servers]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    values = {"MODEL_HOST_PORT": str(port), "MODEL_HOST_DRAIN_TIMEOUT_S": "1"}
    with process("model", folder, address, **values) as host, running_api(folder, host) as api:
        yield Servers(api, host)


@pytest.fixture(params=["api", "host"])
def base_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Where an OpenAI client is sent: to either server."""
    return servers.openai(request.param)


@pytest.fixture
def start_api(folder: Path) -> Iterator[StartApi]:
    """More API servers, with other settings."""
    with contextlib.ExitStack() as stack:

        def start(host: str, **environ: str) -> str:
            return stack.enter_context(running_api(folder, host, **environ))

        yield start
