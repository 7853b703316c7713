"""The other API servers: what they are asked for at this moment, so that whichever of them is asked
says what all are.

They are found by a name that stands for all of them (`API_PEERS_URL`, a headless Service) and
asked for their own load by HTTP. One that does not answer in time is left out and counted as
missed. Each says who it is, so none is counted twice, whatever the name stands for.
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from api.settings import Settings
from api.upstream.names import Names
from api.upstream.pool import RESOLVE_S, Load
from api.upstream.reply import body_of
from api.upstream.transport import TRANSPORT_ERRORS, parsed

PATIENCE_S = 1.5
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class PeerLoad:
    server: str
    load: Load
    server_requests: int


class Peers:
    def __init__(self, settings: Settings, wire: httpx.AsyncBaseTransport) -> None:
        self._url = settings.peers_url.rstrip("/")
        self._key = settings.metrics_key or settings.admin_key
        self._wire = wire
        self._names = Names()
        self.own = secrets.token_hex(8)
        """Who this server is."""

    async def ask(self, path: str) -> tuple[list[PeerLoad], int]:
        """What the others answer at this path, and how many did not."""
        if not self._url:
            return [], 0
        try:
            urls = await self._names.urls(self._url, RESOLVE_S)
        except OSError:  # TimeoutError is one
            return [], 1
        answers = await asyncio.gather(*(self._ask_one(f"{url}{path}") for url in urls))
        others = {one.server: one for one in answers if one is not None and one.server != self.own}
        return list(others.values()), answers.count(None)

    async def _ask_one(self, url: str) -> PeerLoad | None:
        headers = {"Host": urlsplit(self._url).netloc, "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            async with asyncio.timeout(PATIENCE_S):
                request = httpx.Request("GET", parsed(url), headers=headers)
                response = await self._wire.handle_async_request(request)
                try:
                    content = bytearray()
                    async for chunk in body_of(response):
                        content += chunk
                        if len(content) > MOST_BYTES:
                            return None
                finally:
                    await response.aclose()
        except (*TRANSPORT_ERRORS, TimeoutError):
            return None
        return _understood(content) if response.status_code == 200 else None


def _understood(content: bytes | bytearray) -> PeerLoad | None:
    try:
        said: dict[str, Any] = orjson.loads(content)
        return PeerLoad(
            str(said["server"]),
            Load(int(said["requests"]), int(said["held"]), int(said["tokens"])),
            int(said["server_requests"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
