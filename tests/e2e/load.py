"""A light load from inside the cluster, and what became of each of its requests."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.cluster import CONTEXT, NAMESPACE, client_pod, eventually, running_pod
from tests.e2e.evidence import write_records

SCRIPT = Path(__file__).with_name("load_client.py").read_text()
Record = dict[str, Any]


class Load:
    """Records of a load client, in the order in which the requests ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._records: list[Record] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._records.append(json.loads(line))

    @property
    def records(self) -> list[Record]:
        return list(self._records)

    def good_in_a_row(self) -> int:
        count = 0
        for record in reversed(self.records):
            if not record.get("ok"):
                break
            count += 1
        return count

    def wait_for_good(self, count: int, timeout_s: float) -> None:
        """Until so many requests in a row have been answered right, from now on."""
        start = len(self._records)
        eventually(
            lambda: (
                self.is_running()
                and len(self._records) >= start + count
                and self.good_in_a_row() >= count
            ),
            timeout_s,
            f"{count} good answers in a row; last records {self._records[-3:]}",
        )

    def wait_for_streams(self, count: int, timeout_s: float) -> None:
        """Until so many streams have ended, however they did."""
        eventually(
            lambda: self.is_running() and len(of_kind(self.records, "stream")) >= count,
            timeout_s,
            f"{count} streams",
        )

    def is_running(self) -> bool:
        assert self._process.poll() is None, f"the load client ended: {self._records[-3:]}"
        return True

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=90)
        self._reader.join(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def failed(records: list[Record]) -> list[Record]:
    return [record for record in records if not record.get("ok") and not record.get("cut")]


def cut(records: list[Record]) -> list[Record]:
    return [record for record in records if record.get("cut")]


def of_kind(records: list[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


@contextmanager
def light_load(name: str, chats: int = 2, streams: int = 2) -> Iterator[Load]:
    """A load that runs; it is stopped at the end, or by its own `stop`. Its records are kept."""
    pod = client_pod("e2e-load", {"app.kubernetes.io/name": "e2e-load"})
    address = f"http://api-server.{NAMESPACE}.svc"
    with running_pod(pod) as pod_name:
        command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, "exec", "-i", pod_name, "--"]
        process = subprocess.Popen(
            [*command, "python", "-u", "-c", SCRIPT, address, str(chats), str(streams)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        load = Load(process)
        try:
            yield load
        finally:
            if process.poll() is None:
                load.stop()
            write_records(name, [json.dumps(record) for record in load.records])
