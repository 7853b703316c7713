"""Changes that lose nothing: counted on the client's side, a stream only with its terminator."""

import json
import time
from typing import Any

import pytest

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    ROOT,
    deploy,
    eventually,
    helm,
    kubectl,
    pods,
)
from tests.e2e.conftest import Record
from tests.e2e.load import cut, failed, light_load, of_kind

pytestmark = pytest.mark.e2e
PARTS = {
    "model-host": ("deployment/model-host-predictor", MODEL_PODS),
    "api-server": ("deployment/api-server", API_PODS),
}


def state() -> dict[str, Any]:
    """Everything whose change would mean that something was done."""
    listed = kubectl(
        *["-n", NAMESPACE, "get", "deployments,replicasets,inferenceservices,services,pods"],
        *["-o", "json"],
    )
    return {
        f"{item['kind']}/{item['metadata']['name']}": (
            item["metadata"]["uid"],
            item["metadata"].get("generation"),
        )
        for item in json.loads(listed)["items"]
    }


def test_a_second_upgrade_changes_nothing(installed: float) -> None:
    before = state()
    deploy()
    assert state() == before


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", PARTS)
def test_a_rolling_restart_fails_no_request(installed: float, part: str, record: Record) -> None:
    deployment, selector = PARTS[part]
    (old,) = (pod["metadata"]["name"] for pod in pods(selector))
    with light_load(f"restart-{part}") as load:
        load.wait_for_good(20, timeout_s=60)
        started = time.monotonic()
        chart = str(ROOT / "charts" / part)
        # The way that KServe's controller keeps: through the release, not behind its back.
        note = f"podAnnotations.qna-restarted=at-{time.time_ns()}"
        helm("upgrade", part, chart, "--reuse-values", "--set-string", note)
        eventually(
            lambda: old not in {pod["metadata"]["name"] for pod in pods(selector)},
            240,
            f"the pod {old} is gone",
        )
        kubectl("-n", NAMESPACE, "rollout", "status", deployment, "--timeout=60s")
        load.wait_for_good(20, timeout_s=60)
        seconds = time.monotonic() - started
        load.wait_for_streams(50, timeout_s=120)  # a slow machine has had few by now
        load.stop()
        records = load.records
    record(
        requests=len(records),
        failed=len(failed(records)),
        cut=len(cut(records)),
        streams=len(of_kind(records, "stream")),
        slowest_s=max(entry["seconds"] for entry in records),
        restart_s=round(seconds, 1),
    )
    assert failed(records) == []
    assert cut(records) == []
