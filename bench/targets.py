"""What is to be reached: each figure a ratio of two that were measured in one run.

Owns the bars (docs/performance.md says where they come from). A bar whose parts were not measured
is shown as not measured.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench import machine
from bench.results import Results
from bench.suites import BF16, HTTP, INT8, OURS, without
from bench.workloads import WORKLOADS

TOKENS = "output_throughput"
Figure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    what: str
    bar: float
    figure: Figure
    at_most: bool = False

    def reached(self, value: float) -> bool:
        return value <= self.bar if self.at_most else value >= self.bar


def ratio(
    above: tuple[str, str], below: tuple[str, str], key: str = TOKENS, below_key: str | None = None
) -> Figure:
    def figure(results: Results) -> float | None:
        return _divided(results.median(*above, key), results.median(*below, below_key or key))

    return figure


def of_ceiling(engine: str, kind: str) -> Figure:
    def figure(results: Results) -> float | None:
        rate = machine.best_rates(results.head["measured"]).get(kind)
        bound = machine.ceiling(WORKLOADS["w1"](), rate) if rate else None
        return _divided(results.median(engine, "w1", TOKENS), bound)

    return figure


def where(holds: Callable[[Results], bool], figure: Figure) -> Figure:
    return lambda results: figure(results) if holds(results) else None


def multiplies_bytes(results: Results) -> bool:
    """Whether the machine sums products of bytes in one instruction."""
    return any("vnni" in name for name in results.head["machine"]["instructions"])


def of_bandwidth(engine: str, kind: str) -> Figure:
    """Decode speed of one stream, which reads every weight once a token."""

    def figure(results: Results) -> float | None:
        tpot = results.median(engine, "w1-c1", "median_tpot_ms")
        bound = machine.one_stream_ceiling(results.head["measured"], kind)
        return _divided(1000 / tpot if tpot else None, bound)

    return figure


def started(engine: str, other: str) -> Figure:
    def figure(results: Results) -> float | None:
        return _divided(*(fact(name, "w1", "start_s")(results) for name in (engine, other)))

    return figure


def fact(engine: str, workload: str, name: str) -> Figure:
    def figure(results: Results) -> float | None:
        found = results.get(engine, workload)
        return found.facts.get(name) if found else None

    return figure


def within(engine: str, workload: str, above: str, below: str) -> Figure:
    return ratio((engine, workload), (engine, workload), above, below)


def _divided(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


Q8 = "llama.cpp:type=q8_0"
TARGETS = (
    Target(
        "W1, over transformers' continuous batching",
        3.0,
        ratio((OURS, "w1"), ("transformers-cb", "w1")),
    ),
    Target("W1, over `generate` one by one", 10.0, ratio((OURS, "w1"), ("generate", "w1"))),
    Target("W1, over vLLM's CPU build in process", 1.7, ratio((OURS, "w1"), ("vllm", "w1"))),
    Target(
        "W1, over vLLM's CPU build, both over HTTP", 1.7, ratio((HTTP, "w1"), ("vllm-http", "w1"))
    ),
    Target("W1, over llama.cpp f32", 1.15, ratio((OURS, "w1"), ("llama.cpp", "w1"))),
    Target("W1, of the products' ceiling, float32", 0.60, of_ceiling(OURS, "float32")),
    Target(
        "W1, of the products' ceiling, int8 with VNNI",
        0.30,
        where(multiplies_bytes, of_ceiling(INT8, "int8")),
    ),
    Target(
        "W1, of the products' ceiling, int8 without VNNI",
        0.50,
        where(lambda results: not multiplies_bytes(results), of_ceiling(INT8, "int8")),
    ),
    Target(
        "W1, of the products' ceiling, bfloat16 (where the machine multiplies it)",
        0.50,
        of_ceiling(BF16, "bfloat16"),
    ),
    Target("W1, int8 over float32", 1.4, ratio((INT8, "w1"), (OURS, "w1"))),
    Target("W1, int8 over llama.cpp q8_0", 1.35, ratio((INT8, "w1"), (Q8, "w1"))),
    Target(
        "One stream's decode, of the memory's bound, float32", 0.80, of_bandwidth(OURS, "float32")
    ),
    Target("One stream, int8 over llama.cpp q8_0", 1.0, ratio((INT8, "w1-c1"), (Q8, "w1-c1"))),
    Target("32 at once over one at a time", 3.0, ratio((OURS, "w1"), (OURS, "w1-c1"))),
    Target("Served over HTTP, of the engine in process", 0.95, ratio((HTTP, "w1"), (OURS, "w1"))),
    Target(
        "Largest loop lag of the model host in ten seconds of W1, ms",
        20.0,
        fact(HTTP, "w1", "loop_lag_ms"),
        at_most=True,
    ),
    Target(
        "Prefix cache on over off, where nothing is shared",
        0.99,
        ratio((OURS, "w1"), (without("prefix cache"), "w1")),
    ),
    Target(
        "p99 ITL while a long prompt comes, over the median before it",
        3.0,
        within(
            OURS, "long-arrival", "p99_itl_ms while a long prompt comes", "median_itl_ms before it"
        ),
        at_most=True,
    ),
    Target(
        "Second turn's TTFT, of the cold one's",
        0.12,
        within(OURS, "second-turn", "median_ttft_ms of second turn", "median_ttft_ms of cold"),
        at_most=True,
    ),
    Target("W1 with sampling, over greedy", 0.97, ratio((OURS, "w1-sampled"), (OURS, "w1"))),
    Target(
        "Start of the server to ready, of vLLM's", 0.1, started(HTTP, "vllm-http"), at_most=True
    ),
)
