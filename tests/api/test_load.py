"""`GET /load`, which autoscalers read: what models are asked for, by all API servers together."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import Settings, SettingsError
from tests.api.conftest import error_of, eventually
from tests.api.fleet import Fleet, completion, load, metric, running_fleet
from tests.api.stub_host import holds, running
from tests.ports import free_port

pytestmark = pytest.mark.anyio
QUESTION = {"user_prompt": "Capital of India?"}


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


async def test_the_load_is_what_is_asked_for(fleet: Fleet) -> None:
    hosts = [await fleet.host(name) for name in ("a", "b")]
    go = asyncio.Event()
    for host in hosts:
        host.always = holds(go)
    fleet.write(fleet.model("large", "a", aliases=["l"]), fleet.model("small", "b"))
    server = await fleet.api()
    asked = [
        asyncio.create_task(completion(server, name, max_tokens=100))
        for name in ("large", "l", "small")
    ]
    await eventually(lambda: [host.running for host in hosts] == [2, 1])
    large, small, both = (
        await load(server, model="large"),
        await load(server, model="small"),
        await load(server),
    )
    assert (large["model"], large["requests"], large["held"]) == ("large", 2, 0)
    assert (await load(server, model="l")) == large
    assert 200 <= large["tokens"] <= 220
    assert (small["requests"], both["requests"], both["model"]) == (1, 3, None)
    assert both["server_requests"] == 3
    assert (both["servers"], both["servers_missed"]) == (1, 0)
    await server.client.get("/metrics")
    assert metric(server, "load_requests", model="large") == 2
    assert metric(server, "load_tokens", model="large") == large["tokens"]
    go.set()
    await asyncio.gather(*asked)
    assert (await load(server))["tokens"] == 0
    missing = await server.client.get("/load", params={"model": "none"})
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")
    for wrong in ({"model": ""}, {"own": "maybe"}):
        assert (await server.client.get("/load", params=wrong)).status_code == 400


async def test_any_one_of_several_servers_speaks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys on, one of them gone, and the name standing for each of them."""
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    loop, port = asyncio.get_running_loop(), free_port()
    honest = loop.getaddrinfo

    async def look_up(host: str, *rest: Any, **more: Any) -> list[Any]:
        if host != "servers.test":
            return await honest(host, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", look_up, raising=False)
    keys = {"auth": "on", "metrics_key": "m" * 32, "admin_key": "a" * 32}
    settings = keys | {"peers_url": f"http://servers.test:{port}", "hold_s": 10.0}
    nobody = f"http://127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        clients = []
        for number, address in enumerate(addresses[:2]):
            folder = tmp_path / str(number)
            folder.mkdir()
            database = f"sqlite:///{folder}/chats.db"
            app = create_app(Settings(model_host_url=nobody, database_url=database, **settings))
            url = await stack.enter_async_context(
                running(app, lifespan="on", port=port, address=address)
            )
            clients.append(
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=url, trust_env=False, timeout=20)
                )
            )
        admin = {"Authorization": f"Bearer {'a' * 32}"}
        asked = [
            asyncio.create_task(client.post("/chat", json=QUESTION, headers=admin))
            for client in (clients[0], clients[1], clients[1])
        ]
        scraper = {"Authorization": f"Bearer {'m' * 32}"}

        async def views() -> list[tuple[int, int, int]]:
            answers = [await client.get("/load", headers=scraper) for client in clients]
            assert {answer.status_code for answer in answers} == {200}
            return [
                (view["held"], view["servers"], view["servers_missed"])
                for view in (answer.json() for answer in answers)
            ]

        async def agree() -> bool:
            return await views() == [(3, 2, 1), (3, 2, 1)]

        await eventually(agree)
        own = await clients[0].get("/load", params={"own": "true"}, headers=scraper)
        assert (own.json()["held"], own.json()["servers"]) == (1, 1)
        for task in asked:
            task.cancel()


async def test_the_address_of_the_others_has_to_be_one_that_can_be_asked_by_numbers() -> None:
    for wrong in ("servers:8000", "https://servers:8000", "http://me:secret@servers"):
        with pytest.raises(SettingsError, match="API_PEERS_URL"):
            Settings(peers_url=wrong)
