"""Reports: from a small fixed run to the page, the JSON and the plots."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.results import Results, parse
from bench.suites import CONCURRENCY, SUITES, plan, without
from bench.workloads import WORKLOADS

MEASURED = {
    "threads": 2,
    "read_gb_per_s": 30.0,
    "products_gflop_per_s": {
        "float32 packed": {"32": 90.0, "64": 100.0},
        "int8 _int_mm": {"32": 300.0},
        "int8 qlinear": {"32": 200.0, "64": 400.0},
        "bfloat16 packed": {},
    },
}
MACHINE = {
    "cpu": "A processor",
    "instructions": ["avx2"],
    "cores": 2,
    "memory_gib": 24.0,
    "system": "Linux",
    "python": "3.11",
    "commit": "abc",
    "versions": {"torch": "2"},
}


def timing(first: float, gap: float, tokens: int) -> dict[str, Any]:
    pieces = [first + gap * index for index in range(tokens)]
    return {
        "scheduled_s": 0.0,
        "sent_s": 0.0,
        "pieces_s": pieces,
        "ended_s": pieces[-1],
        "prompt_tokens": 10,
        "output_tokens": tokens,
    }


def line(engine: str, workload: str, number: int, rate: float) -> str:
    """A round that makes `rate` output tokens per second."""
    answer = timing(0.5, 10 / rate, 11)
    record = {
        "engine": engine,
        "workload": workload,
        "round": number,
        "about": engine,
        "facts": {},
        "duration_s": 11 / rate,
        "stolen": 0.1,
        "errors": [],
        "timings": [answer],
    }
    return json.dumps(record)


HEAD = json.dumps(
    {"head": {"command": "bench", "started": "now", "machine": MACHINE, "measured": MEASURED}}
)
RATES = {
    ("ours", "w1"): (90.0, 100.0, 120.0),
    ("transformers-cb", "w1"): (20.0, 25.0, 30.0),
    ("ours", "w1-c1"): (40.0, 40.0, 40.0),
    ("transformers-cb", "w1-c8"): (22.0, 22.0, 22.0),
    (without("fast kernels"), "w1"): (50.0, 50.0, 50.0),
}
LINES = [
    HEAD,
    *(
        line(*key, number, rate)
        for key, rates in RATES.items()
        for number, rate in enumerate(rates)
    ),
    json.dumps({"engine": "vllm", "workload": "w1", "round": 0, "skipped": "not there"}),
]


@pytest.fixture
def results() -> Results:
    return parse(LINES)


def test_figures_are_medians_over_rounds(results: Results) -> None:
    assert results.median("ours", "w1", "output_throughput") == pytest.approx(100.0)
    assert results.median("vllm", "w1", "output_throughput") is None


def test_the_json_has_vllms_names(results: Results) -> None:
    ours = next(item for item in report.as_json(results)["results"] if item["backend"] == "ours")
    names = "mean_ttft_ms median_ttft_ms p99_ttft_ms mean_tpot_ms mean_itl_ms p99_itl_ms"
    totals = "output_throughput total_token_throughput request_throughput completed duration"
    assert {*names.split(), *totals.split()} <= ours.keys()
    assert len(ours["rounds"]) == 3


def test_the_page_says_what_was_reached_and_what_was_not_measured(results: Results) -> None:
    page = report.markdown(results)
    lines = page.splitlines()
    assert "| W1, over transformers' continuous batching | ≥ 3 | 4.00 | yes |" in lines
    assert "| 32 at once over one at a time | ≥ 3 | 2.50 | no |" in lines
    assert "| W1, over llama.cpp f32 | ≥ 1.15 | - | not measured |" in lines
    assert "| fast kernels | 50.0 | 2.00 times |" in lines
    assert "- vllm on w1: skipped: not there" in lines
    assert any(text.startswith("| `ours` | 100.0 (90.0 to 120.0) |") for text in lines)


def test_streams_that_brought_nothing_beside_a_long_prompt_are_not_measured() -> None:
    tagged = {**timing(0.5, 0.1, 3), "tag": "long prompt"}
    silent = {**timing(0.5, 0.1, 3), "pieces_s": [], "error": "no answer"}
    record = {**json.loads(line("ours", "long-arrival", 0, 10.0)), "timings": [tagged, silent]}
    page = report.markdown(parse([HEAD, json.dumps(record)]))
    row = "| p99 ITL while a long prompt comes, over the median before it | ≤ 3 |"
    assert f"{row} - | not measured |" in page.splitlines()


def test_the_ceiling_is_the_best_rate_over_rows_and_forms(results: Results) -> None:
    lines = report.machine_lines(MACHINE, MEASURED)
    assert any("float32 100, int8 400" in text for text in lines)


def test_everything_is_written_and_the_plots_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text("\n".join(LINES) + "\n")
    paths = report.write(tmp_path)
    pictures = [path for path in paths if path.suffix == ".png"]
    assert [path.stem for path in pictures] == ["engines", "concurrency", "latency", "waterfall"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    page = (tmp_path / "report.md").read_text()
    assert all(f"({path.name})" in page for path in pictures)


def test_a_run_of_nothing_but_refusals_is_still_a_page() -> None:
    page = report.markdown(parse([LINES[0], LINES[-1]]))
    assert "not there" in page


def test_suites_name_known_workloads_and_each_pair_once() -> None:
    chosen = plan(list(SUITES), peers=True)
    assert len(set(chosen)) == len(chosen)
    assert {workload for _, workload in chosen} <= WORKLOADS.keys()
    assert {name: WORKLOADS[name]().concurrency for name in CONCURRENCY} == CONCURRENCY
