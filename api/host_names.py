"""The layer that asks under which name it was called, on a laptop: a server without keys, on
loopback.

A page of somebody else's, whose name is made to stand for 127.0.0.1 after it was loaded (DNS
rebinding), could else ask such a server like the user's own programs, and read every chat. Keys,
or an address that others reach, are protected by other means.
"""

import ipaddress
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from api.context import context_of
from api.errors import WrongHost
from api.settings import Settings, env_name

_HOST = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]*)?|([^:\[\]]*)(?::[0-9]*)?")


def needs_check(settings: Settings) -> bool:
    return settings.auth == "off" and is_loopback(settings.host)


def is_loopback(name: str) -> bool:
    """Also names below localhost, which no server of names may give to others (RFC 6761)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class HostNames:
    def __init__(self, app: ASGIApp, allowed: str) -> None:
        self.app = app
        self._allowed = frozenset(name.strip().lower() for name in allowed.split(",")) - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_right(scope):
            context_of(scope).refusal = WrongHost(
                "This server has no keys and answers to localhost only; "
                f"{env_name('allowed_hosts')} names more hosts"
            )
        await self.app(scope, receive, send)

    def _is_right(self, scope: Scope) -> bool:
        server = scope.get("server")
        if server is None or not is_loopback(server[0]):
            # Whoever started it listens elsewhere than the settings say.
            return True
        named = [value for key, value in scope["headers"] if key == b"host"]
        if not named:
            # HTTP/1.0; a browser always says it.
            return True
        found = _HOST.fullmatch(named[0])
        if found is None or len(named) > 1:
            return False
        name = (found[1] or found[2]).decode("latin-1").lower().removesuffix(".")
        return is_loopback(name) or name in self._allowed
