"""A client without a library: it sends a request, and leaves in the way that the test says."""

import json
import socket
import struct

from tests.hops.conftest import ENDLESS, LONG_PROMPT, SHORT, Server

Body = dict[str, object]


def asked(side: str, prompt: str, *, endless: bool = False) -> tuple[str, Body]:
    """The path and body of an OpenAI chat at this server."""
    path = "/v1/chat/completions" if side == "api" else "/openai/v1/chat/completions"
    body: Body = {"model": "qna-demo", "messages": [{"role": "user", "content": prompt}]}
    return path, body | (ENDLESS | {"stream": True} if endless else {"max_tokens": 4})


def send(
    server: Server, path: str, body: Body, *, then: bytes = b"", **headers: str
) -> socket.socket:
    """`then`: what comes at once after it."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    sock.sendall("\r\n".join([*lines, "", ""]).encode() + content + then)
    return sock


def leave(sock: socket.socket, how: str) -> None:
    if how == "RST":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "time-out":
        # As a client does that has waited long enough: it gives up reading, then closes.
        sock.settimeout(0.001)
        try:
            while sock.recv(65_536):
                pass
        except TimeoutError:
            pass
    sock.close()


def at_stage(side: str, stage: str) -> tuple[str, Body]:
    """A request that stays for long in this stage."""
    if stage == "prefill":
        return asked(side, LONG_PROMPT)
    return asked(side, SHORT, endless=stage == "decode")
