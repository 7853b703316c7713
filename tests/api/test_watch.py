"""What the metrics say of the model hosts, and of those who wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import api.watch
from tests.api.conftest import Api, StartApi, eventually
from tests.api.fleet import Fleet, metric, running_fleet
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(api.watch, "FRESH_S", 0.0)
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


async def shows(server: Api, model: str, ready: float | None) -> None:
    """Wait until a scrape says so; None: of such a model nothing is said."""

    async def scraped() -> bool:
        assert (await server.client.get("/metrics")).status_code == 200
        registry = server.parts.metrics.registry
        return registry.get_sample_value("qna_api_hosts_ready", {"model": model}) == ready

    await eventually(scraped)


async def test_scrapes_say_how_many_hosts_of_each_model_are_ready(fleet: Fleet) -> None:
    a, _, c = await fleet.host("a"), await fleet.host("b"), await fleet.host("c")
    fleet.write(fleet.model("large", "a", "b"), fleet.model("small", "c"))
    server = await fleet.api()
    await shows(server, "large", 2)
    await shows(server, "small", 1)
    a.ready = c.ready = False
    await shows(server, "large", 1)
    await shows(server, "small", 0)
    fleet.write(fleet.model("large", "a", "b"))
    await shows(server, "small", None)


async def test_scrapes_say_how_many_wait_in_line(start_api: StartApi, host: StubHost) -> None:
    server = await start_api(max_in_flight=1, max_queued=5)
    go = asyncio.Event()
    host.always = holds(go)
    asked = [asyncio.create_task(server.chat(user_prompt="hello")) for _ in range(4)]
    await eventually(lambda: server.parts.lifecycle.waiting == 3)
    await server.client.get("/metrics")
    assert metric(server, "requests_queued") == 3
    go.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    await server.client.get("/metrics")
    assert metric(server, "requests_queued") == 0
