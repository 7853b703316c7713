"""Names: looked up once at a time, and what they last stood for while DNS is silent."""

import asyncio
import socket
import time
from typing import Any

import pytest

from api.upstream import names
from api.upstream.names import Names

pytestmark = pytest.mark.anyio


class Dns:
    """What the resolver says, and how often it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.says: list[str] | OSError = ["10.0.0.1"]
        self.asked = 0
        self.speaks = asyncio.Event()
        self.speaks.set()
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._look_up, raising=False)

    async def _look_up(self, _: str, port: int, **__: Any) -> list[Any]:
        self.asked += 1
        await self.speaks.wait()
        if isinstance(self.says, OSError):
            raise self.says
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in self.says]


AWAY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NOBODY = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_many_wait_for_one_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    dns, found = Dns(monkeypatch), Names()
    dns.speaks.clear()
    waiting = [asyncio.create_task(found.addresses("host.test", 80, 5)) for _ in range(20)]
    await asyncio.sleep(0.02)
    dns.speaks.set()
    assert await asyncio.gather(*waiting) == [["10.0.0.1"]] * 20
    assert dns.asked == 1


async def test_who_gives_up_leaves_the_look_up_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dns, found = Dns(monkeypatch), Names()
    dns.speaks.clear()
    patient = asyncio.create_task(found.addresses("host.test", 80, 5))
    gone = asyncio.create_task(found.addresses("host.test", 80, 5))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(TimeoutError):
        await found.addresses("host.test", 80, 0.02)
    dns.speaks.set()
    assert await patient == ["10.0.0.1"]
    assert dns.asked == 1


@pytest.mark.parametrize("how", ["says that it cannot", "is silent"])
async def test_the_last_answer_stays_while_dns_is_away(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "KNOWN_PATIENCE_S", 0.05)
    dns, found = Dns(monkeypatch), Names()
    assert await found.addresses("host.test", 80, 2) == ["10.0.0.1"]
    if how == "is silent":
        dns.speaks.clear()
    else:
        dns.says = AWAY
    begun = time.monotonic()
    assert await found.addresses("host.test", 80, 2) == ["10.0.0.1"]
    assert time.monotonic() - begun < 1.9
    dns.says = ["10.0.0.2"]
    dns.speaks.set()
    await asyncio.sleep(0)
    assert await found.addresses("host.test", 80, 2) == ["10.0.0.2"]


async def test_a_name_that_nothing_has_any_more_is_no_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dns, found = Dns(monkeypatch), Names()
    await found.addresses("host.test", 80, 2)
    dns.says = NOBODY
    with pytest.raises(socket.gaierror):
        await found.addresses("host.test", 80, 2)


async def test_a_name_that_was_never_known_fails_as_dns_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dns, found = Dns(monkeypatch), Names()
    dns.says = AWAY
    with pytest.raises(socket.gaierror):
        await found.addresses("host.test", 80, 2)


async def test_a_number_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    dns, found = Dns(monkeypatch), Names()
    assert await found.addresses("10.9.8.7", 80, 2) == ["10.9.8.7"]
    assert await found.addresses("::1", 80, 2) == ["::1"]
    assert dns.asked == 0
