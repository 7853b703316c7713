"""A server without keys on loopback answers to names that only the own machine has."""

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.host_names import needs_check
from api.settings import Settings
from tests.api.conftest import Api, StartApi, error_of
from tests.api.keyed import ADMIN, bearer, start_keyed
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio
OWN = [
    "localhost", "LOCALHOST:80", "localhost.", "a.localhost:5",
    "127.0.0.1", "127.8.9.1:1", "[::1]:8000",
]  # fmt: skip
FOREIGN = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "192.168.1.2", "[fe80::1]", "",
    "127.0.0.1.evil.example", "evillocalhost", "localhost@evil.example", "[::1", "0.0.0.0",
]  # fmt: skip
PATHS = ["/", "/livez", "/readyz", "/metrics", "/chats", "/docs", "/nowhere", "/v1/models"]


@pytest.mark.parametrize("host_name", OWN)
async def test_names_of_the_own_machine(shared_api: Api, host_name: str) -> None:
    answer = await shared_api.client.get("/chats", headers={"Host": host_name})
    assert answer.status_code == 200


@pytest.mark.parametrize("host_name", FOREIGN)
async def test_names_of_others(shared_api: Api, host_name: str) -> None:
    for path in PATHS:
        answer = await shared_api.client.get(path, headers={"Host": host_name})
        assert answer.status_code == 421
        error = error_of(answer)
        assert error["code"] == "wrong_host"
        assert "API_ALLOWED_HOSTS" in error["message"]
        assert "evil" not in error["message"]


async def test_nothing_is_asked_under_a_foreign_name(api: Api, host: StubHost) -> None:
    answer = await api.client.post(
        "/chat", json={"user_prompt": "q"}, headers={"Host": "evil.example"}
    )
    assert answer.status_code == 421
    assert host.generated == []


async def test_more_names_may_be_allowed(start_api: StartApi) -> None:
    api = await start_api(allowed_hosts="laptop.local, Other.example")
    for name, status in (
        ("laptop.local:8000", 200),
        ("other.example", 200),
        ("third.example", 421),
    ):
        answer = await api.client.get("/livez", headers={"Host": name})
        assert answer.status_code == status


async def test_with_keys_or_on_an_open_address_any_name_is_right(start_api: StartApi) -> None:
    keyed = await start_keyed(start_api)
    headers = bearer(ADMIN) | {"Host": "chat.example"}
    assert (await keyed.client.get("/chats", headers=headers)).status_code == 200
    assert needs_check(Settings(host="::1"))
    assert not needs_check(Settings(host="0.0.0.0"))
    assert not needs_check(Settings(auth="on"))


def exchange(url: str, head: str) -> bytes:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


async def test_two_names_are_none_and_no_name_is_no_browser(start_api: StartApi) -> None:
    api = await start_api()
    hosts = "Host: localhost\r\nHost: evil.example\r\n"
    two = f"GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"
    answer = await asyncio.to_thread(exchange, api.url, two)
    assert answer.split(b"\r\n")[0].split()[1] in (b"400", b"421")
    none = await asyncio.to_thread(exchange, api.url, "GET /livez HTTP/1.0\r\n\r\n")
    assert none.split(b"\r\n")[0].split()[1] == b"200"


def test_every_operation_documents_it() -> None:
    document = json.loads(Path("docs/openapi/api-server.json").read_text())
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "421" in operation["responses"]
