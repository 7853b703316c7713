"""The store against a model in memory: random chats of two owners, with keys and crashes, on both
databases. HISTORY_EXAMPLES=500 looks for longer.
"""

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update

from api.errors import (
    ApiError,
    ChatBusy,
    ChatExists,
    ChatHasNoTurns,
    ChatMovedOn,
    ChatNotFound,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    OutOfRange,
)
from api.history import LeaseLost, Once, SqlStore, StartedTurn, StoredAnswer, TurnOutcome
from api.history import TurnStatus as Status
from api.history.models import ChatRow, LeaseRow
from api.history.text import fold, title_of
from api.metrics import Metrics

OWNERS = st.sampled_from(["a", ""])
CHATS = st.sampled_from(["1", "x/y"])
WORDS = st.sampled_from(["Über", "50% off", "snake_case", "straße", "plain", "  two\nlines "])
ENDINGS = st.sampled_from(
    [
        (Status.COMPLETE, "Ganze Antwort"),
        (Status.COMPLETE, "Ganze Antwort"),
        (Status.INTERRUPTED, "Half"),
        (Status.INTERRUPTED, None),
        (Status.FAILED, None),
    ]
)
KEYS = st.sampled_from([None, None, "k1", "k2"])


@dataclass
class Asked:
    position: int
    question: str
    replaces: int | None
    status: Status = Status.PENDING
    response: str | None = None

    @property
    def stands(self) -> bool:
        running = self.status == Status.PENDING and self.replaces is not None
        return self.status != Status.REPLACED and not running


@dataclass
class Chat:
    title: str | None = None
    turns: list[Asked] = field(default_factory=list)
    running: StartedTurn | None = None
    branched_from: tuple[str, int] | None = None
    old: bool = False

    @property
    def standing(self) -> list[Asked]:
        return [turn for turn in self.turns if turn.stands]

    @property
    def shown_title(self) -> str:
        if self.title is not None:
            return self.title
        return title_of(self.turns[0].question) if self.turns else ""


@dataclass
class Key:
    fingerprint: str
    chat_id: str
    position: int
    answered: bool = False


class Machine(RuleBasedStateMachine):
    url = ""
    store: SqlStore
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        # Each example has owners of its own in the one database.
        self.prefix = uuid.uuid4().hex
        self.chats: dict[tuple[str, str], Chat] = {}
        self.keys: dict[tuple[str, str], Key] = {}
        self.dead: list[StartedTurn] = []

    def do(self, coroutine: Any) -> Any:
        """The result, or the error that the store refused with."""
        try:
            return type(self).runner.run(coroutine)
        except (ApiError, LeaseLost) as error:
            return error

    def name(self, owner: str) -> str:
        return f"{self.prefix}{owner}"

    # ---- asking ---------------------------------------------------------------------------------

    @rule(owner=OWNERS, chat_id=CHATS, question=WORDS, key=KEYS)
    def ask(self, owner: str, chat_id: str, question: str, key: str | None) -> None:
        self._begin(owner, chat_id, question, key)

    @rule(owner=OWNERS, chat_id=CHATS, key=KEYS)
    def ask_again(self, owner: str, chat_id: str, key: str | None) -> None:
        self._begin(owner, chat_id, None, key)

    @rule(owner=OWNERS, chat_id=CHATS, question=WORDS | st.none(), key=KEYS, ending=ENDINGS)
    def ask_and_end(
        self,
        owner: str,
        chat_id: str,
        question: str | None,
        key: str | None,
        ending: tuple[Status, str | None],
    ) -> None:
        chat = self.chats.get((owner, chat_id))
        if chat is None or chat.running is None:
            self._begin(owner, chat_id, question, key)
        chat = self.chats.get((owner, chat_id))
        if chat is not None and chat.running is not None:
            self._end(owner, chat_id, *ending)

    def _begin(self, owner: str, chat_id: str, question: str | None, key: str | None) -> None:
        once = Once(key, f"{chat_id}|{question}") if key else None
        more: dict[str, Any] = {"request_id": "r", "max_past": 100, "once": once}
        if question is None:
            got = self.do(self.store.begin_again(self.name(owner), chat_id, **more))
        else:
            got = self.do(
                self.store.begin_turn(
                    self.name(owner), chat_id, user_prompt=question, system_prompt=None, **more
                )
            )
        known = self.keys.get((owner, key)) if key else None
        expected = self._expected(owner, chat_id, question, once, known)
        if isinstance(expected, StoredAnswer):
            assert got == expected
            return
        if isinstance(expected, type):
            assert isinstance(got, expected), (got, expected)
            return
        assert isinstance(got, StartedTurn), got
        chat = self.chats.setdefault((owner, chat_id), Chat())
        earlier: Asked | None = expected
        text = question if question is not None else earlier.question if earlier else ""
        past = [t for t in chat.turns if t.status == Status.COMPLETE and t is not earlier]
        assert [(p.user_prompt, p.response) for p in got.past] == [
            (t.question, t.response) for t in past
        ]
        assert (got.position, got.user_prompt) == (len(chat.turns), text)
        assert got.replaces == (earlier.position if earlier else None)
        chat.turns.append(Asked(got.position, text, got.replaces))
        chat.running = got
        chat.old = False
        if once is not None:
            self.keys[owner, once.key] = Key(once.fingerprint, chat_id, got.position)

    def _expected(
        self, owner: str, chat_id: str, question: str | None, once: Once | None, known: Key | None
    ) -> Any:
        """An error's class, a stored answer, or the attempt that the new turn replaces."""
        chat = self.chats.get((owner, chat_id))
        positions: tuple[int | None, ...] = ()
        if known is not None and once is not None:
            if known.fingerprint != once.fingerprint:
                return IdempotencyKeyReused
            assert chat is not None
            turn = chat.turns[known.position]
            if known.answered:
                return StoredAnswer(chat_id, turn.response or "", "{}")
            if chat.running is not None and chat.running.position == known.position:
                return IdempotencyKeyInUse
            positions = (turn.position, turn.replaces)
        if question is None and chat is None:
            return ChatNotFound
        if chat is not None and chat.running is not None:
            return ChatBusy
        standing = chat.standing if chat else []
        if question is not None:
            return next((turn for turn in standing if turn.position in positions), None)
        if not standing:
            return ChatHasNoTurns
        if positions and standing[-1].position not in positions:
            return ChatMovedOn
        return standing[-1]

    # ---- answering ------------------------------------------------------------------------------

    @precondition(lambda self: any(chat.running for chat in self.chats.values()))
    @rule(data=st.data(), ending=ENDINGS)
    def end(self, data: st.DataObject, ending: tuple[Status, str | None]) -> None:
        running = [at for at, chat in self.chats.items() if chat.running]
        self._end(*data.draw(st.sampled_from(running)), *ending)

    def _end(self, owner: str, chat_id: str, status: Status, text: str | None) -> None:
        chat = self.chats[owner, chat_id]
        assert chat.running is not None
        ended = self.store.end_turn(chat.running, TurnOutcome(status=status, response=text))
        assert self.do(ended) is None
        turn = chat.turns[chat.running.position]
        turn.status, turn.response = status, text
        chat.running = None
        chat.old = False
        if turn.replaces is not None:
            earlier = chat.turns[turn.replaces]
            incomplete = earlier.status != Status.COMPLETE
            if status == Status.COMPLETE or (incomplete and (text or not earlier.response)):
                earlier.status = Status.REPLACED
                for key in self._keys_of(owner, chat_id, earlier.position):
                    key.position = turn.position
            else:
                turn.status = Status.REPLACED
        if status == Status.COMPLETE:
            for key in self._keys_of(owner, chat_id, turn.position):
                key.answered = True

    def _keys_of(self, owner: str, chat_id: str, position: int) -> list[Key]:
        return [
            key
            for (of, _), key in self.keys.items()
            if (of, key.chat_id, key.position, key.answered) == (owner, chat_id, position, False)
        ]

    @precondition(lambda self: self.dead)
    @rule()
    def a_late_answer_is_refused(self) -> None:
        got = self.do(
            self.store.end_turn(self.dead.pop(), TurnOutcome(status=Status.COMPLETE, response="no"))
        )
        assert isinstance(got, LeaseLost), got

    @rule()
    def crash(self) -> None:
        """The process dies; its leases run out; another one starts, and a lease passes."""
        old = self.store

        async def lives_on() -> SqlStore:
            expired = update(LeaseRow).where(LeaseRow.holder == old._holder).values(expires_ms=0)
            await old._run("test", lambda connection: connection.execute(expired), writes=True)
            old._held.clear()
            await old.close()
            new = await opened(self.url)
            new._sweeps_from = 0.0
            await new._renew()
            return new

        type(self).store = self.do(lives_on())
        for chat in self.chats.values():
            if chat.running is not None:
                turn = chat.turns[chat.running.position]
                turn.status = Status.INTERRUPTED if turn.replaces is None else Status.REPLACED
                self.dead.append(chat.running)
                chat.running = None

    # ---- keeping --------------------------------------------------------------------------------

    @rule(owner=OWNERS, chat_id=CHATS, title=WORDS)
    def rename(self, owner: str, chat_id: str, title: str) -> None:
        got = self.do(self.store.rename_chat(self.name(owner), chat_id, title))
        chat = self.chats.get((owner, chat_id))
        assert (got is None) == (chat is None)
        if chat is not None:
            chat.title = title

    @rule(owner=OWNERS, chat_id=CHATS, new_id=CHATS, before=st.integers(0, 5))
    def branch(self, owner: str, chat_id: str, new_id: str, before: int) -> None:
        got = self.do(self.store.branch_chat(self.name(owner), chat_id, before, new_id))
        chat = self.chats.get((owner, chat_id))
        if chat is None:
            assert isinstance(got, ChatNotFound), got
        elif before > len(chat.turns):
            assert isinstance(got, OutOfRange), got
        elif (owner, new_id) in self.chats:
            assert isinstance(got, ChatExists), got
        else:
            kept = [t for t in chat.turns[:before] if t.status == Status.COMPLETE]
            copies = [Asked(n, t.question, None, t.status, t.response) for n, t in enumerate(kept)]
            self.chats[owner, new_id] = Chat(chat.title, copies, None, (chat_id, before))

    @rule(owner=OWNERS, chat_id=CHATS)
    def delete(self, owner: str, chat_id: str) -> None:
        got = self.do(self.store.delete_chat(self.name(owner), chat_id))
        chat = self.chats.get((owner, chat_id))
        if chat is not None and chat.running is not None:
            assert isinstance(got, ChatBusy), got
            return
        assert got is (chat is not None)
        self.chats.pop((owner, chat_id), None)
        self.keys = {
            at: key for at, key in self.keys.items() if (at[0], key.chat_id) != (owner, chat_id)
        }

    @rule(owner=OWNERS, chat_id=CHATS)
    def grow_old(self, owner: str, chat_id: str) -> None:
        """Nobody has used the chat for a long time."""
        if (chat := self.chats.get((owner, chat_id))) is None:
            return
        aged = (
            update(ChatRow)
            .where(ChatRow.owner == self.name(owner), ChatRow.chat_id == chat_id)
            .values(updated_ms=1)
        )
        self.do(self.store.run("test", lambda connection: connection.execute(aged), writes=True))
        chat.old = True

    @rule()
    def retention(self) -> None:
        """What is old goes, but for what is being answered."""
        announced = self.do(self.store.purge(10, dry_run=True))
        assert self.do(self.store.purge(10)) == announced
        gone = {at for at, chat in self.chats.items() if chat.old and chat.running is None}
        assert announced.chats >= len(gone)
        self.chats = {at: chat for at, chat in self.chats.items() if at not in gone}
        self.keys = {at: key for at, key in self.keys.items() if (at[0], key.chat_id) not in gone}

    # ---- reading --------------------------------------------------------------------------------

    @rule(
        owner=OWNERS, search=st.sampled_from(["", "ÜBER", "%", "_", "GANZE", "half", "two lines"])
    )
    def find(self, owner: str, search: str) -> None:
        seen: list[str] = []
        places: list[tuple[int, str]] = []
        page = self.do(self.store.list_chats(self.name(owner), 1, None, search))
        while True:
            seen += [head.chat_id for head in page.chats]
            places += [(head.updated_ms, head.chat_id) for head in page.chats]
            if page.last is None:
                break
            page = self.do(self.store.list_chats(self.name(owner), 1, page.last, search))
        assert places == sorted(places, reverse=True)
        expected = [
            chat_id for (of, chat_id), chat in self.chats.items()
            if of == owner and self._has(chat, search)
        ]  # fmt: skip
        assert sorted(seen) == sorted(expected)

    @staticmethod
    def _has(chat: Chat, search: str) -> bool:
        texts = [chat.shown_title]
        texts += [
            f"{turn.question} {turn.response or ''}"
            for turn in chat.turns
            if turn.status != Status.REPLACED
        ]
        return any(fold(search) in fold(text) for text in texts)

    @invariant()
    def every_chat_is_as_the_model_says(self) -> None:
        for owner in ("a", ""):
            page = self.do(self.store.list_chats(self.name(owner), 50, None))
            mine = {at[1]: chat for at, chat in self.chats.items() if at[0] == owner}
            assert {head.chat_id for head in page.chats} == set(mine)
            for head in page.chats:
                chat = mine[head.chat_id]
                from_chat = head.branched_from
                assert (head.title, head.turns) == (
                    chat.shown_title,
                    len(chat.turns) - sum(not turn.stands for turn in chat.turns),
                )
                assert (
                    (from_chat.chat_id, from_chat.position) if from_chat else None
                ) == chat.branched_from
                for replaced in (False, True):
                    stored = self.do(
                        self.store.list_turns(
                            self.name(owner), head.chat_id, 100, -1, replaced=replaced
                        )
                    )
                    assert [
                        (t.position, t.status, t.user_prompt, t.response, t.replaces)
                        for t in stored.turns
                    ] == [
                        (t.position, t.status, t.question, t.response, t.replaces)
                        for t in (chat.turns if replaced else chat.standing)
                    ]


async def opened(url: str) -> SqlStore:
    store = SqlStore(url, Metrics(), lease_s=60, timeout_s=20, connections=2)
    await store.open()
    return store


@contextmanager
def machine_on(url: str) -> Iterator[type[Machine]]:
    with asyncio.Runner() as runner:
        made = type(
            "Machine", (Machine,), {"url": url, "runner": runner, "store": runner.run(opened(url))}
        )
        try:
            yield made
        finally:
            runner.run(made.store.close())


def test_the_store_does_what_the_model_does(database_url: str) -> None:
    with machine_on(database_url) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=int(os.environ.get("HISTORY_EXAMPLES", "20")),
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                print_blob=True,
            ),
        )
