"""Uninstalling leaves nothing behind; the version before is installed afterwards, and brought up to
this one under load.
"""

import json
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    ROOT,
    VERSION,
    deploy,
    eventually,
    helm,
    key_of,
    kubectl,
    names_of,
    pods,
    port_forward,
    wait_until_replaced,
)
from tests.e2e.conftest import Record, body_of
from tests.e2e.load import assert_nothing_lost, figures, light_load
from tests.e2e.test_2_answers import ANSWERS, INDIA

pytestmark = pytest.mark.e2e
PREVIOUS = Path(__file__).with_name("previous")
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


def chart_of(release: str) -> str:
    (found,) = json.loads(helm("list", "--filter", f"^{release}$", "-o", "json"))
    return str(found["chart"])


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


@pytest.fixture
def charts_before(tmp_path: Path) -> Path:
    """Both charts as they were released last."""
    for packed in PREVIOUS.glob("*.tgz"):
        with tarfile.open(packed) as archive:
            archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.timeout(700)
def test_an_upgrade_from_the_version_before_fails_no_request(
    cluster: None, charts_before: Path, record: Record
) -> None:
    """With the values that the installation has, as the documents say; a chat goes on after it."""
    deploy("--set", f"image.tag={VERSION}", charts=charts_before)
    chat = {"chat_id": "upgraded", "user_prompt": "Capital of France?"}
    with port_forward("api-server") as address:
        answer = httpx.post(f"{address}/chat", json=INDIA, timeout=60, headers=key_of())
        assert body_of(answer) == {"chat_id": "1", "response": ANSWERS["India"]}
        body_of(httpx.post(f"{address}/chat", json=chat, timeout=60, headers=key_of()))
    assert chart_of("api-server") != f"api-server-{VERSION}"
    with light_load("upgrade", chats=3, streams=2) as load:
        for part, selector in (("model-host", MODEL_PODS), ("api-server", API_PODS)):
            old = names_of(pods(selector))
            helm(
                "upgrade", part, str(ROOT / "charts" / part), "--reset-then-reuse-values",
                "--set", "podAnnotations.qna-image-id=another",  # as a new image would
            )  # fmt: skip
            wait_until_replaced(selector, old)
            load.wait_for_good(20, timeout_s=60)
        load.stop()
        records = load.records
    record(**figures(records))
    assert_nothing_lost(records)
    for part in ("model-host", "api-server"):
        assert chart_of(part) == f"{part}-{VERSION}"
    with port_forward("api-server") as address:
        question = {"chat_id": "upgraded", "user_prompt": "And of Japan?"}
        answer = httpx.post(f"{address}/chat", json=question, timeout=60, headers=key_of())
        assert body_of(answer)["response"] == ANSWERS["Japan"]
