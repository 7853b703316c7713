"""The host keeps the contract that the API server's tests answer from: tests/contract/."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.config import BUNDLED_MODEL, BUNDLED_NAME
from model.engine import FinishReason, Overloaded, StepFailed
from model.host import Host
from tests.model import contract
from tests.model.fakes import FakeEngine, load_scripted, output
from tests.model.hosts import byte_level, client_of, running, settings_for

pytestmark = pytest.mark.anyio
FIRST = byte_level().encode("The")


@pytest.fixture(scope="module")
async def demo() -> AsyncIterator[httpx.AsyncClient]:
    host = Host(settings_for(BUNDLED_MODEL))
    async with running(host), client_of(host) as client:
        yield client


@pytest.mark.parametrize("case", contract.cases("ready"), ids=lambda case: case["name"])
async def test_the_bundled_model_answers_as_pinned(
    case: dict[str, Any], demo: httpx.AsyncClient
) -> None:
    contract.check(case, await demo.request(**contract.request_of(case)))


def engine_for(given: str) -> FakeEngine:
    first = output(FIRST)
    failed = output(finish_reason=FinishReason.ERROR, error=StepFailed())
    match given:
        case "loading":
            return FakeEngine(loading=True)
        case "overloaded":
            return FakeEngine(refusal=Overloaded(0.3))
        case "slow":
            return FakeEngine()
        case "failing":
            return FakeEngine([failed])
        case "fails after the first token":
            return FakeEngine([first, failed])
        case "drained after the first token":
            return FakeEngine([first, output(finish_reason=FinishReason.ABORT)])
    return FakeEngine()


STATES = [
    "loading",
    "draining",
    "dead",
    "overloaded",
    "slow",
    "failing",
    "fails after the first token",
    "drained after the first token",
]


@pytest.mark.parametrize("case", contract.cases(*STATES), ids=lambda case: case["name"])
async def test_failures_are_told_as_pinned(case: dict[str, Any], tmp_path: Path) -> None:
    given = case["given"]
    engine = engine_for(given)
    settings = settings_for(tmp_path, model_name=BUNDLED_NAME, drain_timeout_s=0.01)
    host = Host(settings, engine, load=load_scripted)
    if given == "drained after the first token":
        engine.on_submit = host.begin_drain
    async with running(host, wait=given != "loading"), client_of(host) as client:
        if given == "draining":
            host.begin_drain()
        if given == "dead":
            engine.die()
        contract.check(case, await client.request(**contract.request_of(case)))


def test_every_state_of_the_fixtures_is_tested() -> None:
    given = {case["given"] for path in contract.FILES for case in json.loads(path.read_text())}
    assert given == {"ready", *STATES}


def test_the_check_can_fail() -> None:
    case = contract.cases("ready")[0]
    wrong = {**case["answer"]["body"], "extra": 1}
    answer = httpx.Response(200, json=wrong, headers={"x-request-id": "1"})
    with pytest.raises(AssertionError):
        contract.check(case, answer)
