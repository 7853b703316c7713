"""`GET /load`: what the models are asked for at this moment, as one flat object whose numbers an
autoscaler reads. Whichever API server is asked speaks for all of them.
"""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from api.errors import InvalidRequest
from api.routes.common import Parts, errors, json_answer, parts_of
from api.routes.pages import query
from api.upstream import Load, PeerLoad

router = APIRouter(tags=["health"])
MOST_NAME = 256


class LoadView(BaseModel):
    server: str = Field(description="Which API server answered")
    model: str | None = Field(
        description="None: all together, or the one of a server without names"
    )
    requests: int = Field(
        description="Questions that are held for a host or at one, in its queue too"
    )
    held: int = Field(
        description="Of these, those that wait for a host; one where all were turned away"
    )
    tokens: int = Field(description="Of their prompts and answers, as they were reserved")
    server_requests: int = Field(
        description="Requests of any kind that the API servers are answering or keep in line"
    )
    servers: int = Field(description="API servers that were counted")
    servers_missed: int = Field(description="Addresses of API servers that did not answer")


@router.get(
    "/load",
    response_model=LoadView,
    responses=errors(400, 404),
    openapi_extra={
        "parameters": [
            query(
                "model",
                "string",
                "Only of this model, by its name or an alias",
                minLength=1,
                maxLength=MOST_NAME,
            ),
            query("own", "boolean", "Of the server that is asked alone"),
        ]
    },
    summary="What the models are asked for at this moment, for autoscalers",
)
async def load(request: Request) -> Response:
    parts = parts_of(request)
    name = request.query_params.get("model")
    if name is not None and not 1 <= len(name) <= MOST_NAME:
        raise InvalidRequest(f"model: must have 1 to {MOST_NAME} characters", param="model")
    own = request.query_params.get("own", "false")
    if own not in ("true", "false"):
        raise InvalidRequest("own: must be true or false", param="own")
    model, total = _own_load(parts, name)
    waiting = parts.lifecycle.slots_taken + parts.lifecycle.waiting
    others: list[PeerLoad] = []
    missed = 0
    if own == "false":
        named = "" if name is None else f"&model={quote(name, safe='')}"
        others, missed = await parts.host.peers.ask(f"/load?own=true{named}")
    for other in others:
        total += other.load
        waiting += other.server_requests
    view: dict[str, Any] = {
        "server": parts.host.peers.own,
        "model": model,
        "requests": total.requests,
        "held": total.held,
        "tokens": total.tokens,
        "server_requests": waiting,
        "servers": 1 + len(others),
        "servers_missed": missed,
    }
    return json_answer(view, {"Cache-Control": "no-store"})


def _own_load(parts: Parts, name: str | None) -> tuple[str | None, Load]:
    models = parts.host.models
    if name is not None:
        pool = models.find(name)
        return pool.name or None, pool.load()
    total = Load()
    for pool in models.pools:
        total += pool.load()
    return None, total
