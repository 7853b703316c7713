"""Looking keys up: what is remembered, and what a flood of made-up ones may cost."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from api.errors import Overloaded, StoreUnavailable
from api.keys import known
from api.keys.known import KnownKeys
from api.keys.records import EVERYTHING, Key
from tests.api.conftest import eventually

pytestmark = pytest.mark.anyio


def key(key_id: str, revoked_ms: int | None = None) -> Key:
    return Key(
        key_id=key_id, tenant="t", name="", scopes=EVERYTHING, digest=bytes(32), created_ms=0,
        revoked_ms=revoked_ms,
    )  # fmt: skip


class Table:
    """A database of keys; each look-up reads first and then takes as long as the test says."""

    def __init__(self, *keys: Key) -> None:
        self.keys = {one.key_id: one for one in keys}
        self.asked: list[str] = []
        self.running = 0
        self.go_on = asyncio.Event()
        self.gates: list[asyncio.Event] = []
        """Of the next look-ups, one each."""

    async def find(self, key_id: str) -> Key | None:
        self.asked.append(key_id)
        found = self.keys.get(key_id)
        self.running += 1
        await (self.gates.pop(0) if self.gates else self.go_on).wait()
        self.running -= 1
        return found

    def is_running(self, count: int) -> Callable[[], bool]:
        return lambda: self.running == count


async def test_a_look_up_under_way_brings_no_revoked_key_back() -> None:
    table = Table(key("a"))
    slow = asyncio.Event()
    table.gates = [slow]
    keys = KnownKeys(table.find, 60)
    early = asyncio.create_task(keys.get("a"))
    await eventually(table.is_running(1))
    table.keys["a"] = key("a", revoked_ms=1)
    keys.forget("a")
    late = asyncio.create_task(keys.get("a"))
    await eventually(table.is_running(2))
    table.go_on.set()
    found = [await late]
    slow.set()
    # Who asked before it was revoked may be let in, nobody who comes later.
    assert (await early) is not None
    found.append(await keys.get("a"))
    assert [one and one.key.revoked_ms for one in found] == [1, 1]
    assert table.asked == ["a", "a"]


async def test_what_is_unknown_is_known_to_be_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    table.go_on.set()
    keys = KnownKeys(table.find, 60)
    for _ in range(3):
        assert await keys.get("none") is None
    assert table.asked == ["none"]
    monkeypatch.setattr(known, "UNKNOWN_S", 0.0)
    keys.forget("none")
    for _ in range(2):
        assert await keys.get("none") is None
    assert table.asked == ["none"] * 3


async def test_made_up_ids_drive_no_key_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_KNOWN", 10)
    table = Table(key("a"))
    table.go_on.set()
    keys = KnownKeys(table.find, 60)
    await keys.get("a")
    for number in range(50):
        await keys.get(f"made up {number}")
    table.asked.clear()
    assert await keys.get("a") is not None
    assert table.asked == []
    assert len(keys._unknown) == 10


async def test_few_strangers_are_looked_up_at_once_and_nobody_waits_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "MOST_STRANGERS", 20)
    table = Table(key("a"))
    table.go_on.set()
    keys = KnownKeys(table.find, 0)
    await keys.get("a")
    table.go_on.clear()
    flood = [asyncio.create_task(keys.get(f"{number}")) for number in range(20)]
    await eventually(table.is_running(known.STRANGERS_AT_ONCE))
    with pytest.raises(Overloaded):
        await keys.get("one more")
    # A key that was seen before is not one of them.
    own = asyncio.create_task(keys.get("a"))
    await eventually(table.is_running(known.STRANGERS_AT_ONCE + 1))
    table.go_on.set()
    assert await own is not None
    assert await asyncio.gather(*flood) == [None] * 20
    assert not keys._asking


async def test_a_stranger_waits_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "PATIENCE_S", 0.05)
    table = Table()
    keys = KnownKeys(table.find, 60)
    stuck = [asyncio.create_task(keys.get(f"{n}")) for n in range(known.STRANGERS_AT_ONCE)]
    await eventually(table.is_running(known.STRANGERS_AT_ONCE))
    with pytest.raises(StoreUnavailable):
        await keys.get("late")
    table.go_on.set()
    await asyncio.gather(*stuck)
    assert await keys.get("late") is None


async def test_a_look_up_that_fails_is_not_remembered() -> None:
    async def fails(key_id: str) -> Key | None:
        raise StoreUnavailable

    keys = KnownKeys(fails, 60)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await keys.get("a")
    assert not keys._asking


async def test_a_text_that_is_not_right_is_looked_up_again_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "AGAIN_S", 0.2)
    table = Table(key("a"))
    table.go_on.set()
    keys = KnownKeys(table.find, 60)
    entry = await keys.get("a")
    assert entry is not None
    # Another process gave it a new text.
    table.keys["a"] = replace(key("a"), digest=b"n" * 32)
    again, *others = await asyncio.gather(*(keys.get_again(entry) for _ in range(5)))
    assert again is not None
    assert again.key.digest == b"n" * 32
    assert await keys.get("a") is again
    assert [one is again for one in others] == [True] * 4
    assert [await keys.get_again(again) for _ in range(50)] == [again] * 50
    assert table.asked == ["a", "a"]
    await asyncio.sleep(0.2)
    await keys.get_again(again)
    assert table.asked == ["a", "a", "a"]
