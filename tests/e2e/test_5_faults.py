"""What a user sees when the model's pod is killed."""

import json
import time

import pytest

from tests.e2e.cluster import MODEL_PODS, NAMESPACE, eventually, kubectl, pods
from tests.e2e.conftest import Record
from tests.e2e.load import Record as Request
from tests.e2e.load import cut, failed, light_load

pytestmark = pytest.mark.e2e


def is_clear_refusal(request: Request) -> bool:
    """503 with a Retry-After and the project's error form."""
    headers = request.get("headers", {})
    if request["status"] != 503 or not str(headers.get("retry-after", "")).isdigit():
        return False
    error = json.loads(request["why"])["error"]
    return {"message", "type", "code", "param", "request_id"} <= set(error)


def test_a_killed_model_host_gives_clear_refusals_and_recovers(
    installed: float, record: Record
) -> None:
    (old,) = (pod["metadata"]["name"] for pod in pods(MODEL_PODS))
    with light_load("killed-model-host") as load:
        load.wait_for_good(10, timeout_s=60)
        kubectl(
            "-n", NAMESPACE, "delete", "pod", old, "--grace-period=0", "--force", "--wait=false"
        )
        killed = time.time()
        eventually(lambda: failed(load.records), 60, "a request that was refused")
        load.wait_for_good(10, timeout_s=180)
        load.stop()
        records = load.records
    refused = failed(records)
    last = max(entry["at"] + entry["seconds"] for entry in refused)
    good = [entry for entry in records if entry.get("ok") and entry["at"] > last]
    record(
        requests=len(records),
        failed=len(refused),
        cut=len(cut(records)),
        recovery_s=round(good[2]["at"] + good[2]["seconds"] - killed, 1),
    )
    assert [entry for entry in refused if not is_clear_refusal(entry)] == []
    names = [pod["metadata"]["name"] for pod in pods(MODEL_PODS)]
    assert len(names) == 1
    assert names != [old]
