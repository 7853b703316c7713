"""Nodes that are emptied for maintenance under load: the disruption budgets let pods go one by one,
each when the one before has its successor.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    REPLICAS,
    kubectl,
    node_of_the_load,
    nodes_of,
    pods,
    wait_for_ready,
)
from tests.e2e.conftest import Record
from tests.e2e.load import assert_nothing_lost, figures, light_load

pytestmark = pytest.mark.e2e
POOLS = {"model-host": ("gpu", MODEL_PODS), "api-server": ("api", API_PODS)}


@contextmanager
def closed_to_new_pods(node: str) -> Iterator[None]:
    kubectl("cordon", node)
    try:
        yield
    finally:
        kubectl("uncordon", node)


def gather(selector: str, pool: str) -> str:
    """The node that holds every pod of a part, after those elsewhere have moved there. It isn't
    that of the load, which has to outlive the drain.
    """
    node, other = sorted(nodes_of(pool), key=node_of_the_load().__eq__)
    with closed_to_new_pods(other):
        for pod in pods(selector):
            if pod["spec"]["nodeName"] != node:
                name = pod["metadata"]["name"]
                kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait", timeout_s=180)
                wait_for_ready(selector, REPLICAS)
    assert {pod["spec"]["nodeName"] for pod in wait_for_ready(selector, REPLICAS)} == {node}
    return node


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", POOLS)
def test_a_drained_node_fails_no_request(installed: float, part: str, record: Record) -> None:
    """With every pod of the part on it, where only the budget keeps them from going at once."""
    pool, selector = POOLS[part]
    node = gather(selector, pool)
    with light_load(f"drain-{part}", chats=3, streams=1) as load:
        started = time.monotonic()
        try:
            kubectl(
                "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=280s",
                timeout_s=300,
            )  # fmt: skip
            seconds = time.monotonic() - started
            load.wait_for_good(20, timeout_s=60)
        finally:
            kubectl("uncordon", node)
        load.stop()
        records = load.records
    record(**figures(records), drain_s=round(seconds, 1))
    assert node not in {pod["spec"]["nodeName"] for pod in wait_for_ready(selector, REPLICAS)}
    assert_nothing_lost(records)
