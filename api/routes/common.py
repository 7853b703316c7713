"""What the routes share: the application's parts, a request's call, answers and their
documentation.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.chat import ChatService
from api.context import Call, Lifecycle, context_of
from api.errors import ApiError
from api.history import ChatStore
from api.metrics import Metrics
from api.schemas import ErrorEnvelope, timeout_header
from api.settings import Settings
from api.upstream import ModelHost


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a route may use; built once when the application is made."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    store: ChatStore
    host: ModelHost
    chat: ChatService


def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


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
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "The chat is being answered by another request.",
    413: "The body is too large.",
    415: "Not JSON, or compressed.",
    429: "Too busy; see Retry-After.",
    502: "The model host failed.",
    503: "Something that is needed is away; see Retry-After.",
    504: "The deadline passed.",
    507: "The database is full.",
}
POST_ERRORS = (400, 408, 413, 415, 429, 502, 503, 504)
