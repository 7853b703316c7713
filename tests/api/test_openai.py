"""OpenAI's routes: the real client works unchanged; bytes and errors are the host's."""

import json
from urllib.parse import unquote

import openai
import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually, outcomes
from tests.api.stub_host import Fault, StubHost, Wire, cases, encoded, refuse, replay

pytestmark = pytest.mark.anyio
ROUTE = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Capital of India?"}]
ANSWER = "The capital of India is New Delhi."


def client_of(api: Api) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=20)


async def test_the_official_client_gets_an_answer(api: Api) -> None:
    async with client_of(api) as client:
        made = await client.chat.completions.create(model="qna-demo", messages=MESSAGES)  # type: ignore[arg-type]
    assert made.choices[0].message.content == ANSWER
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None and made.usage.completion_tokens == 8


async def test_the_official_client_gets_a_stream(api: Api) -> None:
    text = ""
    async with client_of(api) as client:
        stream = await client.chat.completions.create(
            model="qna-demo", messages=MESSAGES, stream=True  # type: ignore[arg-type]
        )  # fmt: skip
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text == ANSWER


async def test_the_official_client_lists_models(api: Api) -> None:
    async with client_of(api) as client:
        models = [model.id async for model in client.models.list()]
    assert models == ["qna-demo"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_value", openai.BadRequestError),
        (404, "model_not_found", openai.NotFoundError),
        (422, "unprocessable", openai.UnprocessableEntityError),
        (429, "overloaded", openai.RateLimitError),
        (500, "internal_error", openai.InternalServerError),
    ],
)
async def test_errors_are_the_clients_own_exceptions(
    api: Api, host: StubHost, status: int, code: str, kind: type[openai.APIStatusError]
) -> None:
    host.always = refuse(status, code, "3")
    async with client_of(api) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="x", messages=MESSAGES)  # type: ignore[arg-type]
    assert caught.value.code == (code if status != 500 else "upstream_error")


async def test_an_error_in_a_stream_raises_in_the_client(api: Api, host: StubHost) -> None:
    case = next(c for c in cases("openai_chat_stream") if "error" in c["name"])
    host.always = replay(case["answer"])
    async with client_of(api) as client:
        stream = await client.chat.completions.create(
            model="qna-demo", messages=MESSAGES, stream=True  # type: ignore[arg-type]
        )  # fmt: skip
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass


async def test_bytes_are_passed_through_both_ways(api: Api, host: StubHost) -> None:
    case = cases("openai_chat_stream")[1]
    host.always = replay(case["answer"])
    body = case["request"]["body"] | {"no_such_field": 1, "user": "u"}
    answer = await api.client.post("/v1/chat/completions", json=body)
    assert host.generated[-1].body == body
    assert host.generated[-1].path == "/openai/v1/chat/completions"
    assert answer.content == b"".join(encoded(event) for event in case["answer"]["events"])
    assert answer.headers["x-request-id"] == host.generated[-1].headers["x-request-id"]
    assert (await api.client.get("/chats")).json()["chats"] == []


async def test_text_completions_are_passed_on_too(api: Api, host: StubHost) -> None:
    case = cases("openai_completions")[0]
    answer = await api.client.post("/v1/completions", json=case["request"]["body"])
    assert answer.json() == case["answer"]["body"]
    assert host.generated[-1].path == "/openai/v1/completions"


async def test_a_models_name_is_passed_on_in_one_piece(api: Api, host: StubHost) -> None:
    for name in ("other", "meta-llama/Llama-9", "a%2Fb", "a%3Fb%23c"):
        host.always = refuse(404, "model_not_found")
        answer = await api.client.get(f"/v1/models/{name}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
        assert host.seen[-1].path == f"/openai/v1/models/{unquote(name)}"


async def test_a_stream_that_breaks_off_gets_an_error_event(api: Api, host: StubHost) -> None:
    async def breaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b'data: {"choices": []}\n\ndata: {"half', more=True)
        raise ConnectionError("the stub breaks off here")

    host.always = breaks
    answer = await api.client.post("/v1/chat/completions", json={"stream": True})
    whole, error = answer.text.strip().split("\n\n")
    assert whole == 'data: {"choices": []}'
    assert error.startswith("event: error\ndata: ")
    assert json.loads(error.split("data: ")[1])["error"]["code"] == "upstream_error"
    await eventually(lambda: outcomes(api, ROUTE) == {"upstream_error": 1})


async def test_the_hosts_error_event_counts_as_an_error(api: Api, host: StubHost) -> None:
    case = next(c for c in cases("openai_chat_stream") if "error" in c["name"])
    host.always = replay(case["answer"])
    answer = await api.client.post(ROUTE, json={"stream": True})
    assert answer.text.count("event: error\n") == 1
    assert "[DONE]" not in answer.text
    await eventually(lambda: outcomes(api, ROUTE) == {"upstream_error": 1})


FAILURES = [
    b'data: {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}',
    b'data: {"object": "error", "message": "out of memory", "code": 500}',
    b'data:{"error":"out of memory","error_type":"generation"}',
    b': a comment\r\ndata: {"error": {"message": "out of memory"}}',
]


def tells(*events: bytes) -> Fault:
    async def speaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b"".join(event + b"\n\n" for event in events))

    return speaks


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_that_another_make_tells_in_a_stream_is_one(
    api: Api, host: StubHost, failure: bytes
) -> None:
    host.always = tells(b'data: {"choices": []}', failure, b"data: [DONE]")
    answer = await api.client.post(ROUTE, json={"stream": True})
    whole, error = answer.text.strip().split("\n\n")
    assert whole == 'data: {"choices": []}'
    name, data = error.split("\n")
    assert name == "event: error"
    told = json.loads(data.removeprefix("data: "))["error"]
    assert (told["code"], told["type"]) == ("upstream_error", "server_error")
    assert told["request_id"] == answer.headers["x-request-id"]
    assert "memory" not in told["message"]
    await eventually(lambda: outcomes(api, ROUTE) == {"upstream_error": 1})
    async with client_of(api) as client:
        stream = await client.completions.create(model="x", prompt="q", stream=True)
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    "said",
    [
        b'{"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}',
        b'{"object": "error", "message": "out of memory", "code": 500}',
        b'{"error": "out of memory"}',
    ],
)
async def test_a_failure_told_with_status_200_is_one(api: Api, host: StubHost, said: bytes) -> None:
    async def speaks(wire: Wire) -> None:
        await wire.start(200, "application/json")
        await wire.body(said)

    host.always = speaks
    answer = await api.client.post(ROUTE, json={})
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_error")
    await eventually(lambda: outcomes(api, ROUTE) == {"upstream_error": 1})


async def test_what_only_names_an_error_is_none(api: Api, host: StubHost) -> None:
    events = (
        b'data: {"choices": [{"delta": {"content": "\\"error\\": 1"}}]}',
        b'data: {"choices": [], "error": null}',
        b'data: {"choices": [{"finish_reason": "error"}]}',
        b"data: [DONE]",
    )
    host.always = tells(*events)
    answer = await api.client.post(ROUTE, json={"stream": True})
    assert answer.content == b"".join(event + b"\n\n" for event in events)
    await eventually(lambda: outcomes(api, ROUTE) == {"ok": 1})


@pytest.mark.parametrize("text", ["event: error", "data: [DONE]", "[DONE]"])
@pytest.mark.parametrize("whole", [True, False])
async def test_text_that_looks_like_an_end_is_none(
    api: Api, host: StubHost, text: str, whole: bool
) -> None:
    async def speaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        data = {"choices": [{"delta": {"content": text}}]}
        await wire.body(encoded({"event": "message", "data": data}), more=whole)
        if whole:
            await wire.body(b"data: [DONE]\n\n")

    host.always = speaks
    answer = await api.client.post(ROUTE, json={"stream": True})
    assert answer.text.endswith("data: [DONE]\n\n") is whole
    assert ("\n\nevent: error\n" in answer.text) is not whole
    outcome = "ok" if whole else "upstream_error"
    await eventually(lambda: outcomes(api, ROUTE) == {outcome: 1})


async def test_the_hosts_overload_keeps_its_retry_after(api: Api, host: StubHost) -> None:
    host.always = refuse(429, "overloaded", "11", kind="rate_limit_error")
    answer = await api.client.post("/v1/chat/completions", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "11")
    assert error_of(answer)["type"] == "rate_limit_error"


async def test_a_client_that_leaves_a_stream_aborts_it(api: Api, host: StubHost) -> None:
    async def endless(wire: Wire) -> None:
        import asyncio

        await wire.start(200, "text/event-stream")
        while True:
            await wire.body(b'data: {"choices": []}\n\n', more=True)
            await asyncio.sleep(0.02)

    host.always = endless
    async with api.client.stream("POST", "/v1/chat/completions", json={"stream": True}) as answer:
        await anext(answer.aiter_raw())
    await eventually(lambda: host.running == 0)
    assert host.generated[-1].aborted


async def test_the_deadline_header_holds_here_too(start_api: StartApi, host: StubHost) -> None:
    api = await start_api(request_timeout_s=0.3)
    host.delay_s = 30
    answer = await api.client.post("/v1/chat/completions", json={})
    assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("name", ["m" * 30_000, "%28" * 18_000])
async def test_a_name_that_no_model_has_is_not_asked_for(
    api: Api, host: StubHost, name: str
) -> None:
    answer = await api.client.get(f"/v1/models/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert not host.seen
