"""Looks up what names stand for: each name once at a time, for a lookup holds a thread for as long
as DNS is silent; and what a name last stood for, while DNS cannot say. On the event loop.
"""

import asyncio
import contextvars
import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

Key = tuple[str, int]
# A name that is known does not keep its requests waiting for a DNS that is slow to say it again.
KNOWN_PATIENCE_S = 0.5
_GONE = (socket.EAI_NONAME, socket.EAI_NODATA)


class Names:
    def __init__(self) -> None:
        self._lookups: dict[Key, asyncio.Task[list[str]]] = {}
        self._last: dict[Key, list[str]] = {}

    async def addresses(self, host: str, port: int, patience_s: float | None) -> list[str]:
        """As `look_up`, or what it last said when DNS does not answer or cannot tell."""
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        last = self._last.get((host, port))
        if last is not None:
            patience_s = min(patience_s or KNOWN_PATIENCE_S, KNOWN_PATIENCE_S)
        try:
            return list(await self.look_up(host, port, patience_s))
        except OSError as error:  # TimeoutError is one
            if last is None or is_gone(error):
                raise
            return list(last)

    async def look_up(self, host: str, port: int, patience_s: float | None) -> list[str]:
        """The name's numeric addresses, in DNS's order; TimeoutError when it takes longer."""
        key = (host, port)
        lookup = self._lookups.get(key)
        if lookup is None:
            # Many may wait for it, so it carries nobody's trace.
            lookup = asyncio.create_task(self._ask(key), context=contextvars.Context())
            self._lookups[key] = lookup
            lookup.add_done_callback(lambda done: self._ended(key, done))
        done, _ = await asyncio.wait({lookup}, timeout=patience_s)
        if not done:
            raise TimeoutError("the name was not looked up in time")
        return lookup.result()

    async def urls(self, url: str, patience_s: float) -> list[str]:
        """The URL once for each numeric address of its name, as `look_up` has them."""
        parts = urlsplit(url)
        port = parts.port or 80
        found = await self.look_up(parts.hostname or "", port, patience_s)
        hosts = (f"[{number}]" if ":" in number else number for number in found)
        return [f"http://{host}:{port}{parts.path}" for host in hosts]

    async def _ask(self, key: Key) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*key, type=socket.SOCK_STREAM)
        self._last[key] = list(dict.fromkeys(str(address[0]) for *_, address in found))
        return self._last[key]

    def _ended(self, key: Key, lookup: asyncio.Task[list[str]]) -> None:
        del self._lookups[key]
        if not lookup.cancelled():
            lookup.exception()  # whoever still waited for it has been told


def is_gone(error: BaseException | None) -> bool:
    """DNS says that nothing has the name, in place of saying nothing."""
    return isinstance(error, socket.gaierror) and error.errno in _GONE
