"""OpenAI's routes: the model host speaks them. A request goes there with what this server adds to
it; of an answer the client gets the host's own bytes, without the usage that it did not ask for.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Set
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.context import Call, context_of
from api.errors import ApiError, InvalidRequest, UpstreamError
from api.keys.salt import cache_salt
from api.meter import chat_tokens, completion_tokens
from api.routes.common import POST_ERRORS, call_of, check_model, errors, json_answer, parts_of
from api.sse import EVENT_SCHEMA, MEDIA_TYPE, EventStream, Write, parse
from api.upstream import ANY, UpstreamEvents, UpstreamStream, Wanted, told_error
from api.validation import parse_json

router = APIRouter(prefix="/v1", tags=["openai"])
_PROMPT = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "minItems": 1,
        },
    ],
    "description": "A text, token ids, or a list of either.",
}
_NO_USAGE = re.compile(rb',\s*"usage":\s*null')
_MESSAGES = {"type": "array", "items": {"type": "object"}, "minItems": 1}


def _body(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    whole = {
        "type": "object",
        "required": ["model", field],
        "properties": {"model": {"type": "string"}, field: schema, "stream": {"type": "boolean"}},
        "additionalProperties": True,
        "description": "As OpenAI's API documents it; the model host checks it.",
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole}}}}


def _answer(description: str, *, streams: bool = True) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        content[MEDIA_TYPE] = {"schema": EVENT_SCHEMA}
    return {"content": content, "description": description}


@router.post(
    "/chat/completions",
    responses={
        200: _answer("OpenAI's chat completion, whole or as server-sent events."),
        **errors(*POST_ERRORS, 404),
    },
    openapi_extra=_body("messages", _MESSAGES),
    summary="OpenAI chat completion (keeps no history)",
)
async def chat_completions(request: Request) -> Response:
    return await _pass_on(request, "/openai/v1/chat/completions", chat_tokens)


@router.post(
    "/completions",
    responses={
        200: _answer("OpenAI's text completion, whole or as server-sent events."),
        **errors(*POST_ERRORS, 404),
    },
    openapi_extra=_body("prompt", _PROMPT),
    summary="OpenAI text completion (keeps no history)",
)
async def completions(request: Request) -> Response:
    return await _pass_on(request, "/openai/v1/completions", completion_tokens)


@router.get(
    "/models",
    responses={200: _answer("OpenAI's list.", streams=False), **errors(400, 502, 503, 504)},
    summary="The models that can be asked",
)
async def models(request: Request) -> Response:
    call = call_of(request)
    entries = await parts_of(request).models.entries(call)
    names = call.caller.models
    if names is not None:
        entries = [one for one in entries if names & {one.get("id"), *one.get("aliases", ())}]
    return json_answer({"object": "list", "data": entries})


@router.get(
    "/models/{model:path}",
    responses={200: _answer("OpenAI's model.", streams=False), **errors(400, 404, 502, 503, 504)},
    summary="One of them",
)
async def model(request: Request, model: str) -> Response:
    call = call_of(request)
    check_model(request, call.caller, model)
    return json_answer(await parts_of(request).models.find(model, call))


async def _pass_on(
    request: Request, path: str, tokens_of: Callable[[dict[str, Any]], tuple[int, int]]
) -> Response:
    body = await request.body()
    asked = parse_json(body)
    if not isinstance(asked, dict):
        raise InvalidRequest("The body must be a JSON object")
    call = call_of(request)
    model = check_model(request, call.caller, asked.get("model"))
    context = context_of(request.scope)
    tokens = tokens_of(asked)
    own = asked.get("cache_salt")
    if call.caller.tenant and (own is None or isinstance(own, str)):
        # Whatever else it may be, the host refuses.
        asked["cache_salt"] = cache_salt(call.caller, own)
    hidden = _ask_for_usage(asked)
    content = _written(asked)
    call = await parts_of(request).meter.reserve(context, call, model, *tokens)
    if asked.get("stream") is True and call.charge is not None:
        call.charge.streams(None)
    upstream = await parts_of(request).host.stream(
        path, call, content, accept="*/*", wanted=_wanted(request, asked)
    )
    listed = parts_of(request).models.listed
    relay = Relay(upstream, call, listed=listed, hide_usage=hidden)
    context.cleanups.append(relay.aclose)
    if not upstream.content_type.startswith(MEDIA_TYPE):
        return await relay.whole()
    await relay.first()
    return EventStream(relay, upstream.headers)


def _written(asked: dict[str, Any]) -> bytes:
    """orjson reads deeper nesting than it writes."""
    try:
        return orjson.dumps(asked)
    except orjson.JSONEncodeError:
        raise InvalidRequest(
            "The body is nested too deeply: at most 250 levels", code="invalid_json"
        ) from None


def _wanted(request: Request, asked: dict[str, Any]) -> Wanted:
    """The model that a body names; its first messages stand for the conversation."""
    if parts_of(request).host.models.lenient:
        return ANY
    model = asked.get("model")
    beginning = asked.get("messages") or asked.get("prompt")
    if isinstance(beginning, list):
        beginning = beginning[:2]
    digest = hashlib.blake2b(orjson.dumps(beginning), digest_size=16).hexdigest()
    return Wanted(model if isinstance(model, str) else None, affinity=digest, in_body=True)


def _ask_for_usage(asked: dict[str, Any]) -> bool:
    """A stream tells its usage only when asked to. True when the client did not ask."""
    options = asked.get("stream_options")
    if asked.get("stream") is not True or not (options is None or isinstance(options, dict)):
        return False
    if options and options.get("include_usage") not in (None, False):
        return False
    asked["stream_options"] = (options or {}) | {"include_usage": True}
    return True


def _read(body: bytes) -> Any:
    """None for what is not JSON: the client sees for itself."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


class Relay:
    """An EventSource that hands on events as they are and looks only at how the stream ends."""

    def __init__(
        self, upstream: UpstreamStream, call: Call, *, listed: Set[str], hide_usage: bool
    ) -> None:
        self._upstream = upstream
        self._listed = listed
        self._charge = call.charge
        self._hide_usage = hide_usage
        self._pieces = 0
        self._usage: tuple[dict[str, Any], str | None] | None = None
        self._closed = False
        self._events = UpstreamEvents(upstream)

    async def whole(self) -> Response:
        body = await self._upstream.rest()
        await self.aclose()
        if not self._upstream.content_type.startswith("application/json"):
            raise UpstreamError("The model host's answer is not JSON")
        data = _read(body)
        if failed := told_error("", data):
            raise failed
        self._note_usage_of(data)
        self._ended_well()
        return Response(body, media_type="application/json", headers=self._upstream.headers)

    async def first(self) -> None:
        if self._charge is not None:
            self._charge.streams(self._upstream.model)
        await self._events.first()

    async def relay(self, write: Write) -> None:
        try:
            while not await self._pass_on(write):
                pass
        except ApiError:
            # What failed costs nothing, whatever usage was told on the way.
            self._usage = None
            raise
        self._ended_well()
        await self._events.drain()

    async def _pass_on(self, write: Write) -> bool:
        """The events that have come. True for the last ones."""
        kept: list[bytes] = []
        done, refused = False, None
        for event in await self._events.at_hand():
            try:
                done = self._look_at(event, kept)
            except ApiError as error:
                refused = error
            if done or refused:
                break
        # What came together goes out together: a write costs more than all of this.
        if kept:
            await write(b"".join(kept))
        if refused:
            raise refused
        return done

    def _look_at(self, event: bytes, kept: list[bytes]) -> bool:
        """Keep what goes to the client. True for the last event."""
        done = False
        # A line break inside JSON text is an escape, and so are the quotes: all are looked for in
        # the right place.
        if not event.startswith(b"data: {") or b"\nevent:" in event or b'"error"' in event:
            event, done = self._look_closely(event)
        else:
            self._pieces += 1
            if b'"usage"' in event:
                event = self._without_usage(event)
        if event:
            kept.append(event)
        return done

    def _without_usage(self, event: bytes) -> bytes:
        """What the client asked for: the event that tells the usage is left out if we asked."""
        if not _NO_USAGE.search(event):
            told = self._note_usage_of(_read(event[len(b"data: ") :]))
            return b"" if told and self._hide_usage else event
        return _NO_USAGE.sub(b"", event) if self._hide_usage else event

    def _note_usage_of(self, data: Any) -> bool:
        """Whether the object tells a usage and nothing else."""
        if self._charge is None:
            return False
        usage = data.get("usage") if isinstance(data, dict) else None
        if not isinstance(usage, dict):
            return False
        # What an answer calls its model may be an echo of what the caller called it.
        told = data.get("model")
        known = told if isinstance(told, str) and told in self._listed else None
        self._usage = (usage, self._upstream.model or known)
        return not data.get("choices")

    def _look_closely(self, event: bytes) -> tuple[bytes, bool]:
        """An event in another form than vLLM's and ours, or one that may tell an error; what goes
        to the client, and whether it is the last.
        """
        try:
            name, data = parse(event)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model host's answer cannot be read") from error
        if failed := told_error(name, data):
            raise failed
        # A comment that keeps the connection open is no piece of an answer.
        self._pieces += isinstance(data, dict)
        told = self._note_usage_of(data)
        return b"" if told and self._hide_usage else event, bool(data == "[DONE]")

    def _ended_well(self) -> None:
        self._tell_charge()
        if self._charge is not None:
            self._charge.untold(self._upstream.model)

    def _tell_charge(self) -> None:
        if self._charge is None:
            return
        if self._charge.pieces is not None:
            self._charge.pieces = self._pieces
        if self._usage is not None:
            self._charge.used(*self._usage)
            self._usage = None

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._tell_charge()
        await asyncio.shield(self._upstream.aclose())
