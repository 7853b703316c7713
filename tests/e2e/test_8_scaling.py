"""As many model pods as are wanted: more under load, fewer in quiet and no stream cut by it, none
where nobody asks, and the first question after that answered all the same.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import (
    MODEL_PODS,
    NAMESPACE,
    ROOT,
    CommandFailed,
    eventually,
    helm,
    key_of,
    kubectl,
    pods,
    port_forward,
    ready_pods,
    wait_until_settled,
)
from tests.e2e.conftest import Record, body_of
from tests.e2e.load import cut, failed, light_load, of_kind
from tests.e2e.long_load import long_load
from tests.e2e.test_2_answers import ANSWERS, INDIA

pytestmark = pytest.mark.e2e
PER_POD = 2000
# A pool without GPUs of its own, so that three pods fit whatever else runs.
PLACED = {
    "gpu": {"enabled": False},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}


def _scale(least: int) -> None:
    keda = {
        "enabled": True,
        "pollingIntervalSeconds": 2,
        "cooldownSeconds": 15,
        "apiServer": {"value": "tokens", "perPod": PER_POD},
    }
    scaling = {
        "minReplicas": least,
        "maxReplicas": 3,
        "scaleDownStabilizationSeconds": 30,
        "keda": keda,
    }
    values = {**PLACED, "autoscaling": scaling}
    helm(
        "upgrade", "model-host", str(ROOT / "charts/model-host"), "--reuse-values",
        *(f"--set-json={key}={json.dumps(value)}" for key, value in values.items()),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scaled(installed: float) -> None:
    """One to three pods, by what the API server is asked for; it holds questions meanwhile."""
    try:
        kubectl("-n", "keda", "get", "deployment/keda-operator")
    except CommandFailed as error:
        pytest.fail(f"KEDA is not in the cluster: KEDA=1 k8s/cluster.sh up\n{error}")
    helm(
        "upgrade", "api-server", str(ROOT / "charts/api-server"), "--reuse-values",
        "--set", "config.holdS=90",
    )  # fmt: skip
    _scale(least=1)
    for name in ("api-server", "model-host-predictor"):
        kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=240s")
    wait_until_settled()
    kubectl(
        "-n", NAMESPACE, "wait", "--for=condition=Ready", "scaledobject/model-host",
        "--timeout=120s",
    )  # fmt: skip
    # Nothing is put back: no later test asks these releases, and each run begins by deploying both.


def load_of(http: httpx.Client) -> dict[str, Any]:
    view: dict[str, Any] = body_of(http.get("/load", params={"model": "qna-demo"}))
    return view


@pytest.mark.timeout(600)
def test_load_makes_three_pods_and_quiet_one_and_nothing_is_cut(
    scaled: None, record: Record
) -> None:
    with (
        port_forward("api-server") as address,
        httpx.Client(base_url=address, timeout=30, headers=key_of()) as http,
        light_load("scaling", chats=1, streams=1) as light,
        long_load("streams", streams=1, tokens=500) as long,
    ):
        light.wait_for_good(5, timeout_s=60)
        eventually(lambda: len(pods(MODEL_PODS)) == 1, 240, "one pod to begin with")
        light.wait_for_good(5, timeout_s=60)
        with long_load("surge", answers=6, tokens=600) as surge:
            eventually(lambda: load_of(http)["tokens"] > 2 * PER_POD, 60, "a load for three pods")
            signal = time.monotonic()
            eventually(lambda: len(ready_pods(MODEL_PODS)) == 3, 240, "three pods that are ready")
            grown_s = time.monotonic() - signal
            # Each of the three has answered under load before it gets quiet.
            light.wait_for_good(20, timeout_s=60)
        quiet = time.monotonic()
        eventually(lambda: len(pods(MODEL_PODS)) == 1, 240, "one pod, the others gone")
        shrunk_s = time.monotonic() - quiet
        light.wait_for_good(5, timeout_s=60)
        long.stop()
        light.stop()
        records = [*light.records, *long.records, *surge.records]
    streams = of_kind(records, "stream")
    record(
        requests=len(records),
        failed=len(failed(records)),
        cut=len(cut(records)),
        streams=len(streams),
        slowest_s=max(entry["seconds"] for entry in records),
        third_ready_s=round(grown_s, 1),
        one_left_s=round(shrunk_s, 1),
    )
    assert failed(records) == []
    assert cut(records) == []


@pytest.mark.timeout(600)
def test_no_pod_is_left_in_quiet_and_the_first_question_is_held_and_answered(
    scaled: None, record: Record
) -> None:
    _scale(least=0)
    eventually(lambda: not pods(MODEL_PODS), 240, "no pod at all")
    with (
        port_forward("api-server") as address,
        httpx.Client(base_url=address, timeout=90, headers=key_of()) as http,
        ThreadPoolExecutor(2) as threads,
    ):
        state = body_of(http.get("/readyz"))
        eventually(
            lambda: body_of(http.get("/readyz"))["model_host"] == "asleep", 10, f"asleep: {state}"
        )
        assert load_of(http)["requests"] == 0
        asked = time.monotonic()
        first = threads.submit(http.post, "/chat", json=INDIA)
        streamed = threads.submit(
            http.post, "/chat", json={"user_prompt": "Capital of France?", "stream": True}
        )
        eventually(lambda: load_of(http)["held"] == 2, 10, "both questions are held")
        assert body_of(first.result())["response"] == ANSWERS["India"]
        seconds = time.monotonic() - asked
        stream = streamed.result()
        assert stream.text.endswith("data: [DONE]\n\n")
        record(requests=2, failed=0, cut=0, first_answer_s=round(seconds, 1))
        assert load_of(http)["held"] == 0


@pytest.mark.timeout(300)
def test_who_cannot_wait_is_told_how_long_it_takes_and_starts_a_pod_all_the_same(
    scaled: None, record: Record
) -> None:
    eventually(lambda: not pods(MODEL_PODS), 240, "no pod at all")
    with (
        port_forward("api-server") as address,
        httpx.Client(base_url=address, timeout=90, headers=key_of()) as http,
    ):
        refused = http.post("/chat", json={"user_prompt": "q", "timeout_ms": 1000})
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert error["code"] == "model_starting"
        assert int(refused.headers["retry-after"]) >= 1
        asked = time.monotonic()
        eventually(lambda: ready_pods(MODEL_PODS), 240, "a pod, although nobody waits for it")
        record(
            requests=1,
            expected_wait_s=error["expected_wait_s"],
            ready_s=round(time.monotonic() - asked, 1),
        )
