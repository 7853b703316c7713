"""Memory on large pages.

A processor knows the addresses of a few thousand pages. Whoever reads hundreds of megabytes on
pages of 4 kB waits for tables at each, which took a tenth of a step with one row. Linux gives large
pages to who asks, for what covers them: so arrays ask, and small ones share.
"""

import mmap
import threading
from contextlib import suppress
from math import prod

import numpy as np
from numpy.typing import NDArray

from model.kernels.vectors import LINE

PAGE = 512 * 1024
"""Numbers on a large page."""
SHARED = 16 * PAGE
LARGEST_THAT_SHARES = SHARED // 4
_lock = threading.Lock()
_rest = np.empty(0, np.float32)


def empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Of any content; begins with a line of memory, for a vector across two is read twice.

    Memory that is shared is given back with the last that shares it.
    """
    global _rest
    size = prod(shape)
    if size > LARGEST_THAT_SHARES:
        return _pages(size).reshape(shape)
    with _lock:
        if size > len(_rest):
            _rest = _pages(SHARED)
        taken, _rest = _rest[:size], _rest[-(-size // LINE) * LINE :]
    return taken.reshape(shape)


def _pages(size: int) -> NDArray[np.float32]:
    """Not from malloc: it hands out again what has lain on small pages, and they stay small."""
    whole = mmap.mmap(-1, 4 * (size + PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            whole.madvise(mmap.MADV_HUGEPAGE)
    numbers = np.frombuffer(whole, np.float32)
    begin = -(numbers.ctypes.data // numbers.itemsize) % PAGE
    return numbers[begin : begin + size]
