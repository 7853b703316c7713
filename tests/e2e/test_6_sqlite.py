"""The small form: one pod, whose chats are a SQLite file in a claim."""

import httpx
import pytest

from tests.e2e.cluster import (
    NAMESPACE,
    ROOT,
    helm,
    key_of,
    kubectl,
    port_forward,
    wait_for_ready,
)
from tests.e2e.conftest import body_of

pytestmark = pytest.mark.e2e
RELEASE = "alone"
PODS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=api"


@pytest.mark.timeout(400)
def test_a_chat_in_a_file_outlives_its_pod(installed: float) -> None:
    chart = ROOT / "charts" / "api-server"
    try:
        helm(
            "upgrade", "--install", RELEASE, str(chart),
            "--values", str(chart / "values-kind.yaml"),
            "--set", f"fullnameOverride={RELEASE}", "--wait", "--timeout", "3m",
        )  # fmt: skip
        body = {"chat_id": "kept", "user_prompt": "Capital of France?"}
        with port_forward(RELEASE) as address:
            answer = httpx.post(f"{address}/chat", json=body, timeout=60, headers=key_of(RELEASE))
        assert body_of(answer)["response"] == "The capital of France is Paris."
        kubectl("-n", NAMESPACE, "delete", "pods", "-l", PODS, "--wait")
        wait_for_ready(PODS, 1)
        with port_forward(RELEASE) as address:
            view = httpx.get(f"{address}/chats/kept", timeout=60, headers=key_of(RELEASE))
        assert [item["status"] for item in body_of(view)["items"]] == ["complete"]
    finally:
        helm("uninstall", RELEASE, "--ignore-not-found", "--wait")
