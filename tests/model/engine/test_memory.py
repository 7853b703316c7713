import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from model.kernels import memory
from model.kernels.memory import empty

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


@pytest.mark.parametrize("size", [memory._SHARED // 4, memory._SHARED])
def test_an_array_of_its_own_begins_with_a_large_page(size: int) -> None:
    empty((1,))
    array = empty((size + 1,))
    assert array.ctypes.data % (2 << 20) == 0
    array[...] = 1


def test_memory_that_nobody_uses_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_rest", np.empty(0, np.float32))
    arrays = [empty((memory._SHARED // 4,)) for _ in range(5)]
    first, second = (weakref.ref(arrays[n].base) for n in (0, 4))
    assert first() is arrays[3].base is not second()
    del arrays[1:]
    gc.collect()
    assert first() is not None
    arrays.clear()
    gc.collect()
    assert first() is None
