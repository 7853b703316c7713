"""The store on both databases: leases, endings, who sees what."""

import asyncio
from dataclasses import replace

import pytest

from api.errors import ChatBusy
from api.history import LeaseLost, SqlStore, StartedTurn, TurnOutcome, TurnStatus
from tests.api.conftest import eventually
from tests.api.stores import DONE, OpenStore, begin, statuses

pytestmark = pytest.mark.anyio


async def test_a_question_is_stored_before_its_answer(store: SqlStore) -> None:
    await begin(store)
    assert await statuses(store) == ["pending"]


async def test_only_complete_turns_go_into_the_next_prompt(store: SqlStore) -> None:
    for outcome in (
        DONE,
        TurnOutcome(status=TurnStatus.FAILED),
        TurnOutcome(status=TurnStatus.INTERRUPTED, response="ye"),
        DONE,
    ):
        await store.end_turn(await begin(store), outcome)
    turn = await begin(store)
    assert [(past.response, past.tokens) for past in turn.past] == [("yes", 5), ("yes", 5)]
    assert turn.position == 4


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (DONE, "new"),
        (TurnOutcome(status=TurnStatus.INTERRUPTED, response="ye"), "new"),
        (TurnOutcome(status=TurnStatus.INTERRUPTED), "old"),
        (TurnOutcome(status=TurnStatus.FAILED), "old"),
    ],
)
async def test_a_system_prompt_becomes_the_chats_when_something_was_answered(
    store: SqlStore, outcome: TurnOutcome, kept: str
) -> None:
    await store.end_turn(await begin(store, system_prompt="old"), DONE)
    turn = await begin(store, system_prompt="new")
    assert turn.system_prompt == "new"
    await store.end_turn(turn, outcome)
    head = await store.get_chat("", "1")
    assert head is not None
    assert head.system_prompt == kept
    assert (await begin(store)).system_prompt == kept
    assert (await store.list_turns("", "1", 1, 0)).turns[0].system_prompt == "new"


async def test_a_withdrawn_question_was_never_asked(store: SqlStore) -> None:
    refused = TurnOutcome(status=TurnStatus.FAILED, withdrawn=True)
    turn = await begin(store)
    assert await statuses(store) == ["pending"]
    await store.end_turn(turn, refused)
    assert await store.get_chat("", "1") is None
    await store.end_turn(await begin(store), DONE)
    await store.end_turn(await begin(store), refused)
    assert await statuses(store) == ["complete"]
    assert (await begin(store)).position == 1
    with pytest.raises(LeaseLost):
        await store.end_turn(turn, refused)


async def test_turns_are_counted_as_they_are_stored(store: SqlStore) -> None:
    failed = TurnOutcome(status=TurnStatus.FAILED)
    await store.end_turn(await begin(store), replace(failed, withdrawn=True))
    await store.end_turn(await begin(store), DONE)
    again = await store.begin_again("", "1", request_id="r", max_past=9)
    assert isinstance(again, StartedTurn)
    await store.end_turn(again, failed)
    await store.end_turn(await begin(store), failed)
    page = await store.list_turns("", "1", 10, -1, replaced=True)
    kept = [turn.status.value for turn in page.turns]
    assert kept == ["complete", "replaced", "failed"]
    registry = store._metrics.registry
    counted = {
        status.value: registry.get_sample_value("qna_api_turns_total", {"status": status.value})
        for status in TurnStatus
    }
    assert counted == {"complete": 1, "replaced": 1, "failed": 1} | dict.fromkeys(
        ("pending", "interrupted")
    )


async def test_one_writer_per_chat(store: SqlStore) -> None:
    turn = await begin(store)
    with pytest.raises(ChatBusy):
        await begin(store)
    await begin(store, "2")
    await store.end_turn(turn, DONE)
    await begin(store)


async def test_of_twenty_writers_at_once_one_begins(store: SqlStore) -> None:
    results = await asyncio.gather(*(begin(store) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, StartedTurn) for result in results) == 1
    assert sum(isinstance(result, ChatBusy) for result in results) == 19


async def test_a_lease_is_shared_by_processes_on_one_database(open_store: OpenStore) -> None:
    first, second = await open_store(), await open_store()
    turn = await begin(first)
    with pytest.raises(ChatBusy):
        await begin(second)
    await first.end_turn(turn, DONE)
    assert len((await begin(second)).past) == 1


async def test_a_writer_that_stood_still_cannot_end_its_turn(open_store: OpenStore) -> None:
    zombie = await open_store(lease_s=0.3)
    other = await open_store(lease_s=0.3)
    turn = await begin(zombie, text="zombie")
    assert zombie._renewal is not None
    zombie._renewal.cancel()  # as SIGSTOP would

    async def taken() -> StartedTurn | None:
        try:
            return await begin(other, text="other")
        except ChatBusy:
            return None

    newer = await eventually(taken)
    await other.end_turn(newer, DONE)
    with pytest.raises(LeaseLost):
        await zombie.end_turn(turn, DONE)
    assert await statuses(other) == ["interrupted", "complete"]


async def test_a_deleted_and_new_chat_is_not_ended_by_an_old_turn(store: SqlStore) -> None:
    old = await begin(store)
    await store.end_turn(old, DONE)
    assert await store.delete_chat("", "1")
    await begin(store)
    with pytest.raises(LeaseLost):
        await store.end_turn(old, DONE)
    assert await statuses(store) == ["pending"]


async def test_a_chat_that_is_being_answered_cannot_be_deleted(store: SqlStore) -> None:
    turn = await begin(store)
    with pytest.raises(ChatBusy):
        await store.delete_chat("", "1")
    await store.end_turn(turn, DONE)
    assert await store.delete_chat("", "1")
    assert not await store.delete_chat("", "1")
    assert await store.get_chat("", "1") is None


async def test_owners_never_see_each_others_chats(store: SqlStore) -> None:
    turn = await store.begin_turn(
        "a", "1", user_prompt="q", system_prompt=None, request_id="r", max_past=9
    )
    await store.end_turn(turn, DONE)
    assert await store.get_chat("b", "1") is None
    assert (await store.list_turns("b", "1", 10, -1)).turns == []
    assert (await store.list_chats("b", 10, None)).chats == []
    assert not await store.delete_chat("b", "1")
    other = await store.begin_turn(
        "b", "1", user_prompt="q", system_prompt=None, request_id="r", max_past=9
    )
    assert other.past == ()


async def test_a_second_process_does_not_interrupt_the_firsts_turns(open_store: OpenStore) -> None:
    first = await open_store()
    turn = await begin(first)
    second = await open_store()
    assert await statuses(second) == ["pending"]
    await first.end_turn(turn, DONE)


async def test_a_cancelled_request_leaves_no_lease(store: SqlStore) -> None:
    for delay in (0, 0.001, 0.003, 0.01):
        task = asyncio.create_task(begin(store, f"c{delay}"))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task

            async def free(delay: float = delay) -> bool:
                try:
                    await begin(store, f"c{delay}")
                except ChatBusy:
                    return False
                return True

            await eventually(free)


async def test_paging_gives_every_chat_once_latest_first(store: SqlStore) -> None:
    for number in range(11):
        await store.end_turn(await begin(store, f"c{number:02}"), DONE)
    seen: list[tuple[int, str]] = []
    page = await store.list_chats("", 4, None)
    while True:
        seen += [(head.updated_ms, head.chat_id) for head in page.chats]
        if page.last is None:
            break
        page = await store.list_chats("", 4, page.last)
    assert len({chat_id for _, chat_id in seen}) == len(seen) == 11
    assert seen == sorted(seen, reverse=True)
