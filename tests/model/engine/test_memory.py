import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.kernels import memory
from model.kernels.memory import empty

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SHAPES = [(1,), (3, 5), (72, 576, 8), (10, 8, 16), (0, 8)]


def test_arrays_share_nothing_and_begin_with_a_line_of_memory() -> None:
    with ThreadPoolExecutor(4) as threads:
        arrays = list(threads.map(empty, SHAPES * 40))
    for number, (array, shape) in enumerate(zip(arrays, SHAPES * 40, strict=True)):
        assert array.shape == shape
        assert array.flags.c_contiguous
        assert array.ctypes.data % 64 == 0
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_small_arrays_lie_together_on_pages_that_are_asked_for_as_large() -> None:
    arrays = [empty((64, 1024)) for _ in range(8)]
    gaps = [b.ctypes.data - a.ctypes.data for a, b in pairwise(arrays)]
    assert gaps.count(arrays[0].nbytes) >= len(gaps) - 1  # the memory of one may be used up


@pytest.mark.parametrize("size", [memory.LARGEST_THAT_SHARES, memory.SHARED])
def test_an_array_of_its_own_begins_with_a_large_page(size: int) -> None:
    empty((1,))
    array = empty((size + 1,))
    assert array.ctypes.data % (2 << 20) == 0
    array[...] = 1


def _mapped(array: NDArray[np.float32]) -> NDArray[np.float32]:
    assert isinstance(array.base, np.ndarray)
    return array.base


def _large_kb() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if "AnonHuge" in line).split()[1])


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(),
    reason="this system has no large pages",
)
def test_linux_gives_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_rest", np.empty(0, np.float32))
    gc.collect()  # or what others have left goes meanwhile
    before = _large_kb()
    small = [empty((memory.PAGE // 4,)) for _ in range(32)]
    own = empty((memory.SHARED // 2,))
    for array in (*small, own):
        array[...] = 1
    assert _large_kb() - before >= 0.9 * 4 * (8 * memory.PAGE + memory.SHARED // 2) / 1024


def test_memory_that_nobody_uses_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_rest", np.empty(0, np.float32))
    arrays = [empty((memory.SHARED // 4,)) for _ in range(5)]
    first, second = (weakref.ref(_mapped(arrays[n])) for n in (0, 4))
    assert first() is _mapped(arrays[3]) is not second()
    del arrays[1:]
    gc.collect()
    assert first() is not None
    arrays.clear()
    gc.collect()
    assert first() is None
