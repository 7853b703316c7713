"""Several addresses: the models file's changes, chats that stay with their replica, canaries, names
that stand for several addresses, fallbacks.
"""

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.upstream import pool, probes
from tests.api.conftest import error_of, eventually
from tests.api.fleet import Fleet, completion, metric, running_fleet
from tests.api.stub_host import refuse

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


# ---- the file changes -------------------------------------------------------------------------


async def test_a_changed_file_is_taken_and_running_requests_finish(fleet: Fleet) -> None:
    old = await fleet.host("old")
    await fleet.host("new")
    old.gap_s = 0.05
    fleet.write(fleet.model("m", "old"))
    api = await fleet.api()
    question = " ".join(f"w{n}" for n in range(30))
    running = asyncio.create_task(api.chat(user_prompt=question, stream=True))
    await eventually(lambda: old.running == 1)
    fleet.write(fleet.model("m", "new"))
    await eventually(lambda: metric(api, "models_file_reloads_total", result="taken") == 1)
    assert (await api.chat(user_prompt="q")).status_code == 200
    assert not running.done()
    assert (await running).text.endswith("data: [DONE]\n\n")
    assert fleet.counts() == {"old": 1, "new": 1}
    # Nothing is kept of the address that left.
    assert old.url not in (await api.client.get("/metrics")).text


async def test_a_config_maps_turned_link_is_a_change(fleet: Fleet) -> None:
    await fleet.host("old"), await fleet.host("new")
    fleet.write(fleet.model("m", "old"))
    for name, host in (("v1", "old"), ("v2", "new")):
        (fleet.folder / name).mkdir()
        fleet.write(fleet.model("m", host))
        fleet.file.rename(fleet.folder / name / "models.yaml")
        # As kubelet leaves them: the same size, the same time.
        os.utime(fleet.folder / name / "models.yaml", (1, 1))
    (fleet.folder / "..data").symlink_to("v1")
    fleet.file.symlink_to("..data/models.yaml")
    api = await fleet.api()
    (fleet.folder / "..data_tmp").symlink_to("v2")
    (fleet.folder / "..data_tmp").replace(fleet.folder / "..data")
    await eventually(lambda: metric(api, "models_file_reloads_total", result="taken") == 1)
    await api.chat(user_prompt="q")
    assert fleet.counts() == {"old": 0, "new": 1}


async def test_a_wrong_file_changes_nothing_and_is_told_once(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.host("a")
    fleet.write(fleet.model("m", "a"))
    api = await fleet.api()
    fleet.file.write_text("models: 1")
    await eventually(lambda: metric(api, "models_file_reloads_total", result="refused") == 1)
    await asyncio.sleep(0.1)
    refused = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.message for one in refused] == ["models file refused, the old one stays"]
    assert refused[0].__dict__["fields"]["reason"] == "models: want a list of 1 to 200 entries"
    assert metric(api, "models_file_good") == 0
    assert (await api.chat(user_prompt="q", model="m")).status_code == 200
    fleet.file.unlink()
    await eventually(lambda: metric(api, "models_file_reloads_total", result="refused") == 2)
    assert (await api.chat(user_prompt="q", model="m")).status_code == 200
    fleet.write(fleet.model("m", "a"))
    await eventually(lambda: metric(api, "models_file_good") == 1)


# ---- which address ----------------------------------------------------------------------------


async def test_a_chat_stays_with_its_replica_and_chats_spread(fleet: Fleet) -> None:
    for name in "abc":
        await fleet.host(name)
    fleet.write(fleet.model("m", "a", "b", "c"))
    api = await fleet.api()
    for turn in range(3):
        for n in range(24):
            answer = await api.chat(chat_id=f"chat {n}", user_prompt=f"turn {turn}")
            assert answer.status_code == 200
    homes: dict[str, set[str]] = {}
    for name, host in fleet.hosts.items():
        for seen in host.generated:
            homes.setdefault(seen.body["chat_id"], set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    spread = Counter(name for names in homes.values() for name in names)
    assert len(spread) == 3


async def test_an_openai_conversation_stays_with_its_replica(fleet: Fleet) -> None:
    for name in "ab":
        await fleet.host(name)
    fleet.write(fleet.model("m", "a", "b"))
    api = await fleet.api()
    used = set()
    for n in range(16):
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": f"begin {n}"}]
        before = fleet.counts()
        for turn in range(3):
            await completion(api, "m", messages=messages)
            messages += [
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": str(turn)},
            ]
        after = fleet.counts()
        grown = {name for name in after if after[name] != before[name]}
        assert len(grown) == 1
        used |= grown
    assert used == {"a", "b"}


async def test_one_hot_chat_does_not_pile_up_on_its_favourite(fleet: Fleet) -> None:
    for name in "ab":
        (await fleet.host(name)).delay_s = 0.3
    fleet.write(fleet.model("m", "a", "b"))
    api = await fleet.api()
    await asyncio.gather(*(completion(api, "m") for _ in range(20)))
    assert min(fleet.counts().values()) >= 7


async def test_a_canary_gets_its_share_and_is_promoted_by_the_file(fleet: Fleet) -> None:
    for name in ("stable", "canary"):
        await fleet.host(name)

    def weights(stable: int, canary: int) -> None:
        addresses = [
            {"url": fleet.hosts["stable"].url, "weight": stable},
            {"url": fleet.hosts["canary"].url, "weight": canary},
        ]
        fleet.write({"name": "m", "addresses": addresses})

    weights(90, 10)
    api = await fleet.api()
    for n in range(300):
        await completion(api, "m", messages=[{"role": "user", "content": str(n)}])
    assert 12 <= fleet.counts()["canary"] <= 50
    weights(0, 100)
    await eventually(lambda: metric(api, "models_file_reloads_total", result="taken") == 1)
    before = fleet.counts()["stable"]
    for n in range(30):
        await completion(api, "m", messages=[{"role": "user", "content": str(n)}])
    assert fleet.counts()["stable"] == before


async def test_a_full_replica_is_passed_by(fleet: Fleet) -> None:
    full, _ = await fleet.host("full"), await fleet.host("free")
    fleet.write(fleet.model("m", "full", "free"))
    api = await fleet.api()
    full.always = refuse(429, "overloaded", "7")
    answers = [await api.chat(chat_id=str(n), user_prompt="q") for n in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert full.generated, "no chat's favourite was the full one"
    # It works, and says how much it can do: that is no failure.
    assert metric(api, "host_out", model="m", address=full.url) == 0
    fleet.hosts["free"].always = refuse(429, "overloaded", "7")
    answer = await api.chat(user_prompt="q")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


class Dns:
    """What the name `hosts.test` stands for; slow to say it, as DNS may be."""

    def __init__(self, patch: pytest.MonkeyPatch, *numbers: str, slow_s: float = 0.0) -> None:
        self.numbers = list(numbers)
        self.slow_s = slow_s
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._look_up, raising=False)

    async def _look_up(self, host: str, port: int, **_: Any) -> list[Any]:
        assert host == "hosts.test"
        await asyncio.sleep(self.slow_s)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in self.numbers]


async def test_a_name_is_spread_over_its_addresses_and_looked_up_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await fleet.host("first")
    port = int(first.url.rsplit(":", 1)[1])
    dns = Dns(monkeypatch, "127.0.0.1")
    url = f"http://hosts.test:{port}"
    fleet.write({"name": "m", "addresses": [{"url": url, "resolve": True}]})
    api = await fleet.api()
    (known,) = api.parts.host.models.pools
    assert [one.url for one in known.addresses] == [f"http://127.0.0.1:{port}"]
    assert (await api.chat(user_prompt="q")).status_code == 200
    assert first.generated[-1].headers["host"] == f"hosts.test:{port}"
    dns.numbers.append("127.0.0.2")
    await eventually(lambda: len(known.addresses) == 2)
    assert [one.weight for one in known.addresses] == [0.5, 0.5]
    dns.numbers[:] = ["127.0.0.1"]
    await eventually(lambda: len(known.addresses) == 1)


async def test_a_changed_files_names_are_looked_up_before_they_are_in_use(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await fleet.host("first")
    fleet.write(fleet.model("m", "first"))
    monkeypatch.setattr(probes, "RESOLVE_EVERY_S", 60)
    Dns(monkeypatch, "127.0.0.1", slow_s=0.2)
    api = await fleet.api()
    named = [{"url": first.url.replace("127.0.0.1", "hosts.test"), "resolve": True}]
    fleet.write({"name": "m", "addresses": named}, {"name": "new", "addresses": named})

    async def taken() -> bool:
        assert (await completion(api, "m")).status_code == 200
        answer = await completion(api, "new")
        assert answer.status_code in (200, 404)
        return bool(answer.status_code == 200)

    await eventually(taken)
    assert (await completion(api, "m")).status_code == 200
    assert first.generated[-1].headers["host"].startswith("hosts.test:")


async def test_a_changed_file_waits_for_no_dns_that_is_silent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await fleet.host("first")
    fleet.write(fleet.model("m", "first"))
    monkeypatch.setattr(pool, "RESOLVE_S", 0.1)
    Dns(monkeypatch, "127.0.0.1", slow_s=60)
    api = await fleet.api(retry_attempts=0)
    named = [{"url": first.url.replace("127.0.0.1", "hosts.test"), "resolve": True}]
    fleet.write(fleet.model("m", "first"), {"name": "new", "addresses": named})

    async def answered(status: int) -> bool:
        assert (await completion(api, "m")).status_code == 200
        return bool((await completion(api, "new")).status_code == status)

    await eventually(lambda: answered(503))


# ---- fallback ---------------------------------------------------------------------------------


async def test_the_fallback_answers_while_the_model_is_gone_and_says_so(fleet: Fleet) -> None:
    small = await fleet.host("small")
    fleet.write(
        {"name": "large", "addresses": ["http://127.0.0.1:1"], "fallback": "small"},
        fleet.model("small", "small"),
    )
    api = await fleet.api()
    for _ in range(40):
        answer = await completion(api, "large")
        assert answer.status_code == 200
        assert answer.headers["x-served-by-model"] == "small"
        assert small.generated[-1].body["model"] == "small"
    assert (await api.chat(user_prompt="q")).headers["x-served-by-model"] == "small"
    assert metric(api, "fallbacks_total", model="large", fallback="small") == 41
    # The dead address was asked until it was out, and from then on by probes only.
    assert metric(api, "host_requests_total", model="large", address="http://127.0.0.1:1") <= 6


async def test_without_a_fallback_it_is_a_clear_503_and_the_server_stays_ready(
    fleet: Fleet,
) -> None:
    await fleet.host("unused")
    fleet.write({"name": "m", "addresses": ["http://127.0.0.1:1", "http://127.0.0.1:2"]})
    api = await fleet.api(retry_attempts=1)
    answer = await completion(api, "m")
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "model_host_unavailable"
    assert int(answer.headers["retry-after"]) >= 1

    async def known() -> bool:
        ready = await api.client.get("/readyz")
        assert ready.status_code == 200
        return bool(ready.json()["model_host"] == "unavailable")

    await eventually(known)
    models = (await api.client.get("/readyz")).json()["models"]
    assert models == {"m": {"state": "unavailable", "ready": 0, "addresses": 2}}


async def test_a_models_own_time_limits_hold(fleet: Fleet) -> None:
    slow, fast = await fleet.host("slow"), await fleet.host("fast")
    slow.delay_s = 5
    fleet.write(
        fleet.model("total", "slow", timeouts={"total_s": 0.2}),
        fleet.model("first", "slow", timeouts={"first_byte_s": 0.2}, fallback="other"),
        fleet.model("other", "fast"),
    )
    api = await fleet.api()
    answer = await completion(api, "total")
    assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")
    assert int(slow.generated[-1].headers["x-request-timeout-ms"]) <= 200
    answer = await completion(api, "first")
    assert answer.headers["x-served-by-model"] == "other"
    assert len(fast.generated) == 1
    assert orjson.loads(answer.content)["object"] == "chat.completion"


async def test_a_models_whole_time_is_that_of_its_stream_too(fleet: Fleet) -> None:
    """A host of another make need not obey the deadline that it is told."""
    slow = await fleet.host("slow")
    slow.gap_s = 0.1
    fleet.write(fleet.model("m", "slow", timeouts={"total_s": 0.3}))
    api = await fleet.api()
    question = " ".join(f"w{n}" for n in range(60))
    answer = await api.chat(user_prompt=question, stream=True)
    assert "deadline_exceeded" in answer.text
    await eventually(lambda: slow.running == 0)


# ---- keys of the hosts -------------------------------------------------------------------------


async def test_each_address_gets_its_own_key_and_a_new_one_without_a_restart(fleet: Fleet) -> None:
    """The caller's own header goes nowhere; a key that is replaced is read within a second."""
    mine, theirs = await fleet.host("mine"), await fleet.host("theirs")
    file = fleet.folder / "key"
    file.write_text("first")
    keyed = {"url": mine.url, "key_file": str(file)}
    fleet.write({"name": "m", "addresses": [keyed]}, fleet.model("n", "theirs"))
    api = await fleet.api()
    caller = {"Authorization": "Bearer callers-own"}
    for model, host, wanted in (("m", mine, "Bearer first"), ("n", theirs, None)):
        body = {"model": model, "messages": [{"role": "user", "content": "q"}]}
        answer = await api.client.post("/v1/chat/completions", json=body, headers=caller)
        assert answer.status_code == 200
        assert host.seen[-1].headers.get("authorization") == wanted
    # As kubelet turns a Secret's link.
    new = fleet.folder / "new"
    new.write_text("second")
    new.replace(file)

    async def new_key_is_sent() -> bool:
        await completion(api, "m")
        return mine.seen[-1].headers.get("authorization") == "Bearer second"

    await eventually(new_key_is_sent)


async def test_an_address_that_refuses_our_key_is_left_for_one_that_takes_it(fleet: Fleet) -> None:
    old, new = await fleet.host("old"), await fleet.host("new")
    old.faults = [refuse(401, "invalid_api_key")] * 50
    fleet.write(fleet.model("m", "old", "new"))
    api = await fleet.api()
    for _ in range(8):
        assert (await completion(api, "m")).status_code == 200
    new.faults = [refuse(401, "invalid_api_key")] * 50
    answer = await completion(api, "m")
    assert answer.status_code == 502
    assert "does not accept this server's key" in error_of(answer)["message"]
    assert answer.headers.get("www-authenticate") is None
