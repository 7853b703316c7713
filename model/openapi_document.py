"""The host's OpenAPI document.

Bodies are parsed by our own code, so their schemas are put in here. Loads no model.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from model.gate import OPEN
from model.openai_schemas import ChatCompletionRequest, CompletionRequest
from model.routes.documentation import REFERENCE, errors
from model.schemas import (
    BatchRequest,
    ErrorResponse,
    FailedQuery,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    Query,
)
from model.schemas_v2 import InferAnswer, InferBody

MODELS: tuple[type[BaseModel], ...] = (
    BatchRequest,
    ChatCompletionRequest,
    CompletionRequest,
    ErrorResponse,
    FailedQuery,
    GenerateRequest,
    GenerateResponse,
    InferAnswer,
    InferBody,
    PredictRequest,
    PredictResponse,
    Query,
)


def document(app: FastAPI) -> dict[str, Any]:
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, schemas = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template=REFERENCE
    )
    definitions = schemas["$defs"]
    refused = errors(401)[401]
    # Items are validated one by one, so the code's own type for them says nothing.
    for model, field in (("BatchRequest", "queries"), ("PredictRequest", "instances")):
        item = {"$ref": REFERENCE.format(model="Query")}
        definitions[model]["properties"][field]["items"] = item
    described.setdefault("components", {})["schemas"] = definitions
    keyed = bool(app.state.host.settings.api_key)
    if keyed:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            # The framework adds its own for path parameters; the host answers 404 or 400.
            operation["responses"].pop("422", None)
            if keyed and path not in OPEN:
                operation["security"] = [{"key": []}]
                operation["responses"].setdefault("401", refused)
    return described
