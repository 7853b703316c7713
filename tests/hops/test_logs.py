"""What both servers log: JSON, at most 2 KB a request, and nothing that a caller wrote, wherever
it stood; every route of both documents is asked, well and badly.
"""

import json
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hops.conftest import Pair, Server, StartApi

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {"api": "api-server", "host": "model-host"}
CANARY = "canary7f3a"
ADMIN = "admin-canary7f3a-0123456789-0123456789"
MOST_BYTES = 2048
# A trace's id is 32 hexadecimal digits: these are not.
HEADERS = {
    "User-Agent": CANARY,
    "Referer": f"http://{CANARY}/",
    "Cookie": f"session={CANARY}",
    "X-Api-Key": CANARY,
    "X-Forwarded-For": CANARY,
    "X-Request-Id": f"{CANARY} is no id",
    "X-Request-Timeout-Ms": CANARY,
    "Idempotency-Key": CANARY,
    "Accept": CANARY,
    "traceparent": f"00-{CANARY}-00f067aa0ba902b7-01",
    "tracestate": f"shop={CANARY}",
    "baggage": f"user={CANARY}",
    CANARY: CANARY,
}
MALFORMED_STATE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": f"{CANARY}, shop={CANARY}",
}
MESSAGES = [{"role": "user", "content": CANARY}]
GOOD: dict[str, Any] = {
    "/chat": {"user_prompt": CANARY, "system_prompt": CANARY, "chat_id": CANARY},
    "/chat/batch": {"chats": [{"user_prompt": CANARY}, {"user_prompt": 7, CANARY: CANARY}]},
    "/v1/chat/completions": {"model": CANARY, "messages": MESSAGES, "user": CANARY},
    "/v1/completions": {"model": CANARY, "prompt": CANARY},
    "/admin/keys": {"tenant": CANARY, "name": CANARY},
    "/generate": {"user_prompt": CANARY, "chat_id": CANARY, "stop": [CANARY]},
    "/generate/batch": {"queries": [{"user_prompt": CANARY}, {"user_prompt": 7}]},
    "/openai/v1/chat/completions": {"model": "qna-demo", "messages": MESSAGES, "max_tokens": 4},
    "/openai/v1/completions": {"model": "qna-demo", "prompt": CANARY, "max_tokens": 4},
    "/v1/models/{model_name}:predict": {"instances": [{"user_prompt": CANARY}]},
    "/v2/models/{model_name}/infer": {
        "inputs": [
            {"name": "user_prompt", "datatype": "BYTES", "shape": [1], "data": [CANARY]}
        ]
    },
}  # fmt: skip
BODIES = (
    json.dumps({CANARY: CANARY}).encode(),
    f'{{"user_prompt": "{CANARY}'.encode(),
    json.dumps([CANARY]).encode(),
)


def asked(side: str) -> Iterator[tuple[str, str]]:
    document = json.loads((ROOT / f"docs/openapi/{DOCUMENTS[side]}.json").read_text())
    for path, operations in document["paths"].items():
        for method in operations:
            yield method.upper(), path


def ask_everything(server: Server, side: str, key: str | None) -> set[int]:
    statuses = set()
    keys = [{"Authorization": f"Bearer {CANARY}"}, {"Authorization": CANARY}, {}]
    if key is not None:
        keys.append({"Authorization": f"Bearer {key}"})
    for method, template in asked(side):
        named = template.replace("{model_name}", "qna-demo")
        for path in {named, re.sub(r"\{\w+\}", CANARY, template)}:
            for number, own in enumerate(keys):
                contents = [None]
                if method in ("POST", "PUT", "PATCH"):
                    contents = [*BODIES, json.dumps(GOOD.get(template, {})).encode()]
                for count, content in enumerate(contents):
                    more = (HEADERS, MALFORMED_STATE)[(number + count) % 2]
                    answer = server.client.request(
                        method,
                        f"{path}?key={CANARY}&cursor={CANARY}",
                        content=content,
                        headers={"Content-Type": "application/json"} | own | more,
                    )
                    statuses.add(answer.status_code)
    return statuses


def raw(server: Server, head: str) -> None:
    """What is no HTTP, or an HTTP that no library would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(head.encode())
        while sock.recv(65_536):
            pass


def check(server: Server) -> list[dict[str, Any]]:
    text = server.log.read_text()
    assert CANARY not in text, [line for line in text.splitlines() if CANARY in line][:3]
    records = [json.loads(line) for line in text.splitlines()]
    sizes: dict[str, int] = defaultdict(int)
    for line, record in zip(text.splitlines(), records, strict=True):
        sizes[record.get("request_id", "")] += len(line) + 1
        assert len(line) < MOST_BYTES
    del sizes[""]
    assert max(sizes.values()) <= MOST_BYTES
    return records


def test_no_secret_reaches_the_logs_from_any_route(
    pair: Pair, start_api: StartApi, sending: dict[str, str]
) -> None:
    api = start_api(API_AUTH="on", API_ADMIN_KEY=ADMIN, **sending)
    assert ask_everything(api, "api", ADMIN) >= {200, 400, 401, 404}
    assert ask_everything(pair.host, "host", None) >= {200, 400, 404}
    for server in (api, pair.host):
        raw(server, f"GET /{CANARY} HTTP/9.{CANARY}\r\n\r\n")
        raw(server, f"{CANARY} / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw(
            server,
            f"GET /{CANARY} HTTP/1.1\r\nHost: localhost\r\n{CANARY}: {CANARY * 9000}\r\n\r\n",
        )
        records = check(server)
        routes = {record.get("route") for record in records}
        side = "api" if server is api else "host"
        paths = {path for _, path in asked(side) if path not in ("/livez", "/readyz", "/metrics")}
        shown = {re.sub(r":path\}", "}", str(route)) for route in routes}
        assert not {path.replace(":predict", "") for path in paths} - {
            route.replace(":predict", "") for route in shown
        }


def test_the_line_of_a_request_can_be_left_out(start_api: StartApi) -> None:
    server = start_api(API_ACCESS_LOG="off", API_LOG_LEVEL="info")
    server.client.post("/chat", json={"user_prompt": "Hello"})
    text = server.log.read_text()
    assert '"listening"' in text
    assert '"message":"request"' not in text
