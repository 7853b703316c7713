"""Work that comes again and again beside the requests, whatever a round of it ends with."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from api import logs


async def repeat(
    work: Callable[[], Awaitable[object]],
    every_s: float,
    logger: logging.Logger,
    failed: str,
    *,
    spread: float = 0.0,
) -> None:
    """`failed` is what the log says of a round that raised; the next one comes in its time.
    `spread`: by which part of the time it varies, so that replicas do not all come at once.
    """
    while True:
        await asyncio.sleep(every_s * random.uniform(1 - spread, 1 + spread))
        await attempt(work, logger, failed)


async def attempt(
    work: Callable[[], Awaitable[object]], logger: logging.Logger, failed: str
) -> None:
    """Never raises but for being cancelled: there is nobody to tell but the log."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001  # whatever it was, what comes after must come
        logs.event(
            logger,
            logging.ERROR,
            failed,
            exception=type(error).__name__,
            frames=logs.frames_of(error),
        )
