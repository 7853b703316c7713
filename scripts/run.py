"""`make run`: both servers on this machine, until Ctrl-C.

Owns the two child processes and nothing else: their settings come from the environment, their logs
go to `data/logs/`. Standard library only, one thread.
"""

import argparse
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
LOGS = DATA / "logs"
READY_TIMEOUT_S = 1800.0  # a Hub model may have to be downloaded first
STOP_TIMEOUT_S = 40.0  # above both servers' own drain time of 30 s
PR_SET_PDEATHSIG = 1


@dataclass
class Server:
    """One child process with the address that tells whether it is ready."""

    title: str
    module: str
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        # By port: two runs in one folder must not write into each other's logs.
        return LOGS / f"{self.module}-{self.port}.log"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches this script only, which then ends both in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def last_lines(self, count: int) -> list[str]:
        if not self.log.exists():
            return []
        return self.log.read_text(errors="replace").splitlines()[-count:]

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _die_with_parent() -> None:
    """Ask Linux to end the child when this script is killed, so that no port stays taken."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def claim(database: Path) -> IO[bytes] | None:
    """A lock that says whose chats these are; None while another run has it. The kernel gives it
    back, however this process ends."""
    lock = database.with_suffix(".run").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def parse_port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def progress_of(server: Server) -> str:
    """The last thing the server said, in words."""
    for line in reversed(server.last_lines(5)):
        try:
            record: Any = json.loads(line)
        except ValueError:
            return line[:120]
        if isinstance(record, dict) and record.get("message"):
            return str(record["message"])[:120]
    return "starting"


def wait_until_ready(servers: list[Server]) -> None:
    """Return when every server is ready; exit with its last log lines when one has ended."""
    start, shown = time.monotonic(), ""
    pending = list(servers)
    while pending:
        for server in list(pending):
            if server.has_ended():
                fail(server)
            if server.is_ready():
                pending.remove(server)
                seconds = time.monotonic() - start
                print(f"  {server.title} is ready after {seconds:.1f} s", flush=True)
        if pending and (message := f"{pending[0].title}: {progress_of(pending[0])}") != shown:
            shown = message
            print(f"  {message}", flush=True)
        if time.monotonic() - start > READY_TIMEOUT_S:
            fail(pending[0])
        time.sleep(0.1)


def fail(server: Server) -> None:
    code = server.process.poll() if server.process else None
    what = "is not ready in time" if code is None else f"ended with exit code {code}"
    print(f"\nThe {server.title} {what}. Its last lines ({server.log}):", file=sys.stderr)
    print("\n".join(f"  {line}" for line in server.last_lines(15)), file=sys.stderr)
    raise SystemExit(1)


def announce(api: Server, model: Server) -> None:
    question = {
        "chat_id": "1",
        "system_prompt": "You are a helpful assistant.",
        "user_prompt": "Capital of India?",
    }
    # As the API server reads it.
    keys = os.environ.get("API_AUTH", "").strip() == "on"
    caller = ' -H "Authorization: Bearer $KEY"' if keys else ""
    make = f"{sys.executable} -m api keys create --port {api.port} --tenant me"
    make_one = f"  (a key: {make})\n\n" if keys else ""
    print(
        f"\nReady. Ask:\n\n{make_one}"
        f"  curl -s {api.address}/chat{caller} -H 'Content-Type: application/json' \\\n"
        f"    -d '{json.dumps(question)}'\n\n"
        f"  chat page   {api.address}/\n"
        f"  API server  {api.address}     docs {api.address}/docs\n"
        f"  model host  {model.address}     docs {model.address}/docs\n"
        f"  logs        {LOGS}\n\nCtrl-C ends both.",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-port", type=parse_port, default=8000)
    parser.add_argument("--model-port", type=parse_port, default=8001)
    options = parser.parse_args()
    if options.api_port == options.model_port:
        parser.error(f"API_PORT and MODEL_PORT are both {options.api_port}: choose two")
    for port, name in ((options.api_port, "API_PORT"), (options.model_port, "MODEL_PORT")):
        if not port_is_free(port):
            print(f"Port {port} is taken: choose another with `make run {name}=…`", file=sys.stderr)
            return 1
    LOGS.mkdir(parents=True, exist_ok=True)
    database = DATA / "chats.db"
    lock = claim(database)
    if lock is None and "API_DATABASE_URL" not in os.environ:
        # Two servers that know nothing of each other would take each other's chats for their own.
        database = DATA / f"chats-{options.api_port}.db"
        print(
            f"Another `make run` has data/chats.db: this one keeps its chats in {database.name}",
            flush=True,
        )
    local = {"MODEL_HOST_HOST": "127.0.0.1", "MODEL_HOST_PORT": str(options.model_port)}
    model = Server("model host", "model", options.model_port, local)
    local = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(options.api_port),
        "API_MODEL_HOST_URL": model.address,
        "API_DATABASE_URL": os.environ.get("API_DATABASE_URL", f"sqlite:///{database}"),
    }
    api = Server("API server", "api", options.api_port, local)
    return serve(model, api)


def serve(model: Server, api: Server) -> int:
    """Run both until Ctrl-C (exit 0) or until one of them ends (exit 1)."""
    # Also SIGINT: a shell that starts this in the background has set it to be ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        what = os.environ.get("MODEL") or "bundled demo model"
        print(f"Starting the model host ({what})", flush=True)
        for server in (model, api):
            server.start()
        wait_until_ready([api, model])
        announce(api, model)
        while True:
            for server in (model, api):
                if server.has_ended():
                    fail(server)
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nEnding both servers", flush=True)
        return 0
    finally:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for server in (api, model):
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
