"""From the times of single requests to the figures that servers are compared by.

Owns the definitions, which are those of `vllm bench serve`, and its key names. Knows no engine;
seconds in, milliseconds out.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

DEFINITIONS = """\
TTFT  time to first token: from sending to the first piece of the answer
TPOT  time per output token after the first: (E2EL - TTFT) / (output tokens - 1), per request
ITL   inter-token latency: every gap between two pieces of an answer, of all requests together
E2EL  end-to-end latency: from sending to the last piece of the answer
The same with "from schedule": from when the request should have been sent. Waiting at the client,
for a free place or for the processor, counts there."""


@dataclass(slots=True, kw_only=True)
class Timing:
    """One request; seconds since the run's start, token counts from the server."""

    scheduled_s: float
    sent_s: float = 0.0
    pieces_s: list[float] = field(default_factory=list)
    """When each piece of the answer came, the first one included."""
    ended_s: float = 0.0
    """When the last piece came; for a failure, when that was known."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: str = ""
    tag: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and bool(self.pieces_s)

    @property
    def ttft_s(self) -> float:
        return self.pieces_s[0] - self.sent_s

    @property
    def e2el_s(self) -> float:
        return self.ended_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        if self.output_tokens < 2:
            return None
        return (self.e2el_s - self.ttft_s) / (self.output_tokens - 1)

    @property
    def itl_s(self) -> list[float]:
        return gaps(self.pieces_s)

    @property
    def lag_s(self) -> float:
        return self.sent_s - self.scheduled_s

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def percentile(values: Sequence[float], p: float) -> float:
    """Linear between neighbours, as numpy's default; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * p / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values_s: Sequence[float], name: str) -> dict[str, float]:
    ms = [1000 * value for value in values_s]
    return {
        f"mean_{name}_ms": statistics.fmean(ms) if ms else 0.0,
        f"median_{name}_ms": percentile(ms, 50),
        f"std_{name}_ms": statistics.pstdev(ms) if ms else 0.0,
        f"p90_{name}_ms": percentile(ms, 90),
        f"p99_{name}_ms": percentile(ms, 99),
    }


def meets(timing: Timing, goals_ms: Mapping[str, float]) -> bool:
    reached = {
        "ttft": timing.ttft_s,
        "tpot": timing.tpot_s or 0.0,
        "e2el": timing.e2el_s,
    }
    return all(1000 * reached[name] <= limit for name, limit in goals_ms.items())


def peak(timings: Sequence[Timing]) -> int:
    """The most requests that were under way at one moment."""
    changes = sorted(
        [(timing.sent_s, 1) for timing in timings] + [(timing.ended_s, -1) for timing in timings]
    )
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def summary(
    timings: Sequence[Timing], duration_s: float, goals_ms: Mapping[str, float] | None = None
) -> dict[str, Any]:
    done = [timing for timing in timings if timing.ok]
    inputs = sum(timing.prompt_tokens for timing in done)
    outputs = sum(timing.output_tokens for timing in done)
    tpots = [timing.tpot_s for timing in done if timing.tpot_s is not None]
    figures: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(done),
        "failed": len(timings) - len(done),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(done) / duration_s,
        "output_throughput": outputs / duration_s,
        "total_token_throughput": (inputs + outputs) / duration_s,
        "max_concurrent_requests": peak(done),
        **spread([timing.ttft_s for timing in done], "ttft"),
        **spread(tpots, "tpot"),
        **spread([gap for timing in done for gap in timing.itl_s], "itl"),
        **spread([timing.e2el_s for timing in done], "e2el"),
        **spread([timing.pieces_s[0] - timing.scheduled_s for timing in done], "scheduled_ttft"),
        **spread([timing.ended_s - timing.scheduled_s for timing in done], "scheduled_e2el"),
    }
    if goals_ms:
        good = sum(meets(timing, goals_ms) for timing in done)
        figures["request_goodput"] = good / duration_s
    return figures


def by_tag(timings: Sequence[Timing]) -> dict[str, list[Timing]]:
    tags: dict[str, list[Timing]] = {}
    for timing in timings:
        tags.setdefault(timing.tag, []).append(timing)
    return tags


def stalls(timings: Sequence[Timing], late: Timing) -> tuple[list[float], list[float]]:
    """Gaps of the other streams: those that touch the late one's prefill, and those before it."""
    begin, end = late.sent_s, late.pieces_s[0]
    during, before = [], []
    for timing in timings:
        if timing is late:
            continue
        for start, stop in pairwise(timing.pieces_s):
            if start < end and stop > begin:
                during.append(stop - start)
            elif stop <= begin:
                before.append(stop - start)
    return during, before
