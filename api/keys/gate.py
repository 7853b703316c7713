"""The layer that asks for a key: every path is closed unless it stands on the list of open ones.

It decides from the head of the request alone and leaves the answer to the layer that reads the
body, which then keeps none of it. A path that exists nowhere is closed as well, so that nobody
without a key learns which do.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.context import RequestContext, context_of
from api.errors import ApiError, ScopeMissing
from api.keys import records
from api.keys.service import KeyService

OPEN = frozenset({"/", "/livez", "/readyz"})
DOCS = frozenset({"/docs", "/docs/oauth2-redirect", "/openapi.json"})
DOCS_BELOW = ("/docs/assets/",)
# What the page at / is made of.
PAGE_BELOW = ("/page/",)


NO_ONE = records.Caller(scopes=frozenset())


class Gate:
    def __init__(self, app: ASGIApp, keys: KeyService, *, docs: bool) -> None:
        self.app = app
        self._keys = keys
        self._open = OPEN | DOCS if docs else OPEN
        self._open_below = PAGE_BELOW + DOCS_BELOW if docs else PAGE_BELOW

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            context = context_of(scope)
            # Also what is open to everybody gives nobody a right to more.
            context.caller = NO_ONE
            try:
                if not self._is_open(scope["path"]):
                    await self._ask(context, scope)
            except ApiError as error:
                context.refusal = error
        await self.app(scope, receive, send)

    async def _ask(self, context: RequestContext, scope: Scope) -> None:
        context.caller = await self._keys.authenticate(
            [value for name, value in scope["headers"] if name == b"authorization"]
        )
        needed = scope_of(scope["path"])
        if not context.caller.may(needed):
            raise ScopeMissing(needed)

    def _is_open(self, path: str) -> bool:
        return path in self._open or (path.startswith(self._open_below) and ".." not in path)


def scope_of(path: str) -> records.Scope:
    if path in ("/metrics", "/load"):
        return records.Scope.METRICS
    if path == "/admin" or path.startswith("/admin/"):
        return records.Scope.ADMIN
    return records.Scope.CHAT
