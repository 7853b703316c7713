"""`make run`'s script: both servers on free ports, a true answer, a clean end."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, "scripts/run.py"]
QUESTION = {
    "chat_id": "1",
    "system_prompt": "You are a helpful assistant.",
    "user_prompt": "Capital of India?",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    database = f"sqlite:///{tmp_path / 'chats.db'}"
    return {**os.environ, "API_DATABASE_URL": database, "MODEL": ""}


@pytest.fixture
def running(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The script with both servers ready: (process, the API server's port, all that it printed)."""
    port = free_port()
    process = subprocess.Popen(
        [*SCRIPT, "--api-port", str(port), "--model-port", str(free_port())],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    # A server that never gets ready must not hang the test.
    killer = threading.Timer(120, process.kill)
    killer.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    printed = "".join(lines)
    assert "Ctrl-C ends both." in printed, printed
    yield process, str(port), printed
    killer.cancel()
    if process.poll() is None:
        process.terminate()
        process.wait(60)
    process.stdout.close()


def ask(port: str) -> dict[str, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/chat",
        data=json.dumps(QUESTION).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        result: dict[str, str] = json.load(answer)
        return result


def test_both_servers_answer_and_end_on_ctrl_c(
    running: tuple[subprocess.Popen[str], str, str],
) -> None:
    process, port, printed = running
    assert ask(port) == {"chat_id": "1", "response": "The capital of India is New Delhi."}
    command = re.search(r"  curl .*?\n.*?'\n", printed)
    assert command, printed
    pasted = subprocess.run(
        ["bash", "-c", command.group()], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(pasted.stdout)["response"] == "The capital of India is New Delhi."
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    for number in re.findall(r"http://127\.0\.0\.1:(\d+)", printed):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(number)))


def test_a_second_run_keeps_its_chats_apart_and_says_so(environment: dict[str, str]) -> None:
    (ROOT / "data").mkdir(exist_ok=True)
    port = free_port()
    del environment["API_DATABASE_URL"]
    with (ROOT / "data" / "chats.run").open("wb") as lock:
        with contextlib.suppress(BlockingIOError):  # then somebody's own run has it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second = subprocess.Popen(
            [*SCRIPT, "--api-port", str(port), "--model-port", str(free_port())],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert second.stdout
        with second.stdout as printed:
            line = printed.readline()
            assert f"chats-{port}.db" in line, line
            # Ended while it starts, which must leave nothing behind.
            printed.readline()
            second.terminate()
            assert second.wait(60) in (0, -signal.SIGTERM)
    for path in (ROOT / "data").glob(f"chats-{port}.*"):
        path.unlink()


def test_a_taken_port_is_said_in_one_line(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [*SCRIPT, "--api-port", port, "--model-port", str(free_port())],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == f"Port {port} is taken: choose another with `make run API_PORT=…`\n"
    assert not result.stdout


def test_a_model_that_does_not_exist_ends_the_run_with_its_reason(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = subprocess.run(
        [*SCRIPT, "--api-port", str(free_port()), "--model-port", str(free_port())],
        cwd=ROOT,
        env={**environment, "MODEL": str(tmp_path / "no-such-model")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "no-such-model" in result.stderr
    assert "Traceback" not in result.stderr
