"""The API server on PostgreSQL: several pods that share every chat, and an autoscaler."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import (
    CLUSTER,
    NAMESPACE,
    ROOT,
    eventually,
    helm,
    kubectl,
    pods,
    port_forward,
    run,
)
from tests.e2e.conftest import body_of

pytestmark = pytest.mark.e2e
IMAGE = "postgres:15-bookworm"
RELEASE = "shared-api"
PODS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=api"


def _image_id(which: str) -> int:
    """The number of user (`-u`) or group (`-g`) `postgres`: images of this name differ in it."""
    return int(run("docker", "run", "--rm", "--entrypoint", "id", IMAGE, which, "postgres"))


def _server() -> dict[str, Any]:
    """A PostgreSQL that may run where `restricted` is enforced; its data go with the pod."""
    user, group = _image_id("-u"), _image_id("-g")
    container = {
        "name": "postgres",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "PGDATA", "value": "/data/pg"},
            {"name": "POSTGRES_DB", "value": "chats"},
            {
                "name": "POSTGRES_PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "password"}},
            },
        ],
        "ports": [{"containerPort": 5432}],
        "readinessProbe": {
            "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"]},
            "periodSeconds": 1,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "run", "mountPath": "/var/run/postgresql"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "postgres", "namespace": NAMESPACE, "labels": {"app": "postgres"}},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": {"pool": "api"},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": group,
                "fsGroup": group,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}],
        },
    }


def _load_image() -> None:
    try:
        run("docker", "image", "inspect", IMAGE)
    except AssertionError:
        run("docker", "pull", IMAGE)
    names = kubectl("get", "nodes", "-l", "pool=api", "-o", "jsonpath={.items[*].metadata.name}")
    nodes = ",".join(names.split())
    run("kind", "load", "docker-image", IMAGE, "--name", CLUSTER, "--nodes", nodes)


@pytest.fixture(scope="module")
def shared_api(installed: float) -> Iterator[None]:
    """A second release of the API server, on a PostgreSQL of this test's own."""
    _load_image()
    password = secrets.token_hex(12)
    url = f"postgresql://postgres:{password}@postgres.{NAMESPACE}.svc:5432/chats"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "postgres", "namespace": NAMESPACE},
        "stringData": {"password": password, "url": url},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "postgres", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "postgres"}, "ports": [{"port": 5432}]},
    }
    chart = ROOT / "charts" / "api-server"
    try:
        objects = {"apiVersion": "v1", "kind": "List", "items": [secret, service, _server()]}
        kubectl("apply", "-f", "-", stdin=json.dumps(objects))
        kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/postgres", "--timeout=120s")
        helm(
            "install", RELEASE, str(chart), "--values", str(chart / "values-kind.yaml"),
            "--set", f"fullnameOverride={RELEASE},database.existingSecret=postgres",
            "--set", "autoscaling.enabled=true,autoscaling.maxReplicas=3",
            "--set-json", 'database.peers=[{"podSelector":{"matchLabels":{"app":"postgres"}}}]',
            "--wait", "--timeout", "3m",
        )  # fmt: skip
        yield
    finally:
        with contextlib.suppress(AssertionError):
            helm("uninstall", RELEASE, "--wait")
        kubectl(
            "-n", NAMESPACE, "delete", "pod/postgres", "service/postgres", "secret/postgres",
            "--ignore-not-found", "--wait",
        )  # fmt: skip


def _ask(address: str, text: str) -> str:
    body = {"chat_id": "shared", "user_prompt": text}
    return str(body_of(httpx.post(f"{address}/chat", json=body, timeout=60))["response"])


def _two_ready() -> list[dict[str, Any]] | None:
    ready = [
        pod
        for pod in pods(PODS)
        if "deletionTimestamp" not in pod["metadata"]
        and {"type": "Ready", "status": "True"}.items()
        <= next(
            (c for c in pod["status"].get("conditions", []) if c["type"] == "Ready"), {}
        ).items()
    ]
    return ready if len(ready) >= 2 else None


def _forward(pod: dict[str, Any]) -> contextlib.AbstractContextManager[str]:
    return port_forward(str(pod["metadata"]["name"]), 8000, kind="pod")


@pytest.mark.timeout(900)
def test_a_chat_goes_on_in_another_pod_and_outlives_both(shared_api: None) -> None:
    first, second, *_ = eventually(_two_ready, 180, "two pods that are ready")
    with _forward(first) as one, _forward(second) as two:
        assert _ask(one, "Capital of France?") == "The capital of France is Paris."
        assert _ask(two, "And of Japan?") == "The capital of Japan is Tokyo."
    kubectl("-n", NAMESPACE, "delete", "pods", "-l", PODS, "--wait")
    kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=180s")
    with port_forward(RELEASE) as address:
        assert _ask(address, "And of Peru?") == "The capital of Peru is Lima."
        items = body_of(httpx.get(f"{address}/chats/shared", timeout=60))["items"]
    assert [item["status"] for item in items] == ["complete"] * 3


@pytest.mark.timeout(600)
def test_the_autoscaler_reads_the_load(shared_api: None) -> None:
    def read() -> int | None:
        found = json.loads(kubectl("-n", NAMESPACE, "get", "hpa", RELEASE, "-o", "json"))
        for metric in found.get("status", {}).get("currentMetrics") or []:
            used = metric.get("resource", {}).get("current", {}).get("averageUtilization")
            if used is not None:
                return int(used) + 1  # nothing used is an answer too
        return None

    eventually(read, 240, "an autoscaler that reads the pods' CPU")
