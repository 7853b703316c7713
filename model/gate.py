"""Who may ask: with keys set, whoever sends one of them, which on a cluster is the API server.

Open without a key are the paths that probes and Prometheus ask; they hold nobody's text. KServe's
batcher, in the pod's agent, drops every header of the calls that it merges (`kserve-agent`'s
handler), so these cannot bring a key: with `trust_batcher`, `:predict` from the pod's own loopback
passes without one, and who may reach the agent is the NetworkPolicy's business. Event loop only.
"""

import hmac
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model.errors import HostError, InvalidApiKey, MissingApiKey

OPEN = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
_PREDICT = re.compile(r"/v1/models/[^/]{1,128}:predict")
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


class Gate:
    """Outside of the body's reader, which tells the refusal once it has read the body away: the
    agent loses one that comes before, and of who has no key nothing is kept. `keys` is not empty.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], *, trust_batcher: bool) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._trust_batcher = trust_batcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope):
            scope["state"]["refusal"] = self._refusal(scope)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> HostError | None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return MissingApiKey()
        return None if self._knows(given.strip()) else InvalidApiKey()

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in OPEN:
            return True
        client = scope.get("client") or ("", 0)
        return (
            self._trust_batcher and client[0] in _LOOPBACK and _PREDICT.fullmatch(path) is not None
        )

    def _knows(self, given: str) -> bool:
        # Against every key, so that the time tells nothing of which one is nearly right.
        text = given.encode("utf-8", "surrogateescape")
        right = 0
        for key in self._keys:
            right |= hmac.compare_digest(text, key)
        return bool(right)
