"""The process: start, signals, exit codes, what it logs, and what survives `kill -9`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.api.conftest import eventually
from tests.api.processes import ROOT, Process, process
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio
CANARY = "canary-5d1e"


class StartProcess(Protocol):
    async def __call__(self, *flags: str, **environ: str) -> Process: ...


@pytest.fixture
async def start(host: StubHost, tmp_path: Path) -> AsyncIterator[StartProcess]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(*flags: str, **environ: str) -> Process:
            database = f"sqlite:///{tmp_path}/chats.db"
            return await stack.enter_async_context(process(host.url, database, *flags, **environ))

        yield make


async def test_sigterm_lets_running_requests_end_and_exits_0(
    start: StartProcess, host: StubHost
) -> None:
    api = await start()
    host.delay_s = 1.5
    host.gap_s = 0.1
    asking = asyncio.create_task(api.client.post("/chat", json={"user_prompt": "whole"}))
    body = {"user_prompt": "in pieces", "stream": True}
    streaming = asyncio.create_task(api.client.post("/chat", json=body))
    await eventually(lambda: host.running == 2)
    api.signal(signal.SIGTERM)

    async def draining() -> bool:
        return (await api.client.get("/readyz")).status_code == 503

    await eventually(draining, 1.5)
    assert (await api.client.get("/livez")).status_code == 200
    assert (await asking).json()["response"] == "echo: whole"
    assert (await streaming).text.endswith("data: [DONE]\n\n")
    assert await api.exit_code() == 0
    assert "Traceback" not in api.log


async def test_an_idle_connection_is_kept_as_long_as_it_is_set(start: StartProcess) -> None:
    api = await start(API_CLIENT_KEEPALIVE_S="1")
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(api.url).port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    answered = time.monotonic()
    async with asyncio.timeout(20):
        await reader.read()  # until the server ends it
    assert time.monotonic() - answered > 0.5
    writer.close()


async def test_a_drain_that_runs_out_ends_streams_with_an_error_event(
    start: StartProcess, host: StubHost, tmp_path: Path
) -> None:
    api = await start("--drain-timeout-s", "0.5")
    host.gap_s = 30
    body = {"chat_id": "1", "user_prompt": "a b c", "stream": True}
    streaming = asyncio.create_task(api.client.post("/chat", json=body))
    await eventually(lambda: host.running == 1)
    await asyncio.sleep(0.2)
    api.signal(signal.SIGTERM)
    text = (await streaming).text
    assert "event: error" in text
    assert json.loads(text.split("data: ")[-1])["error"]["code"] == "draining"
    assert await api.exit_code() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "chats.db")) as database:
        row = database.execute("SELECT status, response FROM turns").fetchone()
    assert row == ("interrupted", "echo:")


async def test_ctrl_c_ends_without_a_traceback(start: StartProcess) -> None:
    api = await start()
    api.signal(signal.SIGINT)
    assert await api.exit_code() == 0
    assert "Traceback" not in api.log


async def test_kill_9_loses_no_acknowledged_turn(
    start: StartProcess, host: StubHost, tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    for kill in range(3):
        api = await start()
        host.delay_s = 0.0

        async def ask(chat: int, api: Process = api, kill: int = kill) -> None:
            for number in range(1000):
                text = f"{kill}-{chat}-{number}"
                body = {"chat_id": str(chat), "user_prompt": text, "stream": bool(number % 2)}
                answer = await api.client.post("/chat", json=body)
                if answer.status_code == 200 and f"echo: {text}" in answer.text:
                    acknowledged.append(text)

        clients = [asyncio.create_task(ask(chat)) for chat in range(4)]
        seen = len(acknowledged)
        await eventually(lambda seen=seen: len(acknowledged) > seen + 8, 20)
        api.signal(signal.SIGKILL)
        await asyncio.gather(*clients, return_exceptions=True)
        await api.exit_code()
    api = await start()
    host.delay_s = 0.0
    stored: dict[str, str] = {}
    for chat in range(4):
        items = (await api.client.get(f"/chats/{chat}")).json()["items"]
        assert {turn["status"] for turn in items} <= {"complete", "interrupted", "failed"}
        assert [turn["position"] for turn in items] == list(range(len(items)))
        stored |= {turn["user_prompt"]: turn["response"] for turn in items if turn["response"]}
        body = {"chat_id": str(chat), "user_prompt": "after", "details": True}
        answer = (await api.client.post("/chat", json=body)).json()
        assert answer["response"] == "echo: after"
    assert [text for text in acknowledged if stored.get(text) != f"echo: {text}"] == []
    with contextlib.closing(sqlite3.connect(tmp_path / "chats.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_kill_9_in_the_middle_of_an_answer_leaves_an_interrupted_turn(
    start: StartProcess, host: StubHost
) -> None:
    api = await start()
    host.delay_s = 30
    asking = asyncio.create_task(
        api.client.post("/chat", json={"chat_id": "1", "user_prompt": "q"})
    )
    await eventually(lambda: host.running == 1)
    api.signal(signal.SIGKILL)
    await asyncio.gather(asking, return_exceptions=True)
    await api.exit_code()
    await eventually(lambda: host.running == 0)
    host.delay_s = 0
    again = await start()
    view = await again.client.get("/chats/1")
    assert view.status_code == 200, view.text
    items = view.json()["items"]
    assert [turn["status"] for turn in items] == ["interrupted"]
    answer = await again.client.post("/chat", json={"chat_id": "1", "user_prompt": "next"})
    assert answer.status_code == 200


async def test_the_log_is_json_without_what_people_said(
    start: StartProcess, host: StubHost
) -> None:
    api = await start("--log-level", "debug")
    body: dict[str, Any] = {
        "chat_id": CANARY, "user_prompt": CANARY, "system_prompt": CANARY, "stop": [CANARY]
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {CANARY}"}
    for more in ({}, {"stream": True}, {"temperature": 9}, {CANARY: 1}):
        await api.client.post(f"/chat?key={CANARY}", json=body | more, headers=headers)
    await api.client.get(f"/chats/{CANARY}?cursor={CANARY}")
    await api.client.get(f"/nothing/{CANARY}%0A{CANARY}")
    metrics = (await api.client.get("/metrics")).text
    api.signal(signal.SIGTERM)
    assert await api.exit_code() == 0
    records = [json.loads(line) for line in api.lines]
    assert CANARY not in api.log
    assert CANARY not in metrics
    access = [record for record in records if record["message"] == "request"]
    assert {record["route"] for record in access} >= {"/chat", "/chats/{chat_id}", "unmatched"}
    assert all(len(json.dumps(record)) < 2048 for record in records)


async def test_no_key_reaches_the_log_the_answers_or_the_metrics(start: StartProcess) -> None:
    admin = "admin-canary-9f3c-0123456789-0123456789"
    api = await start("--log-level", "debug", API_AUTH="on", API_ADMIN_KEY=admin)
    headers = {"Authorization": f"Bearer {admin}"}
    body = {"tenant": "tenant-canary-9f3c"}
    made = (await api.client.post("/admin/keys", json=body, headers=headers)).json()
    secret = made["key"].split("_")[2]
    wrong = made["key"][:-1] + "!"
    answers = [
        await api.client.request(method, path, json=content, headers={"Authorization": given})
        for given in (f"Bearer {made['key']}", f"Bearer {wrong}", f"Basic {secret}", secret)
        for method, path, content in (
            ("POST", "/chat", {"user_prompt": "q"}),
            ("POST", "/chat", {"user_prompt": 1}),
            ("GET", f"/chats/x?api_key={secret}", None),
            ("GET", "/metrics", None),
            ("POST", "/v1/chat/completions", {"model": "m", "messages": []}),
        )
    ]
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 403}
    metrics = (await api.client.get("/metrics", headers=headers)).text
    api.signal(signal.SIGTERM)
    assert await api.exit_code() == 0
    said = [api.log, metrics, *(answer.text + str(answer.headers) for answer in answers)]
    for text in said:
        assert secret not in text
        assert "canary-9f3c" not in text
    assert made["key_id"] in api.log


async def run(*flags: str, **environ: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", *flags, cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environ, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, error.decode()


async def test_a_taken_port_is_one_line_and_exit_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        database = f"sqlite:///{tmp_path}/chats.db"
        code, text = await run(API_PORT=port, API_DATABASE_URL=database)
    assert code == 1
    assert len(text.strip().splitlines()) == 1
    assert port in text
    assert "API_PORT" in text


async def test_a_database_that_cannot_be_opened_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "chats.db").write_bytes(b"no database" * 500)
    database = f"sqlite:///{tmp_path}/chats.db"
    code, text = await run("--port", "0", "--database-url", database)
    assert code == 1
    assert len(text.strip().splitlines()) == 1
    assert "chats.db" in text


async def test_a_wrong_setting_is_one_line_and_exit_1() -> None:
    code, text = await run(API_PORT="many")
    assert (code, text) == (1, "api: API_PORT: want a whole number\n")
