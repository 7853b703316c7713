"""A model without a host: questions wait until one is there, bounded and in no one's way, and who
cannot wait is told how long it takes. A host that is there and sick is another matter.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import api.watch
from api.upstream.probes import Probes
from tests.api.conftest import Api, error_of, eventually, serving_api
from tests.api.fleet import Fleet, completion, load, metric, running_fleet
from tests.api.host_process import host_process
from tests.api.processes import process
from tests.api.stub_host import StubHost, raw_host, refuse, resets, running
from tests.ports import free_port

pytestmark = pytest.mark.anyio
QUESTION = {"user_prompt": "Capital of India?"}
ANSWER = "The capital of India is New Delhi."


class Sleeper:
    """A model whose host is not there yet, and the API server that holds its questions."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.port = free_port()
        self.host = StubHost()
        self.host.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._stack = stack

    async def api(self, **settings: Any) -> Api:
        values = {"hold_s": 10.0} | settings
        return await self._stack.enter_async_context(serving_api(self.host, self._folder, **values))

    async def wakes(self) -> None:
        await self._stack.enter_async_context(running(self.host, port=self.port))


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[Sleeper]:
    async with contextlib.AsyncExitStack() as stack:
        yield Sleeper(tmp_path, stack)


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(api.watch, "FRESH_S", 0.0)
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


async def held(server: Api, count: int) -> None:
    async def are() -> bool:
        return bool((await load(server))["held"] == count)

    await eventually(are)


# ---- waiting ----------------------------------------------------------------------------------


async def test_the_first_question_waits_for_the_host_and_is_answered(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    asked = asyncio.create_task(server.chat(**QUESTION))
    streamed = asyncio.create_task(server.chat(**QUESTION, stream=True))
    await held(server, 2)
    view = await load(server)
    assert view["requests"] == 2
    assert view["tokens"] >= 2 * 512
    await sleeper.wakes()
    answer = await asked
    assert (answer.status_code, answer.json()["response"]) == (200, ANSWER)
    stream = await streamed
    assert stream.status_code == 200
    assert stream.text.endswith("data: [DONE]\n\n")
    assert len(sleeper.host.generated) == 2
    assert (await load(server))["requests"] == 0
    assert metric(server, "holds_total", model="", outcome="answered") == 2
    assert metric(server, "host_start_seconds_count", model="") == 1


async def test_every_door_waits_and_a_later_turn_does_too(sleeper: Sleeper) -> None:
    """A later turn asks for the context's length first, which nobody is there to tell."""
    server = await sleeper.api()
    async with running(sleeper.host, port=sleeper.port):
        assert (await server.chat(chat_id="1", **QUESTION)).status_code == 200
    messages = [{"role": "user", "content": "Capital of India?"}]
    asked = [
        server.chat(chat_id="1", user_prompt="And of Japan?"),
        server.client.post("/v1/chat/completions", json={"model": "m", "messages": messages}),
        server.client.post("/chat/batch", json={"chats": [QUESTION, QUESTION]}),
    ]
    tasks = [asyncio.ensure_future(one) for one in asked]
    await held(server, 4)
    await sleeper.wakes()
    answers = await asyncio.gather(*tasks)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert all("error" not in one for one in answers[2].json())


async def test_a_host_that_listens_but_loads_still_is_waited_for(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    asked = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 1)
    sleeper.host.ready = False
    await sleeper.wakes()
    await eventually(lambda: sleeper.host.seen)
    later = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 2)
    assert sleeper.host.generated == []
    sleeper.host.ready = True
    assert {one.status_code for one in await asyncio.gather(asked, later)} == {200}


async def test_a_client_that_leaves_is_let_go(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    asked = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 1)
    asked.cancel()
    await held(server, 0)
    assert (await load(server))["requests"] == 0
    await sleeper.wakes()
    # Nothing was sent for it, and the next question finds the host at once.
    assert (await server.chat(user_prompt="q")).status_code == 200
    assert [one.body["messages"][-1]["content"] for one in sleeper.host.generated] == ["q"]


async def test_a_name_without_addresses_is_nobody_and_is_looked_up_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the name of all pods is while there are none."""
    host = await fleet.host("host")
    port = int(host.url.rsplit(":", 1)[1])
    numbers: list[str] = ["127.0.0.1"]

    async def look_up(*_: Any, **__: Any) -> list[Any]:
        if not numbers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in numbers]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up, raising=False)
    address = {"url": f"http://pods.test:{port}", "resolve": True}
    fleet.write({"name": "m", "addresses": [address], "hold_s": 10})
    server = await fleet.api()
    (pool,) = server.parts.host.models.pools
    assert (await server.chat(**QUESTION)).status_code == 200
    numbers.clear()
    await eventually(lambda: not pool.addresses)
    asked = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 1)
    numbers.append("127.0.0.1")
    assert (await asked).status_code == 200


# ---- bounds -----------------------------------------------------------------------------------


async def test_who_waited_in_vain_is_told_when_to_come_back(sleeper: Sleeper) -> None:
    server = await sleeper.api(hold_s=0.3)
    began = time.monotonic()
    answer = await server.chat(**QUESTION)
    assert 0.3 <= time.monotonic() - began < 3
    assert answer.status_code == 503
    error = error_of(answer)
    assert (error["code"], error["expected_wait_s"]) == ("model_starting", 1)
    assert int(answer.headers["retry-after"]) >= 1
    # Still wanted, for whoever looks only now.
    view = await load(server)
    assert (view["requests"], view["held"]) == (1, 1)
    assert view["tokens"] >= 1


async def test_the_callers_own_deadline_is_the_shorter_one(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    answer = await server.chat(**QUESTION, timeout_ms=300)
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "model_starting"


async def test_who_cannot_wait_as_long_as_it_took_last_time_is_refused_at_once(
    sleeper: Sleeper,
) -> None:
    server = await sleeper.api()
    async with contextlib.AsyncExitStack() as first:
        asked = asyncio.create_task(server.chat(**QUESTION))
        await held(server, 1)
        await asyncio.sleep(2.2)
        await first.enter_async_context(running(sleeper.host, port=sleeper.port))
        assert (await asked).status_code == 200
    began = time.monotonic()
    answer = await server.chat(**QUESTION, timeout_ms=1500)
    assert time.monotonic() - began < 1.4
    assert answer.status_code == 503
    # Measured, not configured.
    assert error_of(answer)["expected_wait_s"] == 3
    assert 2 <= int(answer.headers["retry-after"]) <= 5
    assert (await load(server))["requests"] == 1
    assert metric(server, "holds_total", model="", outcome="too_long") == 1
    patient = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 1)
    await sleeper.wakes()
    assert (await patient).status_code == 200


async def test_no_more_wait_than_there_are_places(sleeper: Sleeper) -> None:
    server = await sleeper.api(max_held=2)
    asked = [asyncio.create_task(server.chat(**QUESTION)) for _ in range(2)]
    await held(server, 2)
    refused = await server.chat(**QUESTION)
    assert refused.status_code == 503
    assert error_of(refused)["code"] == "model_starting"
    assert metric(server, "holds_total", model="", outcome="full") == 1
    await sleeper.wakes()
    assert {one.status_code for one in await asyncio.gather(*asked)} == {200}


async def test_nobody_waits_unless_told_so(sleeper: Sleeper) -> None:
    server = await sleeper.api(hold_s=0.0)
    answer = await server.chat(**QUESTION)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_host_unavailable")
    assert (await load(server))["requests"] == 0


async def test_what_is_no_question_neither_waits_nor_starts_a_host(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    began = time.monotonic()
    answer = await server.client.get("/v1/models")
    assert answer.status_code == 503
    assert time.monotonic() - began < 5  # who waits, waits for ten
    assert (await load(server))["requests"] == 0


# ---- a host that is there ---------------------------------------------------------------------


async def test_a_sick_host_is_not_waited_for(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    await sleeper.wakes()
    for fault, status in (
        (refuse(503, "not_ready"), 503),
        (refuse(500, "internal_error"), 502),
        (refuse(429, "overloaded", "7"), 429),
    ):
        sleeper.host.always = fault
        began = time.monotonic()
        assert (await server.chat(**QUESTION)).status_code == status
        assert time.monotonic() - began < 6
    assert metric(server, "holds_total", model="", outcome="timeout") == 0
    assert (await load(server))["requests"] == 0


async def test_a_host_that_breaks_off_is_not_waited_for(tmp_path: Path) -> None:
    async with raw_host(resets) as sick:
        stub = StubHost()
        stub.url = sick.url
        async with serving_api(stub, tmp_path, hold_s=10.0) as server:
            began = time.monotonic()
            answer = await server.chat(**QUESTION)
            assert answer.status_code in (502, 503)
            assert error_of(answer)["code"] != "model_starting"
            assert time.monotonic() - began < 5


async def test_one_of_two_hosts_that_is_gone_keeps_nobody_waiting(fleet: Fleet) -> None:
    good = await fleet.host("good")
    gone = f"http://127.0.0.1:{free_port()}"
    fleet.write({"name": "m", "addresses": [good.url, gone], "hold_s": 10})
    server = await fleet.api()
    for n in range(20):
        assert (await server.chat(chat_id=str(n), user_prompt="q")).status_code == 200
    assert metric(server, "holds_total", model="m", outcome="answered") == 0


# ---- several models ---------------------------------------------------------------------------


async def test_a_fallback_answers_at_once_and_the_model_is_wanted_all_the_same(
    fleet: Fleet,
) -> None:
    await fleet.host("small")
    large = {"name": "large", "addresses": [f"http://127.0.0.1:{free_port()}"], "hold_s": 10}
    fleet.write(large | {"fallback": "small"}, fleet.model("small", "small"))
    server = await fleet.api()
    answer = await completion(server, "large")
    assert answer.headers["x-served-by-model"] == "small"
    assert (await load(server, model="large"))["requests"] == 1
    assert (await load(server, model="small"))["requests"] == 0


async def test_a_model_that_leaves_the_file_lets_its_waiters_go(fleet: Fleet) -> None:
    await fleet.host("small")
    large = {"name": "large", "addresses": [f"http://127.0.0.1:{free_port()}"], "hold_s": 10}
    fleet.write(large, fleet.model("small", "small"))
    server = await fleet.api()
    asked = asyncio.create_task(completion(server, "large"))
    await held(server, 1)
    fleet.write(fleet.model("small", "small"))
    began = time.monotonic()
    answer = await asked
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_host_unavailable")
    assert time.monotonic() - began < 5


async def test_a_model_that_sleeps_is_not_missed(fleet: Fleet) -> None:
    """Neither in the probe's words nor in the metric of the alert, until it is wanted."""
    await fleet.host("small")
    large = {"name": "large", "addresses": [f"http://127.0.0.1:{free_port()}"], "hold_s": 10}
    fleet.write(large, fleet.model("small", "small"))
    server = await fleet.api()

    async def says(state: str, ready: float | None) -> bool:
        body = (await server.client.get("/readyz")).json()
        registry = server.parts.metrics.registry
        shown = registry.get_sample_value("qna_api_hosts_ready", {"model": "large"})
        return body.get("models", {}).get("large", {}).get("state") == state and shown == ready

    await eventually(lambda: says("asleep", None))
    assert (await server.client.get("/readyz")).json()["model_host"] == "ready"
    asked = asyncio.create_task(completion(server, "large"))
    await eventually(lambda: says("unavailable", 0))
    asked.cancel()


async def test_a_sick_model_is_missed_although_it_may_sleep(sleeper: Sleeper) -> None:
    server = await sleeper.api()
    sleeper.host.ready = False
    await sleeper.wakes()

    async def said() -> bool:
        state: str = (await server.client.get("/readyz")).json()["model_host"]
        assert state != "asleep"
        shown = server.parts.metrics.registry.get_sample_value("qna_api_hosts_ready", {"model": ""})
        return state == "unavailable" and shown == 0

    await eventually(said)


# ---- real processes ---------------------------------------------------------------------------


async def test_between_processes_a_host_that_dies_is_waited_for_and_comes_back(
    tmp_path: Path,
) -> None:
    database = f"sqlite:///{tmp_path}/chats.db"
    async with host_process() as host, process(host.url, database, API_HOLD_S="60") as server:
        asked = asyncio.create_task(server.client.post("/chat", json=QUESTION, timeout=60))

        async def holds_one() -> bool:
            return bool((await server.client.get("/load")).json()["held"] == 1)

        await eventually(holds_one)
        await host.start()
        assert (await asked).json()["response"] == ANSWER
        await host.kill()
        again = asyncio.create_task(server.client.post("/chat", json=QUESTION, timeout=60))
        await eventually(holds_one)
        await host.start()
        assert (await again).json()["response"] == ANSWER


async def test_the_lookout_ends_with_the_last_who_wants_a_host(sleeper: Sleeper) -> None:
    """A task that looked for ever would be a leak, and a room that stayed open would refuse."""
    server = await sleeper.api()
    asked = asyncio.create_task(server.chat(**QUESTION))
    await held(server, 1)
    probes: Probes = server.parts.host.probes
    (pool,) = server.parts.host.models.pools
    assert pool.lookout is not None
    asked.cancel()
    await eventually(lambda: pool.lookout is not None and pool.lookout.done())
    assert not pool.room.is_open
    # A task's own callbacks come a turn of the loop after its end.
    await eventually(lambda: pool.lookout not in probes._tasks)
