"""Hosts of other makes, and proxies, that refuse a request: the caller hears what it did wrong, and
the host stays.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api.conftest import Api, error_of
from tests.api.fleet import Fleet, completion, metric, running_fleet
from tests.api.stub_host import Fault, StubHost, Wire, refuse

pytestmark = pytest.mark.anyio
PAGE = b"<html><head><title>Refused</title></head><body>nginx/1.27</body></html>"
UNTOLD = "The model host refused the request"


def says(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    """JSON, or bytes as they are."""
    kind = "text/html" if isinstance(body, bytes) else "application/json"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def fault(wire: Wire) -> None:
        await wire.start(status, kind, headers)
        await wire.body(content)

    return fault


def vllm(status: int, param: str | None = None) -> dict[str, Any]:
    about = {"message": "said", "type": "BadRequestError", "param": param, "code": status}
    return {"error": about}


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        pytest.param(400, vllm(400, "top_p"), ("said", "invalid_value", "top_p"), id="vLLM"),
        pytest.param(
            400,
            {"object": "error", "message": "said", "type": "BadRequestError", "code": 400},
            ("said", "invalid_value", None),
            id="vLLM of old",
        ),
        pytest.param(
            400,
            {"error": {"message": "said", "type": "BadRequest", "param": "", "code": "400"}},
            ("said", "invalid_value", None),
            id="KServe",
        ),
        pytest.param(
            400,
            {"error": {"message": "said", "type": "tokens", "param": "n", "code": None}},
            ("said", "invalid_value", "n"),
            id="OpenAI",
        ),
        pytest.param(
            400,
            {"error": {"message": "said", "param": "messages", "code": "context_length_exceeded"}},
            ("said", "context_length_exceeded", "messages"),
            id="OpenAI with a code",
        ),
        pytest.param(404, vllm(404, "model"), ("said", "model_not_found", "model"), id="no model"),
        pytest.param(
            422,
            {"error": "said", "error_type": "validation"},
            ("said", "invalid_value", None),
            id="TGI",
        ),
        pytest.param(
            422,
            {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "said", "input": "x"}]},
            ("said", "invalid_value", "messages[0].role"),
            id="FastAPI",
        ),
        pytest.param(404, {"detail": "said"}, ("said", "not_found", None), id="no path"),
        pytest.param(415, {"message": "said"}, ("said", "unsupported_media_type", None), id="Kong"),
        pytest.param(413, PAGE, (UNTOLD, "body_too_large", None), id="a page"),
        pytest.param(400, b"", (UNTOLD, "invalid_value", None), id="nothing"),
        pytest.param(400, [1], (UNTOLD, "invalid_value", None), id="no object"),
        pytest.param(
            413,
            {"error": {"message": PAGE.decode(), "code": 413}},
            (UNTOLD, "body_too_large", None),
            id="a page in JSON",
        ),
        pytest.param(
            400,
            {"error": {"message": "said", "param": ["n"], "code": "so long " * 99, "hint": "x"}},
            ("said", "invalid_value", None),
            id="odd values",
        ),
    ],
)
async def test_a_refusal_is_told_in_our_form(
    shared_api: Api,
    shared_host: StubHost,
    status: int,
    body: Any,
    told: tuple[str, str, str | None],
) -> None:
    shared_host.always = says(status, body)
    answer = await shared_api.client.post("/v1/chat/completions", json={"messages": []})
    error = error_of(answer)
    assert answer.status_code == status
    assert (error["message"], error["code"], error["param"]) == told
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "code", "param", "request_id"}


async def test_a_long_message_is_cut(shared_api: Api, shared_host: StubHost) -> None:
    """Some repeat the request that they refuse."""
    shared_host.always = says(400, {"error": {"message": "m" * 100_000, "code": 400}})
    answer = await shared_api.client.post("/v1/chat/completions", json={})
    assert error_of(answer)["message"] == "m" * 1000 + "…"


async def test_the_official_client_raises_what_it_should(
    shared_api: Api, shared_host: StubHost
) -> None:
    shared_host.always = says(400, vllm(400, "top_p"))
    async with openai.AsyncOpenAI(
        base_url=f"{shared_api.url}/v1", api_key="none", max_retries=0
    ) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(model="x", prompt="q")
    assert (caught.value.param, caught.value.code) == ("top_p", "invalid_value")


async def test_wrong_requests_take_no_host_out(fleet: Fleet) -> None:
    for name in "ab":
        (await fleet.host(name)).always = says(400, vllm(400))
    fleet.write(fleet.model("m", "a", "b"))
    api = await fleet.api()
    for body in (vllm(400), PAGE):
        for host in fleet.hosts.values():
            host.always = says(400, body)
        answers = [await completion(api, "m", user=str(n)) for n in range(12)]
        assert {answer.status_code for answer in answers} == {400}
    assert sum(fleet.counts().values()) == 24, "none is asked again"
    for host in fleet.hosts.values():
        about = {"model": "m", "address": host.url}
        assert metric(api, "host_out", **about) == 0
        assert metric(api, "host_failures_total", **about, reason="status_400") == 0


@pytest.mark.parametrize("body", [vllm(429), PAGE])
async def test_a_busy_host_is_passed_by(fleet: Fleet, body: Any) -> None:
    full, free = await fleet.host("full"), await fleet.host("free")
    fleet.write(fleet.model("m", "full", "free"))
    api = await fleet.api()
    full.always = says(429, body, {"retry-after": "7"})
    for n in range(12):
        beginning = [{"role": "user", "content": str(n)}]
        assert (await completion(api, "m", messages=beginning)).status_code == 200
    assert full.generated, "no conversation's favourite was the full one"
    free.always = full.always
    answer = await completion(api, "m")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    error = error_of(answer)
    # What it says of a quota is about this server's account, not about the caller.
    assert (error["code"], error["type"]) == ("overloaded", "rate_limit_error")
    assert "said" not in error["message"]
    for host in fleet.hosts.values():
        assert metric(api, "host_out", model="m", address=host.url) == 0


async def test_an_absurd_time_to_wait_is_none(shared_api: Api, shared_host: StubHost) -> None:
    shared_host.always = refuse(429, "overloaded", "9" * 400)
    answer = await shared_api.client.post("/v1/chat/completions", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize("status", [404, 405, 408])
async def test_what_is_about_the_way_to_the_host_counts_against_it(
    fleet: Fleet, status: int
) -> None:
    """A proxy that knows no way to it, for one."""
    (await fleet.host("lost")).always = says(status, PAGE)
    await fleet.host("good")
    fleet.write(fleet.model("m", "lost", "good"))
    api = await fleet.api()
    asked = [{"role": "user", "content": ""}]
    for n in range(40):
        asked[0]["content"] = str(n)
        answer = await completion(api, "m", messages=asked)
        assert answer.status_code in (200, 502)
        assert "nginx" not in answer.text
    assert metric(api, "host_out", model="m", address=fleet.hosts["lost"].url) == 1
