"""A stand-in model host and API servers on loopback, in the test's own event loop."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from api.app import create_app
from api.history import SqlStore
from api.metrics import Metrics
from api.routes.common import Parts
from api.settings import Settings
from api.upstream import Transport
from tests.api.postgres_server import running_server
from tests.api.redis_server import running_redis
from tests.api.stores import OpenStore
from tests.api.stub_host import StubHost, running
from tests.otlp import Receiver, receiving


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


async def eventually(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def outcomes(api: "Api", route: str) -> dict[str, float]:
    """How the route's requests were counted."""
    return {
        sample.labels["outcome"]: sample.value
        for metric in api.parts.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "qna_api_requests_total" and sample.labels["route"] == route
    }


@dataclass
class Api:
    url: str
    client: httpx.AsyncClient
    parts: Parts
    app: Any

    async def chat(self, **body: Any) -> httpx.Response:
        return await self.client.post("/chat", json=body)

    async def turns(self, chat_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        params: dict[str, str] = {}
        while True:
            answer = await self.client.get(f"/chats/{chat_id}", params=params)
            assert answer.status_code == 200, answer.text
            items += answer.json()["items"]
            if (cursor := answer.json()["next_cursor"]) is None:
                return items
            params = {"cursor": cursor}


class StartApi(Protocol):
    async def __call__(self, **settings: Any) -> Api: ...


@asynccontextmanager
async def serving_host() -> AsyncIterator[StubHost]:
    stub = StubHost()
    async with running(stub) as url:
        stub.url = url
        yield stub


@asynccontextmanager
async def serving_api(
    host: StubHost, folder: Path, transport: Transport | None = None, **changed: Any
) -> AsyncIterator[Api]:
    values = {
        "model_host_url": host.url,
        "database_url": f"sqlite:///{folder}/chats.db",
        "drain_timeout_s": 2.0,
        "database_timeout_s": 30.0,  # a busy disk is no subject of these tests
    }
    app = create_app(Settings(**(values | changed)), transport)
    async with (
        running(app, lifespan="on") as url,
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False, verify=False) as client,
    ):
        yield Api(url, client, app.state.parts, app)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a real server, one for the test run."""
    with running_server() as url:
        yield url


@pytest.fixture
def postgres_encoding() -> str:
    return "UTF8"


@pytest.fixture
def postgres_url(postgres_server: str, postgres_encoding: str) -> Iterator[str]:
    """The address of a new database."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(
            f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{postgres_encoding}'"
        )
    address = make_url(postgres_server).set(database=name)
    yield address.render_as_string(hide_password=False)
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chats.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def kept_api(start_api: StartApi, database_url: str) -> Api:
    """On a database of either kind."""
    return await start_api(database_url=database_url)


@pytest.fixture
async def open_store(database_url: str) -> AsyncIterator[OpenStore]:
    async with AsyncExitStack() as stack:

        async def make(**changed: Any) -> SqlStore:
            values = {"lease_s": 15.0, "timeout_s": 5.0, "connections": 4} | changed
            store = SqlStore(database_url, Metrics(), **values)
            stack.push_async_callback(store.close)
            await store.open()
            return store

        yield make


@pytest.fixture
async def store(open_store: OpenStore) -> SqlStore:
    return await open_store()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a real server, one for the test run."""
    with running_redis() as (url, _):
        yield url


@pytest.fixture(params=["memory", "postgres", "redis"])
def limits_url(request: pytest.FixtureRequest) -> str:
    """Where limits are counted, of either kind; empty: in memory."""
    if request.param == "memory":
        return ""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def host() -> AsyncIterator[StubHost]:
    async with serving_host() as stub:
        yield stub


@pytest.fixture
async def start_api(host: StubHost, tmp_path: Path) -> AsyncIterator[StartApi]:
    async with AsyncExitStack() as stack:

        async def start(**changed: Any) -> Api:
            return await stack.enter_async_context(serving_api(host, tmp_path, **changed))

        yield start


@pytest.fixture
async def api(start_api: StartApi) -> Api:
    return await start_api()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Of spans."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with receiving() as made:
        yield made


@pytest.fixture
async def traced(start_api: StartApi, receiver: Receiver) -> Api:
    return await start_api(traces_url=f"{receiver.url}/v1/traces")


@pytest.fixture(scope="module")
async def shared_host() -> AsyncIterator[StubHost]:
    """For tables of many small cases, which leave nothing behind that the next one sees."""
    async with serving_host() as stub:
        yield stub


@pytest.fixture(scope="module")
async def shared_api(
    shared_host: StubHost, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    async with serving_api(shared_host, tmp_path_factory.mktemp("api")) as made:
        yield made


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"message", "type", "code", "param", "request_id"} <= set(error)
    assert error["request_id"] == response.headers["x-request-id"]
    return error
