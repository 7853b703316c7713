"""`python -m model` as a process: its exit codes, its one line, its signals."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.model.hosts import events_of
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 200


class Process:
    """The server with its log lines as they come."""

    def __init__(self, *command: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self._arrived.put(line)
        self._arrived.put(None)

    def wait_for(self, text: str) -> str:
        while (line := self._arrived.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError("".join(self.lines))

    def end(self) -> int:
        code = self.process.wait(PATIENCE_S)
        while (line := self._arrived.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
        assert "Traceback" not in "".join(self.lines)
        return code


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(tiny_model: Path, port: int) -> Iterator[Process]:
    flags = ["--model", str(tiny_model), "--port", str(port), "--drain-timeout-s", "0.01"]
    process = Process("-m", "model", *flags)
    process.wait_for('"load_seconds"')
    yield process
    if process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def test_ctrl_c_ends_an_idle_server_without_a_word(server: Process) -> None:
    server.process.send_signal(signal.SIGINT)
    assert server.end() == 0


def test_sigterm_ends_a_stream_that_outlives_the_drain_with_an_error_event(
    server: Process, port: int
) -> None:
    body = {"user_prompt": "hello", "max_tokens": 480, "stream": True}
    url = f"http://127.0.0.1:{port}/generate"
    with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as answer:
        chunks = answer.iter_text()
        text = next(chunks)
        server.process.send_signal(signal.SIGTERM)
        text += "".join(chunks)
    name, data = events_of(text)[-1]
    assert (name, data["error"]["code"]) == ("error", "draining")
    assert server.end() == 0


def test_a_taken_port_is_one_line(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = Process("-m", "model", "--model", str(tiny_model), "--port", str(port))
        assert process.end() == 1
    (line,) = process.lines
    assert re.fullmatch(rf"model: MODEL_HOST_PORT: port {port} is taken; .*\n", line)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "model"],
        ["-m", "uvicorn", "--factory", "model.app:create_app", "--log-level", "error"],
    ],
)
def test_a_model_that_is_not_there_ends_the_process(command: list[str], port: int) -> None:
    process = Process(*command, "--port", str(port), MODEL="/no/such/folder")
    assert process.end() != 0
    assert [line for line in process.lines if "/no/such/folder" in line]


DYING = """
import asyncio, sys
from model.app import build_app
from model.config import load_settings
from model.host import Host
from model.predictor import Predictor
from model.server import Server, listen
from tests.model.fakes import FakeEngine, load_scripted

class Dying(FakeEngine):
    async def start(self, on_progress=None):
        await super().start(on_progress)
        asyncio.get_running_loop().call_later(0.5, self.die)

settings = load_settings(["--model", "fake", "--port", "0"], {})
host = Host(settings, Dying(), load_scripted)
predictor = Predictor(host)
app = build_app(host, predictor, runs_engine=False)
print(Server(settings, app, listen(settings)).run(predictor), file=sys.stderr)
sys.exit(3)
"""


def test_the_death_of_the_engine_is_the_end_of_the_server() -> None:
    process = Process("-c", DYING, PYTHONPATH=str(ROOT))
    assert process.end() == 3
    assert process.lines[-1] == "the engine has died\n"


def test_every_log_line_is_json(server: Process) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.end()
    records = [json.loads(line) for line in server.lines]
    resolved = [item for item in records if item["message"].startswith("resolved ")]
    assert {"resolved num_kv_blocks", "resolved max_body_bytes"} <= {
        item["message"] for item in resolved
    }
    assert all(item["why"] for item in resolved)


SERVING = """
import sys
from model.app import build_app
from model.config import load_settings
from model.engine import FinishReason
from model.host import Host
from model.predictor import Predictor
from model.server import Server, listen
from tests.model.fakes import FakeEngine, load_scripted, output
from tests.model.hosts import byte_level

settings = load_settings(["--model", "fake", "--model-name", "fake", "--port", sys.argv[1]])
word = output(byte_level().encode("hello"), FinishReason.STOP)
host = Host(settings, FakeEngine([word]), load_scripted)
predictor = Predictor(host)
app = build_app(host, predictor, runs_engine=False)
sock = listen(settings)
print("listening", file=sys.stderr)
Server(settings, app, sock).run(predictor)
"""


def test_kserves_batcher_is_known_by_its_connection_whatever_its_agent_adds(port: int) -> None:
    environ = {"MODEL_HOST_API_KEY": "k" * 32, "MODEL_HOST_TRUST_BATCHER": "true"}
    process = Process("-c", SERVING, str(port), PYTHONPATH=str(ROOT), **environ)
    try:
        process.wait_for("listening")
        agent = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-Forwarded-For": "10.1.2.3"}, timeout=60
        )
        with agent:
            instances = {"instances": [{"user_prompt": "hello"}]}
            answered = agent.post("/v1/models/fake:predict", json=instances)
            assert answered.status_code == 200, answered.text
            assert agent.post("/generate", json={"user_prompt": "hello"}).status_code == 401
    finally:
        process.process.kill()
        process.process.wait(PATIENCE_S)
