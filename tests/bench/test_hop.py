"""The measurement of the API server: its stub, its load, and that a run ends in a report."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from bench.hop import report
from bench.hop.client import Answer, Load, Tally, request
from bench.hop.names import API, STUB
from bench.hop.rounds import Options, Rounds
from bench.hop.slow import PATIENCE_S, gap_figures, last_closed_s
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


async def test_requests_that_a_server_never_answers_are_failures() -> None:
    transports: list[asyncio.BaseTransport] = []

    class Hung(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

    hung = await asyncio.get_running_loop().create_server(Hung, "127.0.0.1", 0)
    async with hung:
        load = Load(f"http://127.0.0.1:{hung.sockets[0].getsockname()[1]}", patience_s=0.2)
        closed = await load.closed(lambda: asks(), connections=3, seconds=0.1)
        opened = await load.open(lambda: asks(), rate=50, seconds=0.1)
        for transport in transports:
            transport.close()
        await asyncio.sleep(0.01)
    assert closed.failures() == {"no answer": 3}
    assert opened.failures() == {"no answer": len(opened.answers)}


def verdicts(figure: str, **figures: float) -> dict[str, str]:
    """What the report says of each bar after a run of one figure of the API server."""
    described = {"cpu": "A processor", "cores": 2, "python": "3.11"}
    head = {"machine": described, "litellm": None, "command": "bench", "started": "now"}
    record = {"figure": figure, "target": API, "round": 0, **figures}
    page = report.markdown(report.Run({**head, "seconds": 1.0}, [record]))
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0]: " ".join(cells[2:]).strip(" |") for cells in rows}


@pytest.mark.parametrize("closed", [[None, None], [12.0, None, 12.5]])
def test_a_slow_peer_that_is_never_closed_misses_the_bar(closed: list[float | None]) -> None:
    assert last_closed_s(closed) == PATIENCE_S
    last = last_closed_s(closed)
    found = verdicts("slow", slowloris_closed_s=last, readers_closed_s=last)
    assert found["slowloris connections, until the last one is closed"] == "40.0 **no**"
    assert found["slow readers, until the last one is closed"] == "40.0 **no**"


def test_streams_that_brought_nothing_reach_no_bar() -> None:
    bar = "other streams' p99 gap beside 256 slow readers and 200 slowloris connections"
    nobody = gap_figures([], [], seconds=5.0)
    assert verdicts("slow", **nobody)[bar] == "not measured"
    silenced = gap_figures([20.0] * 9, [], seconds=5.0)
    assert verdicts("slow", **silenced)[bar] == "250.00 **no**"
    assert gap_figures([20.0] * 9, [25.0] * 9, seconds=5.0)["gap_ratio"] == 1.25


def test_a_server_that_refuses_everything_has_no_times() -> None:
    tally = Tally(1.0, [Answer(0.0, status=503)], 1.0)
    assert tally.spread_ms(lambda answer: answer.ended - answer.due) == {}
    run = report.Run({}, [{"figure": "ttft", "target": name, "round": 0} for name in (STUB, API)])
    assert run.added_ms("first_p50_ms") == []


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
        # Not per_s: on a busy machine no turn may end within half a second.
        assert run.median(figure, target, "requests"), (figure, target)
        assert run.median(figure, target, "failed") == 0
    assert len(run.added_ms("first_p50_ms")) == 1
    written = report.write(tmp_path)
    assert {path.name for path in written} == {"report.md", "results.json", "api-throughput.png"}
    assert "requests per second" in (tmp_path / "report.md").read_text()
