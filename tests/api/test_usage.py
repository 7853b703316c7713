"""Usage: every request is in it once, whatever its door, and it outlives the process."""

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import make_store
from api.errors import StoreUnavailable
from api.keys.records import Caller
from api.metrics import Metrics
from api.routes import usage
from api.settings import Settings
from api.usage.counts import Asked, Counts
from api.usage.recorder import UsageRecorder
from api.usage.rows import UsageRow
from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.keyed import ADMIN, METRICS, bearer, new_key, start_keyed
from tests.api.stub_host import StubHost, Wire, refuse

pytestmark = pytest.mark.anyio
OPENAI: dict[str, Any] = {"model": "qna-demo", "messages": [{"role": "user", "content": "q"}]}


@pytest.fixture
async def keyed(start_api: StartApi, database_url: str) -> Api:
    return await start_keyed(start_api, database_url=database_url)


async def rows(api: Api, query: str = "", key: str = ADMIN, path: str = "/admin/usage") -> Any:
    answer = await api.client.get(f"{path}?{query}", headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


async def test_every_door_counts(keyed: Api) -> None:
    key, key_id = await new_key(keyed)
    question = {"user_prompt": "q", "details": True}
    used = {"prompt_tokens": 0, "completion_tokens": 0}

    def count(usage: dict[str, int]) -> None:
        for name in used:
            used[name] += usage[name]

    whole = await keyed.client.post("/chat", json=question, headers=bearer(key))
    count(whole.json()["usage"])
    stream = await keyed.client.post("/chat", json=question | {"stream": True}, headers=bearer(key))
    count(json.loads(stream.text.split("data: ")[-2])["usage"])
    again = await keyed.client.post(
        f"/chats/{whole.json()['chat_id']}/regenerate", json={"details": True}, headers=bearer(key)
    )
    count(again.json()["usage"])
    body = {"chats": [question, question]}
    batch = await keyed.client.post("/chat/batch", json=body, headers=bearer(key))
    for item in batch.json():
        count(item["usage"])
    openai = await keyed.client.post("/v1/chat/completions", json=OPENAI, headers=bearer(key))
    count(openai.json()["usage"])
    asked = OPENAI | {"stream": True, "stream_options": {"include_usage": True}}
    told = await keyed.client.post("/v1/chat/completions", json=asked, headers=bearer(key))
    last = json.loads(told.text.split("data: ")[-2])
    count(last["usage"])
    quiet = await keyed.client.post(
        "/v1/chat/completions", json=OPENAI | {"stream": True}, headers=bearer(key)
    )
    assert '"usage"' not in quiet.text
    count(last["usage"])
    (row,) = await rows(keyed, f"group_by=key&key={key_id}")
    assert row["key"] == key_id
    assert (row["requests"], row["errors"]) == (8, 0)
    assert {name: row[name] for name in used} == used
    by_model = {row["model"]: row["requests"] for row in await rows(keyed, "group_by=model")}
    assert by_model == {"qna-demo": 8}


async def test_the_client_sees_what_it_asked_for(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed)

    async def texts(**more: Any) -> list[str]:
        answer = await keyed.client.post(
            "/v1/chat/completions", json=OPENAI | {"stream": True} | more, headers=bearer(key)
        )
        return [line for line in answer.text.split("\n\n") if line]

    plain = await texts()
    named = await texts(stream_options={"include_usage": False})
    asked = await texts(stream_options={"include_usage": True})
    assert all(seen.body["stream_options"]["include_usage"] for seen in host.generated)
    assert plain == named
    assert len(asked) == len(plain) + 1
    assert plain[-1] == asked[-1] == "data: [DONE]"
    for ours, theirs in zip(plain, asked, strict=False):
        if ours.startswith("data: {"):
            chunk = json.loads(theirs[6:])
            assert chunk.pop("usage") is None
            assert json.loads(ours[6:]) == chunk


def streams(*events: bytes) -> Callable[[Wire], Awaitable[None]]:
    async def answer(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        await wire.body(b"".join(event + b"\n\n" for event in (*events, b"data: [DONE]")))

    return answer


PIECE = b'{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}'


async def test_usage_is_read_in_any_form_of_an_event(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed)
    usage = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}'
    host.always = streams(b"data:" + PIECE, b": a comment", b"data:" + usage)
    stream = OPENAI | {"stream": True}
    answer = await keyed.client.post("/v1/chat/completions", json=stream, headers=bearer(key))
    # What it did not ask for it does not get.
    assert "prompt_tokens" not in answer.text
    assert '"content":"a"' in answer.text
    (row,) = await rows(keyed, "group_by=model,tenant")
    told = {name: row[name] for name in ("requests", "errors", "prompt_tokens")}
    assert told == {"requests": 1, "errors": 0, "prompt_tokens": 5}
    assert row["completion_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_whose_host_tells_no_usage_is_no_error(
    keyed: Api, host: StubHost, stream: bool
) -> None:
    key, _ = await new_key(keyed)

    async def whole(wire: Wire) -> None:
        await wire.json(200, {"object": "chat.completion", "choices": [{"index": 0}]})

    host.always = streams(b"data: " + PIECE, b"data: " + PIECE) if stream else whole
    body = OPENAI | {"stream": stream}
    answer = await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
    assert answer.status_code == 200
    (row,) = await rows(keyed, "group_by=model,tenant")
    assert (row["requests"], row["errors"]) == (1, 0)
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] >= (2 if stream else 0)


async def test_a_stream_that_tells_a_failure_costs_nothing(keyed: Api, host: StubHost) -> None:
    """Whatever usage it told on the way."""
    key, _ = await new_key(keyed)
    counted = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":5,"completion_tokens":1}}'
    failure = b'{"error":{"message":"out of memory","type":"InternalServerError","code":500}}'
    host.always = streams(*(b"data: " + data for data in (PIECE, counted, failure)))
    body = OPENAI | {"stream": True}
    answer = await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
    assert answer.text.count("event: error\n") == 1
    assert "[DONE]" not in answer.text
    (row,) = await rows(keyed, "group_by=tenant")
    assert (row["requests"], row["errors"]) == (1, 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (0, 0)


@pytest.mark.parametrize("leaves", [False, True])
async def test_only_what_carries_a_piece_counts_as_one(
    keyed: Api, host: StubHost, leaves: bool
) -> None:
    """Hosts and proxies keep a silent connection open by comments."""
    key, _ = await new_key(keyed)

    async def speaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        piece = b"data: " + PIECE + b"\n\n"
        await wire.body(piece + b": ping\n\n" * 30 + piece + b": ping\n\n", more=True)
        if leaves:
            await asyncio.sleep(30)
        await wire.body(b"data: [DONE]\n\n")

    host.always = speaks
    body = OPENAI | {"stream": True}
    async with keyed.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=bearer(key)
    ) as answer:
        came = b""
        async for chunk in answer.aiter_raw():
            came += chunk
            if leaves and came.count(b"ping") == 31:
                break
    assert came.count(b"ping") == 31, "the client gets them"

    async def counted() -> Any:
        return await rows(keyed, "group_by=tenant")

    (row,) = await eventually(counted)
    assert (row["requests"], row["errors"], row["completion_tokens"]) == (1, 0, 2)


async def test_errors_count_as_such_and_made_up_models_do_not(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed)
    host.always = refuse(404, "model_not_found")
    for number in range(3):
        body = OPENAI | {"model": f"made-up-{number}"}
        await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
    (row,) = await rows(keyed, "group_by=model,tenant")
    assert row["model"] == ""
    assert (row["requests"], row["errors"], row["prompt_tokens"]) == (3, 3, 0)


async def test_names_that_callers_make_up_are_no_models(keyed: Api, host: StubHost) -> None:
    """The one host's model answers to every name; it says itself what it is called."""
    key, _ = await new_key(keyed)
    for number in range(3):
        body = {"user_prompt": "q", "model": f"made-up-{number}"}
        for more in ({}, {"stream": True}):
            answer = await keyed.client.post("/chat", json=body | more, headers=bearer(key))
            assert answer.status_code == 200
        asked = OPENAI | {"model": f"made-up-{number}"}
        await keyed.client.post("/v1/chat/completions", json=asked, headers=bearer(key))
    assert [row["model"] for row in await rows(keyed, "group_by=model")] == ["qna-demo"]


async def test_a_host_that_repeats_what_it_is_called_makes_no_models(
    keyed: Api, host: StubHost
) -> None:
    """One of another make: it names its models in its list only."""
    key, _ = await new_key(keyed)

    async def echoes(wire: Wire) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        answer = {"model": wire.seen.body["model"], "choices": [{}], "usage": usage}
        await wire.json(200, answer, {"x-served-by-model": ""})

    host.always = echoes

    async def ask(model: str) -> None:
        body = OPENAI | {"model": model}
        answer = await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
        assert answer.status_code == 200

    await ask("made-up")
    await keyed.client.get("/v1/models", headers=bearer(key))
    await ask("made-up-too")
    await ask("qna-demo")
    counted = {row["model"]: row["requests"] for row in await rows(keyed, "group_by=model")}
    assert counted == {"": 2, "qna-demo": 1}


async def test_an_absurd_count_keeps_no_others_out(keyed: Api, host: StubHost) -> None:
    key, _ = await new_key(keyed)

    async def absurd(wire: Wire) -> None:
        usage = {"prompt_tokens": 2**63, "completion_tokens": -1}
        await wire.json(200, {"model": "m", "choices": [{}], "usage": usage})

    host.faults = [absurd]
    for _ in range(2):
        await keyed.client.post("/v1/chat/completions", json=OPENAI, headers=bearer(key))
    (row,) = await rows(keyed)
    assert row["requests"] == 2


async def test_a_tenant_sees_its_own_usage_only(keyed: Api) -> None:
    keys = {tenant: (await new_key(keyed, tenant))[0] for tenant in "ab"}
    for tenant, count in (("a", 1), ("b", 2)):
        for _ in range(count):
            await keyed.client.post(
                "/chat", json={"user_prompt": "q"}, headers=bearer(keys[tenant])
            )
    for tenant, count in (("a", 1), ("b", 2)):
        for query in ("group_by=tenant", "group_by=tenant&tenant=a"):
            (row,) = await rows(keyed, query, keys[tenant], "/usage")
            assert (row["tenant"], row["requests"]) == (tenant, count)
    assert [row["requests"] for row in await rows(keyed, "group_by=tenant")] == [1, 2]
    (row,) = await rows(keyed, "tenant=b")
    assert row["requests"] == 2
    assert (await keyed.client.get("/usage", headers=bearer(METRICS))).status_code == 403
    assert (await keyed.client.get("/admin/usage", headers=bearer(keys["a"]))).status_code == 403


async def test_csv(keyed: Api) -> None:
    key, key_id = await new_key(keyed)
    await keyed.client.post("/chat", json={"user_prompt": "q"}, headers=bearer(key))
    answer = await keyed.client.get(
        "/admin/usage?format=csv&group_by=day,key", headers=bearer(ADMIN)
    )
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = list(csv.DictReader(io.StringIO(answer.text)))
    assert row["key"] == key_id
    assert row["day"].endswith("T00:00:00.000Z")
    assert row["requests"] == "1"


async def test_csv_has_all_rows_however_many(keyed: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "CSV_PAGE", 7)
    monkeypatch.setattr(usage, "MOST_ROWS", 20)
    recorder = keyed.parts.meter.usage
    expected = set()
    for number in range(60):
        tenant, model = f"t{number % 12}", f"=m{number}"
        recorder.record(Caller("k", tenant), model, Counts(1, 0, number))
        expected.add((tenant, f"'{model}", str(number)))
    path = "/admin/usage?group_by=day,tenant,model,hour&format=csv"
    answer = await keyed.client.get(path, headers=bearer(ADMIN))
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert {(r["tenant"], r["model"], r["prompt_tokens"]) for r in found} == expected
    assert len(found) == 60
    whole = await keyed.client.get("/admin/usage?group_by=model", headers=bearer(ADMIN))
    assert (len(whole.json()["rows"]), whole.json()["truncated"]) == (20, True)
    (total,) = csv.DictReader(
        io.StringIO((await keyed.client.get("/admin/usage?format=csv", headers=bearer(ADMIN))).text)
    )
    assert total["requests"] == "60"


async def test_csv_that_ends_in_the_middle_is_broken_off(
    keyed: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "CSV_PAGE", 5)
    recorder = keyed.parts.meter.usage
    for number in range(12):
        recorder.record(Caller("k", "t"), f"m{number}", Counts(1))
    read, pages = recorder._read, 0

    async def fails(asked: Asked) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise StoreUnavailable
        return await read(asked)

    monkeypatch.setattr(recorder, "_read", fails)
    with pytest.raises(httpx.RemoteProtocolError):
        await keyed.client.get("/admin/usage?format=csv&group_by=model", headers=bearer(ADMIN))


async def test_a_range(keyed: Api) -> None:
    key, _ = await new_key(keyed)
    await keyed.client.post("/chat", json={"user_prompt": "q"}, headers=bearer(key))
    (row,) = await rows(keyed, "end=2001-01-01")
    assert row["requests"] == 0
    assert await rows(keyed, "end=2001-01-01&group_by=hour") == []
    (row,) = await rows(keyed, "start=2001-01-01T00:00:00%2B02:00&group_by=hour")
    assert row["requests"] == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start=soon", "start"),
        ("end=99999-01-01", "end"),
        ("group_by=colour", "group_by"),
        ("group_by=day,day", "group_by"),
        ("format=xml", "format"),
        ("tenant=%00", "tenant"),
    ],
)
async def test_a_wrong_query_names_its_field(start_api: StartApi, query: str, param: str) -> None:
    api = await start_keyed(start_api)
    answer = await api.client.get(f"/admin/usage?{query}", headers=bearer(ADMIN))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


async def test_usage_is_written_at_the_end_and_added_up(database_url: str) -> None:
    settings = Settings(database_url=database_url)
    for _ in range(2):
        metrics = Metrics()
        stores = [make_store(settings, metrics)]
        await stores[0].open()
        recorders = [UsageRecorder(stores[0], metrics) for _ in range(3)]
        for recorder in recorders:
            recorder.start()
            for number in range(50):
                recorder.record(Caller(str(number % 7), "t"), "m", Counts(1, 0, 2, 3, 1))
        await asyncio.gather(*(recorder.close() for recorder in recorders))
        await stores[0].close()
    store = make_store(settings, Metrics())
    await store.open()
    total = await store.run(
        "sum",
        lambda connection: connection.exec_driver_sql(
            "SELECT count(*), sum(requests), sum(prompt_tokens), sum(cached_tokens) FROM usage"
        ).one(),
    )
    await store.close()
    assert [int(value) for value in total] == [7, 300, 600, 300]


async def test_counts_wait_while_the_database_is_away(tmp_path: Path) -> None:
    metrics = Metrics()
    store = make_store(Settings(database_url=f"sqlite:///{tmp_path}/chats.db"), metrics)
    await store.open()
    recorder = UsageRecorder(store, metrics)
    await store.run("drop", lambda c: c.exec_driver_sql("DROP TABLE usage"), writes=True)
    recorder.record(Caller(), "m", Counts(1))
    await recorder.flush()
    recorder.record(Caller(), "m", Counts(1))
    await recorder.flush()
    assert recorder._rows == 2
    made = "CREATE TABLE usage (" + ", ".join(UsageRow.__table__.columns.keys()) + ", PRIMARY KEY"
    key = "(hour_ms, tenant, key_id, model))"
    await store.run("make", lambda c: c.exec_driver_sql(made + key), writes=True)
    (row,) = await recorder.read(Asked(0, 2**62, ()))
    assert row["requests"] == 2
    assert recorder._rows == 0
    await store.close()
