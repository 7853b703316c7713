"""Counts usage in memory and writes it to the database every few seconds and at the end.

A process that is killed loses what it counted since the last write, at most `FLUSH_S` and the time
of one transaction. While the database is away counts wait here, for as many hours, keys and models
as `MOST_WAITING`; what comes beyond is left out, and counted as such. A write of which nobody knows
whether it was stored is tried again as it was, and the database knows it by its number.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from api import logs
from api.clock import now_ms
from api.errors import ApiError
from api.keys.records import Caller
from api.keys.service import Database
from api.loops import repeat
from api.metrics import Metrics
from api.usage import statements
from api.usage.counts import HOUR_MS, Asked, Batch, Counts, Where

logger = logging.getLogger("api.usage")
FLUSH_S = 5.0
MOST_WAITING = 10_000
_MOST_MODELS = 1_000
_LONGEST_MODEL = 256


class UsageRecorder:
    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._waiting: dict[Where, Counts] = {}
        self._unsure: Batch | None = None
        """What was last given to the database, until it is known to be there."""
        self._writer = uuid.uuid4().hex
        self._batches = 0
        self._writing = asyncio.Lock()
        self._models: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(repeat(self.flush, FLUSH_S, logger, "usage not written"))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.flush()

    def record(self, caller: Caller, model: str, counts: Counts, *, answered: bool = True) -> None:
        """`answered`: by a model of that name, so it exists. Others may be made up by callers, and
        have no row of their own unless they have answered before.
        """
        if answered and len(self._models) < _MOST_MODELS and len(model) <= _LONGEST_MODEL:
            self._models.add(model)
        known = model if model in self._models else ""
        now = now_ms()
        where = Where(now - now % HOUR_MS, caller.tenant, caller.key_id, known)
        waiting = self._waiting.get(where)
        if waiting is not None:
            waiting.add(counts)
        elif self._rows < MOST_WAITING:
            self._waiting[where] = counts
        else:
            self._metrics.usage_lost.inc(counts.requests)

    @property
    def _rows(self) -> int:
        return len(self._waiting) + (len(self._unsure.rows) if self._unsure else 0)

    async def read(self, asked: Asked) -> Sequence[dict[str, Any]]:
        """With what this process has not written yet."""
        await self.flush()
        return await self._read(asked)

    async def read_all(self, asked: Asked) -> AsyncIterator[Sequence[dict[str, Any]]]:
        """However many rows there are, `asked.limit` at a time, each time in a transaction."""
        rows = await self.read(asked)
        while True:
            yield rows
            if len(rows) < asked.limit or not asked.group_by:
                return
            last = tuple(rows[-1][name] for name in asked.group_by)
            rows = await self._read(replace(asked, after=last))

    async def _read(self, asked: Asked) -> Sequence[dict[str, Any]]:
        return await self._database.run(
            "read_usage", lambda connection: statements.read(connection, asked)
        )

    async def flush(self) -> None:
        async with self._writing:
            while (batch := self._unsure or self._next()) is not None:
                try:
                    await self._write(batch)
                except ApiError as error:
                    logs.event(logger, logging.WARNING, "usage not written", error_code=error.code)
                    return
                self._unsure = None

    def _next(self) -> Batch | None:
        if self._waiting:
            self._batches += 1
            rows, self._waiting = list(self._waiting.items()), {}
            self._unsure = Batch(self._writer, self._batches, rows)
        return self._unsure

    async def _write(self, batch: Batch) -> None:
        await self._database.run(
            "add_usage",
            lambda connection: statements.add(connection, batch, now_ms()),
            writes=True,
        )
