"""The way to the model host: every fixture is understood, failures map to the right errors, and
retries are bounded.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from api.context import Call
from api.errors import ApiError
from api.metrics import Metrics
from api.settings import Settings
from api.sse import EventSplitter, parse
from api.upstream import ModelHost
from api.upstream.retry import RetryBudget, pause_s
from tests.api.conftest import StartApi, eventually
from tests.api.stub_host import (
    StubHost,
    Wire,
    cases,
    closes,
    raw_host,
    refuse,
    replay,
    resets,
    running,
    says,
)

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
UPSTREAM_CASES = cases(
    "errors", "generate", "generate_stream", "openai_chat", "openai_chat_stream", "models",
    "generate_batch", "openai_completions",
)  # fmt: skip
# What the host says about a client's request is handed on; what it says about itself becomes ours.
MAPPED = {500: (502, "upstream_error"), 503: (503, "model_host_unavailable")}


def call(seconds: float = 20) -> Call:
    return Call("test-id", time.monotonic() + seconds)


class Client:
    def __init__(self, url: str, **changed: Any) -> None:
        self.metrics = Metrics()
        values = {"model_host_url": url} | changed
        self.host = ModelHost(Settings(**values), self.metrics, None)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.host.aclose()

    async def fails(self, seconds: float = 20) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.host.request("POST", "/generate", call(seconds), b"{}")
        return caught.value

    def count(self, name: str) -> float:
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == f"qna_api_{name}"
        )


@pytest.fixture(scope="module")
async def shared_client(shared_host: StubHost) -> AsyncIterator[Client]:
    async with Client(shared_host.url, retry_attempts=0) as made:
        yield made


@pytest.mark.parametrize("case", UPSTREAM_CASES, ids=lambda case: case["name"])
async def test_every_fixture_is_understood(
    shared_host: StubHost, shared_client: Client, case: dict[str, Any]
) -> None:
    host, client = shared_host, shared_client
    answer = case["answer"]
    host.always = replay(answer)
    path = "/generate"
    if answer["status"] == 405:
        answer = answer | {"status": 502}
    if "events" in answer:
        stream = await client.host.stream(path, call(), b"{}")
        splitter, got = EventSplitter(), []
        while (chunk := await stream.next_chunk()) is not None:
            got += [parse(event) for event in splitter.feed(chunk)]
        await stream.aclose()
        assert got == [(event["event"], event["data"]) for event in answer["events"]]
    elif answer["status"] == 200:
        reply = await client.host.request("POST", path, call(), b"{}")
        assert json.loads(reply.body) == answer["body"]
        if "x-finish-reason" in answer["headers"]:
            assert reply.headers["x-finish-reason"] == "stop"
    else:
        error = await client.fails()
        said = answer.get("body", {}).get("error", {})
        status, code = MAPPED.get(answer["status"], (answer["status"], said["code"]))
        if case["answer"]["status"] == 405:
            status, code = 502, "upstream_error"
        assert (error.http_status, error.code) == (status, code)
        if answer["status"] in (400, 413, 429):
            assert error.param == said["param"]
            assert {key: said[key] for key in ("limit", "count") if key in said} == error.extra
        if "retry-after" in answer["headers"]:
            assert 7 <= int(error.headers()["Retry-After"]) <= 11


@pytest.mark.parametrize("step", [closes, resets], ids=["closed", "reset"])
async def test_a_connection_that_ends_without_a_byte_is_tried_again(step: Any) -> None:
    async with raw_host(step, says(OK)) as host, Client(host.url) as client:
        assert (await client.host.request("POST", "/generate", call(), b"{}")).body == b"{}"
        assert host.connections == 2
        assert client.count("upstream_retries_total") == 1


@pytest.mark.parametrize("step", [closes, resets], ids=["closed", "reset"])
async def test_a_request_that_the_host_may_have_died_of_is_sent_twice_at_most(step: Any) -> None:
    async with raw_host(step) as host, Client(host.url, retry_attempts=4) as client:
        error = await client.fails()
        assert (error.http_status, error.code) == (503, "model_host_unavailable")
        assert host.connections == 2


async def test_a_refused_connection_is_tried_again_and_then_a_503() -> None:
    async with Client("http://127.0.0.1:1", retry_attempts=2) as client:
        error = await client.fails()
        assert (error.http_status, error.code) == (503, "model_host_unavailable")
        assert int(error.headers()["Retry-After"]) >= 1
        assert client.count("upstream_attempts_total") == 3


@pytest.mark.parametrize("status", [502, 503])
async def test_a_proxy_without_its_host_is_tried_again(host: StubHost, status: int) -> None:
    async def proxy(wire: Any) -> None:
        await wire.start(status, "text/plain")
        await wire.body(b"dial tcp 127.0.0.1:8080: connect: connection refused")

    host.faults = [proxy, refuse(503, "draining", "1"), refuse(503, "not_ready", "1")]
    async with Client(host.url) as client:
        reply = await client.host.request(
            "POST", "/generate", call(), json.dumps(question()).encode()
        )
        assert json.loads(reply.body)["response"] == "echo: x"
        assert client.count("upstream_retries_total") == 3


def question() -> dict[str, Any]:
    return {"chat_id": "1", "messages": [{"role": "user", "content": "x"}], "stream": False}


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 504])
async def test_other_answers_are_never_tried_again(host: StubHost, status: int) -> None:
    host.always = refuse(status, "some_code")
    async with Client(host.url) as client:
        await client.fails()
    assert len(host.seen) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 999999 what\r\n\r\n",
    ],
    ids=["short", "cut", "other protocol", "status"],
)
async def test_after_the_first_byte_nothing_is_tried_again(data: bytes) -> None:
    async with raw_host(says(data)) as host, Client(host.url) as client:
        error = await client.fails()
        assert (error.http_status, error.code) == (502, "upstream_error")
        assert host.connections == 1


async def test_an_answer_that_broke_off_leaves_its_cause_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"
    async with raw_host(says(cut)) as host, Client(host.url) as client:
        await client.fails()
    (record,) = [entry for entry in caplog.records if entry.message == "answer broken off"]
    assert record.__dict__["fields"]["reason"] == "BrokenOff"
    assert record.__dict__["fields"]["request_id"]


async def test_an_outage_does_not_multiply_the_load(host: StubHost) -> None:
    host.always = refuse(503, "not_ready", "1")
    requests = 40
    async with Client(host.url, retry_burst=3) as client:
        errors = await asyncio.gather(*(client.fails() for _ in range(requests)))
    assert {error.code for error in errors} == {"model_host_unavailable"}
    assert len(host.seen) <= 1.2 * requests + 3


async def test_without_the_budget_an_outage_does_multiply_the_load(host: StubHost) -> None:
    """The check above can fail."""
    host.always = refuse(503, "not_ready", "1")
    async with Client(host.url, retry_budget=1, retry_burst=1000) as client:
        await asyncio.gather(*(client.fails() for _ in range(40)))
    assert len(host.seen) > 1.2 * 40 + 3


async def test_a_retry_never_passes_the_deadline() -> None:
    async with Client("http://127.0.0.1:1", retry_attempts=10) as client:
        started = time.monotonic()
        await client.fails(0.5)
        assert time.monotonic() - started < 2


@contextmanager
def full_listener() -> Iterator[socket.socket]:
    """A listener whose queue is full neither takes nor refuses: like a dropped packet."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.settimeout(0)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    try:
        yield full
    finally:
        for one in (*fillers, full):
            one.close()


async def test_an_unreachable_host_is_a_503_after_one_further_try() -> None:
    with full_listener() as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with Client(url, connect_timeout_s=0.4) as client:
            started = time.monotonic()
            error = await client.fails()
            assert error.code == "model_host_unavailable"
            assert 0.8 < time.monotonic() - started < 2.5


async def test_a_connection_that_was_not_made_in_time_is_tried_again() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await writer.drain()
        writer.close()

    with full_listener() as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with Client(url, connect_timeout_s=0.4) as client:
            asking = asyncio.create_task(client.host.request("POST", "/generate", call(), b"{}"))
            await eventually(lambda: client.count("upstream_failures_total") == 1)
            server = await asyncio.start_server(answer, sock=full.dup())
            try:
                assert (await asking).body == b"{}"
            finally:
                server.close()


async def test_two_hundred_cancelled_requests_leave_the_whole_capacity(host: StubHost) -> None:
    limit = 8
    async with Client(host.url, max_in_flight=limit, pool_timeout_s=2.0) as client:
        host.delay_s = 5
        body = json.dumps(question()).encode()

        async def leave(after: float) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(after):
                    await client.host.request("POST", "/generate", call(), body)

        for start in range(0, 200, 50):
            await asyncio.gather(*(leave(0.01 + (start + n) % 23 / 100) for n in range(50)))
        await eventually(lambda: host.running == 0)
        host.delay_s = 0.05
        # As many as the pool has room for, all at once.
        replies = await asyncio.gather(
            *(client.host.request("POST", "/generate", call(), body) for _ in range(limit + 16))
        )
        assert len(replies) == limit + 16


async def test_a_lack_of_our_own_connections_is_no_failure_of_the_host(host: StubHost) -> None:
    host.delay_s = 0.5
    async with Client(host.url, max_in_flight=1, pool_timeout_s=0.05) as client:
        body = json.dumps(question()).encode()
        asked = (client.host.request("POST", "/generate", call(), body) for _ in range(40))
        results = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in results if isinstance(one, ApiError)]
        assert {one.code for one in refused} == {"model_host_unavailable"}
        assert client.count("host_failures_total") == 0


async def test_a_rolling_restart_of_the_host_under_light_load_fails_nothing() -> None:
    stub = StubHost(delay_s=0.02)
    body = json.dumps(question()).encode()
    port = 0
    stop = asyncio.Event()
    failures: list[ApiError] = []
    answered = 0

    async def load(client: Client) -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                await client.host.request("POST", "/generate", call(), body)
                answered += 1
            except ApiError as error:
                failures.append(error)
            await asyncio.sleep(0.05)

    async with running(stub) as url:
        port = int(url.rsplit(":", 1)[1])
    async with Client(f"http://127.0.0.1:{port}") as client:
        clients = [asyncio.create_task(load(client)) for _ in range(2)]
        for _ in range(3):
            async with running(stub, port=port):
                seen = answered
                await eventually(lambda seen=seen: answered > seen + 5)
        async with running(stub, port=port):
            seen = answered
            await eventually(lambda: answered > seen + 5)
            stop.set()
            await asyncio.gather(*clients)
    assert failures == []


async def test_a_repeated_request_has_the_time_that_is_left() -> None:
    stub = StubHost()

    async def late(wire: Wire) -> None:
        await asyncio.sleep(0.3)
        await refuse(503, "draining")(wire)

    stub.faults = [late]
    body = json.dumps(question()).encode()
    async with running(stub) as url, Client(url) as client:
        await client.host.request("POST", "/generate", call(5), body)
    first, second = (int(one.headers["x-request-timeout-ms"]) for one in stub.generated)
    assert first - second >= 300


def test_pauses_double_and_have_jitter() -> None:
    for attempt in range(5):
        pauses = {pause_s(attempt) for _ in range(50)}
        middle = 0.1 * 2**attempt
        assert len(pauses) > 40
        assert middle * 0.5 <= min(pauses) <= max(pauses) <= middle * 1.5


def test_the_budget_refills_by_requests() -> None:
    budget = RetryBudget(0.2, 2)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    for _ in range(6):
        budget.deposit()
    assert [budget.withdraw() for _ in range(2)] == [True, False]


async def test_of_several_keys_the_first_is_sent(start_api: StartApi, host: StubHost) -> None:
    """While one is replaced, the model host and the API server read the same list."""
    api = await start_api(model_host_key="first,second")
    assert (await api.client.post("/chat", json={"user_prompt": "q"})).status_code == 200
    assert host.generated[-1].headers["authorization"] == "Bearer first"
