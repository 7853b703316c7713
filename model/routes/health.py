"""Probes and metrics: /livez, /readyz, /metrics. They ask the host and do no work."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from model.host import Host
from model.responses import Json
from model.routes.documentation import errors


def create_router(host: Host) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(
        "/livez", summary="The engine makes progress, or has nothing to do", responses=errors(503)
    )
    async def livez() -> Response:
        host.check_live()
        return Json({"status": "live"})

    @router.get("/readyz", summary="The model is loaded and takes requests", responses=errors(503))
    async def readyz() -> Response:
        host.check()
        return Json({"status": "ready"})

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(host.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
