"""What is done with keys inside a transaction: plain functions on a connection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, tuple_, update

from api.clock import now_ms
from api.errors import TooManyOldTexts
from api.keys.records import LIMIT_NAMES, Key, Limits, OldText, Scope, Tenant
from api.keys.rows import ApiKeyRow, TenantRow

_TENANT_LIMITS = [getattr(TenantRow, name).label(f"tenant_{name}") for name in LIMIT_NAMES]

MOST_OLD_TEXTS = 4


def find_key(connection: Connection, key_id: str) -> Key | None:
    row = connection.execute(_keys().where(ApiKeyRow.key_id == key_id)).first()
    return _key(row) if row else None


def list_keys(
    connection: Connection, tenant: str | None, limit: int, after: tuple[int, str] | None
) -> Sequence[Key]:
    """The oldest first; `after` is the `(created_ms, key_id)` of the last one that was seen."""
    query = _keys()
    if tenant is not None:
        query = query.where(ApiKeyRow.tenant == tenant)
    if after is not None:
        query = query.where(tuple_(ApiKeyRow.created_ms, ApiKeyRow.key_id) > after)
    query = query.order_by(ApiKeyRow.created_ms, ApiKeyRow.key_id).limit(limit)
    return [_key(row) for row in connection.execute(query)]


def add_key(connection: Connection, key: Key) -> None:
    get_tenant(connection, key.tenant, make=True)
    connection.execute(
        insert(ApiKeyRow).values(
            key_id=key.key_id,
            tenant=key.tenant,
            name=key.name,
            scopes=_joined(key.scopes),
            models=_joined(key.models),
            digest=key.digest,
            created_ms=key.created_ms,
            expires_ms=key.expires_ms,
            **key.limits.as_dict(),
        )
    )


def rotate_key(
    connection: Connection, key_id: str, digest: bytes, grace_ms: int
) -> tuple[Key, Key] | None:
    """The key as it was and as it is. The text of before stays valid for the grace time, and those
    that are older still for no longer than that: a rotation that somebody repeats ends nothing that
    is in use.
    """
    key = _locked(connection, key_id)
    now = now_ms()
    if key is None or not key.is_valid(now):
        return None
    until = now + grace_ms
    older = [OldText(one.digest, min(one.until_ms, until)) for one in key.old if one.until_ms > now]
    old = [one for one in (OldText(key.digest, until), *older) if one.until_ms > now]
    if len(old) > MOST_OLD_TEXTS:
        raise TooManyOldTexts(
            f"grace_s: {MOST_OLD_TEXTS} older texts of this key are still valid; rotate it with a "
            "shorter grace_s, which holds for them too, or later",
            param="grace_s",
            extra={"limit": MOST_OLD_TEXTS},
        )
    _set_texts(connection, key_id, digest, old)
    return key, replace(key, digest=digest, old=tuple(old))


def undo_rotation(connection: Connection, before: Key, after: Key) -> bool:
    """Back to the texts of before, if the key still has the one that nobody was told."""
    key = _locked(connection, before.key_id)
    if key is None or key.digest != after.digest:
        return False
    _set_texts(connection, before.key_id, before.digest, before.old)
    return True


def undo_key(connection: Connection, key_id: str) -> None:
    """One whose text nobody was told."""
    connection.execute(delete(ApiKeyRow).where(ApiKeyRow.key_id == key_id))


def _locked(connection: Connection, key_id: str) -> Key | None:
    """Two changes of one key that depend on what it was follow each other."""
    query = _keys().where(ApiKeyRow.key_id == key_id).with_for_update(of=ApiKeyRow)
    row = connection.execute(query).first()
    return _key(row) if row else None


def _set_texts(connection: Connection, key_id: str, digest: bytes, old: Sequence[OldText]) -> None:
    latest = old[0] if old else None
    values = {
        "digest": digest,
        "old_digest": latest and latest.digest,
        "old_until_ms": latest and latest.until_ms,
        "older_digests": " ".join(f"{one.digest.hex()}:{one.until_ms}" for one in old[1:]) or None,
    }
    connection.execute(update(ApiKeyRow).where(ApiKeyRow.key_id == key_id).values(**values))


def revoke_key(connection: Connection, key_id: str) -> Key | None:
    connection.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.key_id == key_id, ApiKeyRow.revoked_ms.is_(None))
        .values(revoked_ms=now_ms())
    )
    return find_key(connection, key_id)


def change_key(connection: Connection, key_id: str, changed: Mapping[str, Any]) -> Key | None:
    """`changed` names columns; scopes and models are sets."""
    values = {
        name: _joined(value) if name in ("scopes", "models") else value
        for name, value in changed.items()
    }
    if values:
        connection.execute(update(ApiKeyRow).where(ApiKeyRow.key_id == key_id).values(**values))
    return find_key(connection, key_id)


def get_tenant(connection: Connection, tenant: str, *, make: bool = False) -> Tenant | None:
    row = connection.execute(select(TenantRow).where(TenantRow.tenant == tenant)).first()
    if row is not None:
        return _tenant(row)
    if not make:
        return None
    made = Tenant(tenant=tenant, created_ms=now_ms())
    connection.execute(insert(TenantRow).values(tenant=tenant, created_ms=made.created_ms))
    return made


def list_tenants(connection: Connection, limit: int, after: str) -> Sequence[Tenant]:
    query = select(TenantRow).where(TenantRow.tenant > after)
    return [
        _tenant(row) for row in connection.execute(query.order_by(TenantRow.tenant).limit(limit))
    ]


def change_tenant(connection: Connection, tenant: str, limits: Mapping[str, Any]) -> Tenant:
    get_tenant(connection, tenant, make=True)
    if limits:
        connection.execute(update(TenantRow).where(TenantRow.tenant == tenant).values(**limits))
    changed = get_tenant(connection, tenant)
    assert changed is not None
    return changed


def _keys() -> Select[Any]:
    return select(*ApiKeyRow.__table__.columns, *_TENANT_LIMITS).join(
        TenantRow, TenantRow.tenant == ApiKeyRow.tenant
    )


def _joined(values: frozenset[Any] | None) -> str | None:
    return None if values is None else " ".join(sorted(values))


def _key(row: Any) -> Key:
    values = row._mapping
    return Key(
        key_id=row.key_id,
        tenant=row.tenant,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes.split()),
        models=None if row.models is None else frozenset(row.models.split()),
        limits=Limits.of(values),
        tenant_limits=Limits(*(values[f"tenant_{name}"] for name in LIMIT_NAMES)),
        digest=bytes(row.digest),
        old=tuple(_old_texts(row)),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
    )


def _old_texts(row: Any) -> Iterator[OldText]:
    if row.old_digest is not None:
        yield OldText(bytes(row.old_digest), row.old_until_ms or 0)
    for text in (row.older_digests or "").split():
        digest, _, until_ms = text.partition(":")
        yield OldText(bytes.fromhex(digest), int(until_ms))


def _tenant(row: Any) -> Tenant:
    return Tenant(tenant=row.tenant, created_ms=row.created_ms, limits=Limits.of(row._mapping))
