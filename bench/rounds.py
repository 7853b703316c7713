"""Rounds that alternate: every engine once, then every engine again, each in a fresh process.

Owns the files of a run: `rounds.jsonl` grows by a line a round, so a run that is interrupted can
still be reported. Knows no engine.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench import machine
from bench.model_folder import ROOT, model_folder
from bench.registry import known, make_engine
from bench.spec import NotForThis, Spec
from bench.suites import Plan
from bench.workloads import WORKLOADS, Workload, warm_up

ROUND_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    plan: Plan
    rounds: int
    folder: Path
    command: str


async def one_round(spec: Spec, workload: Workload) -> dict[str, Any]:
    """In this process, which has done nothing else yet."""
    engine = make_engine(spec, workload)
    begun = time.perf_counter()
    async with engine.running():
        load_s = time.perf_counter() - begun
        await engine.run(warm_up())
        before = _cpu_times()
        timings, duration_s = await engine.run(workload)
        after = _cpu_times()
    failed = [timing.error for timing in timings if timing.error]
    return {
        "about": known(spec.name).about,
        "facts": {"load_s": round(load_s, 1), **engine.facts},
        "duration_s": duration_s,
        "stolen": _stolen(before, after),
        "errors": failed[:3],
        "timings": [timing.as_json() for timing in timings],
    }


def child(engine: str, workload: str, out: Path) -> int:
    """`python -m bench round`: exit code 3 says that this pair makes no sense."""
    signal.signal(signal.SIGTERM, _leave)  # or the server that it started would outlive it
    try:
        result = asyncio.run(one_round(Spec.parse(engine), WORKLOADS[workload]()))
    except NotForThis as error:
        out.write_text(json.dumps({"skipped": str(error)}))
        return 3
    out.write_text(json.dumps(result))
    return 0


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def run(job: Run, say: TextIO) -> Path:
    model_folder()
    job.folder.mkdir(parents=True, exist_ok=True)
    file = job.folder / "rounds.jsonl"
    head: dict[str, Any] = {
        "command": job.command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine.describe(),
        "measured": _measured(say),
    }
    _append(file, {"head": head}, fresh=True)
    skipped: set[tuple[str, str]] = set()
    for number in range(job.rounds):
        # There and back again: whoever comes after whom changes from round to round.
        order = job.plan if number % 2 == 0 else job.plan[::-1]
        for engine, workload in order:
            if (engine, workload) not in skipped:
                result = _in_fresh_process(engine, workload)
                if "skipped" in result:
                    skipped.add((engine, workload))
                _append(file, {"engine": engine, "workload": workload, "round": number, **result})
                print(
                    f"round {number + 1}/{job.rounds}  {_line(engine, workload, result)}", file=say
                )
    again = machine.merged_best(head["measured"], _measured(say))
    _append(file, {"head": {**head, "measured": again}})
    return file


def _in_fresh_process(engine: str, workload: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "round.json"
        command = [sys.executable, "-m", "bench", "round", engine, workload, str(out)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _, said = process.communicate(timeout=ROUND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends its server, too
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            return {"failed": f"not done after {ROUND_TIMEOUT_S:.0f} s"}
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if out.exists():
            result: dict[str, Any] = json.loads(out.read_text())
            return result
        lines = [line for line in said.splitlines() if line.strip()]
        return {"failed": lines[-1][:500] if lines else f"exit code {process.returncode}"}


def _measured(say: TextIO) -> dict[str, Any]:
    print("measuring the machine", file=say)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "machine", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)["measured"]
    return measured


def _line(engine: str, workload: str, result: dict[str, Any]) -> str:
    name = f"{engine} · {workload}"
    for kind in ("skipped", "failed"):
        if kind in result:
            return f"{name}: {kind}: {result[kind]}"
    tokens = sum(item["output_tokens"] for item in result["timings"] if not item["error"])
    errors = f", {len(result['errors'])} or more failed" if result["errors"] else ""
    return f"{name}: {tokens / result['duration_s']:.1f} output tokens/s{errors}"


def _append(file: Path, record: dict[str, Any], *, fresh: bool = False) -> None:
    with file.open("w" if fresh else "a") as lines:
        lines.write(json.dumps(record) + "\n")


def _cpu_times() -> list[int]:
    path = Path("/proc/stat")
    if not path.exists():
        return []
    return [int(value) for value in path.read_text().splitlines()[0].split()[1:]]


def _stolen(before: list[int], after: list[int]) -> float:
    """The share of processor time that the host gave to others meanwhile."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return round(spent[7] / max(sum(spent), 1), 3) if len(spent) > 7 else 0.0


def default_folder() -> Path:
    return ROOT / "reports" / "bench" / time.strftime("%Y%m%d-%H%M%S")


def quiet() -> str:
    """One line on whether anything else runs here, which spoils every figure."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        return f"the load average is {load:.1f}: something else is running, and figures suffer"
    return ""
