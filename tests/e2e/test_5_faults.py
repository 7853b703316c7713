"""What breaks while there is load: processes, nodes, and what the cluster itself is made of. What
was lost is counted and stands in the report; how much may be lost is asked for here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    REPLICAS,
    eventually,
    kubectl,
    node_of_the_load,
    nodes_of,
    on_node,
    pods,
    process_of,
    run,
    wait_for_ready,
)
from tests.e2e.conftest import Record
from tests.e2e.load import Record as Request
from tests.e2e.load import cut, failed, fault_under, figures, light_load

pytestmark = pytest.mark.e2e
CHATS, STREAMS = 6, 2
CONTAINERS = {MODEL_PODS: "kserve-container", API_PODS: "api-server"}


def spread_out(selector: str) -> None:
    """A pod on each node of the pool; a drain leaves them all on one."""
    ready = wait_for_ready(selector, REPLICAS)
    if len({pod["spec"]["nodeName"] for pod in ready}) < REPLICAS:
        name = ready[0]["metadata"]["name"]
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")
        ready = wait_for_ready(selector, REPLICAS)
    assert len({pod["spec"]["nodeName"] for pod in ready}) == REPLICAS


def lost(records: list[Request]) -> int:
    return len(failed(records)) + len(cut(records))


def kill(selector: str) -> None:
    """As when the process dies of itself: no signal that it could see, no time to say goodbye."""
    node, process = process_of(wait_for_ready(selector, REPLICAS)[0], CONTAINERS[selector])
    on_node(node, "kill", "-9", process)


@pytest.mark.parametrize("selector", [MODEL_PODS, API_PODS], ids=["model-host", "api-server"])
def test_a_killed_process_costs_what_it_was_doing(
    installed: float, selector: str, record: Record
) -> None:
    """Of a model host only streams that had begun: the API server asks another for the rest. Of an
    API server everything, and new connections are refused until Kubernetes has seen it.
    """
    wait_for_ready(selector, REPLICAS)
    with light_load(f"killed-{CONTAINERS[selector]}", chats=CHATS, streams=STREAMS) as load:
        load.wait_for(calls=150, streams=10, timeout_s=90)
        fault = time.time()
        kill(selector)
        records = fault_under(load, fault)
    facts = figures(records, fault)
    record(**facts)
    assert facts["recovery_s"] <= 15
    if selector == MODEL_PODS:
        assert failed(records) == []
        assert len(cut(records)) <= STREAMS
    else:
        refused = [one for one in failed(records) if "ConnectError" in one["why"]]
        assert lost(records) - len(refused) <= CHATS + STREAMS, facts
    wait_for_ready(selector, REPLICAS)


def test_a_frozen_model_pod_is_left_out(installed: float, record: Record) -> None:
    """It takes connections and says nothing: whoever asked it gets the answer of the other."""
    node, process = process_of(wait_for_ready(MODEL_PODS, REPLICAS)[0], CONTAINERS[MODEL_PODS])
    try:
        with light_load("frozen-model-host") as load:
            fault = time.time()
            on_node(node, "kill", "-STOP", process)
            records = fault_under(load, fault)
    finally:
        # Unless the kubelet has ended it by now.
        on_node(node, "sh", "-c", f"kill -CONT {process} || true")
    facts = figures(records, fault)
    record(**facts)
    assert failed(records) == []
    # Those that it was in the middle of when it froze.
    assert len(cut(records)) <= 2
    assert facts["recovery_s"] <= 15
    wait_for_ready(MODEL_PODS, REPLICAS)


@contextmanager
def lost_node(node: str) -> Iterator[None]:
    """It answers nobody, as when its power or its network is gone."""
    run("docker", "pause", node)
    try:
        yield
    finally:
        run("docker", "unpause", node)
        kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")


@pytest.mark.timeout(400)
def test_a_lost_gpu_node_is_left_out(installed: float, record: Record) -> None:
    spread_out(MODEL_PODS)
    node = wait_for_ready(MODEL_PODS, REPLICAS)[0]["spec"]["nodeName"]
    with light_load("lost-gpu-node") as load, lost_node(node):
        fault = time.time()
        records = fault_under(load, fault, quiet_s=25)
    facts = figures(records, fault)
    record(**facts)
    assert facts["recovery_s"] <= 15
    assert len(failed(records)) <= len(records) // 100, facts
    wait_for_ready(MODEL_PODS, REPLICAS)


@pytest.mark.timeout(400)
def test_a_lost_api_node_is_left_out(installed: float, record: Record) -> None:
    """Its pod stays in the Service until Kubernetes counts the node as lost (50 s by default), and
    until then half of all connections go there: those are what fails, and nothing else.
    """
    spread_out(API_PODS)
    (node,) = set(nodes_of("api")) - {node_of_the_load()}
    with light_load("lost-api-node") as load, lost_node(node):
        fault = time.time()
        records = fault_under(load, fault, timeout_s=120, quiet_s=75)
    facts = figures(records, fault)
    record(**facts)
    assert facts["recovery_s"] <= 75
    unreached = [one for one in failed(records) if "ConnectTimeout" in one["why"]]
    # Those that it was in the middle of when it went.
    assert lost(records) - len(unreached) <= 8, facts
    wait_for_ready(API_PODS, REPLICAS)


@contextmanager
def gone(deployment: str, namespace: str) -> Iterator[None]:
    of = ["-n", namespace]
    replicas = kubectl(*of, "get", "deployment", deployment, "-o", "jsonpath={.spec.replicas}")
    selector = kubectl(
        *of, "get", "deployment", deployment,
        "-o", r"go-template={{range $k, $v := .spec.selector.matchLabels}}{{$k}}={{$v}},{{end}}",
    ).rstrip(",")  # fmt: skip
    try:
        kubectl(*of, "scale", f"deployment/{deployment}", "--replicas=0")
        eventually(lambda: not pods(selector, namespace), 60, f"no pod of {deployment}")
        yield
    finally:
        kubectl(*of, "scale", f"deployment/{deployment}", f"--replicas={replicas}")
        kubectl(*of, "rollout", "status", f"deployment/{deployment}", "--timeout=180s")


def _seconds(count: float) -> Callable[[], bool]:
    until = time.monotonic() + count
    return lambda: time.monotonic() > until


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("deployment", "namespace", "seconds", "most"),
    [
        ("kserve-controller-manager", "kserve", 15, 0.0),
        # A new connection to the database wants its name looked up.
        ("coredns", "kube-system", 60, 0.01),
    ],
)
def test_without_a_part_of_the_control_plane_requests_go_on(
    installed: float, deployment: str, namespace: str, seconds: int, most: float, record: Record
) -> None:
    with light_load(f"without-{deployment}") as load, gone(deployment, namespace):
        fault = time.time()
        eventually(_seconds(seconds), seconds + 1, f"{seconds} s without {deployment}")
        load.wait_for_good(20, timeout_s=60)
        load.stop()
        records = load.records
    record(**figures(records, fault))
    assert lost(records) <= most * len(records), failed(records)[:3] + cut(records)[:3]
