"""A turn whose answer is being streamed: the model host's events become the client's.

The last event is committed before it is written. Whatever breaks off the stream ends the turn with
the text that has been seen so far. Runs on the event loop, in the task of its request.
"""

from typing import Any

import orjson

from api.chat import ChatService, Conversation
from api.errors import ApiError, UpstreamError
from api.sse import DONE, Write, encode, parse
from api.upstream import SERVED_BY, UpstreamEvents, UpstreamStream, told_error


async def open_stream(service: ChatService, talk: Conversation) -> "ChatStream":
    """Returns once the first event is there, so that a refusal is still a status."""
    try:
        upstream = await service.ask_stream(talk)
    except BaseException as error:
        await service.give_up(talk, error)
        raise
    made = ChatStream(service, talk, upstream)
    try:
        await made.first()
    except BaseException as error:
        await made.aclose(error)
        raise
    return made


class ChatStream:
    """An EventSource for api.sse."""

    def __init__(self, service: ChatService, talk: Conversation, upstream: UpstreamStream) -> None:
        self._service = service
        self._talk = talk
        self._events = UpstreamEvents(upstream)
        self._served_by = {
            name: value for name, value in upstream.headers.items() if name == SERVED_BY
        }
        self._finished = False
        if talk.call.charge is not None:
            talk.call.charge.streams(talk.served_by)

    @property
    def headers(self) -> dict[str, str]:
        return self._talk.headers() | self._served_by

    async def first(self) -> None:
        await self._events.first()

    async def relay(self, write: Write) -> None:
        try:
            while not self._finished:
                await self._pass_on(await self._events.next(), write)
        except ApiError as error:
            # Before the client hears of it: it may ask again at once.
            await self._service.give_up(self._talk, error)
            raise
        await self._events.drain()
        await write(DONE)

    async def aclose(self, error: BaseException | None = None) -> None:
        await self._events.aclose()
        if self._talk.call.charge is not None:
            self._talk.call.charge.pieces = len(self._talk.pieces)
        await self._service.give_up(self._talk, error)

    async def _pass_on(self, event: bytes, write: Write) -> None:
        try:
            name, data = parse(event)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model host's answer cannot be read") from error
        if failed := told_error(name, data):
            raise failed
        if isinstance(data, dict) and isinstance(data.get("delta"), str):
            self._talk.pieces.append(data["delta"])
            await write(event)
        elif isinstance(data, dict) and "response" in data:
            await self._finish(data, write)
        elif data is None:
            await write(event)
        else:
            raise UpstreamError("The model host's answer cannot be read")

    async def _finish(self, data: dict[str, Any], write: Write) -> None:
        service, talk = self._service, self._talk
        service.client_answer(talk, data)
        await service.end(talk, service.outcome(talk, data, self.headers))
        extra = {"history": talk.history()} if talk.options.details else {}
        await write(encode(data | {"chat_id": talk.turn.chat_id} | extra))
        self._finished = True
