"""Long answers from inside the cluster, as many at a time as a test wants."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.cluster import CONTEXT, NAMESPACE, client_pod, key_of, running_pod
from tests.e2e.evidence import write_records
from tests.e2e.load import Load

SCRIPT = Path(__file__).with_name("long_client.py").read_text()


@contextmanager
def long_load(name: str, *, answers: int = 0, streams: int = 0, tokens: int) -> Iterator[Load]:
    """A load that runs; it is stopped at the end, or by its own `stop`. Its records are kept."""
    pod = client_pod(f"e2e-{name}", {"app.kubernetes.io/name": "e2e-load"})
    address = f"http://api-server.{NAMESPACE}.svc"
    arguments = [address, str(answers), str(streams), str(tokens), key_of()["Authorization"]]
    with running_pod(pod) as pod_name:
        command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, "exec", "-i", pod_name, "--"]
        process = subprocess.Popen(
            [*command, "python", "-u", "-c", SCRIPT, *arguments],
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
