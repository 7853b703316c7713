"""KServe's V1 and V2 protocols over its own data plane and our predictor.

KServe's routes for loading, unloading and explaining are left out on purpose: nobody who can
reach the port may unload the model. Bodies are parsed by our own code, so that every error is our
envelope; the requests then pass KServe's data plane as they would in its own server.
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from model.body_reader import parsed
from model.errors import ModelNotFound
from model.host import Host
from model.kserve_sdk import (
    DataPlane,
    InferInput,
    InferRequest,
    KServeModelNotFound,
    ModelRepository,
    V1Endpoints,
    V2Endpoints,
)
from model.predictor import Predictor
from model.responses import Json, request_id, while_connected
from model.routes.documentation import answers, body, errors
from model.schemas import PredictRequest, PredictResponse
from model.schemas_v2 import InferAnswer, InferBody


class KServePlane:
    """The data plane with our one model, and KServe's own endpoints for what needs no parsing."""

    def __init__(self, host: Host, predictor: Predictor) -> None:
        repository = ModelRepository()
        repository.update(predictor)
        self.host = host
        self.name = predictor.name
        self.dataplane = DataPlane(model_registry=repository)
        self.v1 = V1Endpoints(self.dataplane)
        self.v2 = V2Endpoints(self.dataplane)

    def check_name(self, name: str) -> None:
        if name != self.name:
            raise ModelNotFound

    def check(self, name: str) -> None:
        self.check_name(name)
        self.host.check()

    async def infer(self, name: str, payload: Any, request: Request) -> Any:
        # The id that this server has given the request, whatever the client has sent.
        headers = {**request.headers, "x-request-id": request_id(request.scope)}
        work = self.dataplane.infer(model_name=name, request=payload, headers=headers)
        try:
            result, _ = await while_connected(request.receive, work)
        except KServeModelNotFound:
            raise ModelNotFound from None
        return result


def create_router(host: Host, predictor: Predictor) -> APIRouter:
    router = APIRouter()
    plane = KServePlane(host, predictor)
    _add_v1(router, plane)
    _add_v2(router, plane)
    return router


def _add_v1(router: APIRouter, plane: KServePlane) -> None:
    @router.get("/v1/models", tags=["KServe V1"], summary="The served model's name")
    async def models() -> Response:
        return Json(await plane.v1.models())

    @router.get(
        "/v1/models/{model_name}",
        tags=["KServe V1"],
        summary="Whether the model is ready",
        responses=errors(404, 503),
    )
    async def model_ready(model_name: str) -> Response:
        plane.check(model_name)
        return Json(await plane.v1.model_ready(model_name))

    @router.post(
        "/v1/models/{model_name}:predict",
        tags=["KServe V1"],
        summary="Answer many questions; the route that KServe's batcher merges",
        openapi_extra=body(PredictRequest),
        responses=answers(PredictResponse, "One answer or error per instance, in order"),
    )
    async def predict(model_name: str, request: Request) -> Response:
        plane.check(model_name)
        asked = await parsed(PredictRequest, request)
        return Json(await plane.infer(model_name, {"instances": asked.instances}, request))


def _add_v2(router: APIRouter, plane: KServePlane) -> None:
    @router.get("/v2", tags=["KServe V2"], summary="The server")
    async def server() -> Response:
        return Json((await plane.v2.metadata()).model_dump() | {"extensions": []})

    @router.get("/v2/health/live", tags=["KServe V2"], summary="As /livez", responses=errors(503))
    async def live() -> Response:
        plane.host.check_live()
        return Json({"live": True})

    @router.get("/v2/health/ready", tags=["KServe V2"], summary="As /readyz", responses=errors(503))
    async def ready() -> Response:
        plane.host.check()
        return Json({"ready": True})

    @router.get(
        "/v2/models/{model_name}",
        tags=["KServe V2"],
        summary="The model's inputs and outputs",
        responses=errors(404),
    )
    async def model_metadata(model_name: str) -> Response:
        plane.check_name(model_name)
        return Json((await plane.v2.model_metadata(model_name)).model_dump(exclude_none=True))

    @router.get(
        "/v2/models/{model_name}/ready",
        tags=["KServe V2"],
        summary="Whether the model is ready",
        responses=errors(404, 503),
    )
    async def model_ready(model_name: str) -> Response:
        plane.check(model_name)
        return Json((await plane.v2.model_ready(model_name)).model_dump())

    @router.post(
        "/v2/models/{model_name}/infer",
        tags=["KServe V2"],
        summary="Answer many questions given as tensors",
        openapi_extra=body(InferBody),
        responses=answers(InferAnswer, "One row per question, in order"),
    )
    async def infer(model_name: str, request: Request) -> Response:
        plane.check(model_name)
        asked = await parsed(InferBody, request)
        response = await plane.infer(model_name, _infer_request(model_name, asked), request)
        content, _ = plane.dataplane.encode(model_name, response, {}, {})
        return Json(_without_nulls(content))


def _infer_request(model_name: str, asked: InferBody) -> Any:
    inputs = [
        InferInput(name=item.name, shape=item.shape, datatype=item.datatype, data=item.data)
        for item in asked.inputs
    ]
    return InferRequest(
        model_name=model_name,
        infer_inputs=inputs,
        request_id=asked.id,
        parameters=asked.parameters or {},
    )


def _without_nulls(content: dict[str, Any]) -> dict[str, Any]:
    outputs = [
        {name: value for name, value in item.items() if value not in (None, {})}
        for item in content["outputs"]
    ]
    kept = {name: value for name, value in content.items() if value not in (None, {})}
    return kept | {"outputs": outputs}
