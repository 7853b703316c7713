"""A new version of the model host beside the old one: a share of the chats, then all of them, then
none again. After the first step only the models file changes, and no pod restarts.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    REPLICAS,
    ROOT,
    deploy,
    eventually,
    helm,
    key_of,
    kubectl,
    names_of,
    pods,
    port_forward,
    wait_for_ready,
    wait_until_replaced,
    wait_until_settled,
)
from tests.e2e.conftest import Record
from tests.e2e.load import Load, assert_nothing_lost, figures, light_load

pytestmark = pytest.mark.e2e
STABLE, CANARY = "model-host", "model-host-next"


@pytest.fixture
def canary(installed: float) -> Iterator[None]:
    """One pod of the next version, which nobody asks yet. The load needs few of its cores."""
    chart = ROOT / "charts" / "model-host"
    image_id = next(iter(pods(MODEL_PODS)))["metadata"]["annotations"]["qna-image-id"]
    try:
        helm(
            "upgrade", "--install", CANARY, str(chart), "--values", str(chart / "values-kind.yaml"),
            "--set", f"fullnameOverride={CANARY},replicas=1",
            "--set-string", f"podAnnotations.qna-image-id={image_id}",
        )  # fmt: skip
        kubectl(
            "-n", NAMESPACE, "wait", "--for=create", f"deployment/{CANARY}-predictor",
            "--timeout=60s",
        )  # fmt: skip
        kubectl(
            "-n", NAMESPACE, "rollout", "status", f"deployment/{CANARY}-predictor", "--timeout=240s"
        )
        yield
    finally:
        deploy()
        wait_until_settled()
        helm("uninstall", CANARY, "--ignore-not-found", "--wait")
        wait_for_ready(MODEL_PODS, REPLICAS)


def split(stable: int, canary: int) -> None:
    addresses = [
        {"modelHost": STABLE, "weight": stable, "resolve": True},
        {"modelHost": CANARY, "weight": canary},
    ]
    models = [{"name": "qna-demo", "addresses": addresses}]
    helm(
        "upgrade", "api-server", str(ROOT / "charts/api-server"), "--reuse-values",
        f"--set-json=models={json.dumps(models)}",
    )  # fmt: skip
    # kubelet looks at ConfigMaps once in a minute or so, and whenever a pod changes.
    kubectl(
        "-n", NAMESPACE, "annotate", "pods", "-l", API_PODS, "--overwrite",
        f"qna-models=at-{time.time_ns()}",
    )  # fmt: skip


def asked(names: set[str]) -> Counter[str]:
    """How many requests every model host has had from these API servers."""
    found: Counter[str] = Counter()
    for name in names:
        with port_forward(name, 8000, kind="pod") as address:
            text = httpx.get(f"{address}/metrics", headers=key_of(), timeout=30).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "qna_api_host_requests_total":
                    host = CANARY if CANARY in sample.labels["address"] else STABLE
                    found[host] += int(sample.value)
    return found


def share(load: Load, names: set[str], requests: int) -> float:
    """Of the chats of a while, the part that the canary got."""
    before = asked(names)
    load.wait_for_good(requests, timeout_s=180)
    got = asked(names) - before
    return got[CANARY] / got.total()


@pytest.mark.timeout(900)
def test_a_canary_is_tried_promoted_and_taken_back(canary: None, record: Record) -> None:
    old = names_of(pods(API_PODS))
    with light_load("canary", chats=2, streams=1) as load:
        split(95, 5)
        wait_until_replaced(API_PODS, old)
        names = names_of(pods(API_PODS))
        tried = share(load, names, 200)
        split(0, 100)
        eventually(lambda: share(load, names, 20) == 1, 150, "every chat goes to the new version")
        promoted = share(load, names, 50)
        split(100, 0)
        eventually(lambda: share(load, names, 20) == 0, 150, "every chat goes to the old version")
        taken_back = share(load, names, 50)
        load.stop()
        records = load.records
    record(**figures(records), tried=tried, promoted=promoted, taken_back=taken_back)
    assert_nothing_lost(records)
    assert 0.01 <= tried <= 0.12
    assert (promoted, taken_back) == (1, 0)
    assert names_of(pods(API_PODS)) == names, "the API servers were restarted"
