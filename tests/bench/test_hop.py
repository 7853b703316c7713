"""The measurement of the API server: its stub, its load, and that a run ends in a report."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from bench.hop import report
from bench.hop.client import Load, request
from bench.hop.names import API, STUB
from bench.hop.rounds import Options, Rounds
from bench.hop.stub import Steps, Stub

pytestmark = pytest.mark.anyio


async def stub_address() -> tuple[asyncio.Server, str]:
    steps = Steps()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(steps), "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def asks(**body: object) -> bytes:
    return request("/openai/v1/chat/completions", json.dumps(body).encode())


async def test_whole_answers_are_counted_with_their_status() -> None:
    server, url = await stub_address()
    async with server:
        tally = await Load(url).many(lambda: asks(messages=[]), connections=3, requests=20)
    assert len(tally.good) == 20
    assert not tally.failures()
    assert all(answer.sent <= answer.first <= answer.ended for answer in tally.good)


@pytest.mark.parametrize("events", [2, 16, 1500])
async def test_every_event_of_a_stream_is_counted(events: int) -> None:
    server, url = await stub_address()
    async with server:
        make = lambda: asks(stream=True, max_tokens=events)  # noqa: E731
        tally = await Load(url).many(make, connections=2, requests=4)
    # And the end, the usage and [DONE].
    assert [answer.events for answer in tally.answers] == [events - 1 + 3] * 4


async def test_paced_events_come_one_by_one() -> None:
    server, url = await stub_address()
    async with server:
        make = lambda: asks(stream=True, max_tokens=6, user="step-20")  # noqa: E731
        tally = await Load(url).closed(make, 3, 0.01, note_gaps=True)
    assert len(tally.good) == 3
    for answer in tally.good:
        assert len(answer.gaps) == 5
        assert sum(answer.gaps) > 0.08


async def test_an_open_loop_asks_when_it_is_due_and_counts_who_hangs_up() -> None:
    server, url = await stub_address()
    async with server:
        tally = await Load(url).open(lambda: asks(messages=[]), rate=200, seconds=0.3)
    assert 30 < len(tally.answers) < 100
    assert not tally.failures()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    rude = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with rude:
        port = rude.sockets[0].getsockname()[1]
        tally = await Load(f"http://127.0.0.1:{port}").many(lambda: asks(), 2, 2)
    assert tally.failures() == {"connection closed": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="cores and processor time are Linux's")
def test_a_run_measures_the_server_and_reports_it(tmp_path: Path) -> None:
    options = Options(
        folder=tmp_path,
        command="test",
        rounds=1,
        seconds=0.5,
        only=("completions", "chat", "ttft"),
        peers=False,
    )
    cores = os.sched_getaffinity(0)
    Rounds(options, sys.stderr).run()
    assert os.sched_getaffinity(0) == cores
    run = report.load(tmp_path)
    for figure, target in (("completions", STUB), ("completions", API), ("chat", API)):
        assert run.median(figure, target, "per_s"), (figure, target)
        assert run.median(figure, target, "failed") == 0
    assert len(run.added_ms("first_p50_ms")) == 1
    written = report.write(tmp_path)
    assert {path.name for path in written} == {"report.md", "results.json", "api-throughput.png"}
    assert "requests per second" in (tmp_path / "report.md").read_text()
