"""A model host that answers at once: `python -m bench.hop.stub`. Prints its address and serves.

A bare protocol over sockets, because what it costs is taken from what is measured. An answer has
as many events as the body's `max_tokens` asks for; `"user": "step-20"` paces them: one event of
every such stream every 20 ms, each sent alone, as an engine does that decodes one batch.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import cast

import uvloop

MODEL = "qna-demo"
TEXT = "The capital of India is New Delhi, which lies on the river Yamuna."
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_EVENTS = re.compile(rb'"max_tokens": *(\d+)')
_STEP = re.compile(rb'"user": *"step-(\d+)"')
_STREAM = re.compile(rb'"stream": *true')
_PAUSE_EVENTS = 512
"""So many events are written in one go, then whoever reads has to catch up."""


def _whole(body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    return head.encode() + b"server-timing: queue;dur=0.1\r\nx-finish-reason: stop\r\n\r\n" + data


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(body: object) -> bytes:
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _completion(kind: str, **rest: object) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL, **rest}


def _piece(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _completion("chat.completion.chunk", choices=[choice])


USAGE = {"prompt_tokens": 30, "completion_tokens": 16, "total_tokens": 46}
_GENERATED = {
    "chat_id": "1",
    "response": TEXT,
    "finish_reason": "stop",
    "usage": {**USAGE, "cached_tokens": 0},
    "timing": {"queue_ms": 0.1, "prefill_ms": 1.0, "decode_ms": 2.0, "batch_size": 1},
}
_MESSAGE = {"role": "assistant", "content": TEXT}
_CHOICE = {"index": 0, "message": _MESSAGE, "logprobs": None, "finish_reason": "stop"}
WHOLE = {
    b"/generate": _whole(_GENERATED),
    b"/openai/v1/chat/completions": _whole(
        _completion("chat.completion", choices=[_CHOICE], usage=USAGE)
    ),
    b"/openai/v1/models": _whole({"object": "list", "data": [{"id": MODEL, "object": "model",
        "created": 1, "owned_by": "qna", "max_model_len": 100_000}]}),
    b"/readyz": _whole({"status": "ready"}),
}  # fmt: skip
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
FIRST = _event(_piece({"role": "assistant", "content": ""}))
NEXT = _event(_piece({"content": " capital"}))
LAST = (
    _event(_piece({}, "stop"))
    + _event(_completion("chat.completion.chunk", choices=[], usage=USAGE))
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Steps:
    """Streams that are paced: all of one pace move together."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[Stub, int]] = {}

    def add(self, stub: "Stub", step_ms: int, events: int) -> None:
        streams = self._waiting.setdefault(step_ms, {})
        if not streams:
            loop = asyncio.get_running_loop()
            loop.call_later(step_ms / 1000, self._step, step_ms, loop.time() + step_ms / 1000)
        streams[stub] = events

    def drop(self, stub: "Stub") -> None:
        for streams in self._waiting.values():
            streams.pop(stub, None)

    def _step(self, step_ms: int, due: float) -> None:
        streams = self._waiting[step_ms]
        for stub, left in list(streams.items()):
            if left:
                stub.write(NEXT)
                streams[stub] = left - 1
            else:
                del streams[stub]
                stub.write(LAST)
        if streams:
            loop = asyncio.get_running_loop()
            following = due + step_ms / 1000
            loop.call_at(following, self._step, step_ms, following)


class Stub(asyncio.Protocol):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._more: Iterator[bytes] | None = None
        self._paused = False
        self.write: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        self._more = None
        self._steps.drop(self)
        self.write = lambda _: None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if not _STREAM.search(body):
            self.write(WHOLE.get(path, WHOLE[b"/readyz"]))
            return
        wanted = _EVENTS.search(body)
        events = max(2, int(wanted[1]) if wanted else 16)
        if step := _STEP.search(body):
            self.write(STREAM_HEAD + FIRST)
            self._steps.add(self, int(step[1]), events - 2)
        else:
            self._more = _pieces(events - 2)
            self._go_on()

    def _go_on(self) -> None:
        while self._more is not None and not self._paused:
            piece = next(self._more, None)
            if piece is None:
                self._more = None
            else:
                self.write(piece)


def _pieces(events: int) -> Iterator[bytes]:
    yield STREAM_HEAD + FIRST
    for start in range(0, events, _PAUSE_EVENTS):
        yield NEXT * min(_PAUSE_EVENTS, events - start)
    yield LAST


async def serve(port: int) -> None:
    steps = Steps()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(steps), "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hop.stub", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    try:
        uvloop.run(serve(parser.parse_args(argv).port))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
