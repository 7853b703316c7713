"""Memory on large pages.

A processor knows the addresses of a few thousand pages. Whoever reads hundreds of megabytes on
pages of 4 kB waits for tables at each, which took a tenth of a step with one row. numpy asks Linux
for large pages, for what has 4 MB or more, and torch does not: so smaller arrays share such memory.
"""

import threading
from math import prod

import numpy as np
from numpy.typing import NDArray

_PAGE = 512 * 1024
"""Numbers on a large page."""
_SHARED = 16 * _PAGE
_LINE = 16
"""Numbers in a line of memory, where arrays begin: a vector across two is read twice."""
_lock = threading.Lock()
_rest = np.empty(0, np.float32)


def empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Of any content. Memory that is shared is given back with the last that shares it."""
    global _rest
    size = prod(shape)
    if 4 * size > _SHARED:
        return _pages(size).reshape(shape)
    with _lock:
        if size > len(_rest):
            _rest = _pages(_SHARED)
        taken, _rest = _rest[:size], _rest[-(-size // _LINE) * _LINE :]
    return taken.reshape(shape)


def _pages(size: int) -> NDArray[np.float32]:
    whole = np.empty(size + _PAGE, np.float32)
    begin = -(whole.ctypes.data // whole.itemsize) % _PAGE
    return whole[begin : begin + size]
