"""A database that commits after its caller was told 503: no key is lost by it and nothing counted
twice.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.app import make_store
from api.errors import InvalidApiKey, StoreUnavailable, TooManyOldTexts
from api.history import SqlStore
from api.keys.records import Caller, Scope
from api.keys.service import KeyService
from api.metrics import Metrics
from api.settings import Settings
from api.usage.counts import Asked, Counts
from api.usage.recorder import UsageRecorder
from tests.api.conftest import eventually
from tests.api.slow_database import SlowDatabase

pytestmark = pytest.mark.anyio
LONG = 2**62


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, database_timeout_s=1.0, key_cache_s=0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[SqlStore]:
    made = make_store(settings, Metrics())
    await made.open()
    yield made
    await made.close()


async def opens(keys: KeyService, text: str) -> bool:
    try:
        await keys.authenticate([f"Bearer {text}".encode()])
    except InvalidApiKey:
        return False
    return True


async def made(keys: KeyService) -> tuple[str, str]:
    text, key = await keys.create(tenant="a", name="", scopes=frozenset({Scope.CHAT}))
    return text, key.key_id


async def test_a_rotation_that_was_given_up_ends_nothing(
    settings: Settings, store: SqlStore
) -> None:
    database = SlowDatabase(store)
    keys = KeyService(settings, database)
    text, key_id = await made(keys)
    database.held = {"rotate_key"}
    with pytest.raises(StoreUnavailable):
        await keys.rotate(key_id, 0)
    await database.release()

    async def undone() -> bool:
        return await opens(keys, text) and not (await keys.get(key_id)).old

    await eventually(undone)


async def test_a_rotation_that_is_asked_for_again_leaves_the_old_text_its_time(
    settings: Settings, store: SqlStore
) -> None:
    database = SlowDatabase(store)
    keys = KeyService(settings, database)
    text, key_id = await made(keys)
    database.held = {"rotate_key"}
    with pytest.raises(StoreUnavailable):
        await keys.rotate(key_id, 60)
    again = asyncio.create_task(keys.rotate(key_id, 60))
    await database.release()
    new, _ = await again
    assert await opens(keys, new)
    assert await opens(keys, text)


async def test_a_key_that_nobody_was_told_does_not_stay(
    settings: Settings, store: SqlStore
) -> None:
    database = SlowDatabase(store, "add_key")
    keys = KeyService(settings, database)
    with pytest.raises(StoreUnavailable):
        await made(keys)
    await database.release()

    async def gone() -> bool:
        return not await keys.list(None, 10, None)

    await eventually(gone)


async def test_who_leaves_while_a_key_is_rotated_keeps_the_old_one(
    settings: Settings, store: SqlStore
) -> None:
    database = SlowDatabase(store)
    keys = KeyService(settings, database)
    text, key_id = await made(keys)
    database.held = {"rotate_key"}
    rotating = asyncio.create_task(keys.rotate(key_id, 0))
    await asyncio.to_thread(database.reached.wait, 10)
    rotating.cancel()
    await asyncio.wait({rotating})
    await database.release()

    async def undone() -> bool:
        return await opens(keys, text)

    await eventually(undone)


async def test_rotations_in_a_row_keep_every_text_for_its_time(
    settings: Settings, store: SqlStore
) -> None:
    keys = KeyService(settings, store)
    text, key_id = await made(keys)
    texts = [text]
    for _ in range(4):
        texts.append((await keys.rotate(key_id, 60))[0])
    assert [await opens(keys, one) for one in texts] == [True] * 5
    with pytest.raises(TooManyOldTexts) as refused:
        await keys.rotate(key_id, 60)
    assert (refused.value.param, refused.value.extra) == ("grace_s", {"limit": 4})
    # A text that leaked ends with all the others.
    last, _ = await keys.rotate(key_id, 0)
    assert [await opens(keys, one) for one in (*texts, last)] == [False] * 5 + [True]


async def test_rotations_at_once_follow_each_other(settings: Settings, store: SqlStore) -> None:
    keys = KeyService(settings, store)
    text, key_id = await made(keys)
    rotated = await asyncio.gather(*(keys.rotate(key_id, 60) for _ in range(4)))
    for one in (text, *(new for new, _ in rotated)):
        assert await opens(keys, one)


async def test_usage_that_was_stored_late_counts_once(store: SqlStore) -> None:
    database = SlowDatabase(store, "add_usage")
    recorder = UsageRecorder(database, Metrics())
    recorder.record(Caller("k", "t"), "m", Counts(1, 0, 10, 5, 2))
    await recorder.flush()
    recorder.record(Caller("k", "t"), "m", Counts(1, 0, 10, 5, 2))
    await database.release()
    for _ in range(2):
        await recorder.flush()
        (row,) = await recorder.read(Asked(0, LONG, ()))
        assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (2, 20, 10)


async def test_a_write_of_usage_that_is_broken_off_is_made_up_for(store: SqlStore) -> None:
    database = SlowDatabase(store, "add_usage")
    recorder = UsageRecorder(database, Metrics())
    recorder.record(Caller("k", "t"), "m", Counts(1))
    flushing = asyncio.create_task(recorder.flush())
    await asyncio.to_thread(database.reached.wait, 10)
    flushing.cancel()
    await asyncio.wait({flushing})
    await database.release()
    await recorder.close()
    (row,) = await recorder.read(Asked(0, LONG, ()))
    assert row["requests"] == 1
