"""The host's OpenAPI document.

Bodies are parsed by our own code, so their schemas are put in here. Loads no model.
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from model.openai_schemas import ChatCompletionRequest, CompletionRequest
from model.routes.documentation import REFERENCE
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


def _version() -> str:
    """An image may carry the code without the file."""
    path = Path(__file__).parent.parent / "VERSION"
    return path.read_text().strip() if path.is_file() else "0"


VERSION = _version()

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
    # Items are validated one by one, so the code's own type for them says nothing.
    for model, field in (("BatchRequest", "queries"), ("PredictRequest", "instances")):
        item = {"$ref": REFERENCE.format(model="Query")}
        definitions[model]["properties"][field]["items"] = item
    described.setdefault("components", {})["schemas"] = definitions
    for methods in described["paths"].values():
        for operation in methods.values():
            # The framework adds its own for path parameters; the host answers 404 or 400.
            operation["responses"].pop("422", None)
    return described
