"""Keys at work: who shows a valid one, and how they are made, changed and ended.

A key that was looked up stays known for `API_KEY_CACHE_S` (`api.keys.known`), so a revoked or
changed one is noticed after that time at the latest, also by other replicas; in this process at
once. While the database is away nobody is let in on older knowledge than that.

A new text of which nobody was told, because the database was too slow, does not stay.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from api import logs
from api.clock import now_ms
from api.errors import InvalidApiKey, MissingApiKey, NotFound
from api.keys import statements
from api.keys.known import KnownKeys
from api.keys.records import EVERYTHING, Caller, Key, Limits, Scope, Tenant
from api.keys.secret import digest_of, new_key, new_key_id, parse
from api.settings import Settings

T = TypeVar("T")
logger = logging.getLogger("api.keys")
_NO_DIGEST = bytes(32)
HOUSE = "admin"
"""The tenant of the keys that come from the settings."""


class Database(Protocol):
    async def run(
        self,
        name: str,
        operation: Callable[[Any], T],
        *,
        writes: bool = False,
        late: Callable[[object], Awaitable[None]] | None = None,
    ) -> T:
        """Run one transaction. StoreUnavailable when it cannot be done in time; with `late` it is
        left out then, or `late` is told what it came to.
        """


class KeyService:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._known = KnownKeys(self._find, settings.key_cache_s)
        given = (("admin", settings.admin_key, EVERYTHING),
                 ("metrics", settings.metrics_key, frozenset({Scope.METRICS})))  # fmt: skip
        self._given = [
            (digest_of(key), Caller(f"settings-{name}", HOUSE, scopes))
            for name, key, scopes in given
            if key
        ]

    # ---- letting in -----------------------------------------------------------------------------

    async def authenticate(self, authorization: Sequence[bytes]) -> Caller:
        """The caller by the request's Authorization headers. MissingApiKey or InvalidApiKey."""
        text = _bearer(authorization)
        caller = self._by_settings(text) or await self._by_database(text)
        if caller is None:
            raise InvalidApiKey
        return caller

    def _by_settings(self, text: str) -> Caller | None:
        if not self._given:
            return None
        digest = digest_of(text)
        found = None
        for known, caller in self._given:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    async def _by_database(self, text: str) -> Caller | None:
        presented = parse(text)
        if presented is None:
            return None
        entry = await self._known.get(presented.key_id)
        if entry is None:
            # Compared also when there is nothing to compare with, so that the time tells nothing.
            hmac.compare_digest(_NO_DIGEST, presented.digest)
            return None
        now = now_ms()
        if not entry.key.is_right(presented.digest, now):
            again = await self._known.get_again(entry)
            if again is None or not again.key.is_right(presented.digest, now):
                return None
            entry = again
        return entry.caller if entry.key.is_valid(now) else None

    async def _find(self, key_id: str) -> Key | None:
        return await self._database.run(
            "find_key", lambda connection: statements.find_key(connection, key_id)
        )

    # ---- administration -------------------------------------------------------------------------

    async def create(
        self,
        *,
        tenant: str,
        name: str,
        scopes: frozenset[Scope],
        models: frozenset[str] | None = None,
        limits: Limits | None = None,
        expires_ms: int | None = None,
    ) -> tuple[str, Key]:
        """The key's text, which is nowhere kept, and what is."""
        key_id = new_key_id()
        text = new_key(key_id)
        key = Key(
            key_id=key_id,
            tenant=tenant,
            name=name,
            scopes=scopes,
            models=models,
            limits=limits or Limits(),
            digest=digest_of(text),
            created_ms=now_ms(),
            expires_ms=expires_ms,
        )

        async def undo(_: object) -> None:
            await self._database.run(
                "undo_key", lambda connection: statements.undo_key(connection, key_id), writes=True
            )

        await self._database.run(
            "add_key",
            lambda connection: statements.add_key(connection, key),
            writes=True,
            late=undo,
        )
        self._known.forget(key_id)
        return text, key

    async def rotate(self, key_id: str, grace_s: float) -> tuple[str, Key]:
        text = new_key(key_id)
        digest = digest_of(text)

        async def undo(rotated: Any) -> None:
            if rotated is None:
                return
            undone = await self._database.run(
                "undo_rotation",
                lambda connection: statements.undo_rotation(connection, *rotated),
                writes=True,
            )
            self._known.forget(key_id)
            event = "a late rotation was undone" if undone else "a late rotation was not undone"
            logs.event(logger, logging.WARNING, event, key_id=key_id)

        rotated = await self._database.run(
            "rotate_key",
            lambda connection: statements.rotate_key(
                connection, key_id, digest, int(grace_s * 1000)
            ),
            writes=True,
            late=undo,
        )
        return text, self._changed(key_id, rotated and rotated[1])

    async def revoke(self, key_id: str) -> Key:
        key = await self._database.run(
            "revoke_key", lambda connection: statements.revoke_key(connection, key_id), writes=True
        )
        return self._changed(key_id, key)

    async def change(self, key_id: str, changed: Mapping[str, Any]) -> Key:
        key = await self._database.run(
            "change_key",
            lambda connection: statements.change_key(connection, key_id, changed),
            writes=True,
        )
        return self._changed(key_id, key)

    async def get(self, key_id: str) -> Key:
        return _existing(await self._find(key_id))

    async def list(
        self, tenant: str | None, limit: int, after: tuple[int, str] | None
    ) -> Sequence[Key]:
        return await self._database.run(
            "list_keys", lambda connection: statements.list_keys(connection, tenant, limit, after)
        )

    async def list_tenants(self, limit: int, after: str) -> Sequence[Tenant]:
        return await self._database.run(
            "list_tenants", lambda connection: statements.list_tenants(connection, limit, after)
        )

    async def change_tenant(self, tenant: str, limits: Mapping[str, Any]) -> Tenant:
        changed = await self._database.run(
            "change_tenant",
            lambda connection: statements.change_tenant(connection, tenant, limits),
            writes=True,
        )
        # Each of its keys carries the tenant's limits.
        self._known.forget_all()
        return changed

    def _changed(self, key_id: str, key: Key | None) -> Key:
        self._known.forget(key_id)
        return _existing(key)


def _existing(key: Key | None) -> Key:
    if key is None:
        raise NotFound("There is no such key", code="key_not_found", param="key_id")
    return key


def _bearer(authorization: Sequence[bytes]) -> str:
    if not authorization:
        raise MissingApiKey
    scheme, _, text = authorization[0].decode("latin-1").partition(" ")
    text = text.strip(" ")
    if len(authorization) > 1 or scheme.lower() != "bearer" or not text or " " in text:
        raise InvalidApiKey("Send the key as one header: Authorization: Bearer <key>")
    return text
