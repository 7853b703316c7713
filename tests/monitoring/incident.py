"""Both real servers, their database and their Redis, watched by a real Prometheus through one bad
minute after another: another model goes, too much is asked, Redis, the database, the model host
and the API server go away. What Prometheus saw is what the tests look at.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.api.conftest import eventually
from tests.api.postgres_server import PostgresServer, controlled_server
from tests.api.processes import Process, process
from tests.api.redis_server import running_redis
from tests.monitoring.prometheus import Prometheus, running_prometheus
from tests.monitoring.rules import CHARTS, ROOT, hurried
from tests.ports import free_port

FACTOR = 100
"""Five minutes of the rules are three seconds here."""
# A wait of five seconds takes more callers on a fast machine than on a slow one.
THRESHOLDS = {"ApiServerFirstTokenSlow": 2.5, "ModelHostFirstTokenSlow": 2.5}
QUESTION = "Capital of India?"
# 64 blocks of 16 tokens: 32 requests fill them with their prompts alone.
CROWDED = {
    "MODEL_HOST_KV_CACHE_MEMORY": "8MiB",
    "MODEL_HOST_MAX_NUM_SEQS": "32",
    "MODEL_HOST_MAX_QUEUED_REQUESTS": "100",
    "MODEL_HOST_MAX_QUEUED_TOKENS": "200000",
}


@dataclass
class Incident:
    prometheus: Prometheus
    fired_in_health: set[str] = field(default_factory=set)


@contextlib.asynccontextmanager
async def model_host() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The real one with the demo model, and little room."""
    port = free_port()
    environment = {**os.environ, **CROWDED, "MODEL": "", "MODEL_HOST_LOG_LEVEL": "error"}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "model", "--port", str(port), cwd=ROOT, env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    try:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:

            async def ready() -> bool:
                assert made.returncode is None, "the model host has ended"
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(ready, 120)
        yield url, made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
        await made.wait()
        made._transport.close()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def callers(number: int, ask: Callable[[int], Awaitable[Any]]) -> AsyncIterator[None]:
    """So many, each of whom asks again a moment after the answer or refusal."""

    async def one(who: int) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await ask(who)
            await asyncio.sleep(0.3)

    tasks = [asyncio.create_task(one(who)) for who in range(number)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Scene:
    """What there is to break."""

    folder: Path
    host_url: str
    host: asyncio.subprocess.Process
    server: Process
    postgres: PostgresServer
    redis: Any
    prometheus: Prometheus

    def models(self, *models: dict[str, Any]) -> None:
        write_models(self.folder / "models.yaml", *models)

    async def chat(self, model: str = "demo", **more: Any) -> httpx.Response:
        return await self.server.client.post(
            "/chat", json={"user_prompt": QUESTION, "model": model, **more}
        )

    async def stream(self, who: int) -> None:
        """An answer of some length, as a stream."""
        body = {"user_prompt": f"{who} " * 8, "model": "demo", "stream": True}
        body |= {"max_tokens": 40, "temperature": 2.0}
        async with self.server.client.stream("POST", "/chat", json=body, timeout=120) as answer:
            async for _ in answer.aiter_raw():
                pass


def write_models(path: Path, *models: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump({"models": list(models)}) if models else "models: none\n")
    new.replace(path)


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        host_url, host = await stack.enter_async_context(model_host())
        write_models(folder / "models.yaml", {"name": "demo", "addresses": [host_url]})
        postgres = stack.enter_context(controlled_server())
        redis_url, redis = stack.enter_context(running_redis())
        server = await stack.enter_async_context(
            process(
                "http://unused", postgres.url,
                API_MODELS_FILE=str(folder / "models.yaml"), API_LIMITS_URL=redis_url,
                API_TENANT_TOKENS_PER_MINUTE="1000000", API_MAX_IN_FLIGHT="8", API_MAX_QUEUED="40",
                API_QUEUE_TIMEOUT_S="60", API_DATABASE_TIMEOUT_S="1",
            )
        )  # fmt: skip
        watched = {"api-server": [server.url], "model-host": [host_url]}
        quick = [group for chart in CHARTS for group in hurried(chart, FACTOR, THRESHOLDS)]
        prometheus = await stack.enter_async_context(running_prometheus(folder, watched, quick))
        yield Scene(folder, host_url, host, server, postgres, redis, prometheus)


async def in_health(at: Scene) -> set[str]:
    """Which alerts fire while questions are asked and answered, for longer than any waits."""
    # Prometheus takes a few seconds to begin; until then both servers are absent to it.
    await at.prometheus.scraped("count(up == 1) == 2 unless on () ALERTS")
    began = time.time()

    async def ask(who: int) -> None:
        stream = {"stream": True} if who % 2 else {}
        answer = await at.chat(chat_id=f"calm-{who}", **stream)
        assert answer.status_code == 200, answer.text

    async with callers(2, ask):
        await at.prometheus.scraped(
            'count_over_time(qna_api_turns_total{status="complete"}[12s]) >= 22'
        )
    return await at.prometheus.fired(since=began)


async def a_model_goes(at: Scene) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    at.models(
        {"name": "demo", "addresses": [at.host_url, {"url": nowhere, "weight": 5}]},
        {
            "name": "gone",
            "addresses": [nowhere, {"url": "http://nowhere.invalid", "resolve": True}],
            "fallback": "demo",
        },
    )

    async def ask(who: int) -> None:
        await at.chat("gone" if who % 2 else "demo")

    assert (await at.chat(max_tokens=2_000_000)).json()["error"][
        "limit_name"
    ] == "tokens_per_minute"
    async with callers(4, ask):
        await at.prometheus.fires("ApiServerHostOut", "ApiServerFallback", "ApiServerNoModelHost")
    at.models()
    await at.prometheus.fires("ApiServerModelsFileRefused")
    at.models({"name": "demo", "addresses": [at.host_url]})


async def too_much(at: Scene) -> None:
    """Asked of the API server, and of the model host by others than it."""

    async def past(who: int) -> None:
        # So long that the line moves slowly on a fast machine, too.
        body = {"prompt": f"{who} " * 8, "max_tokens": 300, "model": "qna-demo", "ignore_eos": True}
        hurry = {"timeout_ms": 200} if who % 8 == 0 else {}
        await others.post("/openai/v1/completions", json=body | hurry)

    async with httpx.AsyncClient(
        base_url=at.host_url,
        timeout=120,
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    ) as others:
        at.server.client.timeout = httpx.Timeout(120)
        async with callers(116, past), callers(90, at.stream):
            await at.prometheus.fires(
                "ModelHostRequestsWaiting", "ModelHostKvCacheFull", "ModelHostPreempting",
                "ModelHostFirstTokenSlow", "ModelHostErrors",
                "ApiServerQueueing", "ApiServerRejecting",
            )  # fmt: skip
            async with callers(60, past):
                await at.prometheus.fires("ModelHostRequestsRejected")
    await at.prometheus.scraped('qna_num_requests_waiting{job="model-host"} == 0')


async def first_tokens_are_slow(at: Scene) -> None:
    """However fast the machine is, and in every window of the rule: whoever asks while the host
    stands still waits for most of that time. It is too short for the host to be called frozen.
    """
    async with stuttering(at.host.pid, stopped_s=3.5, running_s=1.0), callers(30, at.stream):
        await at.prometheus.fires("ApiServerFirstTokenSlow")


async def loops_are_slow(at: Scene) -> None:
    async with stuttering(at.host.pid, at.server.process.pid, stopped_s=0.9, running_s=0.3):
        await at.prometheus.fires("ApiServerEventLoopSlow", "ModelHostEventLoopSlow")


@contextlib.asynccontextmanager
async def stuttering(*pids: int, stopped_s: float, running_s: float) -> AsyncIterator[None]:
    """Processes that stand still for a moment, again and again."""

    async def stutter() -> None:
        while True:
            for number, seconds in ((signal.SIGSTOP, stopped_s), (signal.SIGCONT, running_s)):
                for pid in pids:
                    os.kill(pid, number)
                await asyncio.sleep(seconds)

    task = asyncio.create_task(stutter())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def stores_go(at: Scene) -> None:
    async def ask(who: int) -> None:
        await at.chat()

    async with callers(4, ask):
        at.redis.kill()
        await at.prometheus.fires("ApiServerLimitsUnavailable")
        at.postgres.stop()
        await at.prometheus.fires("ApiServerDatabaseUnavailable", "ApiServerErrors")
        at.postgres.start()


async def servers_go(at: Scene) -> None:
    at.host.kill()
    await at.prometheus.fires("ApiServerNoModelHost")
    at.server.signal(signal.SIGKILL)
    await at.prometheus.fires(
        "ApiServerAbsent", "ApiServerUnreachable", "ModelHostAbsent", "ModelHostUnreachable"
    )
