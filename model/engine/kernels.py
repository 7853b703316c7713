"""The parts of a step that no library has in the form that is needed, compiled by Numba for the
CPU at hand. No compiler is needed: the first start compiles, later ones read Numba's cache.

All arrays are float32 and contiguous, but for the indices (int64). Rows are tokens of the flattened
batch; `heads * dim` of a row lie one after the other. Numba's threads are those of torch's own
OpenMP pool, for torch has loaded it by the first call: two pools would spin against each other.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
AttendDecode = Callable[..., None]

_HERE = Path(__file__).parent
_BUILT = _HERE.parents[1] / "kernels"
"""What the build of an image has compiled."""
# Numba refuses to cache where it cannot write.
if not numba.config.CACHE_DIR and not os.access(_HERE, os.W_OK):  # type: ignore[attr-defined]
    _writable = Path(tempfile.gettempdir()) / "qna-kernels"
    if not _writable.exists() and _BUILT.is_dir():
        shutil.copytree(_BUILT, _writable)
    numba.config.CACHE_DIR = str(_writable)  # type: ignore[attr-defined]

_OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "cache": True,
    "nogil": True,
}
_LOG2E = np.float32(1.4426950408889634)
# 2**x on [-1/2, 1/2]: Taylor's terms, off by 2e-7 of the value at most.
_C = tuple(np.float32(0.6931471805599453**k / f) for k, f in enumerate((1, 1, 2, 6, 24, 120, 720)))
_LOW = np.float32(-1e30)
_U = np.uint64


def set_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


@njit(**_OPTIONS)
def _exp(x: Floats, bits: Int32s, whole: Int32s, count: int) -> None:
    """x[:count] becomes e**x. `bits` is the same memory as integers, `whole` is scratch: loops
    without a branch or a call, so that they become vector instructions."""
    for i in range(count):
        y = min(max(x[i] * _LOG2E, np.float32(-126.0)), np.float32(126.0))
        n = np.floor(y + np.float32(0.5))
        f = y - n
        whole[i] = np.int32(n)
        x[i] = _C[0] + f * (
            _C[1] + f * (_C[2] + f * (_C[3] + f * (_C[4] + f * (_C[5] + f * _C[6]))))
        )
    for i in range(count):
        bits[i] += whole[i] << 23


@cache
def attend_decode(group: int, key_dim: int, value_dim: int, block_size: int) -> AttendDecode:
    """The kernel for these sizes: as constants they let loops become straight vector code.

    Indices are unsigned and arrays flat. Numba looks for negative indices otherwise, and every
    slice counts a reference, in a counter that the threads would fight for.
    """
    group, key_dim, value_dim, block_size = map(_U, (group, key_dim, value_dim, block_size))  # type: ignore[assignment]

    @njit(parallel=True, **_OPTIONS)
    def attend(
        query: Floats, output: Floats, rows: Ints, lengths: Ints, firsts: Ints, blocks: Ints,
        keys: Floats, values: Floats, scaling: np.float32, window: int, softcap: np.float32,
        sinks: Floats,
    ) -> None:  # fmt: skip
        """One token of each sequence attends to all of its keys and values, in place.

        query (T, at least heads * key_dim), output (T, heads * value_dim); rows (n,): where the
        sequences stand in them; lengths (n,) with the new token; firsts (n,): where a sequence's
        blocks begin in `blocks`; keys and values (slots, kv_heads, dim). No window is 0, no
        soft-cap is 0.0, no sinks is an empty array.
        """
        kv_heads = keys.shape[1]
        stride = _U(kv_heads)
        query_width, output_width = _U(query.shape[1]), _U(output.shape[1])
        queries, outputs = query.reshape(-1), output.reshape(-1)
        all_keys, all_values = keys.reshape(-1), values.reshape(-1)
        for item in prange(rows.shape[0] * kv_heads):
            sequence, kv_head = item // kv_heads, _U(item % kv_heads)
            row, length, first = _U(rows[sequence]), lengths[sequence], firsts[sequence]
            scaled = np.empty(group * key_dim, np.float32)
            scores = np.empty(group * block_size, np.float32)
            bits, whole = scores.view(np.int32), np.empty(scores.shape[0], np.int32)
            top = np.full(group, _LOW, np.float32)
            total = np.zeros(group, np.float32)
            mixed = np.zeros(group * value_dim, np.float32)
            begin_of_query = row * query_width + kv_head * group * key_dim
            for i in range(group * key_dim):
                scaled[i] = queries[begin_of_query + i] * scaling
            if sinks.shape[0]:
                for g in range(group):
                    top[g], total[g] = sinks[kv_head * group + g], 1.0
            begin = max(length - window, 0) if window else 0
            size = np.int64(block_size)
            for block in range(begin // size, (length + size - 1) // size):
                skipped = max(begin - block * size, 0)
                count = _U(min(size, length - block * size) - skipped)
                slot = _U(blocks[first + block] * size + skipped)
                key = (slot * stride + kv_head) * key_dim
                for t in range(count):
                    for g in range(group):
                        score = np.float32(0)
                        for d in range(key_dim):
                            score += scaled[g * key_dim + d] * all_keys[key + d]
                        scores[g * block_size + t] = score
                    key += stride * key_dim
                for g in range(group):
                    highest, at = top[g], g * block_size
                    for t in range(count):
                        if softcap:
                            capped = np.tanh(scores[at + t] / softcap)
                            scores[at + t] = np.float32(capped) * softcap
                        highest = max(highest, scores[at + t])
                    for t in range(count):
                        scores[at + t] -= highest
                    for t in range(count, block_size):
                        scores[at + t] = _LOW
                    shrink = np.float32(np.exp(top[g] - highest))
                    top[g] = highest
                    total[g] *= shrink
                    for d in range(value_dim):
                        mixed[g * value_dim + d] *= shrink
                _exp(scores, bits, whole, scores.shape[0])
                value = (slot * stride + kv_head) * value_dim
                for t in range(count):
                    for g in range(group):
                        share = scores[g * block_size + t]
                        total[g] += share
                        for d in range(value_dim):
                            mixed[g * value_dim + d] += share * all_values[value + d]
                    value += stride * value_dim
            begin_of_output = row * output_width + kv_head * group * value_dim
            for g in range(group):
                for d in range(value_dim):
                    at = g * value_dim + d
                    outputs[begin_of_output + at] = mixed[at] / total[g]

    return attend  # type: ignore[no-any-return]


@njit(**_OPTIONS)
def _normalise(x: Floats, weight: Floats, eps: np.float32, output: Floats) -> None:
    square = np.float32(0)
    for d in range(x.shape[0]):
        square += x[d] * x[d]
    scale = np.float32(1) / np.float32(np.sqrt(square / x.shape[0] + eps))
    for d in range(x.shape[0]):
        output[d] = x[d] * scale * weight[d]


@njit(parallel=True, **_OPTIONS)
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


@njit(**_OPTIONS)
def _rotate(x: Floats, cos: Floats, sin: Floats) -> None:
    half = cos.shape[0] // 2
    for d in range(half):
        first, second = x[d], x[d + half]
        x[d] = first * cos[d] - second * sin[d]
        x[d + half] = second * cos[d + half] + first * sin[d + half]


@njit(parallel=True, **_OPTIONS)
def rotate_and_store(
    qkv: Floats, heads: int, cos: Floats, sin: Floats, slots: Ints, keys: Floats,
    values: Floats, query_norm: Floats, key_norm: Floats, eps: np.float32,
) -> None:  # fmt: skip
    """qkv (T, (heads + 2 * kv_heads) * dim): queries and keys are normalised where there are
    weights for it, and rotated by cos and sin (T, rotary dim); keys and values go to their slots
    (T,), and stay in qkv too."""
    kv_heads, dim = keys.shape[1], keys.shape[2]
    for row in prange(qkv.shape[0]):
        for head in range(heads + kv_heads):
            x = qkv[row, head * dim : (head + 1) * dim]
            if query_norm.shape[0]:
                _normalise(x, query_norm if head < heads else key_norm, eps, x)
            _rotate(x, cos[row], sin[row])
        for head in range(kv_heads):
            key = (heads + head) * dim
            value = key + kv_heads * dim
            for d in range(dim):
                keys[slots[row], head, d] = qkv[row, key + d]
                values[slots[row], head, d] = qkv[row, value + d]


@njit(parallel=True, **_OPTIONS)
def silu_mul(gate_up: Floats, output: Floats) -> None:
    """gate_up (T, 2 * width) → output (T, width): silu of the first half times the second."""
    width = output.shape[1]
    tile = 256
    tiles = (width + tile - 1) // tile
    for item in prange(gate_up.shape[0] * tiles):
        row, begin = item // tiles, item % tiles * tile
        count = min(tile, width - begin)
        powers = np.empty(tile, np.float32)
        bits, whole = powers.view(np.int32), np.empty(tile, np.int32)
        for d in range(count):
            powers[d] = -gate_up[row, begin + d]
        _exp(powers, bits, whole, count)
        for d in range(count):
            gate, up = gate_up[row, begin + d], gate_up[row, width + begin + d]
            output[row, begin + d] = gate / (np.float32(1) + powers[d]) * up
