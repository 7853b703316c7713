"""Bodies of the administration of keys."""

import re
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.errors import InvalidRequest
from api.schemas import Strict

MAX_GRACE_S = 30 * 86_400
DEFAULT_GRACE_S = 86_400
MAX_LIFE_S = 100 * 365 * 86_400
ScopeName = Literal["chat", "admin", "metrics"]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "must hold printable characters only")
    return text


def _no_space(text: str) -> str:
    if not text or any(character.isspace() for character in text):
        raise PydanticCustomError("space", "must not hold white space")
    return text


Name = Annotated[str, Field(max_length=128), AfterValidator(_printable)]
_TENANT = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_TENANT_RULE = "must be 1 to 128 letters, digits, dots, underscores, @ and hyphens"


def _tenant_name(text: str) -> str:
    if not _TENANT.fullmatch(text):
        raise PydanticCustomError("tenant", "{rule}", {"rule": _TENANT_RULE})
    return text


def checked_tenant(text: str) -> str:
    """One that is named in a path or at the command line."""
    if not _TENANT.fullmatch(text):
        raise InvalidRequest(f"tenant: {_TENANT_RULE}", param="tenant")
    return text


TenantName = Annotated[
    str,
    AfterValidator(_tenant_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._@-]{1,128}$"}),
]
ModelName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_no_space)]
Limit = Annotated[int, Field(ge=0, le=10**12)]
Life = Annotated[int, Field(ge=1, le=MAX_LIFE_S)]


class LimitsView(Strict):
    requests_per_minute: Limit | None = Field(
        None, description="null: the server's default; 0: no limit"
    )
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = None
    max_concurrent: Limit | None = None


class NewKey(Strict):
    tenant: TenantName = Field(description="Owner of the chats; made when there is none.")
    name: Name = Field("", description="For people; it is nowhere else used.")
    scopes: list[ScopeName] = Field(["chat"], min_length=1, max_length=3)
    models: list[ModelName] | None = Field(
        None, min_length=1, max_length=100, description="Models that may be asked; null: all."
    )
    limits: LimitsView | None = None
    expires_in_s: Life | None = None


class KeyChange(Strict):
    """A field that is absent stays as it is."""

    name: Name = ""
    scopes: list[ScopeName] = Field(["chat"], min_length=1, max_length=3)
    models: list[ModelName] | None = Field(None, min_length=1, max_length=100)
    limits: LimitsView | None = None
    expires_in_s: Life | None = Field(None, description="From now on; null: never.")

    def columns(self) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        given = self.model_fields_set
        if "name" in given:
            changed["name"] = self.name
        if "scopes" in given:
            changed["scopes"] = frozenset(self.scopes)
        if "models" in given:
            changed["models"] = None if self.models is None else frozenset(self.models)
        if "expires_in_s" in given:
            changed["expires_ms"] = expires_ms_of(self.expires_in_s)
        if self.limits is not None:
            changed |= self.limits.model_dump(exclude_unset=True)
        return changed


class Rotation(Strict):
    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = Field(
        DEFAULT_GRACE_S, description="How long the old text of the key stays valid."
    )


class KeyView(BaseModel):
    key_id: str
    tenant: str
    name: str
    scopes: list[ScopeName]
    models: list[str] | None
    limits: LimitsView
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    old_valid_until: str | None


class NewKeyView(KeyView):
    key: str = Field(description="Shown once: only its hash is stored.")


class KeyList(BaseModel):
    keys: list[KeyView]
    next_cursor: str | None


class TenantView(BaseModel):
    tenant: str
    created_at: str
    limits: LimitsView


class TenantList(BaseModel):
    tenants: list[TenantView]
    next_cursor: str | None


# Bodies that the OpenAPI document would not know by itself.
KEY_BODIES: tuple[type[BaseModel], ...] = (NewKey, KeyChange, Rotation, LimitsView)


def expires_ms_of(seconds: int | None) -> int | None:
    return None if seconds is None else (time.time_ns() // 1_000_000) + seconds * 1000
