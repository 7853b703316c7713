"""What runs beside the requests goes on, whatever a round of it ends with."""

import asyncio
import logging
from typing import Any

import pytest

from api.app import make_store
from api.context import SCOPE_KEY
from api.history.retention import sweep_for_ever
from api.lifecycle import Lifecycle
from api.loops import repeat
from api.metrics import Metrics
from api.middleware import RequestScope
from api.settings import Settings
from api.tracing import Tracing
from api.usage import recorder
from api.usage.recorder import UsageRecorder
from tests.api.conftest import eventually

pytestmark = pytest.mark.anyio


class Bug(Exception):
    """No error of ours."""


async def test_a_round_that_fails_is_logged_and_the_next_one_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        raise Bug("a secret")

    task = asyncio.create_task(repeat(work, 0.01, logging.getLogger("test"), "it failed"))
    await eventually(lambda: rounds >= 3)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert {record.message for record in caplog.records} == {"it failed"}
    assert caplog.records[0].fields["exception"] == "Bug"  # type: ignore[attr-defined]


async def test_the_sweep_outlives_a_bug() -> None:
    class Store:
        purges = 0

        async def purge(self, before_ms: int) -> Any:
            self.purges += 1
            raise Bug

    store = Store()
    task = asyncio.create_task(sweep_for_ever(store, 1, every_s=0.01))  # type: ignore[arg-type]
    await eventually(lambda: store.purges >= 3)
    task.cancel()
    await asyncio.wait({task})


async def test_leases_are_renewed_after_a_bug(database_url: str) -> None:
    store = make_store(Settings(database_url=database_url, lease_s=0.3), Metrics())
    await store.open()
    renewals = 0

    async def run(name: str, *_: Any, **__: Any) -> Any:
        nonlocal renewals
        renewals += name == "renew"
        raise Bug

    store._run = run  # type: ignore[method-assign]
    await eventually(lambda: renewals >= 3)
    await store.close()


async def test_usage_is_written_after_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FLUSH_S", 0.01)
    flushes = 0

    async def flush() -> None:
        nonlocal flushes
        flushes += 1
        if flushes < 3:
            raise Bug

    made = UsageRecorder(None, Metrics())  # type: ignore[arg-type]
    monkeypatch.setattr(made, "flush", flush)
    made.start()
    await eventually(lambda: flushes >= 5)
    await made.close()


async def test_a_request_is_settled_whatever_its_cleaning_up_does() -> None:
    """Also by another charge, and it is no longer one that runs."""
    lifecycle, metrics = Lifecycle(1), Metrics()
    closed: list[str] = []

    class Charge:
        def __init__(self, name: str) -> None:
            self.name = name

        async def close(self) -> None:
            closed.append(self.name)
            if self.name == "fails":
                raise Bug

    async def cleanup() -> None:
        closed.append("cleanup")
        raise Bug

    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = scope[SCOPE_KEY]
        context.cleanups += [cleanup, cleanup]
        context.charges += [Charge("fails"), Charge("second")]

    async def nothing(*_: Any) -> None:
        return None

    scope = {"type": "http", "method": "POST", "path": "/chat", "headers": []}
    layer = RequestScope(app, lifecycle, metrics, Tracing())  # type: ignore[arg-type]
    await layer(scope, nothing, nothing)  # type: ignore[arg-type]
    assert closed == ["cleanup", "cleanup", "fails", "second"]
    assert not lifecycle.running
    counted = metrics.registry.get_sample_value(
        "qna_api_requests_total", {"route": "unmatched", "outcome": "no_answer"}
    )
    assert counted == 1
