"""Metrics: vLLM's formulas, against values worked out by hand."""

import pytest

from bench.metrics import Timing, meets, peak, percentile, stalls, summary


def timing(sent: float, *pieces: float, tokens: int | None = None, due: float = 0.0) -> Timing:
    return Timing(
        scheduled_s=due,
        sent_s=sent,
        pieces_s=list(pieces),
        ended_s=pieces[-1] if pieces else sent,
        prompt_tokens=10,
        output_tokens=len(pieces) if tokens is None else tokens,
        error="" if pieces else "refused",
    )


FIRST = timing(1.0, 1.5, 1.6, 1.8, due=0.9)
SECOND = timing(2.0, 2.1, 2.5, tokens=5, due=2.0)


def test_the_times_of_one_request() -> None:
    assert pytest.approx(0.5) == FIRST.ttft_s
    assert pytest.approx(0.8) == FIRST.e2el_s
    assert pytest.approx(0.15) == FIRST.tpot_s  # (0.8 - 0.5) / 2
    assert pytest.approx([0.1, 0.2]) == FIRST.itl_s
    assert pytest.approx(0.1) == FIRST.lag_s
    assert pytest.approx(0.1) == SECOND.tpot_s  # 5 tokens in 2 pieces: (0.5 - 0.1) / 4
    assert timing(0.0, 1.0).tpot_s is None


def test_a_summary_has_vllms_names_and_values() -> None:
    figures = summary([FIRST, SECOND, timing(2.0)], 2.0, {"ttft": 200.0, "tpot": 120.0})
    assert (figures["completed"], figures["failed"]) == (2, 1)
    assert (figures["total_input_tokens"], figures["total_output_tokens"]) == (20, 8)
    assert figures["request_throughput"] == 1.0
    assert figures["output_throughput"] == 4.0
    assert figures["total_token_throughput"] == 14.0
    assert figures["mean_ttft_ms"] == pytest.approx(300.0)  # 500 and 100
    assert figures["median_ttft_ms"] == pytest.approx(300.0)
    assert figures["std_ttft_ms"] == pytest.approx(200.0)
    assert figures["p99_ttft_ms"] == pytest.approx(496.0)
    assert figures["mean_tpot_ms"] == pytest.approx(125.0)  # 150 and 100
    assert figures["mean_itl_ms"] == pytest.approx(700 / 3)  # 100, 200, 400: all gaps together
    assert figures["median_e2el_ms"] == pytest.approx(650.0)  # 800 and 500
    assert figures["mean_scheduled_ttft_ms"] == pytest.approx(350.0)  # 600 and 100
    assert figures["request_goodput"] == 0.5


@pytest.mark.parametrize(("p", "value"), [(0, 1.0), (50, 2.5), (25, 1.75), (99, 3.97), (100, 4.0)])
def test_percentiles_are_linear_between_neighbours(p: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], p) == pytest.approx(value)


def test_nothing_has_percentiles_of_nothing() -> None:
    assert percentile([], 50) == 0.0
    assert summary([timing(0.0)], 1.0)["mean_ttft_ms"] == 0.0


def test_goals_must_all_be_met() -> None:
    assert meets(FIRST, {"ttft": 500.1, "tpot": 150.1, "e2el": 800.1})
    assert not meets(FIRST, {"ttft": 500.1, "tpot": 149.0})


def test_the_most_at_once() -> None:
    assert peak([timing(0.0, 1.0), timing(0.5, 2.0), timing(1.5, 3.0)]) == 2


def test_a_stall_is_a_gap_that_touches_the_late_prefill() -> None:
    late = timing(2.0, 3.0, 3.1)
    other = timing(0.0, 0.5, 1.5, 2.5, 3.5, 4.0)
    during, before = stalls([other, late], late)
    assert during == pytest.approx([1.0, 1.0])
    assert before == pytest.approx([1.0])
