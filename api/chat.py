"""One turn of a chat, from the stored question to the stored answer.

    begin (question committed, lease taken) → ask the model host → end (answer committed, lease
    given back)

An answer reaches the client only after it is committed, a stream's last event too. Whatever goes
wrong in between, the turn is ended as `failed` (nothing was said) or `interrupted` (the client
left, or the answer broke off), so that no question stands in a later prompt without its answer. A
question that the model host was too busy for, or not there for, is withdrawn.
"""

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from api import idempotency, logs
from api.context import Call
from api.errors import ApiError, ChatBusy, HostRefusal, UpstreamError
from api.history import (
    ChatStore,
    LeaseLost,
    Once,
    StartedTurn,
    StoredAnswer,
    TurnOutcome,
    TurnStatus,
)
from api.idempotency import DETAILS
from api.keys.salt import cache_salt
from api.metrics import Metrics
from api.schemas import AnswerOptions, ChatItem, RegenerateQuery
from api.settings import Settings
from api.trimming import estimated_tokens, fewer, own_tokens, turns_that_fit
from api.upstream import Catalogue, ModelHost, UpstreamReply, UpstreamStream, Wanted

logger = logging.getLogger("api.chat")
GENERATE = "/generate"
# Nothing was done, and the same question may come again: no turn to keep.
REFUSED = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(slots=True)
class Conversation:
    """A begun turn, with those of its earlier turns that go along."""

    turn: StartedTurn
    options: AnswerOptions
    call: Call
    turns_sent: int = 0
    tokens_sent: int = 0
    """Of earlier turns."""
    ended: bool = False
    served_by: str | None = None
    pieces: list[str] = field(default_factory=list)
    asked: int = field(init=False)
    """Tokens of the question and its system prompt, estimated."""
    earlier: int = field(init=False)
    """Turns before this one."""

    def __post_init__(self) -> None:
        self.asked = estimated_tokens(self.turn.system_prompt, self.turn.user_prompt)
        self.earlier = len(self.turn.past) + self.turn.past_left_out

    @property
    def dropped(self) -> int:
        return self.earlier - self.turns_sent

    def keep(self, count: int) -> None:
        past = self.turn.past
        # The others would lie here until the answer ends.
        self.turn = replace(self.turn, past=past[len(past) - count :])
        self.turns_sent = count
        self.tokens_sent = sum(turn.tokens for turn in self.turn.past)
        if self.call.charge is not None:
            self.call.charge.prompt = self.tokens_sent + self.asked

    def let_go(self) -> None:
        """The host has the words of earlier turns: they need not lie here until the answer ends."""
        self.turn = replace(self.turn, past=())

    def request(self, *, stream: bool) -> bytes:
        messages = []
        if self.turn.system_prompt:
            messages.append({"role": "system", "content": self.turn.system_prompt})
        for past in self.turn.past:
            messages.append({"role": "user", "content": past.user_prompt})
            messages.append({"role": "assistant", "content": past.response})
        messages.append({"role": "user", "content": self.turn.user_prompt})
        body = self.options.sampling() | {
            "chat_id": self.turn.chat_id,
            "messages": messages,
            "details": True,
            "stream": stream,
        }
        if salt := cache_salt(self.call.caller):
            body["cache_salt"] = salt
        return orjson.dumps(body)

    @property
    def wanted(self) -> Wanted:
        """A chat stays with the replica that holds its beginning."""
        return Wanted(self.options.model, affinity=self.turn.chat_id)

    def headers(self) -> dict[str, str]:
        return {"X-History-Turns-Dropped": str(self.dropped)}

    def history(self) -> dict[str, int]:
        return {"turns_sent": self.turns_sent, "turns_dropped": self.dropped}


class ChatService:
    def __init__(
        self,
        settings: Settings,
        store: ChatStore,
        host: ModelHost,
        models: Catalogue,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._store = store
        self._host = host
        self._metrics = metrics
        self._models = models
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until every turn that is being ended is ended."""
        while self._endings:
            await asyncio.wait(self._endings)

    async def answer(self, query: ChatItem, call: Call) -> Answer:
        talk = await self.begin(query, call)
        assert isinstance(talk, Conversation), "without a key there is nothing to replay"
        return await self.complete(talk)

    async def complete(self, talk: Conversation) -> Answer:
        try:
            reply = await self._ask(talk)
            headers = reply.headers | talk.headers()
            body, outcome = self._understood(talk, reply.body, headers)
            await self.end(talk, outcome)
        except BaseException as error:
            await self.give_up(talk, error)
            raise
        return Answer(body, headers)

    # ---- beginning and ending -------------------------------------------------------------------

    async def begin(
        self, query: ChatItem, call: Call, once: Once | None = None
    ) -> Conversation | StoredAnswer:
        turn = await self._store.begin_turn(
            call.caller.tenant,
            query.chat_id or str(uuid.uuid4()),
            user_prompt=query.user_prompt,
            system_prompt=query.system_prompt,
            request_id=call.request_id,
            max_past=self._settings.max_history_turns,
            once=once,
        )
        return turn if isinstance(turn, StoredAnswer) else Conversation(turn, query, call)

    async def begin_again(
        self, chat_id: str, options: RegenerateQuery, call: Call, once: Once | None = None
    ) -> Conversation | StoredAnswer:
        """The chat's last question, for another answer."""
        turn = await self._store.begin_again(
            call.caller.tenant,
            chat_id,
            request_id=call.request_id,
            max_past=self._settings.max_history_turns,
            meant=options.position,
            once=once,
        )
        return turn if isinstance(turn, StoredAnswer) else Conversation(turn, options, call)

    async def end(self, talk: Conversation, outcome: TurnOutcome) -> None:
        """Commit the ending, also when the request is cancelled meanwhile."""
        if talk.ended:
            return
        talk.ended = True
        if talk.call.charge is not None and outcome.prompt_tokens is not None:
            # Its client may leave during the commit.
            talk.call.charge.prompt = outcome.prompt_tokens
        await self._to_the_end(self._store.end_turn(talk.turn, outcome))
        if talk.call.charge is not None and outcome.prompt_tokens is not None:
            names = ("prompt_tokens", "completion_tokens", "cached_tokens")
            talk.call.charge.used({name: getattr(outcome, name) for name in names}, talk.served_by)

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
            withdrawn=not cut and isinstance(error, ApiError) and error.http_status in REFUSED,
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
                reply = await self._host.request(
                    "POST", GENERATE, talk.call, talk.request(stream=False), talk.wanted
                )
                talk.served_by = reply.model
                return reply
            except HostRefusal as refusal:
                self._send_fewer(talk, refusal)

    async def ask_stream(self, talk: Conversation) -> UpstreamStream:
        if talk.call.charge is not None:
            talk.call.charge.streams(None)
        await self._choose_turns(talk)
        while True:
            try:
                upstream = await self._host.stream(
                    GENERATE, talk.call, talk.request(stream=True), wanted=talk.wanted
                )
                talk.served_by = upstream.model
                talk.let_go()
                return upstream
            except HostRefusal as refusal:
                self._send_fewer(talk, refusal)

    async def _choose_turns(self, talk: Conversation) -> None:
        context = None
        if talk.turn.past:
            context = await self._models.context_length(talk.options.model, talk.call)
        talk.keep(turns_that_fit(talk.turn.past, talk.asked, talk.options.max_tokens, context))
        self._metrics.turns_dropped.inc(talk.dropped)
        if talk.call.charge is not None:
            await talk.call.charge.cover()

    def _send_fewer(self, talk: Conversation, refusal: HostRefusal) -> None:
        """Drop the oldest half of what was sent, or hand the refusal on when nothing is left."""
        too_long = refusal.code in ("context_length_exceeded", "body_too_large")
        before = talk.turns_sent
        if not too_long or not before:
            raise _for_the_client(refusal)
        talk.keep(fewer(before))
        self._metrics.turns_dropped.inc(before - talk.turns_sent)
        self._models.forget()

    # ---- understanding --------------------------------------------------------------------------

    def _understood(
        self, talk: Conversation, body: bytes, headers: dict[str, str]
    ) -> tuple[dict[str, Any], TurnOutcome]:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model host's answer is not JSON") from error
        return self.client_answer(talk, data), self.outcome(talk, data, headers)

    def client_answer(self, talk: Conversation, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or not isinstance(data.get("response"), str):
            raise UpstreamError("The model host's answer has no response")
        answer: dict[str, Any] = {"chat_id": talk.turn.chat_id, "response": data["response"]}
        if talk.options.details:
            answer |= {key: data.get(key) for key in DETAILS} | {"history": talk.history()}
        if "logprobs" in data:
            answer["logprobs"] = data["logprobs"]
        return answer

    def outcome(
        self, talk: Conversation, data: dict[str, Any], headers: dict[str, str]
    ) -> TurnOutcome:
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
            own_tokens=own_tokens(prompt or 0, completion or 0, talk.tokens_sent),
            rest=idempotency.rest_of(data, talk.history(), headers),
        )


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning("a turn was not ended")


def _for_the_client(refusal: HostRefusal) -> HostRefusal:
    """The client sent a question, not messages: name the field that it knows."""
    if refusal.param and refusal.param.startswith("messages"):
        refusal.param = "user_prompt"
    return refusal
