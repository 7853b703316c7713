"""The store on a SQL database: what is asked of it, and which leases are kept alive.

What happens inside a transaction stands in `turns`, `leases`, `idempotency`, `reading`, `search`
and `keeping`; `transactions` runs them. One renewal task per process keeps the leases of all its
running turns alive and ends the turns of processes that have died.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api import logs
from api.clock import now_ms
from api.errors import ApiError
from api.history import database, idempotency, keeping, leases, migrate, reading, turns
from api.history.search import search_chats
from api.history.sizes import PAGE_BYTES
from api.history.store import (
    ChatHead,
    ChatPage,
    Once,
    Place,
    Purged,
    StartedTurn,
    StoredAnswer,
    StoreError,
    TurnOutcome,
    TurnPage,
    TurnStatus,
)
from api.history.transactions import Late, Transactions
from api.history.turns import NewTurn, Question
from api.loops import repeat
from api.metrics import Metrics
from api.shared import Shared

logger = logging.getLogger("api.history")
T = TypeVar("T")
DAY_S = 86_400.0
# How much a purge deletes in one transaction.
_PURGE_CHATS = 50
_PURGE_KEYS = 500


class SqlStore:
    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        lease_s: float,
        timeout_s: float,
        connections: int = 8,
        key_s: float = DAY_S,
    ) -> None:
        self._database = database.make_database(url, timeout_s=timeout_s, connections=connections)
        self._transactions = Transactions(self._database, metrics, timeout_s)
        self._run = self._transactions.run
        self._checks: Shared[str, None] = Shared()
        self._metrics = metrics
        self._lease_ms = int(lease_s * 1000)
        self._key_ms = int(key_s * 1000)
        self._timeout_s = timeout_s
        self._holder = uuid.uuid4().hex
        self._held: set[str] = set()
        self._heard_at = self._sweeps_from = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._opened = False

    # ---- opening and closing --------------------------------------------------------------------

    async def open(self) -> None:
        if self._opened:
            return
        alone = self._database.prepare()

        def operation(connection: Connection) -> tuple[str | None, str | None, int]:
            self._database.lock_schema(connection)
            before, after = migrate.upgrade(connection)
            # Of others nobody knows yet whether they could have renewed their leases.
            ended = leases.end_dead_turns(connection, every=True) if alone else 0
            return before, after, ended

        try:
            before, after, ended = await self._transactions.first(operation)
        except (SQLAlchemyError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"{self._database.name}: {' '.join(str(cause).split())}") from error
        await self._share_lock()
        logs.event(
            logger,
            logging.INFO,
            "history is open",
            schema=after,
            schema_before=before,
            interrupted_turns=ended,
            **self._database.facts(),
        )
        self._opened = True
        self._heard_at = time.monotonic()
        self._sweeps_from = self._heard_at + self._lease_ms / 1000
        self._renewal = asyncio.create_task(
            repeat(self._renew, self._lease_ms / 3000, logger, "leases not renewed")
        )

    async def _share_lock(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._database.share():
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
            self._renewal = None
        await self._transactions.close()
        self._database.close()
        self._opened = False

    # ---- turns ----------------------------------------------------------------------------------

    async def check(self) -> None:
        await self._checks.of("check", lambda: self._run("check", leases.check))

    async def begin_turn(
        self,
        owner: str,
        chat_id: str,
        *,
        user_prompt: str,
        system_prompt: str | None,
        request_id: str,
        max_past: int,
        once: Once | None = None,
    ) -> StartedTurn | StoredAnswer:
        question = Question(user_prompt, system_prompt)
        return await self._begin(self._new(owner, chat_id, request_id, max_past, once, question))

    async def begin_again(
        self,
        owner: str,
        chat_id: str,
        *,
        request_id: str,
        max_past: int,
        meant: int | None = None,
        once: Once | None = None,
    ) -> StartedTurn | StoredAnswer:
        new = self._new(owner, chat_id, request_id, max_past, once, None)
        return await self._begin(replace(new, meant=meant))

    def _new(
        self,
        owner: str,
        chat_id: str,
        request_id: str,
        max_past: int,
        once: Once | None,
        question: Question | None,
    ) -> NewTurn:
        return NewTurn(
            owner=owner,
            chat_id=chat_id,
            turn_id=uuid.uuid4().hex,
            question=question,
            request_id=request_id,
            max_past=max_past,
            holder=self._holder,
            lease_ms=self._lease_ms,
            once=once,
            key_ms=self._key_ms,
        )

    async def _begin(self, new: NewTurn) -> StartedTurn | StoredAnswer:
        # Renewed from the moment it may exist, so that a slow commit cannot outlive its own lease.
        self._held.add(new.turn_id)
        begun: StartedTurn | StoredAnswer | None = None
        try:
            begun = await self._run(
                "begin_turn",
                lambda connection: turns.begin(connection, new),
                writes=True,
                late=self._end_late,
            )
        finally:
            if not isinstance(begun, StartedTurn):
                self._held.discard(new.turn_id)
        return begun

    async def end_turn(self, turn: StartedTurn, outcome: TurnOutcome) -> None:
        try:
            stored_as = await self._run(
                "end_turn", lambda connection: turns.end(connection, turn, outcome), writes=True
            )
        finally:
            self._held.discard(turn.turn_id)
        if stored_as is not None:
            self._metrics.turns.labels(stored_as.value).inc()

    async def _end_late(self, turn: object) -> None:
        """A turn that began after its request had given up."""
        if isinstance(turn, StartedTurn):
            await self.end_turn(turn, TurnOutcome(status=TurnStatus.INTERRUPTED))

    async def find_answer(self, owner: str, once: Once) -> StoredAnswer | None:
        def find(connection: Connection) -> StoredAnswer | None:
            asked = idempotency.find(connection, owner, once, self._key_ms)
            return idempotency.outcome(connection, owner, asked) if asked else None

        return await self._run("find_answer", find)

    # ---- reading --------------------------------------------------------------------------------

    async def list_chats(
        self, owner: str, limit: int, before: Place | None, search: str = ""
    ) -> ChatPage:
        if search:
            return await search_chats(self._run, owner, limit, before, search)
        after = before[:2] if before else None
        heads = await self._run(
            "list_chats",
            lambda connection: reading.list_chats(connection, owner, limit + 1, after),
        )
        page = heads[:limit]
        return ChatPage(page, page[-1].place if len(heads) > limit else None)

    async def get_chat(self, owner: str, chat_id: str) -> ChatHead | None:
        return await self._run(
            "get_chat", lambda connection: reading.get_chat(connection, owner, chat_id)
        )

    async def list_turns(
        self,
        owner: str,
        chat_id: str,
        limit: int,
        after: int,
        *,
        replaced: bool = False,
        most_bytes: int = PAGE_BYTES,
    ) -> TurnPage:
        return await self._run(
            "list_turns",
            lambda connection: reading.list_turns(
                connection, owner, chat_id, limit, after, replaced=replaced, most_bytes=most_bytes
            ),
        )

    # ---- keeping --------------------------------------------------------------------------------

    async def rename_chat(self, owner: str, chat_id: str, title: str) -> ChatHead | None:
        return await self._run(
            "rename_chat",
            lambda connection: keeping.rename_chat(connection, owner, chat_id, title),
            writes=True,
        )

    async def branch_chat(self, owner: str, chat_id: str, before: int, new_id: str) -> ChatHead:
        return await self._run(
            "branch_chat",
            lambda connection: keeping.branch_chat(connection, owner, chat_id, before, new_id),
            writes=True,
        )

    async def delete_chat(self, owner: str, chat_id: str) -> bool:
        return await self._run(
            "delete_chat",
            lambda connection: keeping.delete_chat(connection, owner, chat_id),
            writes=True,
        )

    async def purge(self, before_ms: int, *, dry_run: bool = False) -> Purged:
        purged = Purged()
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            some = partial(_purge_some, before_ms=before_ms, after=after, dry_run=dry_run)
            gone, after = await self._run("purge", some, writes=not dry_run)
            purged = replace(
                purged, chats=purged.chats + gone.chats, turns=purged.turns + gone.turns
            )
        return replace(purged, keys=await self._purge_keys(dry_run=dry_run))

    async def _purge_keys(self, *, dry_run: bool) -> int:
        old = partial(
            keeping.purge_keys,
            before_ms=now_ms() - self._key_ms,
            limit=_PURGE_KEYS,
            dry_run=dry_run,
        )
        total = 0
        while True:
            gone = await self._run("purge", old, writes=not dry_run)
            total += gone
            if dry_run or gone < _PURGE_KEYS:
                return total

    async def run(
        self,
        name: str,
        operation: Callable[[Connection], T],
        *,
        writes: bool = False,
        late: Late | None = None,
    ) -> T:
        """One transaction on the chats' database for others who keep something there."""
        return await self._run(name, operation, writes=writes, late=late)

    # ---- leases ---------------------------------------------------------------------------------

    async def _renew(self) -> None:
        try:
            # The set belongs to the event loop: the database's thread gets a copy.
            held = tuple(self._held)
            renew = partial(
                leases.renew, holder=self._holder, turn_ids=held, lease_ms=self._lease_ms
            )
            await self._run("renew", renew, writes=bool(held))
            if self._may_sweep():
                # In a transaction of its own: a sweep that has to wait must not undo the renewal.
                sweep = partial(leases.end_dead_turns, every=False)
                await self._run("sweep", sweep, writes=True)
        except ApiError as error:
            logs.event(logger, logging.WARNING, "leases not renewed", error_code=error.code)

    def _may_sweep(self) -> bool:
        """The database has just answered. Where it had been away, perhaps from all, a lease that
        ran out meanwhile tells nothing of its holder before everybody had the time to renew it.
        """
        now, lease_s = time.monotonic(), self._lease_ms / 1000
        # A round that failed, or was never made, leaves at least such a gap.
        if now - self._heard_at > lease_s * 2 / 3:
            self._sweeps_from = now + lease_s
        self._heard_at = now
        return now >= self._sweeps_from


def _purge_some(
    connection: Connection, before_ms: int, after: tuple[str, str], *, dry_run: bool
) -> tuple[Purged, tuple[str, str] | None]:
    old = keeping.old_chats(connection, before_ms, after, _PURGE_CHATS)
    gone = [
        turns
        for owner, chat_id in old
        if (turns := keeping.purge_chat(connection, owner, chat_id, before_ms, dry_run=dry_run))
        is not None
    ]
    return Purged(len(gone), sum(gone)), old[-1] if len(old) == _PURGE_CHATS else None
