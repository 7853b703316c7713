"""What is known of keys and tenants: values only, no I/O."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    CHAT = "chat"
    ADMIN = "admin"
    METRICS = "metrics"


EVERYTHING = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Limits:
    """None: the server's default holds. 0: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    max_concurrent: int | None = None

    def or_else(self, default: "Limits") -> "Limits":
        return Limits(
            *(
                getattr(default, spec.name) if value is None else value
                for spec in fields(self)
                for value in (getattr(self, spec.name),)
            )
        )

    def as_dict(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in LIMIT_NAMES}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Limits":
        return cls(*(values.get(name) for name in LIMIT_NAMES))


LIMIT_NAMES = tuple(spec.name for spec in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    tenant: str
    created_ms: int
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class OldText:
    """What a key was before it was rotated, for as long as that stays valid."""

    digest: bytes = field(repr=False)
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A stored key. `digest` is of the text that is valid now, `old` of those that it replaced, the
    latest first.
    """

    key_id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()
    digest: bytes = field(repr=False)
    old: tuple[OldText, ...] = ()
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def is_right(self, digest: bytes, now_ms: int) -> bool:
        """Compared with each in constant time, and with all."""
        right = hmac.compare_digest(self.digest, digest)
        for text in self.old:
            right |= hmac.compare_digest(text.digest, digest) and now_ms < text.until_ms
        return right

    def is_valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request. The tenant owns the chats; `""` is everybody while keys are off."""

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[Scope] = EVERYTHING
    models: frozenset[str] | None = None
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()

    def may(self, scope: Scope) -> bool:
        """An administrator may do everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


NOBODY = Caller()
