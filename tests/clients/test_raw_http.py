"""What is no HTTP, or too much of it: the envelope, an end of the connection, and no harm."""

import contextlib
import importlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn

from tests.clients.conftest import Servers

LIMIT = 64 * 1024
QUESTION = {"user_prompt": "Capital of India?"}


@pytest.fixture(params=["api", "host"])
def server(request: pytest.FixtureRequest, servers: Servers) -> str:
    url: str = getattr(servers, request.param)
    return url


@pytest.fixture(autouse=True)
def _serves_afterwards(server: str) -> Iterator[None]:
    yield
    assert httpx.get(f"{server}/livez", trust_env=False).status_code == 200


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=30)


def everything(sock: socket.socket) -> bytes:
    """Until the server ends the connection."""
    data = b""
    with contextlib.closing(sock):
        while chunk := sock.recv(65_536):
            data += chunk
    return data


def said(data: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in lines)}
    assert len(body) == int(headers["content-length"])
    return int(line.split()[1]), headers, json.loads(body)


def check_refusal(data: bytes, status: int, code: str) -> None:
    got, headers, body = said(data)
    error = body["error"]
    assert (got, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert error["param"] is None
    assert error["request_id"] == headers["x-request-id"]
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(server: str, servers: Servers, *, stream: bool = False) -> bytes:
    path = "/chat" if server == servers.api else "/generate"
    body = json.dumps({**QUESTION, "stream": stream}).encode()
    return post(path, body, f"Content-Length: {len(body)}")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS where none is spoken
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        post("/generate", b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        post("/chat", b"2\r\n{}oh no\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    ],
    ids=lambda sent: repr(sent[:24]),
)
def test_what_is_no_http_gets_the_envelope(server: str, sent: bytes) -> None:
    sock = connect(server)
    sock.sendall(sent)
    check_refusal(everything(sock), 400, "invalid_http")


def test_a_chunk_that_goes_bad_later_is_refused_once(server: str) -> None:
    sock = connect(server)
    sock.sendall(post("/generate", b"1\r\n{\r\n", "Transfer-Encoding: chunked"))
    sock.sendall(b"not a size\r\n")
    check_refusal(everything(sock), 400, "invalid_http")


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_after_a_question_does_not_spoil_its_answer(
    server: str, servers: Servers, stream: bool
) -> None:
    for prefix in (b"", ask(server, servers)):
        sock = connect(server)
        sock.sendall(prefix + ask(server, servers, stream=stream) + b"garbage\r\n\r\n")
        data = everything(sock)
        assert data.startswith(b"HTTP/1.1 200 ")
        assert b"The capital of India is New Delhi." in data or b"[DONE]" in data
        assert b"HTTP/1.1 400" not in data
        if stream and not prefix:
            assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        ["X-A: " + "a" * LIMIT],
        [f"X-{number}: {'a' * 100}" for number in range(1000)],
        ["Cookie: " + "a" * 4 * 2**20],
        ["a" * 2 * 2**20],
    ],
    ids=["one", "many", "huge", "a name"],
)
def test_headers_over_the_limit_are_refused(server: str, lines: list[str]) -> None:
    sock = connect(server)
    with contextlib.suppress(ConnectionError):
        sock.sendall(
            "\r\n".join(["GET /livez HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
        )
    data = everything(sock)
    check_refusal(data, 431, "headers_too_large")
    assert said(data)[2]["error"]["limit"] == LIMIT


def test_a_long_address_is_refused_and_headers_below_the_limit_are_not(server: str) -> None:
    sock = connect(server)
    sock.sendall(b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    check_refusal(everything(sock), 431, "headers_too_large")
    with httpx.Client(base_url=server, trust_env=False) as client:
        for _ in range(3):  # the count begins anew with each request
            fits = client.get("/livez", headers={"X-A": "a" * (LIMIT - 2048)})
            assert fits.status_code == 200


def test_headers_that_never_end_are_not_waited_for(server: str, servers: Servers) -> None:
    socks = [connect(server) for _ in range(20)]
    for sock in socks:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: a")
    started = time.monotonic()
    code = "headers_timeout" if server == servers.api else "request_timeout"
    for sock in socks:
        check_refusal(everything(sock), 408, code)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("protocol", ["api", "model"])
def test_an_empty_line_holds_no_connection(protocol: str) -> None:
    """It begins no request, so the time without one goes on. (A short time, on a bare server.)"""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing was asked")

    http = importlib.import_module(f"{protocol}.http_protocol").HttpProtocol
    settings = {"http": http, "lifespan": "off", "log_level": "error"}
    server = uvicorn.Server(uvicorn.Config(app, port=0, timeout_keep_alive=1, **settings))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=30) as connection:
                connection.sendall(b"\r\n")
                assert connection.recv(1) == b""
        finally:
            server.should_exit = True
            thread.join()


def answers(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """So many, as they come; the connection stays open."""
    found = []
    with sock.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            lines = list(iter(file.readline, b"\r\n"))
            (size,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            found.append((status, file.read(size)))
    return found


@pytest.mark.parametrize("at_once", [True, False])
def test_questions_that_are_sent_ahead_are_answered_in_their_order(
    server: str, servers: Servers, at_once: bool
) -> None:
    """Far more of them than is kept of what is sent ahead."""
    path = "/chat" if server == servers.api else "/generate"
    bodies = []
    for number in range(24):
        question = "Capital of India?" if number % 2 else "Capital of France?"
        bodies.append(json.dumps({"user_prompt": question, "timeout_ms": 60_000}).encode())
    # White space is read, and means nothing.
    sent = [
        post(path, body, f"Content-Length: {len(body) + 50_000}") + b" " * 50_000 for body in bodies
    ]
    with connect(server) as sock:
        sender = threading.Thread(
            target=lambda: [sock.sendall(part) for part in ([b"".join(sent)] if at_once else sent)]
        )
        sender.start()
        found = answers(sock, len(sent))
        sender.join()
    assert {status for status, _ in found} == {200}
    for number, (_, text) in enumerate(found):
        assert (b"New Delhi" if number % 2 else b"Paris") in text


def test_many_small_requests_may_be_sent_ahead(server: str) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(request * 2_000)
        assert [status for status, _ in answers(sock, 2_000)] == [200] * 2_000
        time.sleep(0.1)
        sock.sendall(request[:20])
        time.sleep(0.1)
        sock.sendall(request[20:] + request)
        assert [status for status, _ in answers(sock, 2)] == [200, 200]


# As Java's HttpClient asks by default, and as a browser does.
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {'a' * 24}")
NOTHING = "\r\n".join(["GET /nothing HTTP/1.1", "Host: localhost", *WEBSOCKET, "", ""]).encode()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("parts", ["one", "head and body", "small"])
def test_an_upgrade_is_answered_like_any_request(
    server: str, servers: Servers, chunked: bool, parts: str
) -> None:
    path = "/chat" if server == servers.api else "/generate"
    body = json.dumps(QUESTION).encode()
    if chunked:
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*cut(body, 7), b""])
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = post(path, b"", *H2C, framing)
    pieces = {
        "one": [head + body],
        "head and body": [head, body],
        "small": cut(head + body, 11),
    }
    with connect(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # and the connection can be used again
            for piece in pieces[parts]:
                sock.sendall(piece)
                time.sleep(0.01)
            ((status, text),) = answers(sock, 1)
            assert status == 200
            assert b"The capital of India is New Delhi." in text
            sock.sendall(NOTHING)
            ((status, text),) = answers(sock, 1)
            assert (status, json.loads(text)["error"]["code"]) == (404, "not_found")


def test_an_upgrade_is_answered_where_the_connection_ends_after_it(
    server: str, servers: Servers
) -> None:
    path = "/chat" if server == servers.api else "/generate"
    body = json.dumps(QUESTION).encode()
    headers = ("Connection: close, Upgrade", "Upgrade: h2c", f"Content-Length: {len(body)}")
    sock = connect(server)
    sock.sendall(post(path, body, *headers))
    status, headers_got, _ = said(everything(sock))
    assert (status, headers_got["connection"]) == (200, "close")


@pytest.mark.parametrize("later", [False, True])
def test_the_body_of_an_upgrade_is_never_a_request(server: str, later: bool) -> None:
    body = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = post("/nothing", b"", *H2C, f"Content-Length: {len(body)}")
    with connect(server) as sock:
        sock.sendall(head if later else head + body)
        if later:
            time.sleep(0.1)
            sock.sendall(body)
        sock.sendall(NOTHING)
        codes = [json.loads(body)["error"]["code"] for _, body in answers(sock, 2)]
        assert codes == ["not_found", "not_found"]


def test_headers_of_an_upgrade_have_the_same_limit(server: str) -> None:
    for size, fits in ((LIMIT - 2048, True), (LIMIT, False)):
        sock = connect(server)
        sock.sendall(post("/nothing", b"{}", *H2C, "X-A: " + "a" * size, "Content-Length: 2"))
        if fits:
            assert [status for status, _ in answers(sock, 1)] == [404]
            sock.close()
        else:
            check_refusal(everything(sock), 431, "headers_too_large")


def test_there_is_no_tunnel(server: str) -> None:
    for address in ("/livez", "x:1"):
        sock = connect(server)
        sock.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        check_refusal(everything(sock), 400, "invalid_http")
