"""The load: plain connections that ask again as soon as they are answered, or when it is due.

Reads of an answer only what is measured: its status, when its body began, how many events came
and when it ended. That costs a tenth of what a client library does, so one core drives a server on
another. Knows no server. Seconds on `time.perf_counter`.
"""

import asyncio
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from bench.metrics import percentile

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)
_END = b"0\r\n\r\n"
_EVENT = b"data: "
_PATIENCE_S = 30.0
"""After the last request left; what has not been answered by then counts as failed."""
Make = Callable[[], bytes]


@dataclass(slots=True)
class Answer:
    due: float
    sent: float = 0.0
    first: float = 0.0
    """When the body's first byte came."""
    ended: float = 0.0
    status: int = 0
    events: int = 0
    gaps: list[float] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class Tally:
    """What came of a load. Rates are of what ended while it lasted."""

    seconds: float
    answers: list[Answer]
    cut_at: float

    @property
    def good(self) -> list[Answer]:
        return [one for one in self.answers if not one.error and one.status == 200]

    @property
    def per_second(self) -> float:
        return sum(one.ended <= self.cut_at for one in self.good) / self.seconds

    @property
    def events(self) -> int:
        return sum(one.events for one in self.good)

    def failures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self.answers:
            if one.error or one.status != 200:
                name = one.error or f"status {one.status}"
                found[name] = found.get(name, 0) + 1
        return found

    def spread_ms(self, of: Callable[[Answer], float]) -> dict[str, float]:
        """Empty where nothing was answered: zeros would look like the quickest of servers."""
        values = [1000 * of(one) for one in self.good]
        if not values:
            return {}
        return {f"p{share}_ms": percentile(values, share) for share in (50, 90, 99)}


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, *, note_gaps: bool = False) -> None:
        self._note_gaps = note_gaps
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._done: Callable[[Connection, Answer], None] | None = None
        self._head = b""
        self._tail = b""
        self._left = -1
        self._at = 0.0
        self.alive = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._answer is not None:
            self._answer.error = f"connection lost: {exc}" if exc else "connection closed"
            self._end()

    def ask(
        self,
        request: bytes,
        done: Callable[["Connection", Answer], None],
        due: float | None = None,
    ) -> None:
        assert self._answer is None
        assert self._transport is not None
        now = time.perf_counter()
        self._answer = Answer(now if due is None else due, sent=now)
        self._done = done
        self._head, self._tail, self._left = b"", b"", -1
        self._transport.write(request)

    @property
    def began(self) -> bool:
        """The answer has."""
        return self._answer is not None and self._answer.first > 0

    def close(self) -> None:
        self._done = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        now = time.perf_counter()
        if not answer.status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end], self._head[end + 4 :]
            answer.status = int(head[9:12])
            length = _LENGTH.search(head)
            if length:
                self._left = int(length[1])
            elif not _CHUNKED.search(head):
                self._left = 0
        if data and not answer.first:
            answer.first = now
        elif data and self._note_gaps:
            answer.gaps.append(now - self._at)
        self._at = now
        self._take(answer, data, now)

    def _take(self, answer: Answer, data: bytes, now: float) -> None:
        if self._left >= 0:
            self._left -= len(data)
            over = self._left <= 0
        else:
            joined = self._tail + data
            # What an event's name begins in the last bytes is counted when the rest is there.
            answer.events += joined.count(_EVENT)
            self._tail = joined[-(len(_EVENT) - 1) :]
            over = self._tail.endswith(_END)
        if over:
            answer.ended = now
            self._end()

    def _end(self) -> None:
        answer, done, self._answer = self._answer, self._done, None
        assert answer is not None
        if done is not None:
            done(self, answer)


class Load:
    """Some connections, to each address in turn."""

    def __init__(self, *addresses: str, patience_s: float = _PATIENCE_S) -> None:
        parts = map(urlsplit, addresses)
        self._patience_s = patience_s
        self._addresses = itertools.cycle([(one.hostname or "", one.port or 80) for one in parts])

    async def connect(self, *, note_gaps: bool = False) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = next(self._addresses)
        _, made = await loop.create_connection(lambda: Connection(note_gaps=note_gaps), host, port)
        return made

    @asynccontextmanager
    async def connections(
        self, count: int, *, note_gaps: bool = False
    ) -> AsyncIterator[list[Connection]]:
        made = [await self.connect(note_gaps=note_gaps) for _ in range(count)]
        try:
            yield made
        finally:
            for one in made:
                one.close()

    async def closed(
        self, make: Make, connections: int, seconds: float, *, note_gaps: bool = False
    ) -> Tally:
        """Each connection asks again when it is answered, until the time is up."""
        return await self._repeat(make, connections, seconds, None, note_gaps=note_gaps)

    async def many(self, make: Make, connections: int, requests: int) -> Tally:
        """The same until so many were asked."""
        return await self._repeat(make, connections, 3600.0, requests, note_gaps=False)

    async def _repeat(
        self, make: Make, connections: int, seconds: float, most: int | None, *, note_gaps: bool
    ) -> Tally:
        answers: list[Answer] = []
        idle = asyncio.Event()
        async with self.connections(connections, note_gaps=note_gaps) as made:
            begun = time.perf_counter()
            until = begun + seconds
            running = len(made)
            asked = 0

            def go_on(connection: Connection) -> None:
                nonlocal running, asked
                over = time.perf_counter() >= until or (most is not None and asked >= most)
                if over or not connection.alive:
                    running -= 1
                    if not running:
                        idle.set()
                    return
                asked += 1
                connection.ask(make(), ended)

            def ended(connection: Connection, answer: Answer) -> None:
                answers.append(answer)
                go_on(connection)

            for connection in made:
                go_on(connection)
            await _wait(idle, seconds + self._patience_s)
            # Whoever still runs has asked and waits.
            lost = _unanswered(running)
        took = seconds if most is None else time.perf_counter() - begun
        return Tally(took, [*answers, *lost], begun + took)

    async def open(self, make: Make, rate: float, seconds: float, seed: int = 0) -> Tally:
        """Requests leave when they are due, answered or not: Poisson, the same times for a seed."""
        answers: list[Answer] = []
        idle: list[Connection] = []
        running = 0
        quiet = asyncio.Event()

        def ended(connection: Connection, answer: Answer) -> None:
            nonlocal running
            running -= 1
            answers.append(answer)
            if connection.alive:
                idle.append(connection)
            if not running:
                quiet.set()

        async with self.connections(min(256, max(8, int(rate / 10)))) as made:
            idle.extend(made)
            begun = time.perf_counter() + 0.05
            for at in _times(rate, seconds, seed):
                # A millisecond late at most. With a loop that spins it would be on time, and the
                # stub beside it would not.
                await asyncio.sleep(begun + at - time.perf_counter())
                connection = idle.pop() if idle else await self.connect()
                if connection not in made:
                    made.append(connection)
                running += 1
                quiet.clear()
                connection.ask(make(), ended, begun + at)
            await _wait(quiet, self._patience_s)
            lost = _unanswered(running)
        return Tally(seconds, [*answers, *lost], begun + seconds + self._patience_s)


def _unanswered(count: int) -> list[Answer]:
    return [Answer(0.0, error="no answer") for _ in range(count)]


def _times(rate: float, seconds: float, seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    now = rng.expovariate(rate)
    while now < seconds:
        yield now
        now += rng.expovariate(rate)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def request(path: str, body: bytes, key: str = "", extra: Sequence[str] = ()) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {key}"] if key else []),
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
