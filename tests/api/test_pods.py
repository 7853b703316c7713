"""One model host by the addresses of its pods, with its Service standing by."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.upstream import pool, probes
from tests.api.conftest import Api, eventually, serving_api, serving_host
from tests.api.fleet import metric
from tests.api.stub_host import StubHost, refuse

pytestmark = pytest.mark.anyio
GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@dataclass
class Pods:
    """A pod that DNS names, and what its Service leads to; the API server knows both by name."""

    api: Api
    pod: StubHost
    service: StubHost
    dns: dict[str, list[str] | OSError] = field(default_factory=dict)

    def counts(self) -> tuple[int, int]:
        return len(self.pod.generated), len(self.service.generated)


@pytest.fixture
async def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pods]:
    monkeypatch.setattr(probes, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(probes, "RESOLVE_EVERY_S", 0.02)
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    dns: dict[str, list[str] | OSError] = {"pods.test": ["127.0.0.1"]}

    async def look_up(host: Any, port: Any, **more: Any) -> Any:
        if host != "pods.test":
            return await real(host, port, **more)
        said = dns["pods.test"]
        if isinstance(said, OSError):
            raise said
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in said]

    monkeypatch.setattr(loop, "getaddrinfo", look_up, raising=False)
    async with AsyncExitStack() as stack:
        pod = await stack.enter_async_context(serving_host())
        service = await stack.enter_async_context(serving_host())
        port = pod.url.rsplit(":", 1)[1]
        api = await stack.enter_async_context(
            serving_api(service, tmp_path, model_host_pods_url=f"http://pods.test:{port}")
        )
        yield Pods(api, pod, service, dns)


async def test_pods_are_asked_and_the_service_stands_by(pods: Pods) -> None:
    for _ in range(5):
        assert (await pods.api.chat(user_prompt="q")).status_code == 200
    assert pods.counts() == (5, 0)
    ready = await pods.api.client.get("/readyz")
    assert ready.status_code == 200
    await eventually(lambda: metric(pods.api, "hosts_ready", model="") == 1)


async def test_a_pod_that_leaves_costs_its_callers_nothing_not_even_many_retries(
    pods: Pods,
) -> None:
    """DNS still names it, as it does for half a minute."""
    await pods.api.chat(user_prompt="q")
    pods.pod.always, pods.pod.ready = refuse(503, "draining"), False
    for _ in range(40):
        assert (await pods.api.chat(user_prompt="q")).status_code == 200
    assert pods.counts()[1] == 40
    assert metric(pods.api, "upstream_retries_total", reason="draining") <= 3


async def test_the_service_is_asked_when_dns_names_no_pod(pods: Pods) -> None:
    (known,) = pods.api.parts.host.models.pools
    pods.dns["pods.test"] = GONE
    await eventually(lambda: len(known.addresses) == 1)
    assert (await pods.api.chat(user_prompt="q")).status_code == 200
    assert pods.counts() == (0, 1)


async def test_pods_stay_known_for_a_while_when_dns_names_none_and_as_long_as_it_is_away(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "EMPTY_LOOKUPS", 1_000_000)
    for failure in (GONE, socket.gaierror(socket.EAI_AGAIN, "away")):
        before = metric(pods.api, "resolve_failures_total", model="")
        pods.dns["pods.test"] = failure
        await eventually(
            lambda so_far=before: metric(pods.api, "resolve_failures_total", model="") > so_far + 3
        )
        assert (await pods.api.chat(user_prompt="q")).status_code == 200
    assert pods.counts() == (2, 0)
