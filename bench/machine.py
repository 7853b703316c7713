"""What this machine is, and the best that its processor does for the measured model's products.

Owns the ceiling that figures are compared with: measured in the same run, because clocks and
neighbours differ from day to day. `python -m bench machine` prints it.
"""

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.model_folder import HEAD, ROOT, SHAPES, product_flops, weight_bytes
from bench.workloads import Workload

ROWS = (32, 64, 128, 256, 512)
INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "numba", "numpy", "aiohttp", "kserve")
BYTES_PER_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0}
LARGE = 2**29
"""Bytes that no cache holds."""
SECONDS = 0.08
"""For one shape and number of rows, after one call that is not counted."""


def describe() -> dict[str, Any]:
    info = _cpu_info()
    flags = set(info.get("flags", "").split())
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def measure() -> dict[str, Any]:
    import torch

    from model.kernels import pool

    pool.set_threads(torch.get_num_threads())
    products: dict[str, dict[str, float]] = {}
    for name, make in _kinds().items():
        try:
            products[name] = {str(rows): _rate(make, rows) for rows in ROWS}
        except RuntimeError:
            products[name] = {}  # this build or processor has no such product
    return {
        "threads": torch.get_num_threads(),
        "read_gb_per_s": _read_bandwidth(),
        "products_gflop_per_s": products,
    }


def best_rates(measured: dict[str, Any]) -> dict[str, float]:
    """The best of each number type, in operations per second; int8 has two forms."""
    best: dict[str, float] = {}
    for name, rates in measured["products_gflop_per_s"].items():
        kind = name.split()[0]
        best[kind] = max([best.get(kind, 0.0), *(1e9 * rate for rate in rates.values())])
    return best


def ceiling(workload: Workload, rate: float) -> float:
    """Output tokens per second if the matrix products were all there is to do."""
    flops = product_flops(workload.computed_tokens, workload.output_tokens)
    return workload.output_tokens / (flops / rate)


def one_stream_ceiling(measured: dict[str, Any], kind: str) -> float:
    """Tokens per second of one stream if reading the weights once a token were all there is."""
    return float(1e9 * measured["read_gb_per_s"] / weight_bytes(BYTES_PER_WEIGHT[kind]))


def merged_best(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The better of two measurements, figure by figure: noise only ever slows."""
    products = {
        name: {
            rows: max(rate, second["products_gflop_per_s"].get(name, {}).get(rows, 0.0))
            for rows, rate in rates.items()
        }
        for name, rates in first["products_gflop_per_s"].items()
    }
    bandwidth = max(first["read_gb_per_s"], second["read_gb_per_s"])
    return {**first, "read_gb_per_s": bandwidth, "products_gflop_per_s": products}


def _kinds() -> dict[str, Callable[[Any, int], Callable[[], Any]]]:
    """Name → from a float32 weight and a number of rows to one product."""
    import torch

    from model.engine.linear import Numbers, PackedLinear

    def own(numbers: Numbers) -> Callable[[Any, int], Callable[[], Any]]:
        def make(weight: Any, rows: int) -> Callable[[], Any]:
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            with torch.no_grad():
                linear.weight.copy_(weight)
            module = PackedLinear([linear], numbers)
            x = torch.randn(rows, weight.shape[1]).numpy()
            return lambda: module.of(x)

        return make

    def onednn(dtype: Any) -> Callable[[Any, int], Callable[[], Any]]:
        def make(weight: Any, rows: int) -> Callable[[], Any]:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), rows)
            x = torch.randn(rows, weight.shape[1], dtype=dtype)
            call = torch.ops.mkldnn._linear_pointwise
            return lambda: call(x, packed, None, "none", [], "")

        return make

    def int_mm(weight: Any, rows: int) -> Callable[[], Any]:
        w = torch.randint(-127, 127, weight.shape, dtype=torch.int8).t()
        x = torch.randint(-127, 127, (rows, weight.shape[1]), dtype=torch.int8)
        return lambda: torch._int_mm(x, w)

    def qlinear(weight: Any, rows: int) -> Callable[[], Any]:
        w = torch.randint(-127, 127, weight.shape, dtype=torch.int8)
        pack = torch.ops.onednn.qlinear_prepack(w, [rows, weight.shape[1]])
        x = torch.randint(0, 255, (rows, weight.shape[1]), dtype=torch.uint8)
        ones = torch.ones(weight.shape[0])
        zeros = torch.zeros(weight.shape[0], dtype=torch.int32)
        call = torch.ops.onednn.qlinear_pointwise
        return lambda: call(
            x, 1.0, 0, pack, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return {
        "float32 own": own(Numbers.FLOAT32),
        "float32 oneDNN": onednn(torch.float32),
        "bfloat16 own": own(Numbers.BFLOAT16),
        "bfloat16 oneDNN": onednn(torch.bfloat16),
        "int8 own": own(Numbers.INT8),
        "int8 _int_mm": int_mm,
        "int8 qlinear": qlinear,
    }


def _rate(make: Callable[[Any, int], Callable[[], Any]], rows: int) -> float:
    """GFLOP/s over all products of the model, each as often as it is in a step."""
    import torch

    flops = seconds = 0.0
    with torch.inference_mode():
        for rows_in, rows_out, count in (*SHAPES, (*HEAD, 1)):
            call = make(torch.randn(rows_out, rows_in), rows)
            seconds += count * _fastest(call)
            flops += 2.0 * count * rows * rows_in * rows_out
    return round(flops / seconds / 1e9, 1)


def _fastest(call: Callable[[], Any]) -> float:
    call()
    best = float("inf")
    deadline = time.perf_counter() + SECONDS
    while (begun := time.perf_counter()) < deadline or best == float("inf"):
        call()
        best = min(best, time.perf_counter() - begun)
    return best


def _read_bandwidth() -> float:
    """The better of a sum and a matrix-vector product over more than any cache holds."""
    import torch

    from model.kernels import memory

    with torch.inference_mode():
        # On large pages, as weights are: on others less is read.
        matrix = torch.from_numpy(memory.empty((LARGE // 4 // 4096, 4096))).fill_(1)
        vector = torch.ones(4096)
        seconds = min(
            min(_fastest(matrix.sum) for _ in range(3)),
            min(_fastest(lambda: torch.mv(matrix, vector)) for _ in range(3)),
        )
    return round(LARGE / seconds / 1e9, 1)


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "-"
