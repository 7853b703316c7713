"""Twenty clients over ten chats and two servers on one PostgreSQL database, one of which is killed
again and again: nothing that was acknowledged is lost, doubled or out of order.

HISTORY_RACE_TURNS=500 has each client answered so many times, however long that takes; `-s` prints
what was seen.
"""

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.api.conftest import eventually
from tests.api.processes import Process, process
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio
TURNS = int(os.environ.get("HISTORY_RACE_TURNS", "0"))
SECONDS = 3000.0 if TURNS else 12.0
CLIENTS, CHATS = 20, 10
LEAST_KILLS, LEAST_ANSWERS = 2, 50
LONGEST_S = 120.0
"""Beyond `SECONDS`."""


@dataclass
class Record:
    """What the clients know: a turn is acknowledged, or its outcome is unknown to them."""

    servers: list[Process]
    until: float
    clock: "itertools.count[int]" = field(default_factory=itertools.count)
    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)

    def is_over(self) -> bool:
        """On a slow machine a server takes long to start, and what is shown needs some of both."""
        late = time.monotonic() - self.until
        return late > LONGEST_S or (
            late > 0 and self.kills >= LEAST_KILLS and len(self.acknowledged) > LEAST_ANSWERS
        )


async def ask_on_and_on(record: Record, name: int) -> None:
    for number in itertools.count():
        if record.is_over() or (TURNS and record.answered[name] >= TURNS):
            return
        question = f"q{name}x{number}"
        body = {"chat_id": f"c{name % CHATS}", "user_prompt": question, "stream": number % 3 == 0}
        # Every second question is asked again with its key until the outcome is known.
        headers = {"Idempotency-Key": question} if number % 2 else {}
        began = next(record.clock)
        while True:
            server = random.choice(record.servers)
            try:
                answer = await server.client.post("/chat", json=body, headers=headers)
            except httpx.TransportError:
                record.unknown.add(question)
            else:
                if f"echo: {question}" in answer.text and answer.text.rstrip().endswith(
                    ("}", "[DONE]")
                ):
                    record.acknowledged[question] = (began, next(record.clock))
                    record.answered[name] += 1
                    break
                if answer.status_code == 200:
                    record.wrong.append(answer.text)
                record.refused += 1
                if not headers and answer.status_code != 409:
                    break
            if not headers and question in record.unknown:
                break
            await asyncio.sleep(random.uniform(0.0, 0.03))


@pytest.mark.timeout(3600)
async def test_nothing_acknowledged_is_lost_doubled_or_out_of_order(
    host: StubHost, postgres_url: str
) -> None:
    async with AsyncExitStack() as stack:
        start = {"API_LEASE_S": "1", "API_DATABASE_CONNECTIONS": "4"}
        servers = [
            await stack.enter_async_context(process(host.url, postgres_url, **start))
            for _ in range(2)
        ]
        record = Record(servers, time.monotonic() + SECONDS)
        clients = [asyncio.create_task(ask_on_and_on(record, name)) for name in range(CLIENTS)]
        while not all(client.done() for client in clients):
            await asyncio.wait(clients, timeout=random.uniform(0.3, 1.5))
            victim = random.randrange(2)
            servers[victim].signal(signal.SIGKILL)
            await servers[victim].exit_code()
            record.kills += 1
            servers[victim] = await stack.enter_async_context(
                process(host.url, postgres_url, **start)
            )
        await asyncio.gather(*clients)
        stored: dict[str, list[dict[str, Any]]] = {}

        async def settled() -> bool:
            """What a killed server left pending is interrupted once its lease has run out."""
            for chat in map("c{}".format, range(CHATS)):
                answer = await servers[0].client.get(f"/chats/{chat}/export")
                stored[chat] = answer.json()["items"]
            return all(turn["status"] != "pending" for items in stored.values() for turn in items)

        await eventually(settled, 30)
    assert record.wrong == []
    places: dict[str, int] = {}
    doubled = 0
    for items in stored.values():
        for place, turn in enumerate(items):
            assert turn["status"] in ("complete", "interrupted", "failed"), turn
            if turn["status"] == "complete":
                assert turn["response"] == f"echo: {turn['user_prompt']}"
                doubled += turn["user_prompt"] in places
                places[turn["user_prompt"]] = place
    lost = set(record.acknowledged) - set(places)
    invented = set(places) - set(record.acknowledged) - record.unknown
    reordered = (
        [
            (first, second)
            for chat in range(CHATS)
            for first, second in itertools.combinations(
                [q for q in record.acknowledged if int(q[1:].split("x")[0]) % CHATS == chat], 2
            )
            # Who was answered before the other one began to ask stands before it.
            for (early, late) in [
                (first, second) if ends(record, first, second) else (second, first)
            ]
            if ends(record, early, late) and places[early] > places[late]
        ]
        if not lost
        else []
    )
    print(  # noqa: T201  # the figures of a run by hand
        f"{len(record.acknowledged)} acknowledged, {len(record.unknown)} of unknown outcome, "
        f"{record.refused} refused, {record.kills} kills: {len(lost)} lost, {doubled} doubled, "
        f"{len(reordered)} reordered, {len(invented)} invented"
    )
    assert (lost, doubled, reordered, invented) == (set(), 0, [], set())
    assert record.kills >= LEAST_KILLS
    assert len(record.acknowledged) > (CLIENTS * TURNS - 1 if TURNS else LEAST_ANSWERS)


def ends(record: Record, first: str, second: str) -> bool:
    """Whether the first was answered before the second was asked."""
    return record.acknowledged[first][1] < record.acknowledged[second][0]
