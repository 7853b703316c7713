"""What the routes share: the application's parts, a request's call, answers and their
documentation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.buffer_room import SMALL_BYTES, BufferRoom
from api.chat import ChatService
from api.context import Call, context_of
from api.errors import ApiError, PermissionDenied
from api.history import ChatStore
from api.in_pieces import InPieces
from api.keys.records import Caller
from api.keys.service import KeyService
from api.lifecycle import Lifecycle
from api.meter import Meter
from api.metrics import Metrics
from api.schemas import ErrorEnvelope
from api.settings import Settings
from api.upstream import Catalogue, ModelHost
from api.validation import timeout_header


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a route may use; built once when the application is made."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    store: ChatStore
    host: ModelHost
    models: Catalogue
    chat: ChatService
    keys: KeyService
    meter: Meter
    buffer_room: BufferRoom


def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def owner_of(request: Request) -> str:
    """Whose chats the request may see."""
    return context_of(request.scope).caller.tenant


def check_model(request: Request, caller: Caller, asked: object) -> str | None:
    """The name of the model that is asked, None where only the model host knows it. Raises
    PermissionDenied for one that the caller's key may not ask, NotFound for one that there is not.
    """
    models = parts_of(request).host.models
    named = asked if isinstance(asked, str) else None
    known = named if models.lenient else models.canonical(named)
    names = {named}
    if known is not None and not models.lenient:
        names.update(models.names_of(models.find(known)))
    if caller.models is not None and not names & caller.models:
        allowed = ", ".join(sorted(caller.models))
        raise PermissionDenied(
            f"model: this key may ask {allowed} only", code="model_not_allowed", param="model"
        )
    if not models.lenient:
        models.find(named)
    return known


def call_of(request: Request, timeout_ms: int | None = None) -> Call:
    """The smallest of the body's, the header's and the server's time limit."""
    by_header = timeout_header(request.headers.get("x-request-timeout-ms"))
    by_body = timeout_ms / 1000 if timeout_ms is not None else None
    settings = parts_of(request).settings
    return context_of(request.scope).call(settings.request_timeout_s, by_header, by_body)


def json_answer(body: object, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return Response(
        orjson.dumps(body), status_code=status, media_type="application/json", headers=headers
    )


async def stored_answer(request: Request, read: Callable[[], Awaitable[object]]) -> Response:
    """Of stored text, which may be much: as there is room for it, and as the client takes it."""
    parts = parts_of(request)

    async def made() -> bytes:
        return orjson.dumps(await read())

    async def whole() -> AsyncIterator[bytes]:
        yield body

    context = context_of(request.scope)
    body = await parts.buffer_room.read(context, made, len)
    if len(body) <= SMALL_BYTES:
        return Response(body, media_type="application/json")
    return InPieces(
        whole(),
        within_s=parts.settings.request_timeout_s,
        media_type="application/json",
        headers={"Content-Length": str(len(body))},
    )


def error_answer(request: Request, error: ApiError) -> Response:
    context = context_of(request.scope)
    context.error_code = error.code
    return error.response(context.request_id)


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body in the OpenAPI document; the route itself reads and checks the bytes."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ErrorEnvelope, "description": _MEANINGS[status]} for status in statuses
    }


_MEANINGS = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or none that is valid.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Not as things are; `code` says why: the chat is being answered, for one.",
    413: "The body is too large.",
    415: "Not JSON, or compressed.",
    421: "A server without keys, on loopback, was called by a name that is not localhost's.",
    422: "Right in form, but not for what there is: `param` names the field, or the "
    "Idempotency-Key came with another request before.",
    429: "Too busy; see Retry-After.",
    502: "The model host failed.",
    503: "Something that is needed is away; see Retry-After.",
    504: "The deadline passed.",
    507: "The database is full.",
}
# Of every path that may need a key, as the document has them.
KEY_REFUSALS = {
    status: {
        "description": _MEANINGS[status],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }
    for status in (401, 403, 421)
}
POST_ERRORS = (400, 408, 413, 415, 429, 502, 503, 504)
