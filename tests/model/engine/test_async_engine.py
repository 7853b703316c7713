import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from model.engine import (
    AsyncEngine,
    Draining,
    DuplicateRequestId,
    EngineConfig,
    EngineDead,
    EngineInfo,
    FinishReason,
    ModelLoadError,
    Overloaded,
    PromptTooLong,
    RequestOutput,
    RequestStream,
    SamplingParams,
)
from model.engine.async_engine import STOP_TIMEOUT_S
from model.engine.build import assemble
from model.engine.engine import Engine
from model.engine.scheduler import Batch
from tests.model.engine.fakes import FakeModelRunner, expected_tokens, make_info

pytestmark = pytest.mark.anyio
PATIENCE_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gate:
    """Holds the engine thread inside a step until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, batch: Batch) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


def params(max_tokens: int = 4) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, ignore_eos=True)


@asynccontextmanager
async def running(
    before_run: Callable[[Batch], None] | None = None, info: EngineInfo | None = None
) -> AsyncIterator[AsyncEngine]:
    info = info or make_info()
    runner = FakeModelRunner(info.block_size)
    if before_run is not None:
        runner.before_run = before_run
    engine = AsyncEngine(
        EngineConfig(model="fake"), build=lambda config, on_progress: assemble(runner, info)
    )
    await engine.start()
    try:
        yield engine
    finally:
        if isinstance(before_run, Gate):
            before_run.open.set()
        await engine.stop()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - stats have no event to wait for
            await anyio.sleep(0.001)


async def collect(stream: RequestStream) -> list[RequestOutput]:
    with anyio.fail_after(PATIENCE_S):
        return [output async for output in stream]


def tokens(outputs: list[RequestOutput]) -> list[int]:
    return [t for output in outputs for t in output.token_ids]


async def test_many_requests_at_once_each_get_their_own_tokens() -> None:
    async with running() as engine:
        streams = {i: engine.submit(str(i), [i + 1, 2], params(5 + i % 3)) for i in range(40)}
        for i, stream in streams.items():
            outputs = await collect(stream)
            assert tokens(outputs) == expected_tokens([i + 1, 2], params(5 + i % 3))
            assert outputs[-1].finish_reason is FinishReason.LENGTH
        stats = engine.stats
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)


async def test_one_step_reaches_the_event_loop_in_one_call() -> None:
    gate = Gate()
    async with running(gate) as engine:
        loop = asyncio.get_running_loop()
        calls = 0
        original = loop.call_soon_threadsafe

        def counted(*args: object, **kwargs: object) -> asyncio.Handle:
            nonlocal calls
            calls += 1
            return original(*args, **kwargs)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        streams = [engine.submit(str(i), [1, 2], params(6)) for i in range(8)]
        gate.open.set()
        for stream in streams:
            await collect(stream)
        loop.call_soon_threadsafe = original  # type: ignore[method-assign]
        # The first steps may have seen fewer than all of the eight.
        assert calls == engine.stats.steps
        assert calls <= 8


async def test_an_abort_in_a_running_step_ends_the_request_after_that_step() -> None:
    gate = Gate()
    async with running(gate) as engine:
        stream = engine.submit("a", [1], params(50))
        await until(gate.reached.is_set)
        engine.abort("a")
        engine.abort("a")
        gate.open.set()
        outputs = await collect(stream)
        assert outputs[-1].finish_reason is FinishReason.ABORT
        assert len(tokens(outputs)) == 1
        assert engine.stats.cancelled["decode"] == 1


async def test_aborting_unknown_and_finished_requests_does_nothing() -> None:
    async with running() as engine:
        engine.abort("nobody")
        await collect(engine.submit("a", [1], params(1)))
        engine.abort("a")
        outputs = await collect(engine.submit("a", [1], params(3)))
        assert tokens(outputs) == expected_tokens([1], params(3))


async def test_leaving_a_stream_aborts_its_request() -> None:
    gate = Gate()  # else the fake is at its end before the stream is left
    async with running(gate) as engine:
        async with engine.submit("a", [1], params(100)):
            await until(gate.reached.is_set)
        gate.open.set()
        await until(lambda: engine.stats.cancelled["decode"] == 1)
        assert engine.stats.kv_blocks_used == 0
        assert engine.stats.num_running == 0


async def test_a_reader_that_has_all_it_wants_frees_its_slot_and_is_no_cancel() -> None:
    gate = Gate()  # else the fake is at its end before the reader has enough
    async with running(gate) as engine:
        async with engine.submit("a", [1], params(100)) as stream:
            await until(gate.reached.is_set)
            stream.finish()
            gate.open.set()
            outputs = await collect(stream)
        assert outputs[-1].finish_reason is FinishReason.STOP
        assert len(tokens(outputs)) == 1
        await until(lambda: engine.stats.kv_blocks_used == 0 and engine.stats.num_running == 0)
        assert sum(engine.stats.cancelled.values()) == 0


async def test_closing_a_finished_stream_aborts_nothing() -> None:
    async with running() as engine:
        async with engine.submit("a", [1], params(2)) as stream:
            await collect(stream)
        await stream.aclose()
        await collect(engine.submit("b", [1], params(2)))
        assert sum(engine.stats.cancelled.values()) == 0


async def test_an_id_in_use_is_refused_and_free_again_afterwards() -> None:
    gate = Gate()
    async with running(gate) as engine:
        stream = engine.submit("a", [1], params())
        with pytest.raises(DuplicateRequestId):
            engine.submit("a", [1], params())
        gate.open.set()
        await collect(stream)
        await collect(engine.submit("a", [1], params()))


async def test_a_reader_that_never_reads_holds_up_nobody() -> None:
    async with running() as engine:
        unread = engine.submit("unread", [1], params(20))
        outputs = await collect(engine.submit("read", [2], params(20)))
        assert tokens(outputs) == expected_tokens([2], params(20))
        await until(lambda: engine.stats.num_running == 0)
        assert tokens(await collect(unread)) == expected_tokens([1], params(20))


async def test_refusals_leave_nothing_behind() -> None:
    gate = Gate()
    async with running(gate, make_info(max_queued_requests=1)) as engine:
        with pytest.raises(PromptTooLong):
            engine.submit("a", [1] * 1000, params())
        first = engine.submit("a", [1], params())
        await until(gate.reached.is_set)
        second = engine.submit("b", [1], params())
        with pytest.raises(Overloaded) as error:
            engine.submit("c", [1], params())
        assert error.value.retry_after_s >= 1
        assert engine.stats.num_waiting == 1
        gate.open.set()
        await collect(first)
        await collect(second)
        await collect(engine.submit("c", [1], params()))


async def test_a_deadline_that_has_passed_runs_nothing() -> None:
    async with running() as engine:
        (output,) = await collect(engine.submit("a", [1], params(), deadline=time.monotonic() - 1))
        assert output.finish_reason is FinishReason.DEADLINE
        assert engine.stats.steps == 0


async def test_draining_refuses_new_work_and_finishes_old() -> None:
    gate = Gate()
    async with running(gate) as engine:
        stream = engine.submit("a", [1], params(5))
        engine.begin_drain()
        assert not engine.is_ready
        assert engine.is_live
        with pytest.raises(Draining):
            engine.submit("b", [1], params())
        gate.open.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.stop, PATIENCE_S)
            assert tokens(await collect(stream)) == expected_tokens([1], params(5))


async def test_stop_aborts_what_the_drain_time_does_not_cover() -> None:
    info = make_info(num_blocks=1000)
    async with running(lambda batch: time.sleep(0.002), info) as engine:
        stream = engine.submit("a", [1], params(3000))
        await anext(stream)
        await engine.stop(drain_s=0.02)
        assert (await collect(stream))[-1].finish_reason is FinishReason.ABORT
        with pytest.raises(Draining):
            engine.submit("b", [1], params())


async def test_stop_can_be_called_twice_and_at_once() -> None:
    async with running() as engine:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.stop)
            tasks.start_soon(engine.stop)
        await engine.stop()
        assert engine.fatal_error is None


async def test_stopping_an_engine_that_was_never_started_is_fine() -> None:
    await AsyncEngine(EngineConfig(model="fake")).stop()


def die(batch: Batch) -> None:
    raise SystemExit("the loop is gone")


async def test_a_dead_loop_fails_everybody_who_waits() -> None:
    gate = Gate()

    def die_behind_gate(batch: Batch) -> None:
        gate(batch)
        die(batch)

    async with running(die_behind_gate, make_info(max_num_seqs=1)) as engine:
        streams = [engine.submit(str(i), [1], params()) for i in range(3)]
        gate.open.set()
        for stream in streams:
            (output,) = await collect(stream)
            assert output.finish_reason is FinishReason.ERROR
            assert isinstance(output.error, EngineDead)
        with anyio.fail_after(PATIENCE_S):
            assert await engine.wait_dead() is engine.fatal_error
        assert isinstance(engine.fatal_error, SystemExit)
        assert (engine.is_live, engine.is_ready) == (False, False)
        with pytest.raises(EngineDead):
            engine.submit("late", [1], params())


async def test_three_failed_steps_in_a_row_kill_the_loop() -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("no")

    async with running(fail) as engine:
        for i in range(3):
            (output,) = await collect(engine.submit(str(i), [1], params()))
            assert output.finish_reason is FinishReason.ERROR
        with anyio.fail_after(PATIENCE_S):
            assert isinstance(await engine.wait_dead(), EngineDead)


async def test_the_watchdog_sees_a_step_that_hangs() -> None:
    gate = Gate()
    async with running(gate, make_info(watchdog_s=0.2)) as engine:
        stream = engine.submit("a", [1], params())
        await until(gate.reached.is_set)
        await until(lambda: not engine.is_live)
        assert engine.stats.last_step_age_s > 0.2
        gate.open.set()
        await collect(stream)
        assert engine.is_live


async def test_stop_does_not_wait_for_a_step_that_hangs() -> None:
    gate = Gate()
    async with running(gate, make_info(watchdog_s=0.1)) as engine:
        stream = engine.submit("a", [1], params())
        await until(lambda: not engine.is_live)
        with anyio.fail_after(STOP_TIMEOUT_S / 2):
            await engine.stop(drain_s=PATIENCE_S)
            await engine.stop()
            assert (await collect(stream))[-1].finish_reason is FinishReason.ABORT


async def test_the_watchdog_is_silent_over_an_idle_engine() -> None:
    async with running(info=make_info(watchdog_s=0.05)) as engine:
        await collect(engine.submit("a", [1], params()))
        await anyio.sleep(0.2)
        assert engine.is_live
        assert engine.stats.last_step_age_s == 0.0


async def test_the_watchdog_is_silent_while_a_long_prefill_makes_steps() -> None:
    info = make_info(num_blocks=200, budget=8, watchdog_s=3.0)
    async with running(lambda batch: time.sleep(0.05), info) as engine:
        stream = engine.submit("a", [1] * 600, params())  # 75 chunks, 3.75 s at least
        lived = []
        with anyio.fail_after(PATIENCE_S):
            while not stream.has_output:
                lived.append(engine.is_live)
                await anyio.sleep(0.01)
        assert all(lived)
        await collect(stream)


async def test_a_model_that_cannot_be_loaded_stops_the_start() -> None:
    def build(config: EngineConfig, on_progress: Callable[[str], None]) -> Engine:
        on_progress("loading")
        raise ModelLoadError("there is no such folder")

    messages: list[str] = []
    engine = AsyncEngine(EngineConfig(model="fake"), build=build)
    with pytest.raises(ModelLoadError, match="no such folder"):
        await engine.start(messages.append)
    assert messages == ["loading"]
    assert not engine.is_ready
    with pytest.raises(Draining):
        engine.submit("a", [1], params())
    await engine.stop()


async def test_whatever_goes_wrong_at_load_is_one_line_to_who_started_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    def build(config: EngineConfig, on_progress: Callable[[str], None]) -> Engine:
        raise fault

    with pytest.raises(ModelLoadError) as error:
        await AsyncEngine(EngineConfig(model="fake"), build=build).start()
    assert error.value.message == "fake: cannot be loaded: CUDA error: out of memory"
    assert error.value.__cause__ is fault
    assert "TORCH_USE_CUDA_DSA" in caplog.text


async def test_nothing_is_ready_before_the_start() -> None:
    engine = AsyncEngine(EngineConfig(model="fake"))
    assert (engine.is_ready, engine.is_live) == (False, True)
    with pytest.raises(Draining):
        engine.submit("a", [1], params())


async def test_a_storm_of_aborts_leaves_nothing_and_spares_the_others() -> None:
    async with running(info=make_info(num_blocks=24, budget=16)) as engine:
        streams = {i: engine.submit(str(i), [i % 40 + 1], params(12)) for i in range(120)}
        for i in range(0, 120, 2):
            engine.abort(str(i))
            await anyio.lowlevel.checkpoint()
        for i, stream in streams.items():
            outputs = await collect(stream)
            if i % 2:
                assert tokens(outputs) == expected_tokens([i % 40 + 1], params(12))
        await until(lambda: engine.stats.num_running == 0)
        assert (engine.stats.kv_blocks_used, engine.stats.num_waiting) == (0, 0)
