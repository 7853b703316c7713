"""The kind cluster as the tests see it: commands bound to its context, waiting, forwards, pods.

Knows names and commands, no expectations. Everything waits on a condition with a deadline.
"""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = os.environ.get("CLUSTER_NAME", "qna")
NAMESPACE = os.environ.get("NAMESPACE", "qna")
CONTEXT = f"kind-{CLUSTER}"
REPLICAS = 2  # of each part, as k8s/deploy.sh makes them
VERSION = (ROOT / "VERSION").read_text().strip()
API_IMAGE = f"qna-api-server:{VERSION}"
MODEL_PODS = "app.kubernetes.io/name=model-host,app.kubernetes.io/component=predictor"
API_PODS = "app.kubernetes.io/name=api-server,app.kubernetes.io/component=api"


T = TypeVar("T")


class CommandFailed(AssertionError):
    """A command that had to succeed did not; the message holds what it said."""


def run(*command: str, timeout_s: float = 300, stdin: str | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin
    )
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)[:300]}\n{done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*arguments: str, timeout_s: float = 300, stdin: str | None = None) -> str:
    return run("kubectl", "--context", CONTEXT, *arguments, timeout_s=timeout_s, stdin=stdin)


def helm(*arguments: str, timeout_s: float = 300) -> str:
    return run("helm", "--kube-context", CONTEXT, "-n", NAMESPACE, *arguments, timeout_s=timeout_s)


def deploy(*arguments: str, charts: Path = ROOT / "charts") -> str:
    """What `make deploy` does: both charts, and waiting until both answer."""
    command = ["env", f"CHARTS={charts}", "bash", str(ROOT / "k8s/deploy.sh")]
    return run(*command, *arguments, timeout_s=600)


def pods(selector: str, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    found = json.loads(kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json"))
    return list(found["items"])


def eventually(probe: Callable[[], T], timeout_s: float, what: str) -> T:
    """The probe's first true answer; AssertionError with its last one when none came in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        last = probe()
        if last:
            return last
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s, last {last!r}"
        time.sleep(0.2)


def ready_pods(selector: str) -> list[dict[str, Any]]:
    """Those that are ready and stay."""
    return [
        pod
        for pod in pods(selector)
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in pod["status"].get("conditions", [])
        )
    ]


def names_of(found: list[dict[str, Any]]) -> set[str]:
    return {str(pod["metadata"]["name"]) for pod in found}


def wait_for_ready(selector: str, count: int, timeout_s: float = 180) -> list[dict[str, Any]]:
    """Until just so many pods are ready, and none is ending."""

    def found() -> list[dict[str, Any]]:
        ready = ready_pods(selector)
        return ready if len(ready) == count == len(pods(selector)) else []

    return eventually(found, timeout_s, f"{count} ready pods with {selector}")


def wait_until_replaced(selector: str, old: set[str]) -> None:
    eventually(lambda: not old & names_of(pods(selector)), 480, f"the pods {old} are gone")
    wait_for_ready(selector, REPLICAS)


def nodes_of(pool: str) -> list[str]:
    listed = kubectl(
        "get", "nodes", "-l", f"pool={pool}", "-o", "jsonpath={.items[*].metadata.name}"
    )
    return listed.split()


def node_of_the_load() -> str:
    """Of the API pool the node that no test takes away: the database is there, if there is one."""
    database = pods("app.kubernetes.io/name=chats-database")
    return str(database[0]["spec"]["nodeName"]) if database else nodes_of("api")[0]


def on_node(node: str, *command: str) -> str:
    """A command on a node of the cluster, where every container's processes are seen."""
    return run("docker", "exec", node, *command, timeout_s=60)


def process_of(pod: dict[str, Any], container: str) -> tuple[str, str]:
    """The node of a pod, and the number there of its container's first process."""
    node = str(pod["spec"]["nodeName"])
    (state,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == container)
    found = on_node(node, "crictl", "inspect", state["containerID"].removeprefix("containerd://"))
    return node, str(json.loads(found)["info"]["pid"])


def wait_until_settled(timeout_s: float = 240) -> None:
    """Until no pod of ours is ending: after an upgrade the old ones still serve for a while."""

    def ending() -> list[str]:
        found = pods(MODEL_PODS) + pods(API_PODS)
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" in pod["metadata"]]

    eventually(lambda: not ending(), timeout_s, "no pod is ending")


@contextmanager
def port_forward(name: str, port: int = 80, *, kind: str = "svc") -> Iterator[str]:
    """The address of a Service, or of a pod, on this machine."""
    command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, "port-forward"]
    process = subprocess.Popen(
        [*command, f"{kind}/{name}", f":{port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=process.stdout.read)
    try:
        said = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert match, f"port-forward to {name} failed: {said}"
        # The rest must be read, or a full pipe would stop the forwarding.
        reader.start()
        yield f"http://127.0.0.1:{match[1]}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        if reader.ident is not None:
            reader.join()
        process.stdout.close()


def key_of(release: str = "api-server") -> dict[str, str]:
    """The header with the administrator's key, as the chart's notes say how to read it."""
    return _header(f"{release}-keys", "admin-key")


def host_key_of(release: str = "model-host") -> dict[str, str]:
    """The header with the key that a model host asks for."""
    return _header(f"{release}-key", "key")


def _header(secret: str, key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret_text(secret, key)}"}


def secret_text(name: str, key: str) -> str:
    template = f'{{{{index .data "{key}" | base64decode}}}}'
    return kubectl("-n", NAMESPACE, "get", "secret", name, "-o", f"go-template={template}").strip()


def client_pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """A pod that waits for commands; it may run where `restricted` is enforced."""
    container = {
        "name": "client",
        "image": API_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"pool": "api"},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


@contextmanager
def running_pod(manifest: dict[str, Any]) -> Iterator[str]:
    """The name of the pod while it runs; it is gone afterwards."""
    name = str(manifest["metadata"]["name"])
    kubectl("-n", NAMESPACE, "delete", "pod", name, "--ignore-not-found", "--wait")
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    try:
        kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        yield name
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--ignore-not-found", "--wait")
