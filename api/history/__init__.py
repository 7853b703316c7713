"""Chats and their turns, kept. `ChatStore` is the interface; `SqlStore` keeps them in a
database.
"""

from api.history.sql import SqlStore
from api.history.store import (
    Branch,
    ChatHead,
    ChatPage,
    ChatStore,
    LeaseLost,
    Once,
    PastTurn,
    Place,
    Purged,
    StartedTurn,
    StoredAnswer,
    StoreError,
    Turn,
    TurnOutcome,
    TurnPage,
    TurnStatus,
)

__all__ = [
    "Branch",
    "ChatHead",
    "ChatPage",
    "ChatStore",
    "LeaseLost",
    "Once",
    "PastTurn",
    "Place",
    "Purged",
    "SqlStore",
    "StartedTurn",
    "StoreError",
    "StoredAnswer",
    "Turn",
    "TurnOutcome",
    "TurnPage",
    "TurnStatus",
]
