"""Chats and their turns, kept. `ChatStore` is the interface; `SqlStore` keeps them in a
database.
"""

from api.history.sql import SqlStore
from api.history.store import (
    ChatHead,
    ChatStore,
    LeaseLost,
    PastTurn,
    StartedTurn,
    StoreError,
    Turn,
    TurnOutcome,
    TurnStatus,
)

__all__ = [
    "ChatHead",
    "ChatStore",
    "LeaseLost",
    "PastTurn",
    "SqlStore",
    "StartedTurn",
    "StoreError",
    "Turn",
    "TurnOutcome",
    "TurnStatus",
]
