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


@pytest.mark.parametrize("path", ["/chat", "/chat/batch", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'"\\ud800"',
        b"[" * 150_000,
        b"9" * 1_000_000,
        b'{"a": NaN}',
        b"{'a': 1}",
    ],
    ids=["empty", "cut", "utf8", "surrogate", "deep", "digits", "nan", "quotes"],
)
async def test_bad_json_is_bad_json_on_every_route(shared_api: Api, path: str, raw: bytes) -> None:
    answer = await shared_api.client.post(
        path, content=raw, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


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
    head = "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9"
    writer.write(f"{head}\r\n\r\n{{".encode())
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


async def test_too_many_requests_at_once_are_refused(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(max_in_flight=2)
    host.delay_s = 0.5
    answers = await asyncio.gather(*(api.chat(user_prompt=str(n)) for n in range(6)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 4
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert error_of(refused[0])["code"] == "overloaded"
    assert len(host.generated) == 2
    assert (await api.chat(user_prompt="later")).status_code == 200
