"""Who may talk to whom, told by who answers."""

import pytest

from tests.e2e.cluster import NAMESPACE, CommandFailed, client_pod, kubectl, running_pod

pytestmark = pytest.mark.e2e
MODEL_HOST = f"http://model-host-direct.{NAMESPACE}.svc/v1/models/qna-demo"
AGENT = f"http://model-host-predictor.{NAMESPACE}.svc/v1/models/qna-demo"
API_SERVER = f"http://api-server.{NAMESPACE}.svc/livez"
STRANGER = client_pod("e2e-stranger", {"app.kubernetes.io/name": "e2e-stranger"})


def fetch(pod: str, address: str) -> str:
    """What an address answers to a pod."""
    script = "import sys, httpx; print(httpx.get(sys.argv[1], timeout=4).text)"
    command = ["python", "-c", script, address]
    return kubectl("-n", NAMESPACE, "exec", pod, "--", *command, timeout_s=60)


def test_a_stranger_cannot_reach_the_model_host(installed: float) -> None:
    with running_pod(STRANGER) as name:
        assert fetch(name, API_SERVER)  # its network works
        for address in (MODEL_HOST, AGENT):
            with pytest.raises(CommandFailed, match=r"ConnectTimeout|ConnectError"):
                fetch(name, address)


def test_the_api_server_can_reach_the_model_host(installed: float) -> None:
    assert "qna-demo" in fetch("deploy/api-server", MODEL_HOST)


def test_the_api_server_reaches_nothing_else(installed: float) -> None:
    assert fetch("deploy/api-server", MODEL_HOST)  # its network works
    with pytest.raises(CommandFailed, match=r"ConnectTimeout|ConnectError"):
        fetch("deploy/api-server", "https://kubernetes.default.svc/version")
