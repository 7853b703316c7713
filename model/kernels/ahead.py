"""Compiles what every model needs in a second process, while the first one imports torch and reads
weights: the first start on a machine waits for half as long.

They go to Numba's cache, where the first process finds them. Should anything go wrong, it compiles
for itself. Nothing of weight is imported here: this runs before all else.
"""

import contextlib
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

from model.kernels import cache
from model.resources import cpu_threads

LONGEST_S = 60.0
_process: subprocess.Popen[bytes] | None = None


def begin() -> None:
    """Start the second process, unless the cache is filled or there is no core for it."""
    global _process
    if cpu_threads()[0] < 2 or importlib.util.find_spec("numba") is None:
        return
    with contextlib.suppress(OSError):
        where = cache.folder()
        cache.use(where)
        if not cache.mark(where).exists():
            command = [sys.executable, "-m", "model.kernels.ahead", str(where)]
            _process = subprocess.Popen(  # noqa: S603  # this very program
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            # Nobody waits for it where no kernels are wanted, and a process of one's own that has
            # ended stays in the table until somebody does.
            threading.Thread(target=_process.wait, daemon=True, name="kernels-ahead").start()


def wait() -> None:
    """Until what the second process compiles can be used."""
    global _process
    if _process is not None:
        try:
            _process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            _process.kill()
            _process.wait()
        _process = None


def give_up() -> None:
    """The engine computes in another way, or this process ends."""
    global _process
    if _process is not None:
        _process.kill()
        _process = None


def main(where: Path) -> None:
    cache.use(where)
    # The largest first: the other process may be done before.
    from model.kernels import elementwise, sampling

    sampling.compile_now()
    elementwise.compile_now()
    where.mkdir(parents=True, exist_ok=True)
    cache.mark(where).touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else cache.folder())
