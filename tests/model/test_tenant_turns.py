"""Who waits is served by turns of the tenants that the API server names, by every door."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.host import Host
from tests.model.hosts import MODEL_NAME, client_of, running, settings_for

pytestmark = pytest.mark.anyio
QUESTION = {"user_prompt": "hello", "max_tokens": 4}
DOORS: list[tuple[str, dict[str, Any]]] = [
    ("/generate", QUESTION),
    ("/generate", QUESTION | {"stream": True}),
    ("/generate/batch", {"queries": [QUESTION]}),
    (f"/v1/models/{MODEL_NAME}:predict", {"instances": [QUESTION]}),
    (
        f"/v2/models/{MODEL_NAME}/infer",
        {
            "inputs": [
                {"name": "user_prompt", "shape": [1], "datatype": "BYTES", "data": ["hello"]}
            ],
            "parameters": {"max_tokens": 4},
        },
    ),
    (
        "/openai/v1/chat/completions",
        {"model": MODEL_NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
    ),
    ("/openai/v1/completions", {"model": MODEL_NAME, "prompt": "hello", "max_tokens": 4}),
]


@pytest.fixture(scope="module")
async def one_at_a_time(tiny_model: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        running(Host(settings_for(tiny_model, max_num_seqs=1))) as host,
        client_of(host) as client,
    ):
        yield client


async def late_place(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], tenants: tuple[str, str]
) -> int:
    """How many of a flood's 24 are answered before one that comes after them all."""
    ended: list[str] = []
    begun = asyncio.Event()

    async def ask(name: str, tenant: str, salt: str) -> None:
        flood = QUESTION | {"cache_salt": salt, "max_tokens": 16}
        where, asked = (path, body) if name == "late" else ("/generate", flood)
        headers = {"X-Tenant": tenant} if tenant else {}
        answer = await client.post(where, json=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        ended.append(name)
        begun.set()

    tasks = [asyncio.create_task(ask("flood", tenants[0], f"salt {n}")) for n in range(24)]
    await begun.wait()
    await ask("late", tenants[1], "late")
    place = ended.index("late")
    await asyncio.gather(*tasks)
    return place


@pytest.mark.parametrize(("path", "body"), DOORS)
async def test_a_flood_with_many_salts_is_one_tenant(
    one_at_a_time: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    assert await late_place(one_at_a_time, path, body, ("flood", "late")) <= 6


async def test_without_a_tenant_a_salt_makes_nobody_another_one(
    one_at_a_time: httpx.AsyncClient,
) -> None:
    body = QUESTION | {"cache_salt": "of its own"}
    assert await late_place(one_at_a_time, "/generate", body, ("", "")) >= 20


@pytest.mark.parametrize("tenant", ["", "a b", "é", "t" * 65])
@pytest.mark.parametrize(("path", "body"), [DOORS[0], DOORS[3], DOORS[5]])
async def test_a_tenant_that_cannot_be_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], tenant: str
) -> None:
    answer = await client.post(path, json=body, headers={"X-Tenant": tenant.encode()})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Tenant"
