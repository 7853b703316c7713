"""The driver: who waits for whom, and how many are under way."""

import asyncio

import pytest

from bench.driver import Record, drive
from bench.workloads import Request, Workload

pytestmark = pytest.mark.anyio


def workload(*requests: Request, concurrency: int = 8) -> Workload:
    return Workload(name="test", what="", requests=requests, concurrency=concurrency)


async def answer(request: Request, record: Record) -> None:
    for _ in range(request.max_tokens):
        await asyncio.sleep(0.001)
        record.piece()


async def test_a_request_waits_until_the_others_have_ended_or_have_so_many_tokens() -> None:
    first = Request(prompt=(1,), max_tokens=20)
    after_some = Request(prompt=(2,), max_tokens=1, after=(0,), after_tokens=5)
    after_all = Request(prompt=(3,), max_tokens=1, after=(0,))
    (one, two, three), _ = await drive(workload(first, after_some, after_all), answer)
    assert one.pieces_s[4] <= two.sent_s < one.ended_s
    assert three.sent_s >= one.ended_s


async def test_no_more_than_so_many_are_under_way() -> None:
    now, most = 0, 0

    async def send(request: Request, record: Record) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await answer(request, record)
        now -= 1

    requests = [Request(prompt=(1,), max_tokens=2) for _ in range(6)]
    timings, _ = await drive(workload(*requests, concurrency=2), send)
    assert most == 2
    assert all(timing.ok for timing in timings)


async def test_a_failed_request_is_told_and_holds_up_nobody() -> None:
    async def send(request: Request, record: Record) -> None:
        if request.prompt == (1,):
            raise ValueError("no")
        await answer(request, record)

    waits = Request(prompt=(2,), max_tokens=1, after=(0,), after_tokens=3)
    (one, two), _ = await drive(workload(Request(prompt=(1,), max_tokens=4), waits), send)
    assert one.error == "ValueError: no"
    assert two.ok
