"""What is measured, each in a process that is held to its core: the stub, the API server, LiteLLM;
and what such a process has used.

Linux only: cores are assigned with `taskset`, figures come from /proc.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.hop.names import API, LITELLM, LITELLM_KEY, STUB
from bench.hop.stub import MODEL
from bench.model_folder import ROOT
from bench.peers.places import installed
from bench.process import ServerProcess, free_port
from bench.spec import NotForThis

ADMIN_KEY = "bench-admin-key-0123456789abcdef"
LITELLM_MASTER_KEY = "sk-bench-0123456789abcdef"
_TICKS = os.sysconf("SC_CLK_TCK")
NO_LIMIT_IN_REACH = 10**9


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core does what. Load and stub share one, where there are only two."""

    load: int
    server: int
    stub: int
    second: int

    @classmethod
    def here(cls) -> "Cores":
        if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
            raise NotForThis("this measurement needs Linux and taskset (util-linux)")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise NotForThis("this measurement needs two cores: one for the server, one for load")
        return cls(
            load=cores[0],
            server=cores[1],
            stub=cores[2] if len(cores) > 2 else cores[0],
            second=cores[3] if len(cores) > 3 else cores[0],
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: where it answers, how to ask it, and its processes."""

    name: str
    urls: tuple[str, ...]
    path: str
    pids: tuple[int, ...]
    key: str = ""

    def cpu_s(self) -> float:
        return sum(_cpu_s(pid) for pid in self.pids)

    def and_also(self, other: "Target") -> "Target":
        """Both of them as one, behind a key of the first."""
        return replace(self, urls=self.urls + other.urls, pids=self.pids + other.pids)

    def memory_kb(self) -> int:
        """Resident, shared pages included."""
        return sum(_status_kb(pid, "VmRSS") for pid in self.pids)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


@dataclass(slots=True)
class Bench:
    """Starts servers for one round; its folder keeps their logs and databases."""

    cores: Cores
    folder: Path
    stub_url: str = ""
    _count: int = field(default=0)

    @contextlib.contextmanager
    def stub(self) -> Iterator[Target]:
        port = free_port()
        command = [sys.executable, "-m", "bench.hop.stub", "--port", str(port)]
        with self._started("stub", command, self.cores.stub, port, "/readyz", {}) as pid:
            self.stub_url = f"http://127.0.0.1:{port}"
            yield Target(STUB, (self.stub_url,), "/openai/v1/chat/completions", (pid,))

    @contextlib.contextmanager
    def api(self, place: str = "server", /, **settings: str) -> Iterator[Target]:
        """Keys on; every limit on, each too high to be reached; history in a file of its own."""
        port = free_port()
        given = {
            "port": port,
            "model_host_url": self.stub_url,
            "database_url": f"sqlite:///{self._database()}",
            "auth": "on",
            "admin_key": ADMIN_KEY,
            "max_in_flight": 2048,
            **{
                f"{who}_{limit}": NO_LIMIT_IN_REACH
                for who in ("key", "tenant")
                for limit in (
                    "requests_per_minute", "tokens_per_minute", "tokens_per_day", "max_concurrent"
                )
            },
            **settings,
        }  # fmt: skip
        env = {f"API_{name.upper()}": str(value) for name, value in given.items()}
        command = [sys.executable, "-m", "api", "serve"]
        at = self.cores.second if place == "second" else self.cores.server
        with self._started("api", command, at, port, "/readyz", env) as pid:
            url = f"http://127.0.0.1:{port}"
            yield Target(API, (url,), "/v1/chat/completions", (pid,), _new_key(url))

    def _database(self) -> Path:
        self._count += 1
        return self.folder / f"chats-{self._count}.db"

    @contextlib.contextmanager
    def two(self, **settings: str) -> Iterator[Target]:
        """Two of them on one database, whose keys both know."""
        settings["database_url"] = f"sqlite:///{self._database()}"
        with self.api(**settings) as first, self.api("second", **settings) as second:
            yield first.and_also(second)

    @contextlib.contextmanager
    def redis(self) -> Iterator[str]:
        """Where limits are counted that hold for several processes."""
        found = shutil.which("redis-server")
        if found is None:
            raise NotForThis("redis-server is not there: run `make test-tools`")
        port = free_port()
        process = subprocess.Popen(
            [found, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            cwd=self.folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for_port(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()

    @contextlib.contextmanager
    def litellm(self, *, key: bool) -> Iterator[Target]:
        """One worker, no database, no call-backs, errors only in its log; with its master key, or
        with no key at all.
        """
        python = installed("litellm", "bin", "python")
        port = free_port()
        config = self.folder / f"litellm-{port}.json"  # JSON is YAML
        asked = {"model": f"openai/{MODEL}", "api_base": f"{self.stub_url}/openai/v1"}
        config.write_text(
            json.dumps(
                {
                    "model_list": [
                        {"model_name": MODEL, "litellm_params": {**asked, "api_key": "none"}}
                    ],
                    "general_settings": {"master_key": LITELLM_MASTER_KEY} if key else {},
                }
            )
        )
        env = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NO_DOCS": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        command = [str(python.with_name("litellm")), "--config", str(config), "--host",
                   "127.0.0.1", "--port", str(port), "--num_workers", "1"]  # fmt: skip
        name = LITELLM_KEY if key else LITELLM
        ready = "/health/liveliness"
        with self._started("litellm", command, self.cores.server, port, ready, env) as pid:
            url = f"http://127.0.0.1:{port}"
            yield Target(
                name, (url,), "/v1/chat/completions", (pid,), LITELLM_MASTER_KEY if key else ""
            )

    @contextlib.contextmanager
    def _started(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        port: int,
        ready: str,
        env: dict[str, str],
    ) -> Iterator[int]:
        log = self.folder / f"{name}-{port}.log"
        pinned = ["taskset", "--cpu-list", str(core), *command]
        own = {"PYTHONPATH": str(ROOT), **env} if name != "litellm" else env
        url = f"http://127.0.0.1:{port}{ready}"
        with ServerProcess(pinned, ready_url=url, log=log, env=own) as process:
            yield process.pid


def _new_key(url: str) -> str:
    body = json.dumps({"tenant": "bench", "scopes": ["chat"]}).encode()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/admin/keys", body, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - the same
        return str(json.load(answer)["key"])


def version_of_litellm() -> str:
    python = installed("litellm", "bin", "python")
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.05)
