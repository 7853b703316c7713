"""A client that leaves, in whatever way and at whatever moment, frees the engine's slot: seen at
the real model host, reached straight and through the API server. Both sides count it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import ROOT
from tests.hops.conftest import LONG_PROMPT, Pair, Server, StartApi, wait_until
from tests.hops.wire import asked, at_stage, leave, send
from tests.otlp import Span
from tests.ports import free_port

WAYS = ("FIN", "RST", "time-out")
STAGES = ("queue", "prefill", "decode")
# Far below what the requests would take, far above what a busy machine adds.
SOON_S = 1.0


@contextlib.contextmanager
def busy(pair: Pair) -> Iterator[socket.socket]:
    """The engine's only slot is taken."""
    with send(pair.host, *asked("host", "Hello", endless=True)) as blocker:
        assert blocker.recv(15) == b"HTTP/1.1 200 OK"
        yield blocker


def reach(pair: Pair, stage: str, sock: socket.socket) -> None:
    """Wait until the request has come so far."""
    if stage == "queue":
        wait_until(lambda: pair.host.metric("qna_num_requests_waiting") == 1)
    elif stage == "prefill":
        wait_until(lambda: pair.host.metric("qna_num_requests_running") == 1)
    else:
        assert sock.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("side", ["host", "api"])
def test_who_leaves_frees_the_slot_and_both_sides_count_it(
    pair: Pair, side: str, stage: str, how: str
) -> None:
    wait_until(lambda: pair.is_idle)
    before = {one: pair.cancelled(one) for one in STAGES}
    told = pair.api.metric("qna_api_requests_cancelled_total")
    with contextlib.ExitStack() as stack:
        blocker = stack.enter_context(busy(pair)) if stage == "queue" else None
        sock = send(pair.side(side), *at_stage(side, stage))
        reach(pair, stage, sock)
        leave(sock, how)
        wait_until(lambda: pair.cancelled(stage) == before[stage] + 1, SOON_S)
        if blocker is not None:
            # Only the one that left has gone.
            assert pair.host.metric("qna_num_requests_running") == 1
            assert pair.host.metric("qna_num_requests_waiting") == 0
    wait_until(lambda: pair.is_idle, SOON_S)
    after = {one: pair.cancelled(one) - before[one] for one in STAGES}
    # The blocker has left, too.
    assert after == {"queue": 0, "prefill": 0, "decode": 0, stage: 1} | (
        {"decode": 1} if stage == "queue" else {}
    )
    if side == "api":
        kind = "streaming" if stage == "decode" else "waiting"
        wait_until(lambda: pair.api.metric("qna_api_requests_cancelled_total") == told + 1, SOON_S)
        assert pair.api.metric("qna_api_requests_cancelled_total", stage=kind)
        assert pair.api.metric("qna_api_requests_in_flight") == 0


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("side", ["host", "api"])
def test_who_leaves_with_requests_sent_ahead_frees_the_slot_all_the_same(
    pair: Pair, side: str, how: str, together: bool
) -> None:
    wait_until(lambda: pair.is_idle)
    before = pair.cancelled("prefill")
    ahead = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
    if together:
        sock = send(pair.side(side), *at_stage(side, "prefill"), then=ahead)
    else:
        sock = send(pair.side(side), *at_stage(side, "prefill"))
    reach(pair, "prefill", sock)
    if not together:
        # More than would fit into a piece, and less than is kept.
        sock.sendall(ahead * 500)
        assert pair.side(side).client.get("/livez").status_code == 200
    leave(sock, how)
    wait_until(lambda: pair.cancelled("prefill") == before + 1, SOON_S)
    wait_until(lambda: pair.is_idle, SOON_S)


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_the_next_one_has_the_slot_in_the_step_in_which_it_is_freed(pair: Pair, stage: str) -> None:
    # Both times are the start of one step; a busy machine may come between two looks at a clock.
    assert min(gap_s(pair, stage) for _ in range(3)) < 0.003


def gap_s(pair: Pair, stage: str) -> float:
    """From the end of one that is left to the start of one that waits."""
    wait_until(lambda: pair.is_idle)
    traces = [uuid.uuid4().hex for _ in range(2)]
    first = send(
        pair.api, *at_stage("api", stage), traceparent=f"00-{traces[0]}-00f067aa0ba902b7-01"
    )
    reach(pair, stage, first)
    second = send(
        pair.api, *asked("api", "Hello"), traceparent=f"00-{traces[1]}-00f067aa0ba902b7-01"
    )
    wait_until(lambda: pair.host.metric("qna_num_requests_waiting") == 1)
    leave(first, "RST")
    assert second.recv(15) == b"HTTP/1.1 200 OK"
    second.close()

    def stages(trace: str, name: str) -> Span | None:
        found = [one for one in pair.receiver.named(name) if one.trace_id == trace]
        return found[0] if found else None

    left = pair.receiver.wait(lambda: stages(traces[0], "chat qna-demo"))
    began = pair.receiver.wait(lambda: stages(traces[1], "prefill"))
    assert left.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    return abs(began.start_ns - left.end_ns) / 1e9


def test_who_stays_is_not_cancelled(pair: Pair) -> None:
    before = sum(pair.cancelled(stage) for stage in STAGES)
    told = pair.api.metric("qna_api_requests_cancelled_total")
    for side in ("api", "host"):
        path, body = asked(side, "Capital of India?")
        for stream in (False, True):
            answer = pair.side(side).client.post(path, json=body | {"stream": stream})
            assert answer.status_code == 200
    assert sum(pair.cancelled(stage) for stage in STAGES) == before
    assert pair.api.metric("qna_api_requests_cancelled_total") == told


def test_who_leaves_the_api_servers_line_never_reaches_the_host(
    pair: Pair, start_api: StartApi
) -> None:
    wait_until(lambda: pair.is_idle)
    api = start_api(API_MAX_IN_FLIGHT="1", API_MAX_QUEUED="4", API_QUEUE_TIMEOUT_S="30")
    # All of the model host's requests, whatever became of them.
    seen = pair.host.metric("qna_requests_total")
    with send(api, *asked("api", "Hello", endless=True)) as before:
        assert before.recv(15) == b"HTTP/1.1 200 OK"
        waiting = [send(api, *asked("api", "Hello")) for _ in range(3)]
        wait_until(lambda: api.metric("qna_api_requests_queued") == 3)
        for sock, how in zip(waiting, WAYS, strict=True):
            leave(sock, how)
        wait_until(lambda: api.metric("qna_api_requests_cancelled_total") == 3, SOON_S)
        assert api.metric("qna_api_requests_queued") == 0
    wait_until(lambda: pair.is_idle, SOON_S)
    wait_until(lambda: pair.host.metric("qna_requests_total") == seen + 1)


def test_who_leaves_a_batch_ends_all_of_it(pair: Pair) -> None:
    wait_until(lambda: pair.is_idle)
    before = {one: pair.cancelled(one) for one in STAGES}
    chats = [{"user_prompt": LONG_PROMPT} for _ in range(3)]
    sock = send(pair.api, "/chat/batch", {"chats": chats})
    wait_until(lambda: pair.host.metric("qna_num_requests_waiting") == 2)
    wait_until(lambda: pair.host.metric("qna_num_requests_running") == 1)
    leave(sock, "RST")
    wait_until(lambda: pair.is_idle, SOON_S)
    after = {one: pair.cancelled(one) - before[one] for one in STAGES}
    assert after == {"queue": 2, "prefill": 1, "decode": 0}


def test_the_end_of_an_api_server_frees_what_it_had_asked_for(pair: Pair, folder: Path) -> None:
    wait_until(lambda: pair.is_idle)
    before = pair.cancelled("decode")
    port = free_port()
    values = {
        "API_PORT": str(port),
        "API_MODEL_HOST_URL": pair.host.url,
        "API_DATABASE_URL": f"sqlite:///{folder}/killed.db",
        "PATH": os.environ["PATH"],
    }
    with subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=ROOT, env=values, stderr=subprocess.DEVNULL
    ) as process:
        api = Server(f"http://127.0.0.1:{port}", Path(os.devnull))
        wait_until(lambda: is_ready(api), 60)
        api.client.close()
        with send(api, *asked("api", "Hello", endless=True)) as sock:
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
            process.kill()
            wait_until(lambda: pair.cancelled("decode") == before + 1, SOON_S)
    wait_until(lambda: pair.is_idle, SOON_S)


def is_ready(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return server.client.get("/readyz").status_code == 200
    return False
