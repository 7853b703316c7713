"""Administration of keys and tenants, for callers with the scope admin."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.clock import time_text
from api.context import context_of
from api.errors import InvalidRequest, PermissionDenied, ScopeMissing
from api.keys.records import Caller, Key, Limits, Scope, Tenant
from api.keys.schemas import (
    KeyChange,
    KeyList,
    KeyView,
    LimitsView,
    NewKey,
    NewKeyView,
    Rotation,
    TenantList,
    TenantView,
    checked_tenant,
    expires_ms_of,
)
from api.routes.common import errors, json_answer, json_body, parts_of
from api.routes.pages import decode_cursor, encode_cursor, limit_of, page
from api.validation import parse_json, validate

router = APIRouter(prefix="/admin", tags=["admin"])
MAX_PAGE = 200
_READ = (400, 401, 403, 503)
_WRITE = (400, 401, 403, 408, 413, 415, 503)
_KEY_ID = {
    "name": "key_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}
}  # fmt: skip
_TENANT = {
    "name": "tenant", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}
}  # fmt: skip


def administrator(request: Request) -> Caller:
    """The gate has checked it already; this holds whatever the path looks like."""
    caller = context_of(request.scope).caller
    if not caller.may(Scope.ADMIN):
        raise ScopeMissing(Scope.ADMIN)
    return caller


def _key_administrator(request: Request) -> None:
    """While everybody is let in, nobody may make keys that would be valid later."""
    administrator(request)
    if parts_of(request).settings.auth == "off":
        raise PermissionDenied(
            "Keys are switched off here (API_AUTH); use python -m api keys", code="auth_is_off"
        )


@router.post(
    "/keys",
    status_code=201,
    response_model=NewKeyView,
    responses=errors(*_WRITE),
    openapi_extra=json_body(NewKey),
    summary="Make a key; the answer is the only place where it stands",
)
async def create_key(request: Request) -> Response:
    _key_administrator(request)
    body = validate(NewKey, parse_json(await request.body()))
    text, key = await parts_of(request).keys.create(
        tenant=body.tenant,
        name=body.name,
        scopes=frozenset(Scope(scope) for scope in body.scopes),
        models=None if body.models is None else frozenset(body.models),
        limits=Limits.of(body.limits.model_dump()) if body.limits else None,
        expires_ms=expires_ms_of(body.expires_in_s),
    )
    return _shown(text, key, 201)


@router.get(
    "/keys",
    response_model=KeyList,
    responses=errors(*_READ),
    openapi_extra={
        "parameters": [
            *page(MAX_PAGE),
            {"name": "tenant", "in": "query", "required": False, "schema": {"type": "string"}},
        ]
    },
    summary="List keys, the oldest first",
)
async def list_keys(request: Request) -> Response:
    _key_administrator(request)
    limit = limit_of(request, MAX_PAGE, 50)
    cursor = decode_cursor(request, (int, str))
    after = (cursor[0], cursor[1]) if cursor else None
    tenant = _plain(request.query_params.get("tenant"), "tenant")
    rows = await parts_of(request).keys.list(tenant, limit + 1, after)
    shown = rows[:limit]
    last = (shown[-1].created_ms, shown[-1].key_id) if len(rows) > limit else None
    return json_answer({"keys": [view(key) for key in shown], "next_cursor": encode_cursor(last)})


@router.get(
    "/keys/{key_id}",
    response_model=KeyView,
    responses=errors(*_READ, 404),
    openapi_extra={"parameters": [_KEY_ID]},
    summary="Read a key's record",
)
async def get_key(request: Request) -> Response:
    _key_administrator(request)
    return json_answer(view(await parts_of(request).keys.get(_key_id(request))))


@router.patch(
    "/keys/{key_id}",
    response_model=KeyView,
    responses=errors(*_WRITE, 404),
    openapi_extra={"parameters": [_KEY_ID], **json_body(KeyChange)},
    summary="Change a key's name, scopes, models, limits or end",
)
async def change_key(request: Request) -> Response:
    _key_administrator(request)
    body = validate(KeyChange, parse_json(await request.body()))
    return json_answer(view(await parts_of(request).keys.change(_key_id(request), body.columns())))


@router.post(
    "/keys/{key_id}/rotate",
    response_model=NewKeyView,
    responses=errors(*_WRITE, 404, 409),
    openapi_extra={"parameters": [_KEY_ID], **json_body(Rotation)},
    summary="Give a key a new text; the old one stays valid for grace_s, older ones no longer",
)
async def rotate_key(request: Request) -> Response:
    _key_administrator(request)
    body = validate(Rotation, parse_json(await request.body()))
    return _shown(*await parts_of(request).keys.rotate(_key_id(request), body.grace_s), 200)


@router.delete(
    "/keys/{key_id}",
    response_model=KeyView,
    responses=errors(*_READ, 404),
    openapi_extra={"parameters": [_KEY_ID]},
    summary="Revoke a key; its record stays",
)
async def revoke_key(request: Request) -> Response:
    _key_administrator(request)
    return json_answer(view(await parts_of(request).keys.revoke(_key_id(request))))


@router.get(
    "/tenants",
    response_model=TenantList,
    responses=errors(*_READ),
    openapi_extra={"parameters": page(MAX_PAGE)},
    summary="List tenants",
)
async def list_tenants(request: Request) -> Response:
    _key_administrator(request)
    limit = limit_of(request, MAX_PAGE, 50)
    cursor = decode_cursor(request, (str,))
    rows = await parts_of(request).keys.list_tenants(limit + 1, cursor[0] if cursor else "")
    shown = rows[:limit]
    last = (shown[-1].tenant,) if len(rows) > limit else None
    return json_answer(
        {"tenants": [tenant_view(row) for row in shown], "next_cursor": encode_cursor(last)}
    )


@router.put(
    "/tenants/{tenant}",
    response_model=TenantView,
    responses=errors(*_WRITE),
    openapi_extra={"parameters": [_TENANT], **json_body(LimitsView)},
    summary="Set limits of all of a tenant's keys together; a field that is absent stays",
)
async def change_tenant(request: Request) -> Response:
    _key_administrator(request)
    body = validate(LimitsView, parse_json(await request.body()))
    tenant = checked_tenant(request.path_params["tenant"])
    changed = body.model_dump(exclude_unset=True)
    return json_answer(tenant_view(await parts_of(request).keys.change_tenant(tenant, changed)))


def _key_id(request: Request) -> str:
    key_id = _plain(request.path_params["key_id"], "key_id")
    assert key_id is not None
    return key_id


def _plain(text: str | None, name: str) -> str | None:
    if text is not None and (not 1 <= len(text) <= 128 or "\0" in text):
        raise InvalidRequest(f"{name}: must have 1 to 128 characters", param=name)
    return text


def _shown(text: str, key: Key, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return json_answer({"key": text} | view(key), headers, status)


def view(key: Key) -> dict[str, Any]:
    """A key's record as clients and the command line see it."""
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "limits": key.limits.as_dict(),
        "created_at": time_text(key.created_ms),
        "expires_at": time_text(key.expires_ms),
        "revoked_at": time_text(key.revoked_ms),
        "old_valid_until": time_text(key.old[0].until_ms if key.old else None),
    }


def tenant_view(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant": tenant.tenant,
        "created_at": time_text(tenant.created_ms),
        "limits": tenant.limits.as_dict(),
    }
