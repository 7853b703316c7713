"""The API server on PostgreSQL: pods that share every chat, and an autoscaler."""

import contextlib
import json
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import (
    API_PODS,
    NAMESPACE,
    REPLICAS,
    ROOT,
    deploy,
    eventually,
    helm,
    key_of,
    kubectl,
    names_of,
    port_forward,
    wait_for_ready,
    wait_until_settled,
)
from tests.e2e.conftest import body_of

pytestmark = pytest.mark.e2e
CHART = str(ROOT / "charts" / "api-server")


def _ask(address: str, text: str) -> str:
    body = {"chat_id": "shared", "user_prompt": text}
    answer = httpx.post(f"{address}/chat", json=body, timeout=60, headers=key_of())
    return str(body_of(answer)["response"])


def _forward(pod: dict[str, Any]) -> contextlib.AbstractContextManager[str]:
    return port_forward(str(pod["metadata"]["name"]), 8000, kind="pod")


def test_a_chat_goes_on_in_another_pod_and_outlives_both(installed: float) -> None:
    first, second = wait_for_ready(API_PODS, REPLICAS)
    with _forward(first) as one, _forward(second) as two:
        httpx.delete(f"{one}/chats/shared", timeout=60, headers=key_of())
        assert _ask(one, "Capital of France?") == "The capital of France is Paris."
        assert _ask(two, "And of Japan?") == "The capital of Japan is Tokyo."
    kubectl("-n", NAMESPACE, "delete", "pods", "-l", API_PODS, "--wait")
    wait_for_ready(API_PODS, REPLICAS)
    with port_forward("api-server") as address:
        assert _ask(address, "And of Peru?") == "The capital of Peru is Lima."
        view = httpx.get(f"{address}/chats/shared", timeout=60, headers=key_of())
        items = body_of(view)["items"]
    assert [item["status"] for item in items] == ["complete"] * 3


@pytest.mark.timeout(600)
def test_the_autoscaler_reads_the_load(installed: float) -> None:
    def read() -> int | None:
        found = json.loads(kubectl("-n", NAMESPACE, "get", "hpa", "api-server", "-o", "json"))
        for metric in found.get("status", {}).get("currentMetrics") or []:
            used = metric.get("resource", {}).get("current", {}).get("averageUtilization")
            if used is not None:
                return int(used) + 1  # nothing used is an answer too
        return None

    try:
        names = names_of(wait_for_ready(API_PODS, REPLICAS))
        helm("upgrade", "api-server", CHART, "--reuse-values", "--set", "autoscaling.enabled=true")
        assert names_of(wait_for_ready(API_PODS, REPLICAS)) == names
        eventually(read, 240, "an autoscaler that reads the pods' CPU")
    finally:
        deploy()
        wait_until_settled()
