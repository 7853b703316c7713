"""Weights from elsewhere: a claim that a Job fills, KServe's initializer, several models."""

import json
import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e import weights
from tests.e2e.cluster import (
    CONTEXT,
    NAMESPACE,
    ROOT,
    CommandFailed,
    eventually,
    helm,
    key_of,
    kubectl,
    port_forward,
)
from tests.e2e.conftest import Record, body_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
INDIA = "The capital of India is New Delhi."
API = "weights-api"


@pytest.fixture(scope="module")
def hub(cluster: None) -> Iterator[None]:
    weights.make_namespace()
    with weights.hub():
        yield


@pytest.fixture(scope="module")
def filled(hub: None) -> Iterator[str]:
    """A release whose claim a Job has filled."""
    with weights.gone_afterwards("filled"):
        weights.install("filled", *weights.download("hf://demo/tiny"), "--timeout", "3m")
        weights.wait_ready("filled")
        yield "filled"


@pytest.fixture(scope="module")
def initializer(cluster: None) -> None:
    weights.load_initializer()


def test_a_job_fills_a_claim_that_the_pods_only_read(filled: str) -> None:
    assert weights.ask(filled) == INDIA
    pod = weights.predictor(filled)
    name = str(pod["metadata"]["name"])
    command = ["kubectl", "--context", CONTEXT, "-n", NAMESPACE, "exec", name, "-c"]
    written = subprocess.run(
        [*command, "kserve-container", "--", "touch", "/mnt/models/x"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Read-only file system" in written.stderr
    fetched = [line for line in weights.asked() if "resolve" in line]
    # With the token, and nothing twice.
    assert len(fetched) == len(set(fetched)) > 3


def test_a_second_upgrade_fetches_nothing_and_changes_no_pod(filled: str) -> None:
    before, asked = weights.predictor(filled), len(weights.asked())
    weights.install(filled, *weights.download("hf://demo/tiny"), action="upgrade")
    assert len(weights.asked()) == asked
    after = weights.predictor(filled)
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])


@pytest.mark.parametrize(
    ("source", "files", "says"),
    [
        ("hf://demo/tiny", {"model.safetensors": "0" * 64}, r"its sha256 checksum is [0-9a-f]{64}"),
        ("hf://demo/huge", {}, "are still to come, and /models has room for"),
        ("hf://demo/nobody", {}, "there is no such model, or it wants the token"),
        (f"{weights.HUB}/files/demo/tiny", {"gone.json": "0" * 64}, "404: there is no such file"),
    ],
    ids=["checksum", "room", "model", "file"],
)
def test_what_cannot_be_fetched_is_one_line_and_changes_nothing(
    filled: str, source: str, files: dict[str, str], says: str
) -> None:
    before = kubectl("-n", NAMESPACE, "get", f"inferenceservice/{filled}", "-o=jsonpath={.spec}")
    with pytest.raises(CommandFailed, match="pre-upgrade"):
        weights.install(filled, *weights.download(source, **files), action="upgrade")
    lines = [line for line in weights.job_says(filled).splitlines() if re.search(says, line)]
    assert len(lines) == 1, weights.job_says(filled)
    # At once, not after all the tries that a network deserves.
    job = json.loads(kubectl("-n", NAMESPACE, "get", f"job/{filled}-model", "-o", "json"))
    assert job["status"]["failed"] == 1
    after = kubectl("-n", NAMESPACE, "get", f"inferenceservice/{filled}", "-o=jsonpath={.spec}")
    assert after == before
    assert weights.ask(filled) == INDIA


def test_a_release_without_its_model_is_not_started(hub: None) -> None:
    with weights.gone_afterwards("half"):
        with pytest.raises(CommandFailed, match="pre-install"):
            weights.install("half", *weights.download("hf://demo/huge"))
        found = kubectl("-n", NAMESPACE, "get", "inferenceservice,deployment", "-o", "name")
        assert "half" not in found


def test_kserve_fetches_and_the_api_server_finds_every_release(
    filled: str, initializer: None, record: Record
) -> None:
    """`http://` and `hf://` by the storage initializer; three models in one API server's list."""
    archive = f"--set=model.storageUri={weights.HUB}/archives/tiny.tar.gz"
    hub = "--set=model.storageUri=hf://demo/tiny,model.hubTokenSecret=weights-hub"
    egress = '--set-json=networkPolicy.extraEgress=[{"ports":[{"port":8000,"protocol":"TCP"}]}]'
    names = ("filled", "archive", "mirror")
    with weights.gone_afterwards("archive", "mirror", API), weights.mirror_of_the_hub():
        weights.install("archive", archive)
        weights.install("mirror", hub, egress)
        models = [{"name": name, "addresses": [{"modelHost": name}]} for name in names]
        chart = ROOT / "charts" / "api-server"
        helm(
            "install", API, str(chart), "--values", str(chart / "values-kind.yaml"),
            "--set", f"fullnameOverride={API},persistence.enabled=false",
            "--set", "modelHost.auth.enabled=false",
            "--set-json", f"models={json.dumps(models)}",
        )  # fmt: skip
        weights.wait_ready("archive", "mirror")
        kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{API}", "--timeout=150s")
        for name in ("archive", "mirror"):
            (init,) = weights.predictor(name)["spec"]["initContainers"]
            assert init["name"] == "storage-initializer"
            assert weights.ask(name) == INDIA
        with (
            port_forward(API) as address,
            httpx.Client(base_url=address, timeout=60, headers=key_of(API)) as http,
        ):

            def available() -> bool:
                listed = body_of(http.get("/v1/models"))["data"]
                return [one["id"] for one in listed if one.get("available")] == list(names)

            eventually(available, 60, "three models that are available")
            for name in names:
                answer = http.post(
                    "/chat", json={"model": name, "user_prompt": "Capital of India?"}
                )
                assert body_of(answer)["response"] == INDIA
                assert answer.headers["X-Served-By-Model"] == name
    record(models=len(names))
