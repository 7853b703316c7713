"""The parts of a step that no library has in the form that is needed, compiled by Numba for the
CPU at hand. No compiler is needed: the first start compiles, later ones read Numba's cache.

All arrays are float32 and contiguous, but for the indices (int64). Rows are tokens of the flattened
batch; `heads * dim` of a row lie one after the other. Numba's threads are those of torch's own
OpenMP pool, for torch has loaded it by the first call: two pools would spin against each other.
"""

import contextlib
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from model.engine.vectors import OPTIONS, Floats, exp, largest_magnitude

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_HERE = Path(__file__).parent
_BUILT = _HERE.parents[1] / "kernels"
"""What the build of an image has compiled."""


def _cache_folder() -> Path:
    """Numba knows a compiled function by the time of its own file, so what `vectors.py` puts into
    others is in the name; and it cannot cache where it cannot write."""
    version = f"{zlib.crc32((_HERE / 'vectors.py').read_bytes()):08x}"
    if os.access(_HERE, os.W_OK):
        return _HERE / "__pycache__" / f"kernels-{version}"
    folder = Path(tempfile.gettempdir()) / f"qna-kernels-{os.getuid()}-{version}"
    if not folder.exists():
        # Filled under another name: a second process must not see half of it.
        filling = Path(tempfile.mkdtemp(prefix="qna-kernels-"))
        if _BUILT.is_dir():
            shutil.copytree(_BUILT, filling, dirs_exist_ok=True)
        with contextlib.suppress(OSError):  # the other process was faster
            filling.rename(folder)
    # It holds code: a folder that somebody else has put there is not for us.
    own = folder.stat().st_uid == os.getuid()
    return folder if own else Path(tempfile.mkdtemp(prefix="qna-kernels-"))


if not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = str(_cache_folder())


def set_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


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
    qkv: Floats, heads: int, cos: Floats, sin: Floats, slots: Ints, keys: Floats,
    values: Floats, query_norm: Floats, key_norm: Floats, eps: np.float32,
) -> None:  # fmt: skip
    """qkv (T, (heads + 2 * kv_heads) * dim): queries and keys are normalised where there are
    weights for it, and rotated by cos and sin (T, rotary dim); keys and values go to their slots
    (T,) in the pages of `attention_kernel`."""
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
                keys[block, head, d, place] = qkv[row, key + d]
            for d in range(dim):
                values[block, head, place, d] = qkv[row, value + d]


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
    """x (T, width) ≈ scales (T,) * (whole (T, width) - levels - 1)."""
    middle = np.float32(levels) + np.float32(1.5)
    for row in prange(x.shape[0]):
        largest = largest_magnitude(x[row])
        scales[row] = largest / np.float32(levels)
        scale = np.float32(levels) / largest if largest > 0 else np.float32(0)
        for d in range(x.shape[1]):
            # All are above zero then, where cutting off what is behind the point rounds.
            whole[row, d] = np.uint8(np.int32(x[row, d] * scale + middle))


@njit(parallel=True, **OPTIONS)
def rescale_rows(x: Floats, scales: Floats, bias: Floats) -> None:
    """x (T, width) *= scales (T,), += bias (width,), or nothing where it is empty."""
    for row in prange(x.shape[0]):
        scale = scales[row]
        for d in range(x.shape[1]):
            x[row, d] *= scale
        for d in range(bias.shape[0]):
            x[row, d] += bias[d]
