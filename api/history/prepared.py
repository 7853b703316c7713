"""The statements that every turn needs, built once: SQLAlchemy takes several times as long to build
one as to run it. On plain tables, for the same reason.
"""

from typing import Any

from sqlalchemy import Table, bindparam, delete, func, insert, select, update

from api.history.models import ChatRow, LeaseRow, TurnRow
from api.history.rows import PENDING
from api.history.sizes import bytes_of
from api.history.store import TurnStatus


def _table(model: Any) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


_CHATS, _TURNS, _LEASES = _table(ChatRow), _table(TurnRow), _table(LeaseRow)


def _of(table: Table) -> tuple[Any, ...]:
    return (table.c.owner == bindparam("of_owner"), table.c.chat_id == bindparam("of_chat"))


def _set(*names: str) -> dict[str, Any]:
    return {name: bindparam(f"new_{name}") for name in names}


def of_chat(owner: str, chat_id: str) -> dict[str, Any]:
    return {"of_owner": owner, "of_chat": chat_id}


def changed(**values: Any) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in values.items()}


# SQLite holds the whole file anyway; elsewhere the chat's row is held until the transaction ends.
LOCK_CHAT = (
    select(
        _CHATS.c.system_prompt,
        _CHATS.c.next_position,
        _CHATS.c.complete_turns,
        _CHATS.c.hidden_turns,
    )
    .where(*_of(_CHATS))
    .with_for_update()
)
INSERT_CHAT = insert(_CHATS)
CHAT_BEGINS = (
    update(_CHATS).where(*_of(_CHATS)).values(_set("next_position", "hidden_turns", "updated_ms"))
)
_ENDED = {
    "updated_ms": bindparam("new_updated_ms"),
    "complete_turns": _CHATS.c.complete_turns + bindparam("gained"),
}
CHAT_ENDS = update(_CHATS).where(*_of(_CHATS)).values(_ENDED)
CHAT_ENDS_WITH_PROMPT = update(_CHATS).where(*_of(_CHATS)).values(_ENDED | _set("system_prompt"))

LEASE_EXPIRY = select(_LEASES.c.expires_ms).where(*_of(_LEASES))
INSERT_LEASE = insert(_LEASES)
DELETE_LEASE = delete(_LEASES).where(*_of(_LEASES), _LEASES.c.turn_id == bindparam("of_turn"))

INSERT_TURN = insert(_TURNS)
END_TURN = (
    update(_TURNS)
    .where(
        *_of(_TURNS),
        _TURNS.c.position == bindparam("of_position"),
        _TURNS.c.turn_id == bindparam("of_turn"),
        _TURNS.c.status == PENDING,
    )
    .values(
        _set(
            "status",
            "response",
            "folded",
            "finish_reason",
            "error_code",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "own_tokens",
            "finished_ms",
        )
    )
)
_PAST = (
    *_of(_TURNS),
    _TURNS.c.status == TurnStatus.COMPLETE.value,
    _TURNS.c.position != bindparam("but_position"),
)
_LENGTHS = (
    select(
        _TURNS.c.position,
        func.sum(bytes_of(_TURNS.c.user_prompt, _TURNS.c.response))
        .over(order_by=_TURNS.c.position.desc())
        .label("together"),
    )
    .where(*_PAST)
    .order_by(_TURNS.c.position.desc())
    .limit(bindparam("most"))
    .subquery()
)
PAST_TURNS = (
    select(_TURNS.c.user_prompt, _TURNS.c.response, _TURNS.c.own_tokens)
    .where(*_PAST)
    .order_by(_TURNS.c.position.desc())
    .limit(bindparam("most"))
)
# For a server, which sends all rows at once: only those that fit.
PAST_TURNS_THAT_FIT = (
    select(_TURNS.c.user_prompt, _TURNS.c.response, _TURNS.c.own_tokens)
    .join(_LENGTHS, _TURNS.c.position == _LENGTHS.c.position)
    .where(*_PAST, _LENGTHS.c.together <= bindparam("most_bytes"))
    .order_by(_TURNS.c.position.desc())
)
