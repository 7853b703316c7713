"""Several stub hosts, a models file that names them, and an API server that reads it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.upstream import probes
from tests.api.conftest import Api, serving_api, serving_host
from tests.api.stub_host import StubHost


class Fleet:
    """Stub hosts by name, a models file, and an API server that reads it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.file = folder / "models.yaml"
        self.hosts: dict[str, StubHost] = {}
        self._stack = stack

    async def host(self, name: str) -> StubHost:
        made = await self._stack.enter_async_context(serving_host())
        self.hosts[name] = made
        return made

    def model(self, name: str, *hosts: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "addresses": [self.hosts[host].url for host in hosts], **more}

    def write(self, *models: dict[str, Any]) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(yaml.safe_dump({"models": list(models)}))
        new.replace(self.file)

    async def api(self, **settings: Any) -> Api:
        first = next(iter(self.hosts.values()))
        return await self._stack.enter_async_context(
            serving_api(first, self.folder, models_file=str(self.file), **settings)
        )

    def counts(self) -> dict[str, int]:
        return {name: len(host.generated) for name, host in self.hosts.items()}


@asynccontextmanager
async def running_fleet(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """What is looked at every second or so is looked at at once, so that no test waits for it."""
    patch.setattr(probes, "RELOAD_EVERY_S", 0.02)
    patch.setattr(probes, "LOOK_EVERY_S", 0.02)
    patch.setattr(probes, "RESOLVE_EVERY_S", 0.05)
    async with AsyncExitStack() as stack:
        yield Fleet(folder, stack)


def metric(api: Api, name: str, **labels: str) -> float:
    return api.parts.metrics.registry.get_sample_value(f"qna_api_{name}", labels) or 0.0


async def completion(api: Api, model: str, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "q"}], **more}
    return await api.client.post("/v1/chat/completions", json=body)


async def load(server: Api, **params: str) -> dict[str, Any]:
    answer = await server.client.get("/load", params=params)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view
