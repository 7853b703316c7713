"""A server that is killed between a question and its answer, and the client that asks again."""

import asyncio
import json
import random
import signal
from dataclasses import dataclass

import httpx
import pytest

from tests.api.conftest import eventually
from tests.api.processes import process
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio
# The chat of a killed server is free after this long where others share the database.
LEASE = {"API_LEASE_S": "1"}
BODY = {"chat_id": "1", "user_prompt": "q"}
KEY = {"Idempotency-Key": "k"}


async def ask_until_answered(
    client: httpx.AsyncClient, key: str, body: dict[str, object]
) -> httpx.Response:
    while True:
        answer = await client.post("/chat", json=body, headers={"Idempotency-Key": key})
        if answer.status_code != 409:
            return answer
        await asyncio.sleep(0.05)


async def turns(client: httpx.AsyncClient, chat_id: str = "1") -> list[tuple[str, str, str | None]]:
    items = (await client.get(f"/chats/{chat_id}")).json()["items"]
    return [(turn["user_prompt"], turn["status"], turn["response"]) for turn in items]


async def test_killed_before_the_answer_it_is_made_anew(host: StubHost, database_url: str) -> None:
    host.faults = [holds(asyncio.Event())]
    async with process(host.url, database_url, **LEASE) as api:
        asking = asyncio.create_task(api.client.post("/chat", json=BODY, headers=KEY))
        await eventually(lambda: host.running == 1)
        api.signal(signal.SIGKILL)
        await asyncio.gather(asking, return_exceptions=True)
        await api.exit_code()
    async with process(host.url, database_url, **LEASE) as api:
        answer = await ask_until_answered(api.client, "k", BODY)
        assert answer.json() == {"chat_id": "1", "response": "echo: q"}
        assert "idempotent-replayed" not in answer.headers
        assert await turns(api.client) == [("q", "complete", "echo: q")]
    assert len(host.generated) == 2


async def test_killed_after_the_answer_was_stored_it_is_told_again(
    host: StubHost, database_url: str
) -> None:
    async with process(host.url, database_url, **LEASE) as api:
        url = httpx.URL(api.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        content = json.dumps(BODY).encode()
        head = f"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\nIdempotency-Key: k\r\n\r\n"
        writer.write(head.encode() + content)  # and never reads what comes back

        async def stored() -> bool:
            view = await api.client.get("/chats/1")
            return view.status_code == 200 and view.json()["items"][0]["status"] == "complete"

        await eventually(stored)
        api.signal(signal.SIGKILL)
        await api.exit_code()
        writer.close()
    async with process(host.url, database_url, **LEASE) as api:
        answer = await ask_until_answered(api.client, "k", BODY)
        assert answer.json() == {"chat_id": "1", "response": "echo: q"}
        assert answer.headers["idempotent-replayed"] == "true"
        assert await turns(api.client) == [("q", "complete", "echo: q")]
    assert len(host.generated) == 1


@dataclass
class Client:
    """Asks one question after the other in its chat, each until it is answered."""

    chat_id: str
    answered: list[str]
    number: int = 0

    async def run(self, client: httpx.AsyncClient, *, only_the_open_one: bool = False) -> None:
        while True:
            question = f"{self.chat_id}-{self.number}"
            body = {"chat_id": self.chat_id, "user_prompt": question}
            answer = await ask_until_answered(
                client, question, body | {"stream": self.number % 2 == 1}
            )
            if f"echo: {question}" in answer.text:
                self.answered.append(question)
                self.number += 1
                if only_the_open_one:
                    return


async def test_whenever_it_is_killed_each_key_has_one_turn_and_one_answer(
    host: StubHost, database_url: str
) -> None:
    answered: list[str] = []
    clients = [Client(f"c{name}", answered) for name in range(4)]
    for _ in range(4):
        async with process(host.url, database_url, **LEASE) as api:
            running = [asyncio.create_task(client.run(api.client)) for client in clients]
            enough = len(answered) + random.randint(4, 12)
            await eventually(lambda enough=enough: len(answered) > enough, 20)
            api.signal(signal.SIGKILL)
            await asyncio.gather(*running, return_exceptions=True)
            await api.exit_code()
    async with process(host.url, database_url, **LEASE) as api:
        for client in clients:
            await client.run(api.client, only_the_open_one=True)
        stored = [turn for client in clients for turn in await turns(api.client, client.chat_id)]
    # In order, each once, each with its own answer.
    assert [question for question, _, _ in stored] == [
        f"{client.chat_id}-{number}" for client in clients for number in range(client.number)
    ]
    assert {status for _, status, _ in stored} == {"complete"}
    assert all(response == f"echo: {question}" for question, _, response in stored)
    assert len(stored) == len(answered) >= 20
