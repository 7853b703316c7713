"""What the tests of weights stand on: a hub in the cluster, and releases that fetch from it."""

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.e2e.cluster import (
    CLUSTER,
    NAMESPACE,
    ROOT,
    VERSION,
    CommandFailed,
    helm,
    kubectl,
    pods,
    port_forward,
    run,
)

IMAGE = f"qna-model-host:{VERSION}"
# The image of this version has the model, a small server, and is in the nodes already.
WEIGHTS = "/app/model/demo/weights"
TOKEN = "hf_of_the_test"
HUB = f"http://weights-hub.{NAMESPACE}.svc:8000"
CHART = ROOT / "charts" / "model-host"
POOL = {"pool": "gpu"}
KSERVE = re.search(r"^KSERVE_VERSION=(\S+)$", (ROOT / "k8s/versions.env").read_text(), re.MULTILINE)
assert KSERVE
INITIALIZER = f"kserve/storage-initializer:{KSERVE[1]}"
# In the GPU pool, where the image is, but without a GPU: these tests are not about those.
PLACE = (
    "--set", "gpu.enabled=false,nodeSelector.pool=gpu,auth.enabled=false",
    "--set-json", 'tolerations=[{"key":"nvidia.com/gpu","operator":"Exists"}]',
)  # fmt: skip
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def make_namespace() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def _hub_objects() -> list[dict[str, Any]]:
    about = {"name": "weights-hub", "namespace": NAMESPACE, "labels": {"app": "weights-hub"}}
    container = {
        "name": "hub",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/srv/hub.py", "--token", TOKEN],
        "args": [
            f"--model=demo/tiny={WEIGHTS}",
            f"--model=demo/huge={WEIGHTS}",
            f"--announce=demo/huge/model.safetensors={10**15}",
            f"--archive=tiny.tar.gz={WEIGHTS}",
        ],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "srv", "mountPath": "/srv"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": about,
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": POOL,
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "srv", "configMap": {"name": "weights-hub"}}],
        },
    }
    script = (ROOT / "tests/hub.py").read_text()
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"hub.py": script}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": about,
            "stringData": {"HF_TOKEN": TOKEN},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about,
            "spec": {"selector": {"app": "weights-hub"}, "ports": [{"port": 8000}]},
        },
        pod,
    ]


@contextmanager
def hub() -> Iterator[None]:
    names = [f"{kind}/weights-hub" for kind in ("pod", "service", "secret", "configmap")]
    try:
        kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": _hub_objects()}),
        )
        kubectl(
            "-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/weights-hub", "--timeout=60s"
        )
        yield
    finally:
        kubectl("-n", NAMESPACE, "delete", *names, "--ignore-not-found", "--wait")


def asked() -> list[str]:
    """Every request that the hub has answered."""
    lines = kubectl("-n", NAMESPACE, "logs", "weights-hub").splitlines()
    return [line for line in lines if '"GET' in line or '"HEAD' in line]


def install(name: str, *arguments: str, action: str = "install") -> str:
    return helm(
        action, name, str(CHART), "--values", str(CHART / "values-kind.yaml"),
        "--set", f"fullnameOverride={name},model.name={name}", *PLACE, *arguments,
    )  # fmt: skip


def download(source: str, **files: str) -> tuple[str, ...]:
    more = [f"--set-json=model.download.files={json.dumps(files)}"] if files else []
    return (
        f"--set=model.hubEndpoint={HUB},model.hubTokenSecret=weights-hub",
        f"--set=model.download.enabled=true,model.download.source={source}",
        "--set=model.download.persistence.size=1Gi",
        *more,
    )


@contextmanager
def gone_afterwards(*names: str) -> Iterator[None]:
    try:
        yield
    finally:
        for name in names:
            with contextlib.suppress(CommandFailed):
                helm("uninstall", name, "--wait")
        kubectl(
            "-n",
            NAMESPACE,
            "delete",
            "jobs,networkpolicies,pvc",
            "-l",
            f"app.kubernetes.io/instance in ({','.join(names)})",
            "--ignore-not-found",
        )


def predictor(name: str) -> dict[str, Any]:
    selector = f"app.kubernetes.io/instance={name},app.kubernetes.io/component=predictor"
    (pod,) = [pod for pod in pods(selector) if "deletionTimestamp" not in pod["metadata"]]
    return pod


def wait_ready(*names: str) -> None:
    for name in names:
        kubectl(
            "-n",
            NAMESPACE,
            "wait",
            "--for=condition=Ready",
            f"inferenceservice/{name}",
            "--timeout=150s",
        )
        kubectl(
            "-n", NAMESPACE, "rollout", "status", f"deployment/{name}-predictor", "--timeout=150s"
        )


def ask(name: str) -> str:
    body = {"chat_id": "1", "system_prompt": "You are helpful", "user_prompt": "Capital of India?"}
    with port_forward(f"{name}-direct") as address:
        answer = httpx.post(f"{address}/generate", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["response"])


def job_says(name: str) -> str:
    return kubectl("-n", NAMESPACE, "logs", f"job/{name}-model", "--tail=-1")


def load_initializer() -> None:
    """KServe's image, into the pool whose pods it fetches for."""
    try:
        run("docker", "image", "inspect", INITIALIZER)
    except CommandFailed:
        run("docker", "pull", INITIALIZER)
    names = kubectl("get", "nodes", "-l", "pool=gpu", "-o", "jsonpath={.items[*].metadata.name}")
    run(
        "kind",
        "load",
        "docker-image",
        INITIALIZER,
        "--name",
        CLUSTER,
        "--nodes",
        ",".join(names.split()),
    )


@contextmanager
def mirror_of_the_hub() -> Iterator[None]:
    """KServe's initializer takes the Hub's address from the whole cluster's setting."""
    where = "/spec/container/env"
    value = [{"name": "HF_ENDPOINT", "value": HUB}]
    patch = json.dumps([{"op": "add", "path": where, "value": value}])
    kubectl("patch", "clusterstoragecontainer", "default", "--type=json", "-p", patch)
    try:
        yield
    finally:
        back = json.dumps([{"op": "remove", "path": where}])
        kubectl("patch", "clusterstoragecontainer", "default", "--type=json", "-p", back)
