"""The models as `GET /v1/models` lists them: what the models file says, with what each model's
host says about itself.
"""

import asyncio
import time
from typing import Any
from urllib.parse import quote

import orjson

from api.context import Call
from api.errors import ApiError, DeadlineExceeded, NotFound, UpstreamError
from api.shared import Shared
from api.upstream.client import ModelHost, Wanted
from api.upstream.pool import Pool

MODELS = "/openai/v1/models"
FRESH_S = 10.0
MOST_NAME = 256
"""Characters; a longer one is asked for by nobody who wants a model."""
# A host that does not answer must keep neither the whole list waiting, nor a question that only
# wants to know how much may go along with it.
PATIENCE_S = 2.0


class Catalogue:
    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._created = int(time.time())
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}
        self._asking: Shared[str | None, list[dict[str, Any]]] = Shared()
        self.listed: frozenset[str] = frozenset()
        """What the one host that keeps its models to itself said last that they are called."""

    async def entries(self, call: Call) -> list[dict[str, Any]]:
        models = self._host.models
        if models.lenient:
            return await self._shared(call, None)
        return list(await asyncio.gather(*(self._entry(pool, call) for pool in models.pools)))

    async def find(self, name: str, call: Call) -> dict[str, Any]:
        """One entry, also by an alias. NotFound for none."""
        models = self._host.models
        if not models.lenient:
            return await self._entry(models.find(name), call)
        if len(name) > MOST_NAME:
            raise NotFound("There is no such model", code="model_not_found", param="model")
        reply = await self._host.request("GET", f"{MODELS}/{quote(name, safe='')}", call)
        return _object(reply.body)

    async def context_length(self, name: str | None, call: Call) -> int | None:
        """How many tokens the model takes, as its host says it; None when it does not say."""
        models = self._host.models
        key = "" if models.lenient else models.find(name).name
        try:
            length = (await self._about(key, _patience(call))).get("max_model_len")
        except ApiError:
            # The last that was said is a better guess than none.
            length = self._known[key][1].get("max_model_len") if key in self._known else None
        return length if isinstance(length, int) else None

    def forget(self) -> None:
        """What was known has proved wrong."""
        for key, (_, about) in self._known.items():
            self._known[key] = (0.0, about)

    async def _entry(self, pool: Pool, call: Call) -> dict[str, Any]:
        try:
            about = await self._about(pool.name, _patience(call))
            available = True
        except ApiError:
            about, available = {}, False
        entry = {"object": "model", "created": self._created, "owned_by": "qna"} | about
        aliases = list(pool.spec.aliases)
        return entry | {"id": pool.name, "aliases": aliases, "available": available}

    async def _about(self, key: str, call: Call) -> dict[str, Any]:
        """What the host says about the model; asked for again when it is not fresh."""
        seen, about = self._known.get(key, (0.0, {}))
        if time.monotonic() - seen < FRESH_S and seen:
            return about
        entries = await self._shared(call, key or None)
        served = self._host.models.find(key or None).served_name
        about = next((one for one in entries if one.get("id") == served), entries[0])
        self._known[key] = (time.monotonic(), about)
        return about

    async def _shared(self, call: Call, name: str | None) -> list[dict[str, Any]]:
        """Whoever wants to know while somebody asks hears the same: however many list the models,
        a host is asked by one of them at a time.
        """
        # As long as the first of them would wait, and no shorter than others would.
        until = max(call.deadline, time.monotonic() + PATIENCE_S)
        asked = Call(call.request_id, until)
        try:
            return await self._asking.of(
                name, lambda: self._ask(asked, name), timeout_s=call.remaining()
            )
        except TimeoutError:
            raise DeadlineExceeded from None

    async def _ask(self, call: Call, name: str | None) -> list[dict[str, Any]]:
        wanted = Wanted(model=name, fallback=False)
        reply = await self._host.request("GET", MODELS, call, wanted=wanted)
        data = _object(reply.body).get("data")
        entries = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        if not entries:
            raise UpstreamError("The model host lists no models")
        if name is None:
            names = (one.get("id") for one in entries)
            self.listed = frozenset(name for name in names if isinstance(name, str))
        return entries


def _patience(call: Call) -> Call:
    return Call(call.request_id, min(call.deadline, time.monotonic() + PATIENCE_S))


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise UpstreamError("The model host's list of models cannot be read")
    return data
