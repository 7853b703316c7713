"""One deadline over both hops: what the client asks reaches the engine, less what was spent."""

import re
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.hops.conftest import ENDLESS, Pair, Server, StartApi, wait_until
from tests.hops.wire import asked, send
from tests.otlp import Span

HEADER = "X-Request-Timeout-Ms"


@dataclass
class Wire:
    """What goes from one server to the other, as it was sent."""

    url: str = ""
    sent: list[bytes] = field(default_factory=list)

    @property
    def deadlines(self) -> list[int]:
        head = rb"POST \S+ HTTP/1.1\r\n(?:[^\r\n]+\r\n)*?(?i:x-request-timeout-ms): (\d+)\r\n"
        return [int(one) for one in re.findall(head, b"".join(self.sent))]


@contextmanager
def listening_in(to: Server) -> Iterator[Wire]:
    """A relay that hands everything on to the model host and keeps what it has seen."""
    wire = Wire()

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", to.port)) as onward:
                back = threading.Thread(target=self.pump, args=(onward, self.request), daemon=True)
                back.start()
                self.pump(self.request, onward, wire.sent)
                back.join(5)

        def pump(self, source: socket.socket, to: socket.socket, kept: list[bytes] = []) -> None:  # noqa: B006
            try:
                while data := source.recv(65_536):
                    kept.append(data)
                    to.sendall(data)
                to.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Listener(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        wire.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield wire
        server.shutdown()


def test_the_host_gets_what_the_client_asks_less_what_was_spent(
    pair: Pair, start_api: StartApi
) -> None:
    with listening_in(pair.host) as wire:
        api = start_api(wire.url, API_MAX_IN_FLIGHT="1", API_MAX_QUEUED="4")
        path, body = asked("api", "Capital of India?")
        api.client.post(path, json=body, headers={HEADER: "9000"})
        (whole,) = wire.deadlines
        assert 8_500 < whole <= 9_000
        # The next one waits in the API server's line behind one that takes its time.
        with send(api, *asked("api", "Hello", endless=True)) as before:
            assert before.recv(15) == b"HTTP/1.1 200 OK"
            waiting = send(api, path, body, X_Request_Timeout_Ms="9000")
            wait_until(lambda: api.metric("qna_api_requests_queued") == 1)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 0.4)
        with waiting:
            assert waiting.recv(15) == b"HTTP/1.1 200 OK"
        assert wire.deadlines[-1] <= 9_000 - 400
        # A body's time counts as the header's does, and the server's own is the longest.
        api.client.post("/chat", json={"user_prompt": "Hello", "timeout_ms": 7_000})
        assert 6_500 < wire.deadlines[-1] <= 7_000
        api.client.post("/chat", json={"user_prompt": "Hello"}, headers={HEADER: "3600000"})
        assert wire.deadlines[-1] <= 120_000
    wait_until(lambda: pair.is_idle)


@pytest.mark.parametrize("side", ["api", "host"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_stops_at_the_clients_deadline(pair: Pair, side: str, stream: bool) -> None:
    wait_until(lambda: pair.is_idle)
    before = pair.cancelled("decode")
    path, body = asked(side, "Hello")
    trace = uuid.uuid4().hex
    headers = {HEADER: "200", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    began = time.monotonic()
    answer = pair.side(side).client.post(
        path, json=body | ENDLESS | {"stream": stream}, headers=headers
    )
    took = time.monotonic() - began
    assert 0.15 < took < 3
    if stream:
        assert answer.status_code == 200
        assert "event: error" in answer.text
        assert "deadline_exceeded" in answer.text
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: pair.is_idle, 1.0)
    assert pair.cancelled("decode") == before + 1

    def work() -> list[Span]:
        spans = pair.receiver.named("chat qna-demo")
        return [span for span in spans if span.trace_id == trace]

    (span,) = pair.receiver.wait(work)
    # By itself: were it only told to stop by those who wait for it, it would say "abort".
    assert span.attributes["gen_ai.response.finish_reasons"] == ["deadline"]


def test_what_cannot_be_met_any_more_never_starts(pair: Pair) -> None:
    """In the queue, behind one that takes its time."""
    wait_until(lambda: pair.is_idle)
    before = pair.cancelled("queue")
    with send(pair.host, *asked("host", "Hello", endless=True)) as blocker:
        assert blocker.recv(15) == b"HTTP/1.1 200 OK"
        path, body = asked("api", "Capital of India?")
        answer = pair.api.client.post(path, json=body, headers={HEADER: "150"})
        assert answer.status_code == 504
        wait_until(lambda: pair.cancelled("queue") == before + 1, 1.0)
    wait_until(lambda: pair.is_idle)
