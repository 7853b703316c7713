"""Servers for the browser: a stub model host behind the real API server, in a thread of its own,
and the two real servers as `make run` starts them.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.api.conftest import Api, serving_api, serving_host
from tests.api.stub_host import Fault, StubHost, Wire, encoded, pieces
from tests.page.chat_page import ChatPage
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Site:
    """A stub host and an API server; the test's thread is not theirs."""

    url: str
    host: StubHost
    api: Api
    portal: BlockingPortal

    def settle(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        """Wait until something is so on the servers' side."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.01)

    def say(self, event: asyncio.Event) -> None:
        """On the servers' event loop."""
        self.portal.call(event.set)

    def ask(self, chat_id: str, question: str) -> None:
        answer = self.portal.call(lambda: self.api.chat(chat_id=chat_id, user_prompt=question))
        assert answer.status_code == 200, answer.text

    def turns(self, chat: ChatPage) -> list[dict[str, Any]]:
        """What the server keeps of the chat that the page shows."""
        return self.portal.call(self.api.turns, chat.page.url.split("#/chat/")[1])


@contextmanager
def stub_site(folder: Path, **settings: Any) -> Iterator[Site]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving_host()) as host,
        portal.wrap_async_context_manager(serving_api(host, folder, **settings)) as api,
    ):
        yield Site(api.url, host, api, portal)


class Cable:
    """What lies between a browser and a server: it can be cut, and mended."""

    def __init__(self, portal: BlockingPortal, url: str) -> None:
        self._portal = portal
        self._far = urlsplit(url)
        self._near = free_port()
        self._lines: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = f"http://127.0.0.1:{self._near}"

    def mend(self) -> None:
        self._portal.call(self._listen)

    def cut(self) -> None:
        """Every connection breaks, and none can be made."""
        self._portal.call(self._break)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self._near)

    async def _break(self) -> None:
        assert self._server
        self._server.close()
        for line in self._lines:
            line.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lines.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._far.hostname, self._far.port
        far_reader, far_writer = await asyncio.open_connection(host, port)
        self._lines |= {writer, far_writer}
        for one, other in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def cable(site: Site) -> Iterator[Cable]:
    made = Cable(site.portal, site.url)
    made.mend()
    try:
        yield made
    finally:
        made.cut()


@contextmanager
def real_site(folder: Path) -> Iterator[str]:
    """Both servers with the bundled demo model, by the script behind `make run`."""
    port = free_port()
    database = f"sqlite:///{folder / 'chats.db'}"
    log = folder / "run.log"
    with log.open("wb") as output:
        ports = ["--api-port", str(port), "--model-port", str(free_port())]
        process = subprocess.Popen(
            [sys.executable, "scripts/run.py", *ports],
            cwd=ROOT,
            env={**os.environ, "API_DATABASE_URL": database, "MODEL": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while "Ctrl-C ends both." not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content


# ---- what the stub host does with one question ------------------------------------------------


async def _begin(wire: Wire) -> None:
    await wire.start(200, "text/event-stream")


async def _deltas(wire: Wire, text: str, gap_s: float) -> None:
    for piece in pieces(text):
        delta = {"chat_id": wire.seen.body["chat_id"], "delta": piece}
        await wire.body(encoded({"event": "message", "data": delta}), more=True)
        await asyncio.sleep(gap_s)


async def _final(wire: Wire, text: str, reason: str = "stop") -> None:
    used = len(text.split())
    final = {
        "chat_id": wire.seen.body["chat_id"],
        "response": text,
        "finish_reason": reason,
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": used,
            "total_tokens": used + 9,
            "cached_tokens": 0,
        },
        "timing": {"queue_ms": 0.1, "prefill_ms": 4.0, "decode_ms": used * 20.0, "batch_size": 1},
    }
    await wire.body(encoded({"event": "message", "data": final}), more=True)
    await wire.body(b"data: [DONE]\n\n")


def answers(text: str, gap_s: float = 0.0, reason: str = "stop") -> Fault:
    """A whole answer, streamed or not as it was asked for."""

    async def fault(wire: Wire) -> None:
        if not wire.seen.body.get("stream"):
            body = {"chat_id": wire.seen.body["chat_id"], "response": text}
            await wire.json(200, body | {"finish_reason": reason, "usage": None, "timing": None})
            return
        await _begin(wire)
        await _deltas(wire, text, gap_s)
        await _final(wire, text, reason)

    return fault


def in_two_parts(first: str, second: str, release: asyncio.Event) -> Fault:
    """The rest comes when the test says so."""

    async def fault(wire: Wire) -> None:
        await _begin(wire)
        await _deltas(wire, first, 0)
        await release.wait()
        await _deltas(wire, f" {second}", 0)
        await _final(wire, f"{first} {second}")

    return fault


def never_ends(text: str) -> Fault:
    """Streams the text, then is silent."""

    async def fault(wire: Wire) -> None:
        await _begin(wire)
        await _deltas(wire, text, 0)
        await asyncio.sleep(600)

    return fault


def breaks_off(text: str) -> Fault:
    """Streams the text, then ends without an ending."""

    async def fault(wire: Wire) -> None:
        await _begin(wire)
        await _deltas(wire, text, 0)
        await wire.body(b"")

    return fault
