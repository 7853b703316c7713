"""Both servers as processes with the bundled model, one request at a time and slow to read a
prompt, so that a test can meet a request at every stage. Both send spans to a real receiver.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.clients.conftest import process, running_api
from tests.otlp import Receiver, receiving
from tests.ports import free_port

# 900 tokens or so; one is computed in each step, so it is read for a second.
LONG_PROMPT = "Capital of India? " * 150
SHORT = "Capital of India?"
# About a second of tokens that nothing but the client's leaving ends.
ENDLESS = {"max_tokens": 900, "min_tokens": 900, "ignore_eos": True}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
    return found


@dataclass
class Server:
    url: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all label sets that have these."""
        text = self.client.get("/metrics").text
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                given = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if labels.items() <= given.items():
                    total += float(found[3])
        return total


@dataclass
class Pair:
    api: Server
    host: Server
    receiver: Receiver

    def side(self, name: str) -> Server:
        return self.api if name == "api" else self.host

    @property
    def is_idle(self) -> bool:
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_ratio")
        return all(self.host.metric(f"qna_{name}") == 0 for name in names)

    def cancelled(self, stage: str) -> float:
        """What the engine counts."""
        return self.host.metric("qna_requests_cancelled_total", stage=stage)


class StartApi(Protocol):
    def __call__(self, host_url: str | None = None, **environ: str) -> Server: ...


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hops")


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="session")
def sending(receiver: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture(scope="session")
def host(folder: Path, sending: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    values = {
        "MODEL_HOST_PORT": str(port),
        "MODEL_HOST_DRAIN_TIMEOUT_S": "1",
        "MODEL_HOST_MAX_NUM_SEQS": "1",
        "MODEL_HOST_MAX_NUM_BATCHED_TOKENS": "1",
        "MODEL_HOST_PREFIX_CACHE": "false",
        "MODEL_HOST_LOG_LEVEL": "debug",
    }
    with process("model", folder, f"http://127.0.0.1:{port}", **(values | sending)) as url:
        server = Server(url, folder / f"model-{port}.log")
        with server.client:
            yield server


@contextlib.contextmanager
def api_before(folder: Path, url: str, **environ: str) -> Iterator[Server]:
    with running_api(folder, url, **({"API_LOG_LEVEL": "debug"} | environ)) as address:
        server = Server(address, folder / f"api-{address.rpartition(':')[2]}.log")
        with server.client:
            yield server


@pytest.fixture(scope="session")
def pair(folder: Path, host: Server, receiver: Receiver, sending: dict[str, str]) -> Iterator[Pair]:
    with api_before(folder, host.url, **sending) as api:
        yield Pair(api, host, receiver)


@pytest.fixture
def start_api(folder: Path, host: Server) -> Iterator[StartApi]:
    """More API servers, with other settings."""
    with contextlib.ExitStack() as stack:

        def start(host_url: str | None = None, **environ: str) -> Server:
            return stack.enter_context(api_before(folder, host_url or host.url, **environ))

        yield start
