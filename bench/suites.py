"""What `make bench` measures: named lists of engine and workload, and the switches.

To measure a new option of the engine, add it to `SWITCHES`.
"""

from typing import Any

OURS = "ours"
HTTP = "ours-http"
INT8 = "ours:quantize=int8"
BF16 = "ours:dtype=bfloat16"
OWN = (OURS, BF16, INT8, HTTP, "generate", "padded", "transformers-cb")
PEERS = ("vllm", "vllm-http", "llama.cpp", "llama.cpp:type=q8_0")
CONCURRENCY = {"w1-c1": 1, "w1-c8": 8, "w1": 32, "w1-c128": 128}

SWITCHES: dict[str, dict[str, Any]] = {
    # An optimisation → the options without it.
    "fast kernels": {"kernels": "plain"},
    "second thread": {"threads": 1},
    "continuous batching": {"max_num_seqs": 1},
    "512 tokens in a step": {"max_num_batched_tokens": 64},
    "prefix cache": {"prefix_cache": False},
}


def without(switch: str) -> str:
    """The engine, as it is written, with one optimisation switched off."""
    options = ",".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in SWITCHES[switch].items()
    )
    return f"{OURS}:{options}"


Plan = list[tuple[str, str]]


def suite(name: str, peers: bool) -> Plan:
    others = PEERS if peers else ()
    match name:
        case "compare":
            return [(engine, "w1") for engine in (*OWN, *others)]
        case "concurrency":
            streaming = ("llama.cpp", "llama.cpp:type=q8_0", "vllm-http") if peers else ()
            engines = (OURS, INT8, "transformers-cb", *streaming)
            return [(engine, workload) for workload in CONCURRENCY for engine in engines]
        case "shapes":
            engines = (OURS, *(("llama.cpp", "vllm-http") if peers else ()))
            shapes = ("second-turn", "long-arrival", "w1-sampled")
            return [(OURS, "w1"), *((engine, shape) for shape in shapes for engine in engines)]
        case "switches":
            return [(OURS, "w1"), *((without(switch), "w1") for switch in SWITCHES)]
    raise ValueError(f"there is no suite {name}; there are: {', '.join(SUITES)}")


SUITES = ("compare", "concurrency", "shapes", "switches")


def plan(names: list[str], peers: bool) -> Plan:
    """Each pair once, in the order in which it is first named."""
    return list(dict.fromkeys(pair for name in names for pair in suite(name, peers)))
