"""What the OpenAPI document says of the routes, whose bodies are parsed by our own code.

Knows no behaviour: `openapi.py` puts the schemas named here into the document.
"""

from typing import Any

from pydantic import BaseModel

from model.errors import STATUSES

REFERENCE = "#/components/schemas/{model}"

DESCRIPTIONS = {
    400: "A field is wrong; `param` names it",
    401: "Keys are set, and none of them came along",
    404: "Unknown path or model",
    405: "The path does not take this method",
    408: "The body did not arrive in time",
    413: "The body is over the limit",
    415: "Not JSON, or compressed",
    429: "At the limit; Retry-After says when to come back",
    500: "The server failed",
    503: "Loading, draining or stopped; Retry-After says when to come back",
    504: "The deadline passed",
}

# Of each event in a stream.
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {
            "type": "string",
            "description": "`error` for the one that ends a broken stream.",
        },
        "data": {"type": "string", "description": "JSON, or `[DONE]`."},
    },
}


def schema(model: type[BaseModel] | str) -> dict[str, str]:
    name = model if isinstance(model, str) else model.__name__
    return {"$ref": REFERENCE.format(model=name)}


def body(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema(model)}}
    return {"requestBody": {"required": True, "content": content}}


def answers(
    ok: type[BaseModel] | dict[str, Any], description: str, *, streams: bool = False
) -> dict[int | str, dict[str, Any]]:
    content: dict[str, Any] = {
        "application/json": {"schema": ok if isinstance(ok, dict) else schema(ok)}
    }
    if streams:
        content["text/event-stream"] = {"schema": EVENT}
    return {200: {"description": description, "content": content}, **errors(*STATUSES)}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": schema("ErrorResponse")}}
    return {
        status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses
    }
