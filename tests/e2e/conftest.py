"""Fixtures of the cluster tests: both charts installed, addresses by port-forward, evidence."""

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import httpx
import pytest
from kubernetes import client, config

from tests.e2e import evidence
from tests.e2e.cluster import (
    CONTEXT,
    NAMESPACE,
    CommandFailed,
    deploy,
    host_key_of,
    key_of,
    kubectl,
    port_forward,
    wait_until_settled,
)

ROWS: dict[str, evidence.Row] = {}
STORIES: set[str] = set()
Record = Callable[..., None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    row = ROWS.setdefault(item.name, evidence.Row())
    row.seconds += report.duration
    if report.when == "call" or report.failed:
        row.outcome = report.outcome
    # A fixture of the session fails once and is told again for every test: kept once.
    if report.failed and report.longreprtext not in STORIES:
        STORIES.add(report.longreprtext)
        folder = evidence.keep(item.name, report.longreprtext)
        report.sections.append(("Evidence", f"events, descriptions and logs: {folder}"))
    return report


def pytest_sessionfinish() -> None:
    if ROWS:
        evidence.write_report(ROWS)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Adds facts to the test's line in the report."""

    def add(**facts: object) -> None:
        ROWS.setdefault(request.node.name, evidence.Row()).facts.update(facts)

    return add


@pytest.fixture(scope="session")
def cluster() -> None:
    try:
        kubectl("get", "--raw", "/readyz", timeout_s=30)
    except CommandFailed as error:
        pytest.fail(f"no cluster answers as {CONTEXT}; `make cluster images` makes it\n{error}")


@pytest.fixture(scope="session")
def installed(cluster: None) -> float:
    """Both charts installed and ready; the seconds that it took."""
    started = time.monotonic()
    deploy()
    seconds = time.monotonic() - started
    # Where an earlier version was installed, its pods end after the new ones are ready.
    wait_until_settled()
    # A failed `helm test` of an earlier run keeps its pod, for its log.
    kubectl("-n", NAMESPACE, "delete", "pods", "-l", "app.kubernetes.io/component=test", "--wait")
    return seconds


@pytest.fixture(scope="session")
def kube(installed: float) -> client.CoreV1Api:
    config.load_kube_config(context=CONTEXT)
    return client.CoreV1Api()


@pytest.fixture(scope="module")
def api(installed: float) -> Iterator[httpx.Client]:
    """The API server, reached as a user does: kubectl port-forward svc/api-server."""
    with (
        port_forward("api-server") as address,
        httpx.Client(base_url=address, timeout=60, headers=key_of()) as http,
    ):
        yield http


@pytest.fixture(scope="module")
def host(installed: float) -> Iterator[httpx.Client]:
    """The model host, through the predictor's Service and KServe's agent."""
    with (
        port_forward("model-host-predictor") as address,
        httpx.Client(base_url=address, timeout=60, headers=host_key_of()) as http,
    ):
        yield http


def body_of(answer: httpx.Response) -> Any:
    """The JSON of a good answer; its text in the message when it is none."""
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    return answer.json()
