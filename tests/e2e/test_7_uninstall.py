"""Uninstalling leaves nothing behind, and installing afterwards works again."""

import httpx
import pytest

from tests.e2e.cluster import (
    NAMESPACE,
    deploy,
    eventually,
    helm,
    key_of,
    kubectl,
    port_forward,
)
from tests.e2e.conftest import Record, body_of
from tests.e2e.test_2_answers import ANSWERS, INDIA

pytestmark = pytest.mark.e2e
# What Kubernetes itself puts into every namespace, and keeps for a while.
KUBERNETES_OWN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
NOT_OBJECTS = ("event", "metrics.k8s.io")


def left_behind() -> set[str]:
    kinds = kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not any(word in kind for word in NOT_OBJECTS))
    return set(kubectl("-n", NAMESPACE, "get", wanted, "-o", "name").split()) - KUBERNETES_OWN


def volumes() -> list[str]:
    """The volumes that were made for claims of ours."""
    owners = "{.items[*].spec.claimRef.namespace}"
    found = kubectl("get", "persistentvolumes", "-o", f"jsonpath={owners}").split()
    return [owner for owner in found if owner == NAMESPACE]


def uninstall() -> None:
    """Both releases, and the database that k8s/deploy.sh puts beside them."""
    for release in ("api-server", "model-host"):
        helm("uninstall", release, "--ignore-not-found", "--wait")
    kubectl(
        "-n", NAMESPACE, "delete", "deployment,service,networkpolicy,secret", "--wait",
        "--field-selector=metadata.name=chats-database",
    )  # fmt: skip
    eventually(lambda: not left_behind(), 150, f"an empty namespace; left: {left_behind()}")


@pytest.mark.timeout(400)
def test_uninstall_leaves_nothing(installed: float) -> None:
    uninstall()
    assert helm("list", "--short").split() == []
    eventually(lambda: not volumes(), 60, "no volume is kept")


@pytest.mark.timeout(400)
def test_a_fresh_install_works(cluster: None, record: Record) -> None:
    deploy()
    with port_forward("api-server") as address:
        answer = httpx.post(f"{address}/chat", json=INDIA, timeout=60, headers=key_of())
    record(requests=1, failed=int(answer.status_code != 200))
    assert body_of(answer) == {"chat_id": "1", "response": ANSWERS["India"]}
