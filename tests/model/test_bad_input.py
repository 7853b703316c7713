"""Whatever is wrong with a request, on every door: 4xx that names the field, no echo, no 5xx."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model.schemas import GenerateRequest
from tests.model.hosts import MODEL_NAME, Address

pytestmark = pytest.mark.anyio
CANARY = "canary7f3a"
PREDICT = f"/v1/models/{MODEL_NAME}:predict"
INFER = f"/v2/models/{MODEL_NAME}/infer"
CHAT = "/openai/v1/chat/completions"
TEXT = "/openai/v1/completions"
DOORS = ["/generate", "/generate/batch", PREDICT, INFER, CHAT, TEXT]

RANGES: dict[str, list[Any]] = {
    "max_tokens": [0, -1, 1.5, "1", True, 2**64],
    "temperature": [-0.1, 2.1, "0", True, [0]],
    "top_p": [0, 1.1, "1", False],
    "top_k": [-1, 0.5, "5", 2**31],
    "min_p": [-0.1, 1.1],
    "seed": [-1, 2**63, 0.5, "1"],
    "stop": [[], {}, 7, [7], [""], ["s"] * 5, ["s" * 257]][1:],
    "presence_penalty": [-2.1, 2.1, "0"],
    "frequency_penalty": [-2.1, 2.1],
    "repetition_penalty": [0, 2.1],
    "timeout_ms": [0, 3_600_001, 1.5],
    "cache_salt": ["", "s" * 257, 7, ["s"], "nul \0"],
}
WRONG = [(name, value) for name, values in RANGES.items() for value in values]


def body_of(door: str, **fields: Any) -> dict[str, Any]:
    ask = {"user_prompt": "hi", "max_tokens": 1, **fields}
    message = {"role": "user", "content": ask.pop("user_prompt")}
    match door:
        case "/generate":
            return {"user_prompt": message["content"], **ask}
        case "/generate/batch":
            return {"queries": [{"user_prompt": message["content"], **ask}]}
        case "/openai/v1/chat/completions":
            return {"model": MODEL_NAME, "messages": [message], **ask}
        case "/openai/v1/completions":
            return {"model": MODEL_NAME, "prompt": message["content"], **ask}
    if door == PREDICT:
        return {"instances": [{"user_prompt": message["content"], **ask}]}
    data = [message["content"]]
    tensor = {"name": "user_prompt", "shape": [1], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor], "parameters": ask}


def error_of(door: str, answer: httpx.Response) -> dict[str, Any]:
    """The error of the request, or of its only item."""
    body: Any = answer.json()
    if answer.status_code == 200:
        if door == "/generate/batch":
            body = body[0]
        elif door == PREDICT:
            body = body["predictions"][0]
        elif door == INFER:
            outputs = {item["name"]: item["data"] for item in body["outputs"]}
            body = {"error": json.loads(outputs["error"][0])}
    else:
        assert 400 <= answer.status_code < 500, answer.text
    error: dict[str, Any] = body["error"]
    assert error.keys() >= {"message", "type", "code", "param", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.text.replace(f'"chat_id":"{CANARY}"', "")
    return error


@pytest.mark.parametrize("door", DOORS)
async def test_a_value_out_of_range_is_named(door: str, client: httpx.AsyncClient) -> None:
    for name, value in WRONG:
        answer = await client.post(door, json=body_of(door, **{name: value}))
        error = error_of(door, answer)
        assert error["code"] == "invalid_value", (name, value, error)
        assert error["param"].split(".")[-1].split("[")[0] == name, (name, value, error)


@pytest.mark.parametrize("name", ["max_tokens", "top_k", "seed", "timeout_ms"])
async def test_a_number_beyond_64_bits_is_told_what_it_may_be(
    name: str, client: httpx.AsyncClient
) -> None:
    for value in (2**64, -(2**63) - 1, 10**30):
        answer = await client.post("/generate", json=body_of("/generate", **{name: value}))
        assert error_of("/generate", answer)["message"] == (
            f"{name}: must be from -9223372036854775808 to 9223372036854775807"
        )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("text", [7, None, [], {}, "", " \n", "nul \0 " + CANARY, [CANARY]])
async def test_a_prompt_that_is_no_text_is_refused(
    door: str, text: Any, client: httpx.AsyncClient
) -> None:
    if (door, text) in ((TEXT, " \n"), (TEXT, [CANARY])):
        return  # white space, and a list of texts, are prompts there
    answer = await client.post(door, json=body_of(door, user_prompt=text))
    assert error_of(door, answer)["code"] in ("invalid_value", "missing_field")


@pytest.mark.parametrize("door", ["/generate", "/generate/batch", PREDICT, INFER])
async def test_an_unknown_field_is_named_and_a_strange_one_is_not_repeated(
    door: str, client: httpx.AsyncClient
) -> None:
    error = error_of(door, await client.post(door, json=body_of(door, temprature=1)))
    assert error["code"] == "unknown_field"
    assert error["param"].endswith("temprature")
    strange = {f"<{CANARY}>\n": 1}
    error = error_of(door, await client.post(door, json=body_of(door, **strange)))
    assert error["code"] == "unknown_field"


@pytest.mark.parametrize(
    ("where", "param"),
    [
        (lambda fields: fields, "k0"),
        (lambda fields: {"user_prompt": 7, **fields}, "user_prompt"),
        (lambda fields: {"messages": [{"role": "user", "content": "a", **fields}]}, "messages"),
    ],
)
def test_of_many_unknown_fields_only_the_first_costs_anything(
    where: Callable[[dict[str, int]], dict[str, Any]], param: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        GenerateRequest.model_validate(where({f"k{number}": 0 for number in range(10_000)}))
    first, *others = caught.value.errors()
    assert first["loc"][0] == param
    assert len(others) <= 1


async def test_rows_are_counted_before_they_are_made(client: httpx.AsyncClient) -> None:
    body = body_of(INFER, top_p="no number")
    body["inputs"][0] |= {"shape": [100_000], "data": ["hi"] * 100_000}
    error = error_of(INFER, await client.post(INFER, json=body))
    assert error["param"] == "inputs.user_prompt"
    assert error["message"] == "inputs.user_prompt: must have at most 256 texts, not 100000"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"1" * 60_000,
        b"canary7f3a",
    ],
    ids=lambda raw: repr(raw[:16]),
)
async def test_what_is_no_json_is_said_to_be_none(
    door: str, raw: bytes, client: httpx.AsyncClient
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post(door, content=raw, headers=headers)
    assert answer.status_code == 400
    assert error_of(door, answer)["code"] == "invalid_json"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("body", [[], 1, "text", None, True])
async def test_a_body_must_be_an_object(door: str, body: Any, client: httpx.AsyncClient) -> None:
    answer = await client.post(door, content=json.dumps(body))
    assert error_of(door, answer)["code"] == "invalid_value"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_refused(
    door: str, headers: dict[str, str], client: httpx.AsyncClient
) -> None:
    answer = await client.post(door, content=json.dumps(body_of(door)), headers=headers)
    assert answer.status_code == 415
    assert error_of(door, answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content_type", [None, "application/json; charset=UTF-8", "application/x+json"]
)
async def test_json_under_its_other_names_is_accepted(
    content_type: str | None, client: httpx.AsyncClient
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    content = json.dumps(body_of("/generate"))
    answer = await client.post("/generate", content=content, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("door", [PREDICT, INFER])
async def test_another_model_is_not_found(door: str, client: httpx.AsyncClient) -> None:
    answer = await client.post(door.replace(MODEL_NAME, CANARY), json=body_of(door))
    assert answer.status_code == 404
    assert error_of(door, answer)["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["tools", "functions", "logit_bias", "audio", "response_format"])
@pytest.mark.parametrize("door", [CHAT, TEXT])
async def test_what_would_change_the_answer_and_is_not_supported_is_refused(
    door: str, name: str, client: httpx.AsyncClient
) -> None:
    answer = await client.post(door, json=body_of(door, **{name: {"a": CANARY}}))
    error = error_of(door, answer)
    assert (error["code"], error["param"]) == ("unsupported", name)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/x", 404, "not_found"),
        ("/generate/", 404, "not_found"),
        # To the router, "tiny:explain" is a model's name, whose readiness may be read.
        ("/v1/models/tiny:explain", 405, "method_not_allowed"),
        ("/v2/repository/models/tiny/unload", 404, "not_found"),
    ],
)
async def test_other_paths_are_not_served(
    path: str, status: int, code: str, client: httpx.AsyncClient
) -> None:
    answer = await client.post(path, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = ["user_prompt", "messages", "chat_id", "system_prompt", "model", "prompt", "n", "details"]
FIELDS += ["queries", "instances", "inputs", "parameters", "logprobs", "stream_options", *RANGES]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(DOORS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_any_json_is_answered_or_refused(
    address: Address, door: str, changes: dict[str, Any]
) -> None:
    content = json.dumps({**body_of(door), **changes, "timeout_ms": 30_000}).encode()
    answer = httpx.post(address.url + door, content=content, timeout=60)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        error_of(door, answer)


async def test_a_wrong_deadline_header_is_named(client: httpx.AsyncClient) -> None:
    for value in ("0", "-1", "1.5", "soon", "3600001", "9" * 50):
        headers = {"X-Request-Timeout-Ms": value}
        answer = await client.post("/generate", json=body_of("/generate"), headers=headers)
        error = error_of("/generate", answer)
        assert error["param"] == "X-Request-Timeout-Ms"


async def test_a_request_id_that_could_forge_a_log_line_is_replaced(
    client: httpx.AsyncClient,
) -> None:
    for value in ("a b", "x" * 129, "<script>", ""):
        answer = await client.get("/livez", headers={"X-Request-Id": value})
        assert answer.headers["x-request-id"] != value
        assert len(answer.headers["x-request-id"]) == 32


async def test_a_wrong_method_is_told_the_right_ones(client: httpx.AsyncClient) -> None:
    for path, allow in (("/generate", "POST"), (PREDICT, "GET, POST")):
        answer = await client.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
