"""Packed linears compute what torch's do, in every kind of numbers, at shapes that are not even."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import binding

from model.engine.linear import Numbers, PackedLinear
from model.kernels import elementwise, pool, tiles, vectors
from model.kernels.products import BFLOAT16, FLOAT32, INT8, LEVELS, WIDENED

SIZES = [(1, 1), (7, 5), (64, 48), (100, 40), (33, 130), (3200, 17)]
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 32, 33, 50, 70]
BFLOAT16_NUMBERS = 2.0**-8
"""How far a number may be from the bfloat16 next to it, as a share."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linears(inputs: int, *widths: int, bias: bool, halves: bool = False) -> list[torch.nn.Linear]:
    made = [torch.nn.Linear(inputs, width, bias=bias) for width in widths]
    for number, linear in enumerate(made):
        weight = normal(*linear.weight.shape, seed=number + 1)
        linear.weight = torch.nn.Parameter(weight.bfloat16().float() if halves else weight)
    return made


def exact(layers: list[torch.nn.Linear], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([layer.double()(x.double()) for layer in layers], dim=-1)


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm().clamp_min(1e-30))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize(("inputs", "width"), SIZES)
@torch.inference_mode()
def test_float32_is_exact_but_for_its_rounding(
    inputs: int, width: int, halves: bool, bias: bool
) -> None:
    """Also where the weights are bfloat16 numbers, which take half the memory."""
    layers = linears(inputs, width, 11, bias=bias, halves=halves)
    packed = PackedLinear(layers, keep=True)
    assert packed.kind == (WIDENED if halves else FLOAT32)
    for rows in ROWS:
        x = normal(rows, inputs)
        assert off(packed(x), exact(layers, x)) < 2e-6
    assert packed(normal(2, 3, inputs)).shape == (2, 3, width + 11)


@pytest.mark.parametrize(("inputs", "width"), SIZES)
@torch.inference_mode()
def test_bfloat16_multiplies_rounded_numbers_exactly(inputs: int, width: int) -> None:
    layers = linears(inputs, width, bias=True)
    packed = PackedLinear(layers, Numbers.BFLOAT16, keep=True)
    assert packed.kind == BFLOAT16
    rounded = linears(inputs, width, bias=True)
    rounded[0].weight = torch.nn.Parameter(layers[0].weight.bfloat16().float())
    rounded[0].bias = layers[0].bias
    for rows in ROWS:
        x = normal(rows, inputs)
        assert off(packed(x), exact(rounded, x.bfloat16())) < 2e-6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("steps", sorted({LEVELS, 63}))
@torch.inference_mode()
def test_int8_is_near_and_row_by_row(bias: bool, steps: int) -> None:
    """With 63 steps, too, which CPUs without VNNI take."""
    layers = linears(96, 40, 8, bias=bias)
    x = normal(5, 96)
    x[1] *= 1000  # an outlier is nobody else's
    x[2] = 0
    packed = PackedLinear(layers, Numbers.INT8, keep=True, levels=steps)
    assert packed.kind == INT8
    expected = exact(layers, x)
    got = packed(x)
    difference = (got - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-6)
    assert difference.max() < (0.02 if steps == 127 else 0.04)
    assert torch.equal(got, torch.cat([packed(row[None]) for row in x]))


@pytest.mark.parametrize(("inputs", "width"), SIZES)
@torch.inference_mode()
def test_int8_is_near_at_every_size(inputs: int, width: int) -> None:
    layers = linears(inputs, width, bias=True)
    packed = PackedLinear(layers, Numbers.INT8, keep=True)
    for rows in ROWS:
        x = normal(rows, inputs)
        assert off(packed(x), exact(layers, x)) < 0.05


@torch.inference_mode()
def test_int8_passes_on_that_a_row_has_no_usable_numbers() -> None:
    packed = PackedLinear([torch.nn.Linear(32, 8)], Numbers.INT8)
    x = normal(3, 32)
    x[1, 5] = float("nan")
    got = packed(x)
    assert got[1].isnan().all()
    assert torch.isfinite(got[[0, 2]]).all()


def test_bfloat16_rounds_as_torch_does_and_keeps_what_is_not_a_number() -> None:
    """NaN of either sign, and with all bits or only the lowest set: those that adding spoils."""
    special = [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FC00000, 0x7F800000, 0xFF800000]
    x = normal(2, 70)
    x[0, : len(special)] = torch.from_numpy(np.array(special, np.uint32).view(np.float32))
    halves = np.empty((2, 72), np.uint16)
    elementwise.round_to_bfloat16(x.numpy(), halves)
    got = torch.from_numpy(halves.view(np.int16)).view(torch.bfloat16)
    torch.testing.assert_close(got[:, :70], x.bfloat16(), rtol=0, atol=0, equal_nan=True)
    assert not halves[:, 70:].any()


@pytest.mark.parametrize("numbers", list(Numbers))
@torch.inference_mode()
def test_threads_change_nothing(numbers: Numbers) -> None:
    packed = PackedLinear(linears(64, 100, bias=False), numbers, keep=True)
    x = normal(70, 64)
    before = pool.threads()
    results = []
    for threads in (1, 2, 16):
        pool.set_threads(threads)
        results.append(packed(x))
    pool.set_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_strip_in_tiles_has_its_rows_and_no_more() -> None:
    """A tile of no rows at all would be an illegal instruction."""
    for rows in range(1, tiles.MOST_ROWS + 1):
        shape = tiles.SHAPES[rows]
        assert shape[0] == 1
        sizes = [(int(shape[16 + 2 * tile]), int(shape[48 + tile])) for tile in range(8)]
        above, below = min(rows, 16), max(rows - 16, 0)
        of_rows = [(64, above)] * 2 + [(64, below) if below else (0, 0)] * 2
        assert sizes[:4] == of_rows
        assert sizes[4:6] == of_rows[1:3]
        assert sizes[6:] == [(64, 16)] * 2


@pytest.mark.parametrize("allowed", [True, False])
def test_tiles_that_the_system_refuses_are_not_compiled_for(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = binding.FeatureMap({"avx2": True, "amx-tile": True, "amx-int8": True, "sse5": False})
    monkeypatch.setattr(vectors.config, "CPU_NAME", None)
    monkeypatch.setattr(vectors.config, "CPU_FEATURES", None)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: host)
    monkeypatch.setattr(vectors, "_may_use_tiles", lambda: allowed)
    found = vectors._features()
    assert found == ({"avx2", "amx-tile", "amx-int8"} if allowed else {"avx2"})
    named = vectors.config.CPU_FEATURES
    assert named == (None if allowed else "-amx-int8,-amx-tile,+avx2,-sse5")


_AVX2 = "+sse2,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma"
_AVX512 = f"{_AVX2},+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vnni,+avx512bf16"


@pytest.mark.parametrize(
    ("features", "tests"),
    [
        *([(_AVX512, "every_size or rounded_numbers")] if tiles.HAS_TILES else []),
        (_AVX2, ""),
        ("+sse2,+ssse3,+sse4.1", "every_size or rounded_numbers"),
    ],
    ids=[*(["avx512"] if tiles.HAS_TILES else []), "avx2", "sse"],
)
def test_a_cpu_that_can_do_less_computes_the_same(
    features: str, tests: str, tmp_path: Path
) -> None:
    """The same tests, compiled for it: no other way leads to the instructions for older CPUs."""
    if os.uname().machine != "x86_64":
        pytest.skip("these are x86's instructions")
    if "NUMBA_CPU_FEATURES" in os.environ:
        return
    fewer = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", tests, __file__],
        env={**os.environ, **fewer, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
