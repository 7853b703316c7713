"""Where the pods are, and what they may do there."""

import json

import pytest
from kubernetes import client

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    REPLICAS,
    client_pod,
    names_of,
    nodes_of,
    pods,
    wait_for_ready,
)
from tests.e2e.conftest import Record

pytestmark = pytest.mark.e2e
GPU = "nvidia.com/gpu"


def test_both_charts_install_and_become_ready(installed: float, record: Record) -> None:
    record(deploy_s=round(installed, 1))
    for selector in (MODEL_PODS, API_PODS):
        assert [pod["status"]["phase"] for pod in pods(selector)] == ["Running"] * REPLICAS


def test_predictors_and_nothing_else_sit_on_the_gpu_pool(kube: client.CoreV1Api) -> None:
    ours, strangers = set(), []
    for node in nodes_of("gpu"):
        listed = kube.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
        for pod in listed:
            owners = {owner.kind for owner in pod.metadata.owner_references or []}
            if "DaemonSet" in owners:  # the node's own network and proxy
                continue
            if (pod.metadata.labels or {}).get("app.kubernetes.io/component") != "predictor":
                strangers.append(pod.metadata.name)
            elif pod.metadata.namespace == NAMESPACE:
                ours.add(pod.metadata.name)
    assert strangers == []
    assert ours == names_of(pods(MODEL_PODS))


@pytest.mark.parametrize(
    ("selector", "pool"), [(MODEL_PODS, "gpu"), (API_PODS, "api")], ids=["model-host", "api-server"]
)
def test_the_pods_of_a_part_are_spread_over_its_pool(
    installed: float, selector: str, pool: str
) -> None:
    assert sorted(pod["spec"]["nodeName"] for pod in pods(selector)) == sorted(nodes_of(pool))


def test_each_predictor_holds_one_gpu(installed: float) -> None:
    for pod in wait_for_ready(MODEL_PODS, REPLICAS):
        held = [part["resources"].get("limits", {}).get(GPU) for part in pod["spec"]["containers"]]
        assert [count for count in held if count] == ["1"]


def test_the_agent_is_ready_only_when_the_model_host_is(installed: float) -> None:
    for pod in wait_for_ready(MODEL_PODS, REPLICAS):
        agent = next(part for part in pod["spec"]["containers"] if part["name"] == "agent")
        probe = agent["readinessProbe"]["httpGet"]
        assert (probe["path"], probe["port"]) == ("/readyz", 9081)


def test_the_namespace_enforces_restricted(kube: client.CoreV1Api) -> None:
    labels = kube.read_namespace(NAMESPACE).metadata.labels
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    manifest = client_pod("e2e-violates", {"app.kubernetes.io/name": "e2e-violates"})
    manifest["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(client.ApiException) as refused:
        kube.create_namespaced_pod(NAMESPACE, manifest, dry_run="All")
    assert refused.value.status == 403
    assert "violates PodSecurity" in json.loads(refused.value.body)["message"]


@pytest.mark.parametrize("selector", [MODEL_PODS, API_PODS], ids=["model-host", "api-server"])
def test_no_container_has_a_token_or_a_writable_root(installed: float, selector: str) -> None:
    found = wait_for_ready(selector, REPLICAS)
    parts = [part for pod in found for part in pod["spec"]["containers"]]
    mounts = [mount["mountPath"] for part in parts for mount in part.get("volumeMounts", [])]
    assert [path for path in mounts if "serviceaccount" in path] == []
    for part in parts:
        assert part["securityContext"]["readOnlyRootFilesystem"] is True, part["name"]
