"""Bad input is refused at the door: status, code and field are the contract's; no echo."""

import asyncio
import json

import httpx
import pytest

from tests.api.conftest import Api, StartApi, error_of
from tests.api.stub_host import StubHost, cases

pytestmark = pytest.mark.anyio
CANARY = "canary-7f3a"
# Cases of the contract that the API server decides itself, with its own fields.
ELSEWHERE = {
    "prompt and messages",
    "no messages",
    "unknown role",
    "a message without content",
    "the last message is not the user's",
    "an unknown field of a message",
    "a system prompt beside messages",
    "too long, with the limit and the count",
    "no such route",
    "wrong method",
    "a body over the limit",
}
DOOR = [
    case for case in cases("errors") if case["given"] == "ready" and case["name"] not in ELSEWHERE
]


@pytest.mark.parametrize("case", DOOR, ids=lambda case: case["name"])
async def test_the_door_is_the_model_hosts(
    shared_api: Api, shared_host: StubHost, case: dict
) -> None:  # type: ignore[type-arg]
    request = case["request"]
    content = request.get("raw_body")
    if content is None:
        content = json.dumps(request["body"])
    answer = await shared_api.client.post("/chat", content=content, headers=request["headers"])
    want = case["answer"]
    error = error_of(answer)
    assert answer.status_code == want["status"]
    for key in ("code", "type", "param"):
        assert error[key] == want["body"]["error"][key]
    assert shared_host.generated == []


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"user_prompt": CANARY, "messages": []}, "unknown_field", "messages"),
        ({"user_prompt": CANARY, CANARY + "\n": 1}, "unknown_field", None),
        ({"user_prompt": CANARY, "stream": 1}, "invalid_value", "stream"),
        ({"user_prompt": CANARY, "details": "yes"}, "invalid_value", "details"),
        ({"user_prompt": CANARY, "system_prompt": 1}, "invalid_value", "system_prompt"),
        ({"user_prompt": CANARY, "system_prompt": "a\0b"}, "invalid_value", "system_prompt"),
        ({"user_prompt": CANARY, "chat_id": "a\0b"}, "invalid_value", "chat_id"),
        ({"user_prompt": CANARY, "stop": ["\0"]}, "invalid_value", "stop[0]"),
        ({"user_prompt": CANARY, "stop": {"a": 1}}, "invalid_value", "stop"),
        ({"user_prompt": CANARY, "temperature": True}, "invalid_value", "temperature"),
        ({"user_prompt": CANARY, "seed": 10**400}, "invalid_json", None),
        ({"user_prompt": [CANARY]}, "invalid_value", "user_prompt"),
        ({"user_prompt": ""}, "invalid_value", "user_prompt"),
        (CANARY, "invalid_value", None),
        (None, "invalid_value", None),
    ],
)
async def test_a_wrong_body_is_named_and_not_echoed(
    shared_api: Api, shared_host: StubHost, body: object, code: str, param: str | None
) -> None:
    answer = await shared_api.client.post(
        "/chat", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert CANARY not in answer.text
    assert shared_host.generated == []
    assert (await shared_api.client.get("/chats")).json()["chats"] == []


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/chat", {"user_prompt": ""}, "user_prompt: must have at least 1 character"),
        (
            "/chat",
            {"user_prompt": "q", "chat_id": "x" * 257},
            "chat_id: must have at most 256 characters",
        ),
        (
            "/chat",  # browsers take it out of an address
            {"user_prompt": "q", "chat_id": ".."},
            "chat_id: must be something else than . and ..",
        ),
        ("/chat/batch", {"chats": []}, "chats: must have at least 1 item"),
        ("/chat/batch", {"chats": [{}] * 65}, "chats: must have at most 64 items"),
        ("/chat", {"user_prompt": 1}, "user_prompt: must be a string"),
        ("/chat", {"user_prompt": "q", "temperature": 3}, "temperature: must be at most 2"),
        ("/chat", {"user_prompt": "q", "seed": 0.5}, "seed: must be a whole number"),
        ("/chat", {"user_prompt": "q", "stream": 1}, "stream: must be true or false"),
        ("/chat", {"user_prompt": " "}, "user_prompt: must hold more than white space"),
        (
            "/chat",
            {"user_prompt": "q", "seed": 2**63},
            "seed: must be at most 9223372036854775807",
        ),
        (
            "/chat",
            {"user_prompt": "q", "max_tokens": 2**31},
            "max_tokens: must be at most 2147483647",
        ),
        ("/chat", {"user_prompt": "q", "top_k": 2**31}, "top_k: must be at most 2147483647"),
        *(
            (
                "/chat",
                {"user_prompt": "q", field: value},
                f"{field}: must be from -9223372036854775808 to 9223372036854775807",
            )
            for field in ("seed", "max_tokens", "top_k", "logprobs", "timeout_ms")
            for value in (2**64, -(2**63) - 1, 10**30)
        ),
    ],
)
async def test_a_message_says_what_the_field_must_be(
    shared_api: Api, path: str, body: object, message: str
) -> None:
    error = error_of(await shared_api.client.post(path, json=body))
    assert error["message"] == message


@pytest.mark.parametrize("path", ["/chat", "/chat/batch", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'"\\ud800"',
        b"[" * 150_000,
        b'{"messages": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b"9" * 1_000_000,
        b'{"a": NaN}',
        b"{'a': 1}",
    ],
    ids=["empty", "cut", "utf8", "surrogate", "deep", "closed", "digits", "nan", "quotes"],
)
async def test_bad_json_is_bad_json_on_every_route(shared_api: Api, path: str, raw: bytes) -> None:
    answer = await shared_api.client.post(
        path, content=raw, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_what_is_read_but_cannot_be_passed_on_is_the_clients_error(
    shared_api: Api, path: str
) -> None:
    """orjson reads some thousand levels and writes a quarter of that."""
    raw = b'{"messages": [], "prompt": "q", "tools": ' + b"[" * 300 + b"]" * 300 + b"}"
    headers = {"Content-Type": "application/json"}
    answer = await shared_api.client.post(path, content=raw, headers=headers)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_json")
    assert "nested too deeply" in error["message"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "00000000",
        "3600001",
        "36000000",
        "1" + "0" * 9,
        "1" * 5000,
        "000000001000000",
        "0" * 8 + "1" * 5000,
        "-1",
        "1.5",
        "²",
    ],
)
async def test_a_wrong_time_limit_in_the_header_is_named(shared_api: Api, value: str) -> None:
    answer = await shared_api.client.post(
        "/chat",
        json={"user_prompt": "q"},
        headers={"X-Request-Timeout-Ms": value.encode("latin-1")},  # type: ignore[dict-item]
    )
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_value")
    assert error["param"] == "X-Request-Timeout-Ms"


@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_body_limit_is_exact(
    start_api: StartApi, extra: int, status: int, chunked: bool
) -> None:
    limit = 4096
    api = await start_api(max_body_bytes=limit)
    frame = len(json.dumps({"user_prompt": ""}))
    body = json.dumps({"user_prompt": "x" * (limit + extra - frame)}).encode()

    async def stream() -> object:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    content = stream() if chunked else body
    answer = await api.client.post(
        "/chat", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    if status == 413:
        assert error_of(answer)["limit"] == limit
        assert error_of(answer)["code"] == "body_too_large"


async def test_a_body_that_does_not_arrive_is_a_408(start_api: StartApi) -> None:
    api = await start_api(body_timeout_s=0.2)

    address = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9"
    writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n{{".encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    writer.close()


async def test_an_unknown_path_and_a_wrong_method_have_the_envelope(shared_api: Api) -> None:
    missing = await shared_api.client.get("/nothing?q=" + CANARY)
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
    assert CANARY not in missing.text
    wrong = await shared_api.client.get("/chat")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    several = await shared_api.client.put("/chats/1", json={})
    assert (several.status_code, several.headers["allow"]) == (405, "GET, PATCH, DELETE")


async def test_too_many_requests_at_once_are_refused(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=2, max_queued=0)
    host.delay_s = 0.5
    answers = await asyncio.gather(*(api.chat(user_prompt=str(n)) for n in range(6)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 4
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert error_of(refused[0])["code"] == "overloaded"
    assert len(host.generated) == 2
    assert (await api.chat(user_prompt="later")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/chat", "POST"),
        ("PATCH", "/chat", "POST"),
        ("POST", "/chats", "GET"),
        ("POST", "/chats/x", "GET, PATCH, DELETE"),
        ("PATCH", "/chats/x/branch", "POST"),
        ("DELETE", "/chats/x/branch", "POST"),
        ("GET", "/chats/x/branch", "POST"),
        ("GET", "/chats/x/regenerate", "POST"),
        ("DELETE", "/chats/x/export", "GET"),
        ("POST", "/livez", "GET"),
        ("PUT", "/v1/models", "GET"),
        ("POST", "/v1/models/m", "GET"),
        ("PUT", "/chats/x%2Fy", "GET, PATCH, DELETE"),
    ],
)
@pytest.mark.parametrize("body", [None, b"{}", b'{"title": "t"}'])
async def test_a_wrong_method_is_told_whatever_comes_with_it(
    shared_api: Api, method: str, path: str, allowed: str, body: bytes | None
) -> None:
    headers = {"Content-Type": "application/json"} if body == b'{"title": "t"}' else {}
    answer = await shared_api.client.request(method, path, content=body, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/nothing", "/chats/x/y", "/chats/", "/chats/x/branch/y", "/chat/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_what_is_not_there_is_told_whatever_comes_with_it(
    shared_api: Api, method: str, path: str
) -> None:
    answer = await shared_api.client.request(method, path, content=b"x")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


async def test_a_chat_that_is_called_like_a_route_is_renamed_by_its_own_address(
    shared_api: Api,
) -> None:
    await shared_api.chat(chat_id="x/branch", user_prompt="q")
    assert (
        await shared_api.client.patch("/chats/x/branch", json={"title": "t"})
    ).status_code == 405
    answer = await shared_api.client.patch("/chats/x%2Fbranch", json={"title": "t"})
    assert (answer.json()["chat_id"], answer.json()["title"]) == ("x/branch", "t")
    assert (await shared_api.client.delete("/chats/x%2Fbranch")).status_code == 204
