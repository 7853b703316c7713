"""`python -m api keys …`: keys and tenants at the command line, on the database of the settings.

What it prints is JSON, one object, so that scripts can read it; a new key stands in it once.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from api import logs
from api.app import make_store
from api.errors import ApiError
from api.keys.local_files import url_of_the_running
from api.keys.records import LIMIT_NAMES, Limits, Scope, Tenant
from api.keys.schemas import (
    DEFAULT_GRACE_S,
    KeyChange,
    LimitsView,
    NewKey,
    Rotation,
    checked_tenant,
    expires_ms_of,
)
from api.keys.service import KeyService
from api.metrics import Metrics
from api.routes.admin import tenant_view, view
from api.settings import Settings, SettingsError
from api.settings_sources import Parser, add_flags, resolve
from api.validation import validate

_SPAN = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PAGE = 500


def seconds(text: str) -> int:
    """`90s`, `15m`, `24h` or `30d`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("want a time such as 90s, 15m, 24h or 30d")
    return int(found[1]) * _SECONDS[found[2]]


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="python -m api keys", description="Keys and tenants.", allow_abbrev=False)
    kinds = made.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return kinds.add_parser(name, help=text, description=text, allow_abbrev=False)

    create = action("create", "make a key and print it, once")
    create.add_argument("--tenant", required=True, help="owner of the chats; made if new")
    create.add_argument("--name", default="", help="for people")
    create.add_argument("--scopes", type=names, default=["chat"], help="of chat,admin,metrics")
    listing = action("list", "list keys, without their text")
    listing.add_argument("--tenant", help="of this tenant only")
    change = action("change", "change what is given; the rest stays")
    change.add_argument("key_id")
    change.add_argument("--name")
    change.add_argument("--scopes", type=names)
    for part in (create, change):
        part.add_argument("--models", type=names, help="models that may be asked, a,b; default all")
        part.add_argument("--expires-in", type=seconds, help="such as 30d; default never")
    rotate = action("rotate", "give a key a new text and print it, once")
    rotate.add_argument("key_id")
    rotate.add_argument(
        "--grace", type=seconds, default=DEFAULT_GRACE_S, help="how long the old text stays valid"
    )
    action("revoke", "end a key").add_argument("key_id")
    tenant = action("tenant", "set limits of all of a tenant's keys together")
    tenant.add_argument("tenant_name", metavar="tenant")
    action("tenants", "list tenants")
    for part in (create, change, tenant):
        for name in LIMIT_NAMES:
            part.add_argument(
                f"--{name.replace('_', '-')}", dest=f"limit_{name}", type=int, help="0: no limit"
            )
    for part in kinds.choices.values():
        add_flags(part, "settings")
    return made


def run(environ: Mapping[str, str], argv: Sequence[str]) -> str:
    """What is to be printed. SettingsError for wrong arguments, StoreError, ApiError."""
    flags = vars(parser().parse_args(list(argv)))
    given = resolve(environ, flags, "keys")
    settings = given.settings
    if given.sources["database_url"] == "default":
        port = settings.port if given.sources["port"] != "default" else None
        settings = replace(settings, database_url=url_of_the_running(settings.database_url, port))
    # Only what goes wrong belongs beside the answer.
    logs.configure("warning", settings.log_format)
    done = asyncio.run(_with_keys(settings, lambda keys: _act(keys, flags)))
    return json.dumps(done, indent=1, ensure_ascii=False)


async def _with_keys(
    settings: Settings, act: Callable[[KeyService], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    store = make_store(settings, Metrics())
    try:
        await store.open()
        return await act(KeyService(settings, store))
    except ApiError as error:
        raise SettingsError(error.message) from error
    finally:
        await store.close()


async def _act(keys: KeyService, flags: Mapping[str, Any]) -> dict[str, Any]:
    match flags["action"]:
        case "create":
            return await _create(keys, flags)
        case "list":
            rows = [view(key) for key in await _all(keys, flags["tenant"])]
            return {"keys": rows}
        case "change":
            body = validate(KeyChange, _given(flags, "name", "scopes", "models"))
            return view(await keys.change(flags["key_id"], body.columns()))
        case "rotate":
            grace = validate(Rotation, {"grace_s": flags["grace"]}).grace_s
            text, key = await keys.rotate(flags["key_id"], grace)
            return {"key": text} | view(key)
        case "revoke":
            return view(await keys.revoke(flags["key_id"]))
        case "tenant":
            limits = validate(LimitsView, _limits(flags)).model_dump(exclude_unset=True)
            return tenant_view(
                await keys.change_tenant(checked_tenant(flags["tenant_name"]), limits)
            )
        case _:
            return {"tenants": [tenant_view(row) for row in await _all_tenants(keys)]}


async def _create(keys: KeyService, flags: Mapping[str, Any]) -> dict[str, Any]:
    body = validate(NewKey, _given(flags, "tenant", "name", "scopes", "models"))
    text, key = await keys.create(
        tenant=body.tenant,
        name=body.name,
        scopes=frozenset(Scope(scope) for scope in body.scopes),
        models=None if body.models is None else frozenset(body.models),
        limits=Limits.of(body.limits.model_dump()) if body.limits else None,
        expires_ms=expires_ms_of(body.expires_in_s),
    )
    return {"key": text} | view(key)


async def _all(keys: KeyService, tenant: str | None) -> list[Any]:
    found: list[Any] = []
    while True:
        after = (found[-1].created_ms, found[-1].key_id) if found else None
        page = await keys.list(tenant, _PAGE, after)
        found.extend(page)
        if len(page) < _PAGE:
            return found


async def _all_tenants(keys: KeyService) -> list[Tenant]:
    found: list[Tenant] = []
    while True:
        page = await keys.list_tenants(_PAGE, found[-1].tenant if found else "")
        found.extend(page)
        if len(page) < _PAGE:
            return found


def _given(flags: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    body = {name: flags[name] for name in fields if flags[name] is not None}
    if flags["expires_in"] is not None:
        body["expires_in_s"] = flags["expires_in"]
    limits = _limits(flags)
    return body | ({"limits": limits} if limits else {})


def _limits(flags: Mapping[str, Any]) -> dict[str, int]:
    values = {name: flags[f"limit_{name}"] for name in LIMIT_NAMES}
    return {name: value for name, value in values.items() if value is not None}
