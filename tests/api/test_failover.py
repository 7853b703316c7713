"""One replica of several fails: another answers, nothing is asked twice after its first byte, and
the sick one is left alone until it answers again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.upstream import probes
from api.upstream.pool import HostAddress
from tests.api.conftest import Api, error_of, eventually
from tests.api.fleet import Fleet, completion, metric, running_fleet
from tests.api.stub_host import StubHost, Wire, holds, raw_host, refuse, resets, says

pytestmark = pytest.mark.anyio
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


async def test_a_replica_that_is_gone_is_nobodys_error(fleet: Fleet) -> None:
    good = await fleet.host("good")
    fleet.write({"name": "m", "addresses": [good.url, NOBODY]})
    api = await fleet.api()
    answers = [await api.chat(chat_id=str(n), user_prompt="q") for n in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(good.generated) == 40
    # Three failures in a row took it out; since then only probes ask it.
    assert metric(api, "host_failures_total", model="m", address=NOBODY, reason="connect") == 3
    assert metric(api, "host_out", model="m", address=NOBODY) == 1
    assert metric(api, "host_out", model="m", address=good.url) == 0


async def test_a_replica_that_says_it_goes_gets_nothing_until_it_is_ready_again(
    fleet: Fleet,
) -> None:
    going, _ = await fleet.host("going"), await fleet.host("staying")
    fleet.write(fleet.model("m", "going", "staying"))
    api = await fleet.api()
    going.always, going.ready = refuse(503, "draining"), False
    for n in range(20):
        assert (await api.chat(chat_id=str(n), user_prompt="q")).status_code == 200
    assert len(going.generated) == 1, "one word of it is enough"
    going.always, going.ready = None, True

    async def asked_again() -> bool:
        answers = [await api.chat(chat_id=str(n), user_prompt="q") for n in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        return len(going.generated) > 1

    await eventually(asked_again)
    assert metric(api, "host_out", model="m", address=going.url) == 0


async def test_after_the_first_byte_no_other_replica_is_asked(fleet: Fleet) -> None:
    async def breaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b'data: {"chat_id": "1", "delta": "The"}\n\n', more=True)
        raise ConnectionError("the stub breaks off here")

    for name in "ab":
        (await fleet.host(name)).always = breaks
    fleet.write(fleet.model("m", "a", "b"))
    api = await fleet.api()
    answer = await api.chat(chat_id="1", user_prompt="q", stream=True)
    assert '"delta": "The"' in answer.text
    assert answer.text.count("event: error\n") == 1
    assert sum(fleet.counts().values()) == 1
    assert metric(api, "upstream_retries_total", reason="broken_off") == 0


async def test_a_stream_that_tells_a_failure_is_no_whole_answer(fleet: Fleet) -> None:
    async def fails(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n')

    host = await fleet.host("a")
    fleet.write(fleet.model("m", "a"))
    api = await fleet.api()
    (pool,) = api.parts.host.models.pools
    host.always = refuse(500, "internal_error")
    await completion(api, "m")
    host.always = fails
    assert "event: error\n" in (await completion(api, "m", stream=True)).text
    assert [address.failures for address in pool.addresses] == [1]


async def test_one_prompt_does_not_go_through_all_replicas(fleet: Fleet) -> None:
    """A connection that breaks while the host works may mean that the request killed it."""
    await fleet.host("unused")
    async with raw_host(resets) as a, raw_host(resets) as b, raw_host(resets) as c:
        fleet.write({"name": "m", "addresses": [a.url, b.url, c.url]})
        api = await fleet.api(retry_attempts=5)
        answer = await completion(api, "m")
        assert answer.status_code in (502, 503)
        assert error_of(answer)["code"] in ("upstream_error", "model_host_unavailable")
        assert metric(api, "upstream_attempts_total") == 2


async def test_an_outage_of_all_replicas_does_not_multiply_the_load(fleet: Fleet) -> None:
    for name in "abc":
        (await fleet.host(name)).always = refuse(503, "not_ready")
    fleet.write(fleet.model("m", "a", "b", "c"))
    api = await fleet.api(retry_budget=0.2, retry_burst=5, retry_attempts=2)
    for n in range(50):
        answer = await api.chat(chat_id=str(n), user_prompt="q")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "model_host_unavailable")
    # A fifth more and the burst.
    assert sum(fleet.counts().values()) <= 50 * 1.2 + 5


@asynccontextmanager
async def frozen_beside_a_good_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, suspect_after_s: float
) -> AsyncIterator[tuple[Api, StubHost, HostAddress]]:
    """The frozen one takes connections and says nothing, as a stopped process does."""
    monkeypatch.setattr(probes, "SUSPECT_AFTER_S", suspect_after_s)
    monkeypatch.setattr(probes, "PROBE_TIMEOUT_S", 0.1)
    good = await fleet.host("good")
    over = asyncio.Event()

    async def says_nothing(_: asyncio.StreamWriter) -> None:
        await over.wait()

    async with raw_host(says_nothing) as frozen:
        fleet.write({"name": "m", "addresses": [good.url, frozen.url]})
        api = await fleet.api()
        (pool,) = api.parts.host.models.pools
        (address,) = (one for one in pool.addresses if one.url == frozen.url)
        yield api, good, address
        over.set()


async def test_a_frozen_replica_keeps_nobody_waiting(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with frozen_beside_a_good_one(fleet, monkeypatch, 0.1) as (api, good, frozen):
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *(api.chat(chat_id=str(n), user_prompt="q") for n in range(20))
            )
        assert {answer.status_code for answer in answers} == {200}
        assert len(good.generated) == 20
        assert metric(api, "host_out", model="m", address=frozen.url) == 1


async def test_who_waits_at_a_frozen_replica_that_is_out_already_is_not_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others, who had waited there for longer, have put it out."""
    async with frozen_beside_a_good_one(fleet, monkeypatch, 0.5) as (api, _, frozen):
        asked = [asyncio.create_task(api.chat(chat_id=str(n), user_prompt="q")) for n in range(20)]
        await eventually(lambda: frozen.in_flight)
        (pool,) = api.parts.host.models.pools
        pool.failed(frozen, "frozen", surely=True)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}


async def test_a_slow_replica_is_not_a_frozen_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SUSPECT_AFTER_S", 0.05)
    for name in "ab":
        (await fleet.host(name)).delay_s = 0.6
    fleet.write(fleet.model("m", "a", "b"))
    api = await fleet.api()
    answers = await asyncio.gather(*(api.chat(chat_id=str(n), user_prompt="q") for n in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(fleet.counts().values()) == 8
    assert {metric(api, "host_out", model="m", address=h.url) for h in fleet.hosts.values()} == {0}


async def test_a_replica_that_is_out_is_asked_for_while_a_request_still_waits_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is asked whether it lives keeps nobody from asking whether it is ready again."""
    monkeypatch.setattr(probes, "SUSPECT_AFTER_S", 0.02)
    slow, *others = [await fleet.host(name) for name in ("slow", "b", "c")]
    for other in others:
        other.delay_s = 0.1
    fleet.write(fleet.model("m", "slow", "b", "c"))
    api = await fleet.api()
    goes_on = asyncio.Event()
    slow.faults = [holds(goes_on)]

    async def lives(wire: Wire) -> None:
        """Whatever it says to questions."""
        if wire.seen.path == "/livez":
            await wire.json(200, {})
        elif slow.ready:
            await slow.answer(wire)
        else:
            await refuse(503, "draining")(wire)

    slow.always = lives

    async def ask_many() -> None:
        """At once, so that the one that has more to do already gets some, too."""
        asking = (api.chat(chat_id=str(n), user_prompt="q") for n in range(20))
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}

    waiting = [asyncio.create_task(api.chat(chat_id=f"w{n}", user_prompt="q")) for n in range(20)]
    await eventually(lambda: sum(not one.done() for one in waiting) == 1)
    slow.ready = False
    await ask_many()
    assert metric(api, "host_out", model="m", address=slow.url) == 1
    await eventually(lambda: any(seen.path == "/readyz" for seen in slow.seen))
    goes_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_garbage_is_told_and_takes_the_replica_out(fleet: Fleet) -> None:
    good = await fleet.host("good")
    async with raw_host(says(b"not http at all\r\n\r\n")) as bad:
        fleet.write({"name": "m", "addresses": [good.url, bad.url]})
        api = await fleet.api()
        codes = [(await api.chat(chat_id=str(n), user_prompt="q")).status_code for n in range(40)]
        assert set(codes) <= {200, 502}
        assert codes.count(502) <= 3
        assert metric(api, "host_out", model="m", address=bad.url) == 1
