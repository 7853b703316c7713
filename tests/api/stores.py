"""Short words for tests of the store."""

from typing import Any, Protocol

from api.history import SqlStore, StartedTurn, TurnOutcome, TurnStatus

DONE = TurnOutcome(status=TurnStatus.COMPLETE, response="yes", own_tokens=5)


class OpenStore(Protocol):
    """Opens another store, as another process would, on the test's database."""

    async def __call__(self, **changed: Any) -> SqlStore: ...


async def begin(store: SqlStore, chat_id: str = "1", text: str = "q", **more: Any) -> StartedTurn:
    """Begin a turn of the owner ""."""
    values = {"system_prompt": None, "request_id": "r", "max_past": 100} | more
    return await store.begin_turn("", chat_id, user_prompt=text, **values)


async def statuses(store: SqlStore, chat_id: str = "1") -> list[str]:
    """The states of a chat's turns, in order."""
    return [turn.status.value for turn in await store.list_turns("", chat_id, 100, -1)]
