"""Who may talk to whom, told by who answers."""

import json

import pytest

from tests.e2e.cluster import (
    NAMESPACE,
    CommandFailed,
    client_pod,
    eventually,
    kubectl,
    running_pod,
)

pytestmark = pytest.mark.e2e
MODEL_HOST = f"http://model-host-direct.{NAMESPACE}.svc/v1/models/qna-demo"
AGENT = f"http://model-host-predictor.{NAMESPACE}.svc/v1/models/qna-demo"
API_SERVER = f"http://api-server.{NAMESPACE}.svc/livez"
KUBERNETES = "https://kubernetes.default.svc/version"
DATABASE = f"chats-database.{NAMESPACE}.svc"
STRANGER = client_pod("e2e-stranger", {"app.kubernetes.io/name": "e2e-stranger"})


ALLOWED = client_pod("e2e-allowed", {"app.kubernetes.io/name": "api-server"})
FETCH = """
import os, sys, httpx
key = os.environ.get("API_MODEL_HOST_KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}
# A certificate that is not trusted must not look like a connection that was refused.
print(httpx.get(sys.argv[1], timeout=4, headers=headers, verify=False).text)
"""
# Asks for TLS, which only a PostgreSQL answers with one letter.
CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], 5432), timeout=4) as connection:
    connection.sendall(b"\\0\\0\\0\\x08\\x04\\xd2\\x16\\x2f")
    print(connection.recv(1))
"""
ASK = """
import sys, httpx
answer = httpx.post(sys.argv[1], content=sys.argv[2], timeout=30)
print(answer.status_code, answer.text)
"""


def fetch(pod: str, address: str) -> str:
    """What an address answers to a pod, which sends the model host's key if it was given one."""
    command = ["python", "-c", FETCH, address]
    return kubectl("-n", NAMESPACE, "exec", pod, "--", *command, timeout_s=60)


def wait_for_answer(pod: str, address: str, said: str) -> None:
    """A pod that has just started is in no rule of the network for a moment."""

    def answered() -> bool:
        try:
            return said in fetch(pod, address)
        except CommandFailed:
            return False

    eventually(answered, 30, f"{address} answers {pod}")


def test_a_stranger_cannot_reach_the_model_host(installed: float) -> None:
    with running_pod(STRANGER) as name:
        wait_for_answer(name, API_SERVER, "live")  # its network works
        for address in (MODEL_HOST, AGENT):
            with pytest.raises(CommandFailed, match=r"ConnectTimeout|ConnectError"):
                fetch(name, address)


def test_the_api_server_can_reach_the_model_host(installed: float) -> None:
    assert "qna-demo" in fetch("deploy/api-server", MODEL_HOST)


def test_who_gets_through_is_still_asked_for_the_key(installed: float) -> None:
    """A pod with the right label and no key: only what KServe's batcher merges is answered."""
    direct, agent = (
        f"http://model-host-{door}.{NAMESPACE}.svc" for door in ("direct", "predictor")
    )
    question = json.dumps({"chat_id": "1", "user_prompt": "Capital of India?"})
    instances = json.dumps({"instances": [json.loads(question)]})
    asked = [
        (direct, "/generate", question),
        (direct, "/openai/v1/chat/completions", "{}"),
        (direct, "/v1/models/qna-demo:predict", instances),
        (agent, "/generate", question),
        (agent, "/v1/models/qna-demo:predict", instances),
    ]
    with running_pod(ALLOWED) as name:
        wait_for_answer(name, f"{direct}/livez", "live")
        said = [
            kubectl("-n", NAMESPACE, "exec", name, "--", "python", "-c", ASK, door + path, body)
            for door, path, body in asked
        ]
    assert [answer.split()[0] for answer in said] == ["401", "401", "401", "401", "200"], said
    assert all("missing_api_key" in answer for answer in said[:4])
    assert "New Delhi" in said[4]


def test_the_api_server_reaches_nothing_else(installed: float) -> None:
    assert fetch("deploy/api-server", MODEL_HOST)  # its network works
    with running_pod(STRANGER) as name:
        wait_for_answer(name, KUBERNETES, "gitVersion")  # it answers whoever gets to it
    with pytest.raises(CommandFailed, match=r"ConnectTimeout|ConnectError"):
        fetch("deploy/api-server", KUBERNETES)


def test_only_the_api_server_reaches_the_database(installed: float) -> None:
    connect = ["--", "python", "-c", CONNECT, DATABASE]
    assert "b'N'" in kubectl("-n", NAMESPACE, "exec", "deploy/api-server", *connect)
    with running_pod(STRANGER) as name:
        wait_for_answer(name, API_SERVER, "live")  # its network works
        with pytest.raises(CommandFailed, match=r"TimeoutError|ConnectionRefusedError"):
            kubectl("-n", NAMESPACE, "exec", name, *connect)


def test_the_model_host_reaches_nothing_but_dns(installed: float) -> None:
    """Both answer whoever gets to them, as the control pod does."""
    host = ["exec", "deploy/model-host-predictor", "-c", "kserve-container", "--"]
    asked = {API_SERVER: "live", KUBERNETES: "gitVersion"}
    with running_pod(STRANGER) as name:
        for address, said in asked.items():
            wait_for_answer(name, address, said)
    for address in asked:
        with pytest.raises(CommandFailed, match=r"ConnectTimeout|ConnectError"):
            kubectl("-n", NAMESPACE, *host, "python", "-c", FETCH, address, timeout_s=60)
