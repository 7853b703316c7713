"""One turn of a chat, from the stored question to the stored answer.

    begin (question committed, lease taken) → ask the model host → end (answer committed, lease
    given back)

An answer reaches the client only after it is committed, a stream's last event too. Whatever goes
wrong in between, the turn is ended as `failed` (nothing was said) or `interrupted` (the client
left, or the answer broke off), so that no question stands in a later prompt without its answer.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson

from api import logs
from api.context import Call
from api.errors import ApiError, ChatBusy, HostRefusal, UpstreamError
from api.history import ChatStore, LeaseLost, PastTurn, StartedTurn, TurnOutcome, TurnStatus
from api.metrics import Metrics
from api.schemas import ChatItem
from api.settings import Settings
from api.trimming import fewer, own_tokens, turns_that_fit
from api.upstream import ModelHost, UpstreamReply, UpstreamStream

logger = logging.getLogger("api.chat")
GENERATE = "/generate"
DETAILS = ("finish_reason", "usage", "timing")
CONTEXT_FRESH_S = 60.0
# Until tenants come, every chat has the same owner.
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Answer:
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(slots=True)
class Conversation:
    """A begun turn and what was sent for it."""

    turn: StartedTurn
    query: ChatItem
    call: Call
    sent: tuple[PastTurn, ...] = ()
    ended: bool = False
    pieces: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        return len(self.turn.past) - len(self.sent) + self.turn.past_left_out

    def keep(self, count: int) -> None:
        self.sent = self.turn.past[len(self.turn.past) - count :]

    def request(self, *, stream: bool) -> bytes:
        messages = []
        if self.turn.system_prompt:
            messages.append({"role": "system", "content": self.turn.system_prompt})
        for past in self.sent:
            messages.append({"role": "user", "content": past.user_prompt})
            messages.append({"role": "assistant", "content": past.response})
        messages.append({"role": "user", "content": self.query.user_prompt})
        body = self.query.sampling() | {
            "chat_id": self.turn.chat_id,
            "messages": messages,
            "details": True,
            "stream": stream,
        }
        return orjson.dumps(body)

    def headers(self) -> dict[str, str]:
        return {"X-History-Turns-Dropped": str(self.dropped)}

    def history(self) -> dict[str, int]:
        return {"turns_sent": len(self.sent), "turns_dropped": self.dropped}


class ChatService:
    def __init__(
        self, settings: Settings, store: ChatStore, host: ModelHost, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._store = store
        self._host = host
        self._metrics = metrics
        self._context: int | None = None
        self._context_until = 0.0
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until every turn that is being ended is ended."""
        while self._endings:
            await asyncio.wait(self._endings)

    async def answer(self, query: ChatItem, call: Call) -> Answer:
        talk = await self.begin(query, call)
        try:
            reply = await self._ask(talk)
            body, outcome = self._understood(talk, reply.body)
            await self.end(talk, outcome)
        except BaseException as error:
            await self.give_up(talk, error)
            raise
        return Answer(body, reply.headers | talk.headers())

    # ---- beginning and ending -------------------------------------------------------------------

    async def begin(self, query: ChatItem, call: Call) -> Conversation:
        turn = await self._store.begin_turn(
            NOBODY,
            query.chat_id or str(uuid.uuid4()),
            user_prompt=query.user_prompt,
            system_prompt=query.system_prompt,
            request_id=call.request_id,
            max_past=self._settings.max_history_turns,
        )
        return Conversation(turn, query, call)

    async def end(self, talk: Conversation, outcome: TurnOutcome) -> None:
        """Commit the ending, also when the request is cancelled meanwhile."""
        if talk.ended:
            return
        talk.ended = True
        await self._to_the_end(self._store.end_turn(talk.turn, outcome))

    async def _to_the_end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        try:
            await asyncio.shield(task)
        except LeaseLost as error:
            raise ChatBusy(
                "Another request took over this chat; this answer is not part of it"
            ) from error
        except asyncio.CancelledError:
            task.add_done_callback(_retrieve)
            raise

    async def give_up(self, talk: Conversation, error: BaseException | None) -> None:
        """End the turn as what it became. Never raises: there is another error to tell already."""
        text = "".join(talk.pieces)
        cut = bool(text) or not isinstance(error, ApiError)
        code = error.code if isinstance(error, ApiError) else None
        outcome = TurnOutcome(
            status=TurnStatus.INTERRUPTED if cut else TurnStatus.FAILED,
            response=text or None,
            error_code=code,
        )
        try:
            await self.end(talk, outcome)
        except ApiError as failed:
            # The sweep marks the turn when its lease runs out.
            logs.event(
                logger,
                logging.WARNING,
                "turn not ended",
                request_id=talk.call.request_id,
                error_code=failed.code,
            )

    # ---- asking ---------------------------------------------------------------------------------

    async def _ask(self, talk: Conversation) -> UpstreamReply:
        await self._choose_turns(talk)
        while True:
            try:
                return await self._host.request(
                    "POST", GENERATE, talk.call, talk.request(stream=False)
                )
            except HostRefusal as refusal:
                self._send_fewer(talk, refusal)

    async def ask_stream(self, talk: Conversation) -> UpstreamStream:
        await self._choose_turns(talk)
        while True:
            try:
                return await self._host.stream(GENERATE, talk.call, talk.request(stream=True))
            except HostRefusal as refusal:
                self._send_fewer(talk, refusal)

    async def _choose_turns(self, talk: Conversation) -> None:
        context = await self._context_length(talk.call) if talk.turn.past else None
        query = talk.query
        asked = f"{talk.turn.system_prompt or ''}{query.user_prompt}"
        talk.keep(turns_that_fit(talk.turn.past, asked, query.max_tokens, context))
        self._metrics.turns_dropped.inc(talk.dropped)

    def _send_fewer(self, talk: Conversation, refusal: HostRefusal) -> None:
        """Drop the oldest half of what was sent, or hand the refusal on when nothing is left."""
        too_long = refusal.code in ("context_length_exceeded", "body_too_large")
        if not too_long or not talk.sent:
            raise _for_the_client(refusal)
        before = len(talk.sent)
        talk.keep(fewer(before))
        self._metrics.turns_dropped.inc(before - len(talk.sent))
        self._context_until = 0.0

    async def _context_length(self, call: Call) -> int | None:
        """The model's context, as the host says it; None when it does not say."""
        if time.monotonic() < self._context_until:
            return self._context
        try:
            reply = await self._host.request("GET", "/openai/v1/models", call)
            self._context = int(orjson.loads(reply.body)["data"][0]["max_model_len"])
            self._context_until = time.monotonic() + CONTEXT_FRESH_S
        except (ApiError, ValueError, KeyError, IndexError, TypeError):
            # Not knowing it costs at most a refusal by the host, which is handled.
            logger.debug("the model's context length is not known")
        return self._context

    # ---- understanding --------------------------------------------------------------------------

    def _understood(self, talk: Conversation, body: bytes) -> tuple[dict[str, Any], TurnOutcome]:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model host's answer is not JSON") from error
        return self.client_answer(talk, data), self.outcome(talk, data)

    def client_answer(self, talk: Conversation, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or not isinstance(data.get("response"), str):
            raise UpstreamError("The model host's answer has no response")
        answer: dict[str, Any] = {"chat_id": talk.turn.chat_id, "response": data["response"]}
        if talk.query.details:
            answer |= {key: data.get(key) for key in DETAILS} | {"history": talk.history()}
        if "logprobs" in data:
            answer["logprobs"] = data["logprobs"]
        return answer

    def outcome(self, talk: Conversation, data: dict[str, Any]) -> TurnOutcome:
        usage = data.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        prompt, completion, cached = (
            count if isinstance(count := counts.get(key), int) else None
            for key in ("prompt_tokens", "completion_tokens", "cached_tokens")
        )
        reason = data.get("finish_reason")
        done = reason in ("stop", "length")
        return TurnOutcome(
            status=TurnStatus.COMPLETE if done else TurnStatus.INTERRUPTED,
            response=data["response"],
            finish_reason=str(reason) if reason is not None else None,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            own_tokens=own_tokens(prompt or 0, completion or 0, talk.sent),
        )


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning("a turn was not ended")


def _for_the_client(refusal: HostRefusal) -> HostRefusal:
    """The client sent a question, not messages: name the field that it knows."""
    if refusal.param and refusal.param.startswith("messages"):
        refusal.param = "user_prompt"
    return refusal
