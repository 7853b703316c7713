"""What is kept for a time only goes, once an hour, beside the requests of a running server."""

import logging

from api import logs
from api.clock import now_ms
from api.errors import ApiError
from api.history.store import ChatStore
from api.loops import attempt, repeat

logger = logging.getLogger("api.history")
EVERY_S = 3600.0
DAY_MS = 86_400_000


def oldest_ms(retention_days: float) -> int:
    """Chats without a turn since then are not kept. 0 days: all are."""
    return now_ms() - int(retention_days * DAY_MS) if retention_days else 0


async def sweep_for_ever(store: ChatStore, retention_days: float, every_s: float = EVERY_S) -> None:
    async def sweep() -> None:
        await _sweep(store, retention_days)

    await attempt(sweep, logger, "nothing purged")
    await repeat(sweep, every_s, logger, "nothing purged", spread=0.1)


async def _sweep(store: ChatStore, retention_days: float) -> None:
    try:
        purged = await store.purge(oldest_ms(retention_days))
    except ApiError as error:
        logs.event(logger, logging.WARNING, "nothing purged", error_code=error.code)
        return
    if purged.chats or purged.keys:
        logs.event(
            logger,
            logging.INFO,
            "purged",
            chats=purged.chats,
            turns=purged.turns,
            idempotency_keys=purged.keys,
        )
