"""`POST /chat` over the wire: answers, history, details, streams."""

import asyncio
import json
import uuid

import httpx
import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually, outcomes
from tests.api.stub_host import StubHost, Wire, cases, encoded, refuse, replay

pytestmark = pytest.mark.anyio
INDIA = {
    "chat_id": "1",
    "system_prompt": "You are a helpful assistant.",
    "user_prompt": "Capital of India?",
}


def events_of(text: str) -> list[tuple[str, object]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        found.append(
            (lines.get("event", "message"), data if data == "[DONE]" else json.loads(data))
        )
    return found


async def test_the_answer_is_exactly_chat_id_and_response(api: Api) -> None:
    answer = await api.chat(**INDIA)
    assert answer.status_code == 200
    assert answer.json() == {"chat_id": "1", "response": "The capital of India is New Delhi."}
    assert answer.headers["x-finish-reason"] == "stop"
    assert "prefill;dur=" in answer.headers["server-timing"]
    assert answer.headers["x-history-turns-dropped"] == "0"


async def test_the_tenth_time_in_a_chat_is_answered_like_the_first(api: Api) -> None:
    for _ in range(10):
        answer = await api.chat(**INDIA)
        assert answer.json()["response"] == "The capital of India is New Delhi."


async def test_a_chat_id_is_made_when_there_is_none(api: Api) -> None:
    answer = await api.chat(user_prompt="Capital of India?")
    assert uuid.UUID(answer.json()["chat_id"]).version == 4


async def test_earlier_turns_go_along(api: Api, host: StubHost) -> None:
    await api.chat(**INDIA)
    answer = await api.chat(chat_id="1", user_prompt="And of Japan?", details=True)
    assert answer.json()["history"] == {"turns_sent": 1, "turns_dropped": 0}
    assert host.generated[-1].body["messages"] == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Capital of India?"},
        {"role": "assistant", "content": "The capital of India is New Delhi."},
        {"role": "user", "content": "And of Japan?"},
    ]


async def test_a_system_prompt_of_a_turn_replaces_the_chats(api: Api, host: StubHost) -> None:
    await api.chat(**INDIA)
    await api.chat(chat_id="1", system_prompt="Be brief.", user_prompt="a")
    await api.chat(chat_id="1", user_prompt="b")
    for seen in host.generated[-2:]:
        assert seen.body["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_an_empty_system_prompt_takes_it_away(api: Api, host: StubHost) -> None:
    await api.chat(**INDIA)
    await api.chat(chat_id="1", system_prompt="", user_prompt="a")
    assert host.generated[-1].body["messages"][0]["role"] == "user"


async def test_details_are_the_hosts_and_the_historys(api: Api) -> None:
    body = (await api.chat(**INDIA, details=True)).json()
    assert set(body) == {"chat_id", "response", "finish_reason", "usage", "timing", "history"}


async def test_sampling_fields_reach_the_host_as_they_are(api: Api, host: StubHost) -> None:
    sampling = {
        "max_tokens": 64, "temperature": 0.5, "top_p": 1, "top_k": 0, "min_p": 0, "seed": 7,
        "stop": ["\n"], "presence_penalty": 0, "frequency_penalty": -2, "repetition_penalty": 1,
        "logprobs": 3,
    }  # fmt: skip
    assert (await api.chat(**INDIA, **sampling, timeout_ms=60000)).status_code == 200
    sent = host.generated[-1].body
    assert {key: sent[key] for key in sampling} == sampling
    assert set(sent) == set(sampling) | {"chat_id", "messages", "details", "stream"}


async def test_the_deadline_travels_as_the_time_that_is_left(api: Api, host: StubHost) -> None:
    headers = {"X-Request-Timeout-Ms": "9000"}
    await api.client.post("/chat", json=INDIA | {"timeout_ms": 30000}, headers=headers)
    assert 8000 < int(host.generated[-1].headers["x-request-timeout-ms"]) <= 9000


async def test_a_deadline_that_passes_is_a_504_in_time(api: Api, host: StubHost) -> None:
    host.delay_s = 30
    started = asyncio.get_running_loop().time()
    answer = await api.chat(**INDIA, timeout_ms=300)
    # The bar is half a second past the deadline; the rest is for a busy machine.
    assert asyncio.get_running_loop().time() - started < 3.0
    assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")
    assert (await api.turns("1"))[0]["status"] == "failed"
    await eventually(lambda: host.running == 0)


@pytest.mark.parametrize("how", ["body", "header"])
async def test_a_caller_cannot_exceed_the_servers_time_limit(
    start_api: StartApi, host: StubHost, how: str
) -> None:
    api = await start_api(request_timeout_s=2.0)
    body = INDIA | ({"timeout_ms": 60000} if how == "body" else {})
    headers = {"X-Request-Timeout-Ms": "60000"} if how == "header" else {}
    assert (await api.client.post("/chat", json=body, headers=headers)).status_code == 200
    assert int(host.generated[-1].headers["x-request-timeout-ms"]) <= 2000


async def test_the_request_id_goes_through_both_hops(api: Api, host: StubHost) -> None:
    answer = await api.client.post("/chat", json=INDIA, headers={"X-Request-Id": "abc-1.2_3"})
    assert answer.headers["x-request-id"] == "abc-1.2_3"
    assert host.generated[-1].headers["x-request-id"] == "abc-1.2_3"
    answer = await api.client.post("/chat", json=INDIA, headers={"X-Request-Id": "no token!"})
    assert answer.headers["x-request-id"] != "no token!"


async def test_a_failed_turn_is_marked_and_not_sent_again(api: Api, host: StubHost) -> None:
    host.faults = [refuse(500, "internal_error")]
    answer = await api.chat(chat_id="1", user_prompt="lost")
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_error")
    await api.chat(chat_id="1", user_prompt="next")
    assert [m["content"] for m in host.generated[-1].body["messages"]] == ["next"]
    assert [turn["status"] for turn in await api.turns("1")] == ["failed", "complete"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code"), [(503, "not_ready"), (503, "draining"), (429, "overloaded")]
)
async def test_a_refused_question_leaves_nothing_in_the_chat(
    start_api: StartApi, host: StubHost, status: int, code: str, stream: bool
) -> None:
    api = await start_api(retry_attempts=0)
    await api.chat(chat_id="1", user_prompt="first")
    for chat in ("1", "new"):
        host.faults = [refuse(status, code, "1")]
        answer = await api.chat(chat_id=chat, user_prompt="refused", stream=stream)
        assert answer.status_code == status
    assert [turn["user_prompt"] for turn in await api.turns("1")] == ["first"]
    assert (await api.client.get("/chats/new")).status_code == 404
    await api.chat(chat_id="1", user_prompt="again")
    assert [(t["position"], t["status"]) for t in await api.turns("1")] == [
        (0, "complete"),
        (1, "complete"),
    ]


async def test_a_refused_question_with_a_key_is_replaced_by_the_next_attempt(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(retry_attempts=0)
    headers = {"Idempotency-Key": "k"}
    body = {"chat_id": "1", "user_prompt": "q"}
    host.faults = [refuse(503, "not_ready", "1")]
    for status in (503, 200):
        answer = await api.client.post("/chat", json=body, headers=headers)
        assert answer.status_code == status
    assert [turn["status"] for turn in await api.turns("1")] == ["complete"]


async def test_a_second_writer_on_a_chat_gets_409(api: Api, host: StubHost) -> None:
    host.delay_s = 0.5
    first = asyncio.create_task(api.chat(**INDIA))
    await eventually(lambda: host.running == 1)
    answer = await api.chat(**INDIA)
    assert (answer.status_code, error_of(answer)["code"]) == (409, "chat_busy")
    assert (await api.chat(**INDIA | {"chat_id": "2"})).status_code == 200
    assert (await first).status_code == 200
    assert len(await api.turns("1")) == 1


async def test_text_is_kept_bit_exact(api: Api) -> None:
    nasty = (
        "\ufeffa\u0301\u202e\U0001f469\u200d\U0001f52c\uffff\U0010ffff\r\n\x01 é ﷽"
        + "\u0300" * 5000
    )
    answer = await api.chat(chat_id=nasty[:200], user_prompt=nasty, system_prompt=nasty)
    assert answer.json() == {"chat_id": nasty[:200], "response": f"echo: {nasty}"}
    listed = (await api.client.get("/chats")).json()["chats"][0]["chat_id"]
    path = "".join(f"%{byte:02X}" for byte in listed.encode())
    view = (await api.client.get(f"/chats/{path}")).json()
    turn = view["items"][0]
    assert (turn["user_prompt"], turn["system_prompt"]) == (nasty, nasty)
    assert turn["response"] == f"echo: {nasty}"


# ---- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["body", "header"])
async def test_a_stream_has_the_hosts_events(api: Api, how: str) -> None:
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    body = INDIA | ({"stream": True} if how == "body" else {})
    answer = await api.client.post("/chat", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = events_of(answer.text)
    assert events[-1] == ("message", "[DONE]")
    final = events[-2][1]
    assert set(final) == {"chat_id", "response", "finish_reason", "usage", "timing"}
    assert "".join(event[1]["delta"] for event in events[:-2]) == final["response"]
    assert (await api.turns("1"))[0]["response"] == final["response"]


async def test_a_streams_last_event_says_what_history_was_sent(api: Api) -> None:
    await api.chat(**INDIA)
    answer = await api.chat(**INDIA, stream=True, details=True)
    final = events_of(answer.text)[-2][1]
    assert final["history"] == {"turns_sent": 1, "turns_dropped": 0}


async def test_events_come_as_the_host_sends_them(api: Api, host: StubHost) -> None:
    host.gap_s = 0.3
    loop = asyncio.get_running_loop()
    times = []
    async with api.client.stream("POST", "/chat", json=INDIA | {"stream": True}) as answer:
        async for _ in answer.aiter_lines():
            times.append(loop.time())
    assert times[-1] - times[0] > 1.0


async def test_a_refusal_before_the_first_event_keeps_its_status(api: Api, host: StubHost) -> None:
    host.faults = [refuse(429, "overloaded", "9", kind="rate_limit_error")]
    answer = await api.chat(**INDIA, stream=True)
    assert (answer.status_code, error_of(answer)["code"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "9"


async def test_an_error_after_the_first_event_is_one_event_and_the_end(
    api: Api, host: StubHost
) -> None:
    case = next(c for c in cases("generate_stream") if c["given"] == "fails after the first token")
    host.faults = [replay(case["answer"])]
    events = events_of((await api.chat(**INDIA, stream=True)).text)
    assert [name for name, _ in events] == ["message", "error"]
    await eventually(lambda: outcomes(api, "/chat") == {"upstream_error": 1})
    assert events[1][1]["error"]["code"] == "upstream_error"
    turn = (await api.turns("1"))[0]
    assert (turn["status"], turn["response"]) == ("interrupted", "The")


async def test_a_stream_that_breaks_off_ends_with_an_error_event(api: Api, host: StubHost) -> None:
    async def breaks(wire: Wire) -> None:
        await wire.start(200, "text/event-stream")
        data = {"chat_id": "1", "delta": "The"}
        await wire.body(encoded({"event": "message", "data": data}), more=True)
        raise ConnectionError("the stub breaks off here")

    host.faults = [breaks]
    events = events_of((await api.chat(**INDIA, stream=True)).text)
    assert events[1][0] == "error"
    assert len(events) == 2


async def test_a_silent_stream_ends_with_an_error_event(
    start_api: StartApi, host: StubHost
) -> None:
    api = await start_api(stream_idle_timeout_s=0.3)
    host.gap_s = 30
    events = events_of((await api.chat(**INDIA, stream=True)).text)
    assert events[-1][1]["error"]["code"] == "upstream_error"
    await eventually(lambda: host.running == 0)


async def test_a_stream_past_its_deadline_ends_with_an_error_event(
    api: Api, host: StubHost
) -> None:
    host.gap_s = 0.2
    events = events_of((await api.chat(**INDIA, stream=True, timeout_ms=500)).text)
    assert events[-1][1]["error"]["code"] == "deadline_exceeded"
    await eventually(lambda: outcomes(api, "/chat") == {"deadline_exceeded": 1})
    assert (await api.turns("1"))[0]["status"] == "interrupted"


async def test_the_host_never_sees_a_stream_that_ended_well_as_aborted(
    api: Api, host: StubHost
) -> None:
    for _ in range(5):
        assert (await api.chat(**INDIA, stream=True)).status_code == 200
    await eventually(lambda: host.running == 0)
    assert not [seen for seen in host.seen if seen.aborted]


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b'{"response": 1}', b"[]", b'{"chat_id": "1"}', b"\xff"],
)
async def test_garbage_with_status_200_is_a_502(api: Api, host: StubHost, answer: bytes) -> None:
    async def garbage(wire: Wire) -> None:
        await wire.start(200, "application/json")
        await wire.body(answer)

    host.always = garbage
    for stream in (False, True):
        got = await api.chat(**INDIA, stream=stream)
        assert (got.status_code, error_of(got)["code"]) == (502, "upstream_error")


# ---- history that does not fit ------------------------------------------------------------------


async def test_the_oldest_turns_are_left_out_and_that_is_said(api: Api, host: StubHost) -> None:
    host.context = 100
    long = " ".join(["word"] * 20)
    for index in range(6):
        answer = await api.chat(chat_id="1", user_prompt=f"{index} {long}", details=True)
        assert answer.status_code == 200, answer.text
    history = answer.json()["history"]
    assert history["turns_dropped"] > 0
    assert history["turns_sent"] + history["turns_dropped"] == 5
    assert answer.headers["x-history-turns-dropped"] == str(history["turns_dropped"])
    sent = host.generated[-1].body["messages"]
    assert sent[-1]["content"].startswith("5")
    assert sent[0]["content"].startswith(str(5 - history["turns_sent"]))


async def test_a_refused_history_is_halved_until_it_fits(api: Api, host: StubHost) -> None:
    for index in range(8):
        await api.chat(chat_id="1", user_prompt=str(index))
    # The context shrinks behind the API server's back, as it does when the model is changed.
    host.context = 30
    before = len(host.generated)
    answer = await api.chat(chat_id="1", user_prompt="last", details=True)
    assert answer.json()["history"] == {"turns_sent": 2, "turns_dropped": 6}
    assert len(host.generated) - before == 3


async def test_a_question_that_is_too_long_alone_gets_the_hosts_numbers(
    api: Api, host: StubHost
) -> None:
    await api.chat(**INDIA)
    answer = await api.chat(chat_id="1", user_prompt="word " * 2000)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert (error["limit"], error["param"]) == (1024, "user_prompt")
    assert error["count"] > 2000


async def test_more_turns_than_the_limit_count_as_dropped(start_api: StartApi) -> None:
    api = await start_api(max_history_turns=2)
    for index in range(4):
        answer = await api.chat(chat_id="1", user_prompt=str(index), details=True)
    assert answer.json()["history"] == {"turns_sent": 2, "turns_dropped": 1}


async def test_answers_do_not_cross_between_twenty_clients(api: Api, host: StubHost) -> None:
    host.delay_s = 0.02

    async def ask(client: int, turn: int) -> None:
        nonce = f"n{client}x{turn}"
        async with httpx.AsyncClient(base_url=api.url, timeout=20, verify=False) as own:
            answer = await own.post(
                "/chat",
                json={"chat_id": str(client), "user_prompt": nonce, "stream": bool(turn % 2)},
                headers={"X-Request-Id": "the-same"},
            )
        assert f"echo: {nonce}" in answer.text

    for turn in range(4):
        await asyncio.gather(*(ask(client, turn) for client in range(20)))
