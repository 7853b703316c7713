"""The routes that nearly all requests take are found by one look into a dict.

The framework would try one pattern after another and set up what these routes never use. The
routes themselves stand where the others do, and are in the OpenAPI document as they are.
"""

from collections.abc import Awaitable, Callable, Iterable

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError
from api.routes.common import error_answer

OFTEN = frozenset({"/chat", "/v1/chat/completions", "/v1/completions"})
Endpoint = Callable[[Request], Awaitable[Response]]


class Shortcut:
    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._routes: dict[str, tuple[APIRoute, Endpoint]] = {
            route.path: (route, route.endpoint)
            for route in routes
            if isinstance(route, APIRoute) and route.path in OFTEN and route.methods == {"POST"}
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] == "POST":
            found = self._routes.get(scope["path"])
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], endpoint = found
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except ApiError as error:
            response = error_answer(request, error)
        await response(scope, receive, send)
