"""A steady load from inside the cluster, what became of each of its requests, and what that means.

The API server's Service is asked by its address: what is measured is the system, not how its
callers look up names.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.cluster import (
    CONTEXT,
    NAMESPACE,
    client_pod,
    eventually,
    key_of,
    kubectl,
    node_of_the_load,
    running_pod,
)
from tests.e2e.evidence import write_records

SCRIPT = Path(__file__).with_name("load_client.py").read_text()
GOOD_IN_A_ROW = 3
SHOWN = 5
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

    def wait_for(self, calls: int, streams: int, timeout_s: float) -> None:
        """Until so many requests, and so many of them streams, have ended, however they did."""
        eventually(
            lambda: (
                self.is_running()
                and len(self._records) >= calls
                and len(of_kind(self.records, "stream")) >= streams
            ),
            timeout_s,
            f"{calls} requests, {streams} of them streams",
        )

    def is_running(self) -> bool:
        assert self._process.poll() is None, f"the load client ended: {self._records[-3:]}"
        return True

    def use_key(self, header: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{header}\n")
        self._process.stdin.flush()

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


def recovery_s(records: list[Record], fault: float) -> float:
    """From the fault until three requests in a row were good that began after the last bad one did;
    0 where nothing that began after the fault was bad.
    """
    bad = [one["at"] for one in records if not one.get("ok") and one["at"] >= fault]
    if not bad:
        return 0.0
    good = sorted(one["at"] + one["seconds"] for one in records if one["at"] > max(bad))
    return round(good[GOOD_IN_A_ROW - 1] - fault, 1)


def figures(records: list[Record], fault: float | None = None) -> dict[str, object]:
    """The columns of the report, and what else is worth a word."""
    found: dict[str, object] = {
        "requests": len(records),
        "failed": len(failed(records)),
        "cut": len(cut(records)),
        "streams": len(of_kind(records, "stream")),
        "slowest_s": round(max(record["seconds"] for record in records), 1),
    }
    if fault is not None:
        found["recovery_s"] = recovery_s(records, fault)
    return found


def assert_nothing_lost(records: list[Record]) -> None:
    """Says which requests were lost: pytest explains no assertion outside of test files."""
    lost = failed(records) + cut(records)
    shown = "\n".join(json.dumps(record) for record in lost[:SHOWN])
    assert not lost, f"{len(lost)} of {len(records)} requests were lost, first:\n{shown}"


@contextmanager
def light_load(name: str, chats: int = 4, streams: int = 2, key: str = "") -> Iterator[Load]:
    """A load that runs; it is stopped at the end, or by its own `stop`. Its records are kept."""
    pod = client_pod("e2e-load", {"app.kubernetes.io/name": "e2e-load"})
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node_of_the_load()}
    where = ["get", "service", "api-server", "-o", "jsonpath={.spec.clusterIP}"]
    address = f"http://{kubectl('-n', NAMESPACE, *where)}"
    key = key or key_of()["Authorization"]
    with running_pod(pod) as pod_name:
        command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, "exec", "-i", pod_name, "--"]
        process = subprocess.Popen(
            [*command, "python", "-u", "-c", SCRIPT, address, str(chats), str(streams), key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        load = Load(process)
        try:
            load.wait_for_good(20, timeout_s=60)
            yield load
        finally:
            if process.poll() is None:
                load.stop()
            write_records(name, [json.dumps(record) for record in load.records])


def fault_under(
    load: Load, fault: float, timeout_s: float = 90, quiet_s: float = 20
) -> list[Record]:
    """The records of a load until it has been good for a while after a fault, stopped."""
    load.wait_for_good(GOOD_IN_A_ROW, timeout_s)
    eventually(lambda: time.time() > fault + quiet_s, quiet_s + 1, "a while after the fault")
    load.wait_for_good(20, timeout_s)
    load.stop()
    return load.records
