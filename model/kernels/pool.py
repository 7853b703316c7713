"""How many threads the kernels take.

They are those of torch's own OpenMP pool, for torch has loaded it by the first call: two pools
would spin against each other.
"""

import numba

_threads = 1


def set_threads(threads: int) -> None:
    global _threads
    _threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(_threads)


def threads() -> int:
    return _threads
