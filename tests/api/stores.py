"""Short words for tests of the store."""

from typing import Any, Protocol

from sqlalchemy import text

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
    page = await store.list_turns("", chat_id, 100, -1)
    return [turn.status.value for turn in page.turns]


_CHAT = text(
    "INSERT INTO chats (owner, chat_id, created_ms, updated_ms, next_position, complete_turns)"
    " VALUES (:owner, :chat_id, 1, :updated_ms, :turns, :turns)"
)
_TURNS = text(
    "INSERT INTO turns (owner, chat_id, position, turn_id, status, user_prompt, response, folded,"
    " own_tokens, request_id, created_ms)"
    " WITH RECURSIVE numbers(n) AS"
    " (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :turns)"
    " SELECT :owner, :chat_id, n, CAST(n AS TEXT), 'complete', 'q' || CAST(n AS TEXT),"
    " CAST(:response AS TEXT), 'q' || CAST(n AS TEXT), 5, 'r', 1 FROM numbers"
)


async def fill(
    store: SqlStore,
    chat_id: str,
    turns: int,
    response: str = "yes",
    *,
    updated_ms: int = 1,
    owner: str = "",
) -> None:
    """A chat of so many complete turns, which nobody has to ask one by one."""
    values = {"owner": owner, "chat_id": chat_id, "turns": turns}

    def operation(connection: Any) -> None:
        connection.execute(_CHAT, values | {"updated_ms": updated_ms})
        connection.execute(_TURNS, values | {"response": response})

    await store.run("fill", operation, writes=True)
