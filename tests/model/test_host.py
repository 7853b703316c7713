"""Life and death of the host: loading, draining, an engine that dies or refuses."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from model.config import Settings
from model.engine import (
    AsyncEngine,
    Draining,
    EngineDead,
    EngineError,
    FinishReason,
    Overloaded,
    StepFailed,
)
from model.generation import ENCODING_THREADS, LoadedModel
from model.host import Host
from tests.model.fakes import INFO, FakeEngine, load_scripted, output
from tests.model.hosts import byte_level, client_of, events_of, running, settings_for, until

pytestmark = pytest.mark.anyio
ASK = {"chat_id": "1", "user_prompt": "hello"}
WORD = output(byte_level().encode("hello"))


def host_of(engine: FakeEngine, **values: object) -> Host:
    return Host(settings_for(Path("fake"), model_name="fake", **values), engine, load_scripted)


async def test_while_loading_the_port_answers_and_is_not_ready() -> None:
    host = host_of(FakeEngine(loading=True))
    async with running(host, wait=False), client_of(host) as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", "/v1/models/fake", "/v2/models/fake/ready", "/v2/health/ready"):
            answer = await client.get(path)
            assert answer.status_code == 503, path
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_model_that_is_not_there_ends_the_run_with_one_line(tmp_path: Path) -> None:
    host = Host(settings_for(tmp_path / "nowhere"))
    with pytest.raises(EngineError) as caught:
        await host.run()
    assert "\n" not in str(caught.value)
    async with client_of(host) as client:
        assert (await client.get("/livez")).status_code == 503


async def test_when_the_engine_dies_everybody_waiting_is_told_and_the_run_ends() -> None:
    engine = FakeEngine([WORD])
    host = host_of(engine)
    life = asyncio.create_task(host.run())
    async with client_of(host) as client:
        await until(lambda: host.is_ready)
        asked = [{**ASK, "stream": number % 2 == 0} for number in range(6)]
        waiting = [asyncio.create_task(client.post("/generate", json=body)) for body in asked]
        await until(lambda: len(engine.streams) == 6)
        engine.die()
        for number, task in enumerate(waiting):
            answer = await task
            assert "secret" not in answer.text
            if number % 2 == 0:
                name, data = events_of(answer.text)[-1]
                assert (name, data["error"]["code"]) == ("error", "not_ready")
            else:
                assert answer.status_code == 503
        assert (await client.get("/livez")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/generate", json=ASK)).status_code == 503
    with pytest.raises(EngineDead):
        await life


async def test_a_step_that_hangs_is_neither_live_nor_ready_on_any_probe() -> None:
    engine = FakeEngine()
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        paths = ("/livez", "/v2/health/live", "/readyz", "/v2/health/ready")
        paths += ("/v1/models/fake", "/v2/models/fake/ready")
        for path in paths:
            assert (await client.get(path)).status_code == 200, path
        engine.hung = True
        for path in paths:
            assert (await client.get(path)).status_code == 503, path
        assert (await client.post("/generate", json=ASK)).status_code == 503
        assert engine.streams == []


async def test_draining_lets_a_stream_finish_and_refuses_new_work() -> None:
    engine = FakeEngine([WORD])
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        stream = asyncio.create_task(client.post("/generate", json={**ASK, "stream": True}))
        await until(lambda: len(engine.streams) == 1)
        host.begin_drain()
        refused = await client.post("/generate", json=ASK)
        assert refused.json()["error"]["code"] == "draining"
        assert (await client.get("/livez")).status_code == 200
        engine.streams[0].arrived.put_nowait(output(finish_reason=FinishReason.STOP))
        assert events_of((await stream).text)[-1] == ("message", "[DONE]")


async def test_a_stream_longer_than_the_drain_time_ends_in_an_error_event() -> None:
    engine = FakeEngine([WORD])
    host = host_of(engine, drain_timeout_s=0.05)
    async with running(host), client_of(host) as client:
        stream = asyncio.create_task(client.post("/generate", json={**ASK, "stream": True}))
        await until(lambda: len(engine.streams) == 1)
        host.begin_drain()
        name, data = events_of((await stream).text)[-1]
        assert (name, data["error"]["code"]) == ("error", "draining")


async def test_one_failed_item_leaves_its_neighbours_alone() -> None:
    good = [WORD, output(finish_reason=FinishReason.STOP)]
    engine = FakeEngine([output(finish_reason=FinishReason.ERROR, error=StepFailed())])
    engine.on_submit = lambda: setattr(engine, "outputs", good)  # only the first one fails
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        answer = await client.post("/generate/batch", json={"queries": [ASK] * 3})
        codes = [item.get("error", {}).get("code") for item in answer.json()]
        assert sorted(codes, key=str) == [None, None, "internal_error"]


async def test_predict_reports_how_many_instances_came_together() -> None:
    engine = FakeEngine([WORD, output(finish_reason=FinishReason.STOP)])
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        answer = await client.post("/v1/models/fake:predict", json={"instances": [ASK] * 5})
        assert len(answer.json()["predictions"]) == 5
        text = (await client.get("/metrics")).text
        assert 'qna_predict_batch_size_bucket{le="4.0"} 0.0' in text
        assert 'qna_predict_batch_size_bucket{le="8.0"} 1.0' in text


async def test_a_full_queue_says_when_to_come_back() -> None:
    engine = FakeEngine(refusal=Overloaded(7.2))
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        answer = await client.post("/generate", json=ASK)
        assert answer.status_code == 429
        assert 6 <= int(answer.headers["retry-after"]) <= 9
        metrics = (await client.get("/metrics")).text
        assert 'qna_requests_rejected_total{reason="overloaded"} 1.0' in metrics
        assert 'qna_requests_total{outcome="overloaded",route="/generate"} 1.0' in metrics


TENSOR = {"name": "user_prompt", "shape": [3], "datatype": "BYTES", "data": ["hello"] * 3}
BATCHES = [
    ("/generate/batch", {"queries": [ASK] * 3}),
    ("/v2/models/fake/infer", {"inputs": [TENSOR]}),
]


@pytest.mark.parametrize(("path", "body"), BATCHES)
async def test_a_batch_of_which_nothing_was_done_is_refused_as_a_whole(
    path: str, body: dict[str, object]
) -> None:
    engine = FakeEngine(refusal=Draining())
    refusals = iter([Draining(), Overloaded(7.0), Overloaded(30.0)])
    engine.before_submit = lambda: setattr(engine, "refusal", next(refusals))
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        answer = await client.post(path, json=body)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "overloaded"
        assert 24 <= int(answer.headers["retry-after"]) <= 36
        metrics = (await client.get("/metrics")).text
        assert 'outcome="overloaded"' in metrics
        assert 'outcome="ok"' not in metrics


async def test_a_batch_with_another_failure_keeps_its_errors_per_item() -> None:
    host = host_of(FakeEngine(refusal=Overloaded(1.0)))
    async with running(host), client_of(host) as client:
        answer = await client.post("/generate/batch", json={"queries": [ASK, {}]})
        codes = [item["error"]["code"] for item in answer.json()]
        assert (answer.status_code, codes) == (200, ["overloaded", "missing_field"])
        answer = await client.post("/v1/models/fake:predict", json={"instances": [ASK, {}]})
        codes = [item["error"]["code"] for item in answer.json()["predictions"]]
        assert (answer.status_code, codes) == (200, ["overloaded", "missing_field"])


async def test_more_prompts_than_the_engine_could_take_are_not_encoded() -> None:
    busy = threading.Event()
    loaded: list[LoadedModel] = []

    async def load(settings: Settings, engine: AsyncEngine) -> LoadedModel:
        loaded.append(await load_scripted(settings, engine))
        return loaded[0]

    engine = FakeEngine([WORD, output(finish_reason=FinishReason.STOP)])
    host = Host(settings_for(Path("fake"), model_name="fake"), engine, load)
    room = INFO.max_num_seqs + INFO.max_queued_requests
    async with running(host), client_of(host) as client:
        for _ in range(ENCODING_THREADS):
            loaded[0].pool.submit(busy.wait, 60)
        try:
            asked = [asyncio.create_task(client.post("/generate", json=ASK)) for _ in range(room)]
            await until(lambda: loaded[0].pool._work_queue.qsize() == room)
            refused = await client.post("/generate", json=ASK)
            assert refused.json()["error"]["code"] == "overloaded"
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert loaded[0].pool._work_queue.qsize() == room
        finally:
            busy.set()
        assert [(await task).status_code for task in asked] == [200] * room
        assert (await client.post("/generate", json=ASK)).status_code == 200


async def test_the_smaller_deadline_wins() -> None:
    engine = FakeEngine()
    host = host_of(engine)
    async with running(host), client_of(host) as client:
        for header, field in (("30", 60_000), ("60000", 30)):
            started = time.monotonic()
            answer = await client.post(
                "/generate",
                json={**ASK, "timeout_ms": field},
                headers={"X-Request-Timeout-Ms": header},
            )
            assert answer.status_code == 504
            assert time.monotonic() - started < 30
        assert all(stream.closed for stream in engine.streams)


async def test_kserve_may_load_and_stop_as_often_as_it_likes() -> None:
    host = host_of(FakeEngine(loading=True))
    async with client_of(host) as client:
        answer = await client.post("/v1/models/fake:predict", json={"instances": [ASK]})
        assert answer.json()["error"]["code"] == "not_ready"
    host.stop()
    host.stop()
    assert host.is_draining
