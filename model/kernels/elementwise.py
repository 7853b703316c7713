"""What a step does between products and attention, fused: norms, rotation, activation, rounding.

All arrays are contiguous, and float32 but for the indices (int64), pages of the cache and what
linears take in other numbers. Rows are tokens of the flattened batch; `heads * dim` of a row lie
one after the other.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from model.kernels.vectors import (
    OPTIONS,
    Floats,
    Halves,
    Pages,
    exp,
    largest_magnitude,
    number_for,
)

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@njit(**OPTIONS)
def _normalise(x: Floats, weight: Floats, eps: np.float32, output: Floats) -> None:
    square = np.float32(0)
    for d in range(x.shape[0]):
        square += x[d] * x[d]
    scale = np.float32(1) / np.float32(np.sqrt(square / x.shape[0] + eps))
    for d in range(x.shape[0]):
        output[d] = x[d] * scale * weight[d]


@njit(parallel=True, **OPTIONS)
def add_norm(
    residual: Floats, update: Floats, weight: Floats, eps: np.float32, output: Floats
) -> None:
    """residual (T, hidden) += update, or nothing where `update` has no rows; output = its RMS norm
    times weight (hidden,)."""
    for row in prange(residual.shape[0]):
        if update.shape[0]:
            for d in range(residual.shape[1]):
                residual[row, d] += update[row, d]
        _normalise(residual[row], weight, eps, output[row])


@njit(**OPTIONS)
def _rotate(x: Floats, cos: Floats, sin: Floats) -> None:
    half = cos.shape[0] // 2
    for d in range(half):
        first, second = x[d], x[d + half]
        x[d] = first * cos[d] - second * sin[d]
        x[d + half] = second * cos[d + half] + first * sin[d + half]


@njit(parallel=True, **OPTIONS)
def rotate_and_store(
    qkv: Floats, heads: int, cos: Floats, sin: Floats, slots: Ints, keys: Pages,
    values: Pages, query_norm: Floats, key_norm: Floats, eps: np.float32,
) -> None:  # fmt: skip
    """qkv (T, (heads + 2 * kv_heads) * dim): queries and keys are normalised where there are
    weights for it, and rotated by cos and sin (T, rotary dim); keys and values go to their slots
    (T,) in the pages of `attention.py`."""
    kv_heads, dim, block_size = keys.shape[1:]
    for row in prange(qkv.shape[0]):
        for head in range(heads + kv_heads):
            x = qkv[row, head * dim : (head + 1) * dim]
            if query_norm.shape[0]:
                _normalise(x, query_norm if head < heads else key_norm, eps, x)
            _rotate(x, cos[row], sin[row])
        block, place = slots[row] // block_size, slots[row] % block_size
        for head in range(kv_heads):
            key = (heads + head) * dim
            value = key + kv_heads * dim
            for d in range(dim):
                keys[block, head, d, place] = number_for(keys, qkv[row, key + d])
            for d in range(dim):
                values[block, head, place, d] = number_for(values, qkv[row, value + d])


@njit(parallel=True, **OPTIONS)
def silu_mul(gate_up: Floats, output: Floats) -> None:
    """gate_up (T, 2 * width) → output (T, width): silu of the first half times the second."""
    width = output.shape[1]
    for row in prange(gate_up.shape[0]):
        for d in range(width):
            gate = gate_up[row, d]
            output[row, d] = gate / (np.float32(1) + exp(-gate)) * gate_up[row, width + d]


@njit(parallel=True, **OPTIONS)
def round_rows(x: Floats, levels: np.int32, whole: Bytes, scales: Floats) -> None:
    """x (T, width) ≈ scales (T,) * (whole (T, at least width) - levels - 1)."""
    middle = np.float32(levels) + np.float32(1.5)
    for row in prange(x.shape[0]):
        largest = largest_magnitude(x[row])
        scales[row] = largest / np.float32(levels)
        scale = np.float32(levels) / largest if largest > 0 else np.float32(0)
        for d in range(x.shape[1]):
            # All are above zero then, where cutting off what is behind the point rounds.
            whole[row, d] = np.uint8(np.int32(x[row, d] * scale + middle))


@njit(parallel=True, **OPTIONS)
def round_to_bfloat16(x: Floats, halves: Halves) -> None:
    """x (T, width) → the upper halves of the nearest bfloat16 in halves (T, at least width), and
    NaN for NaN."""
    for row in prange(x.shape[0]):
        for d in range(x.shape[1]):
            halves[row, d] = number_for(halves, x[row, d])
        halves[row, x.shape[1] :] = 0


def compile_now() -> None:
    """All but what only some models need."""
    row, none, one = np.zeros((1, 8), np.float32), np.zeros(0, np.float32), np.float32(1)
    add_norm(row, row, row[0], one, row)
    silu_mul(row, np.zeros((1, 4), np.float32))
    pages = np.zeros((1, 1, 4, 1), np.float32), np.zeros((1, 1, 1, 4), np.float32)
    angles = np.zeros((1, 4), np.float32)
    qkv = np.zeros((1, 12), np.float32)
    rotate_and_store(qkv, 1, angles, angles, np.zeros(1, np.int64), *pages, none, none, one)
