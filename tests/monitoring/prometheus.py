"""A real Prometheus of a test's own."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.ports import free_port

SCRAPE_S = 0.5
STEP_S = 0.5


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"run `make test-tools`, or install {name}"
    return found


@dataclass
class Prometheus:
    client: httpx.AsyncClient
    started: float

    async def _get(self, path: str, **parameters: Any) -> Any:
        answer = await self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._get("query", query=expression))["result"]
        return found

    async def ever(self, expression: str, since: float = 0.0) -> list[dict[str, Any]]:
        """What the expression has given at any time. The last step is one behind now, or what has
        just come would lie between two.
        """
        within = {
            "start": max(since, self.started),
            "end": time.time() + STEP_S,
            "step": STEP_S,
        }
        found: list[dict[str, Any]] = (await self._get("query_range", query=expression, **within))[
            "result"
        ]
        return found

    async def series(self, metric: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = await self._get(
            "series", **{"match[]": metric, "start": self.started, "end": time.time()}
        )
        return found

    async def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._get("alerts"))["alerts"]
        return found

    async def fired(self, since: float = 0.0) -> set[str]:
        """The names of all that have fired, be it between two steps: a query of what is there at
        each step would see such a one or not, by where the steps happen to lie.
        """
        firing = f'ALERTS{{alertstate="firing"}}[{STEP_S * 1000:.0f}ms]'
        found = await self.ever(f"last_over_time({firing})", since + STEP_S)
        return {series["metric"]["alertname"] for series in found}

    async def fires(self, *names: str, within_s: float = 120.0) -> None:
        """Wait until each of them has, be it for a moment."""
        since, deadline = time.time(), time.monotonic() + within_s
        while missing := set(names) - await self.fired(since):
            assert time.monotonic() < deadline, f"{sorted(missing)} did not fire"
            await asyncio.sleep(0.2)

    async def scraped(self, expression: str, within_s: float = 60.0) -> None:
        """Wait until the expression gives something."""
        deadline = time.monotonic() + within_s
        while not await self.query(expression):
            assert time.monotonic() < deadline, f"{expression} gave nothing"
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running_prometheus(
    folder: Path, targets: Mapping[str, Sequence[str]], groups: list[dict[str, Any]]
) -> AsyncIterator[Prometheus]:
    """`targets`: addresses by job."""
    (folder / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    every = f"{SCRAPE_S * 1000:.0f}ms"
    config = {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": "250ms",
        },
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": [urlsplit(url).netloc for url in urls]}],
            }
            for job, urls in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus"), f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}",
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{address}", timeout=20, trust_env=False
        ) as client:
            started = time.time()
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/-/ready")).status_code == 200:
                        break
                alive = process.returncode is None and time.time() < started + 30
                assert alive, (folder / "log").read_text()
                await asyncio.sleep(0.05)
            yield Prometheus(client, started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
