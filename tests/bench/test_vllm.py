"""vLLM in a process of its own, played by a script: vLLM itself is no part of the tests."""

import asyncio
import os
from pathlib import Path

import pytest

from bench.peers.vllm_cpu import VllmOffline
from bench.workloads import WORKLOADS

pytestmark = pytest.mark.anyio

WORKERS = """\
#!/bin/sh
sleep 300 &
echo "$$ $!" > "$PLAYED_PIDS.part"
mv "$PLAYED_PIDS.part" "$PLAYED_PIDS"
wait
"""


def alive(pid: int) -> bool:
    """A zombie waits for init, which some containers have none of."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
async def test_a_round_that_is_broken_off_ends_vllm_and_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = tmp_path / "vllm" / "bin" / "python"
    played.parent.mkdir(parents=True)
    played.write_text(WORKERS)
    played.chmod(0o755)
    pids = tmp_path / "pids"
    monkeypatch.setenv("BENCH_PEERS", str(tmp_path))
    monkeypatch.setenv("PLAYED_PIDS", str(pids))
    engine = VllmOffline(WORKLOADS["w1"](), {"model": "none"})
    async with engine.running():
        round_ = asyncio.create_task(engine.run(engine.workload))
        async with asyncio.timeout(30):
            while not pids.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        started = [int(pid) for pid in pids.read_text().split()]
        try:
            assert all(map(alive, started))
            round_.cancel()
            await asyncio.wait({round_})
            async with asyncio.timeout(5):
                while any(map(alive, started)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            for pid in filter(alive, started):
                os.kill(pid, 9)
