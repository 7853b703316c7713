"""A stand-in model host on loopback: a real ASGI server that answers by the contract's fixtures,
with a settable pace and faults; and a raw socket server for what no HTTP server would do.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

CONTRACT = Path(__file__).resolve().parents[1] / "contract"
KNOWN = {
    "Capital of India?": "The capital of India is New Delhi.",
    "Capital of France?": "The capital of France is Paris.",
    "Capital of Japan?": "The capital of Japan is Tokyo.",
    "And of Japan?": "The capital of Japan is Tokyo.",
}


def cases(*names: str) -> list[dict[str, Any]]:
    return [case for name in names for case in json.loads((CONTRACT / f"{name}.json").read_text())]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    aborted: bool = False


@dataclass
class Wire:
    """One exchange, as a fault gets it."""

    seen: Seen
    send: Callable[[dict[str, Any]], Awaitable[None]]
    host: "StubHost"

    async def start(self, status: int, kind: str, headers: dict[str, str] | None = None) -> None:
        named = {"x-request-id": "stub", "x-served-by-model": "qna-demo"}
        values = {"content-type": kind} | named | (headers or {})
        pairs = [(key.encode(), value.encode()) for key, value in values.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def body(self, data: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        await self.start(status, "application/json", headers)
        await self.body(json.dumps(value).encode())


Fault = Callable[[Wire], Awaitable[None]]


def error(code: str, status: int, kind: str = "server_error", **extra: Any) -> dict[str, Any]:
    about = {"message": f"stub: {code}", "type": kind, "code": code, "param": None}
    return {"error": about | {"request_id": "stub"} | extra}


def refuse(status: int, code: str, retry_after: str | None = None, **extra: Any) -> Fault:
    async def fault(wire: Wire) -> None:
        headers = {"retry-after": retry_after} if retry_after else {}
        await wire.json(status, error(code, status, **extra), headers)

    return fault


def replay(answer: dict[str, Any]) -> Fault:
    """A fixture's answer, word for word."""

    async def fault(wire: Wire) -> None:
        samples = {
            "retry-after": "7",
            "server-timing": "queue;dur=0.4, prefill;dur=6.1, decode;dur=31.7",
            "x-finish-reason": "stop",
            "allow": "POST",
            "cache-control": "no-store",
        }
        headers = {key: samples[key] for key in answer["headers"] if key in samples}
        if "body" in answer:
            await wire.json(answer["status"], answer["body"], headers)
            return
        await wire.start(answer["status"], "text/event-stream", headers)
        for event in answer["events"]:
            await wire.body(encoded(event), more=True)
        await wire.body(b"")

    return fault


def holds(until: asyncio.Event) -> Fault:
    """The usual answer, when the test says so."""

    async def fault(wire: Wire) -> None:
        await until.wait()
        await wire.host.answer(wire)

    return fault


def encoded(event: dict[str, Any]) -> bytes:
    name = "" if event["event"] == "message" else f"event: {event['event']}\n"
    data = event["data"] if event["data"] == "[DONE]" else json.dumps(event["data"])
    return f"{name}data: {data}\n\n".encode()


@dataclass
class StubHost:
    """Answers /generate, OpenAI chat and models. `faults` are used up, one per request."""

    context: int = 1024
    delay_s: float = 0.0
    gap_s: float = 0.0
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault | None] = field(default_factory=list)
    always: Fault | None = None
    running: int = 0
    ready: bool = True

    @property
    def generated(self) -> list[Seen]:
        return [one for one in self.seen if one.method == "POST"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        raw = b""
        more = True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        seen = Seen(scope["method"], scope["path"], headers, json.loads(raw) if raw else None)
        self.seen.append(seen)
        work = asyncio.ensure_future(self._answer(Wire(seen, send, self)))
        gone = asyncio.ensure_future(receive())
        generating = seen.method == "POST"
        self.running += generating
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                seen.aborted = True
                work.cancel()
                await asyncio.wait({work})
        finally:
            self.running -= generating
            gone.cancel()
        if not work.cancelled():
            work.result()

    async def _answer(self, wire: Wire) -> None:
        if wire.seen.path == "/readyz":
            status = 200 if self.ready else 503
            await wire.json(status, {"status": "ready"} if self.ready else error("not_ready", 503))
            return
        if wire.seen.path == "/openai/v1/models":
            model = {"id": "qna-demo", "object": "model", "created": 1, "owned_by": "qna"}
            models = [model | {"max_model_len": self.context}]
            await wire.json(200, {"object": "list", "data": models})
            return
        fault = self.faults.pop(0) if self.faults else self.always
        if fault is not None:
            await fault(wire)
        else:
            await self.answer(wire)

    async def answer(self, wire: Wire) -> None:
        if wire.seen.path == "/generate":
            await self._generate(wire)
        else:
            await self._openai(wire)

    async def _generate(self, wire: Wire) -> None:
        body = wire.seen.body
        prompt = sum(len(message["content"].split()) + 3 for message in body["messages"])
        wanted = body.get("max_tokens", 1)
        if prompt + wanted > self.context:
            numbers = {"limit": self.context, "count": prompt + wanted, "param": "messages"}
            kind = "invalid_request_error"
            await wire.json(400, error("context_length_exceeded", 400, kind, **numbers))
            return
        await asyncio.sleep(self.delay_s)
        question = body["messages"][-1]["content"]
        text = KNOWN.get(question, f"echo: {question}")
        used = len(text.split())
        final = {
            "chat_id": body["chat_id"],
            "response": text,
            "finish_reason": "stop",
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": used,
                "total_tokens": prompt + used,
                "cached_tokens": 0,
            },
            "timing": {"queue_ms": 0.1, "prefill_ms": 1.0, "decode_ms": 2.0, "batch_size": 1},
        }
        if not body["stream"]:
            headers = {
                "server-timing": "queue;dur=0.1, prefill;dur=1.0, decode;dur=2.0",
                "x-finish-reason": "stop",
            }
            await wire.json(200, final, headers)
            return
        await wire.start(200, "text/event-stream")
        for piece in pieces(text):
            delta = {"chat_id": body["chat_id"], "delta": piece}
            await wire.body(encoded({"event": "message", "data": delta}), more=True)
            await asyncio.sleep(self.gap_s)
        await wire.body(encoded({"event": "message", "data": final}), more=True)
        await wire.body(b"data: [DONE]\n\n")

    async def _openai(self, wire: Wire) -> None:
        await asyncio.sleep(self.delay_s)
        if wire.seen.path.endswith("/chat/completions"):
            name = "openai_chat_stream" if wire.seen.body.get("stream") else "openai_chat"
        else:
            name = "openai_completions"
        found = cases(name)
        if name == "openai_chat_stream" and wire.seen.body.get("stream_options"):
            found = [case for case in found if case["name"] == "with usage"]
        await replay(found[0]["answer"])(wire)


def pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


class QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's flag is a plain one.
        while not await self.on_tick(0):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def listener(port: int = 0, address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    return made


@contextlib.asynccontextmanager
async def running(
    app: Any, *, lifespan: str = "off", port: int = 0, address: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback; gives its address."""
    sock = listener(port, address)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan=lifespan,
        timeout_graceful_shutdown=1,
        # Longer than any client keeps one: with equal times both may end it at once.
        timeout_keep_alive=75,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.005)
    try:
        yield f"http://{address}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class RawHost:
    """Reads one request per connection, then does with the connection what the script says."""

    script: list[Callable[[asyncio.StreamWriter], Awaitable[None]]]
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            await step(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_host(
    *script: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[RawHost]:
    host = RawHost(list(script))
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()


def says(data: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return step


async def closes(writer: asyncio.StreamWriter) -> None:
    """The connection ends without a byte, as a stale one does."""


async def resets(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
