"""OpenAI's routes: the model host speaks them; here they are passed through, byte for byte."""

import asyncio

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.context import context_of
from api.errors import InvalidRequest, UpstreamError
from api.routes.common import POST_ERRORS, call_of, errors, parts_of
from api.schemas import parse_json
from api.sse import MEDIA_TYPE, EventStream, Write, parse
from api.upstream import UpstreamEvents, UpstreamStream, stream_error

router = APIRouter(prefix="/v1", tags=["openai"])
_OPENAI_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "properties": {
                        "model": {"type": "string"},
                        "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                        "stream": {"type": "boolean"},
                    },
                    "additionalProperties": True,
                    "description": "As OpenAI's API documents it; the model host checks it.",
                }
            }
        },
    }
}
_OPENAI_ANSWER = {
    "content": {
        "application/json": {"schema": {"type": "object"}},
        MEDIA_TYPE: {"schema": {"type": "string"}},
    },
    "description": "OpenAI's chat completion, whole or as server-sent events.",
}


@router.post(
    "/chat/completions",
    responses={200: _OPENAI_ANSWER, **errors(*POST_ERRORS, 404)},
    openapi_extra=_OPENAI_BODY,
    summary="OpenAI chat completion (keeps no history)",
)
async def chat_completions(request: Request) -> Response:
    body = await request.body()
    if not isinstance(parse_json(body), dict):
        raise InvalidRequest("The body must be a JSON object")
    call = call_of(request)
    upstream = await parts_of(request).host.stream(
        "/openai/v1/chat/completions", call, body, accept="*/*"
    )
    relay = Relay(upstream)
    context_of(request.scope).cleanups.append(relay.aclose)
    if not upstream.content_type.startswith(MEDIA_TYPE):
        return await relay.whole()
    await relay.first()
    return EventStream(relay, upstream.headers)


@router.get(
    "/models",
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}},
        **errors(400, 502, 503, 504),
    },
    summary="The models that can be asked",
)
async def models(request: Request) -> Response:
    reply = await parts_of(request).host.request("GET", "/openai/v1/models", call_of(request))
    return Response(reply.body, media_type="application/json")


class Relay:
    """An EventSource that hands on events as they are and looks only at how the stream ends."""

    def __init__(self, upstream: UpstreamStream) -> None:
        self._upstream = upstream
        self._events = UpstreamEvents(upstream)

    async def whole(self) -> Response:
        parts = []
        while (chunk := await self._upstream.next_chunk()) is not None:
            parts.append(chunk)
        await self.aclose()
        if not self._upstream.content_type.startswith("application/json"):
            raise UpstreamError("The model host's answer is not JSON")
        return Response(
            b"".join(parts), media_type="application/json", headers=self._upstream.headers
        )

    async def first(self) -> None:
        await self._events.first()

    async def relay(self, write: Write) -> None:
        done = False
        while not done:
            event = await self._events.next()
            # A line break inside JSON text is an escape, so both are looked for in the right place.
            if not event.startswith(b"data: {") or b"\nevent:" in event:
                done = self._is_last(event)
            await write(event)
        await self._events.drain()

    @staticmethod
    def _is_last(event: bytes) -> bool:
        try:
            name, data = parse(event)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model host's answer cannot be read") from error
        if name == "error":
            raise stream_error(data)
        return bool(data == "[DONE]")

    async def aclose(self) -> None:
        await asyncio.shield(self._upstream.aclose())
