"""Where Numba keeps what it has compiled."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_BUILT = _HERE.parents[1] / "kernels"
"""Where the build of an image has put what it has compiled: its NUMBA_CACHE_DIR."""
_chosen: Path | None = None


def use(place: Path) -> None:
    """From now on, in this process: one that has begun to compile says so to another."""
    global _chosen
    _chosen = place


def folder() -> Path:
    """Numba knows a compiled function by the time of its own file, so what others put into it is in
    the name; and it cannot cache where it cannot write."""
    if _chosen is not None:
        return _chosen
    version = _version()
    name = f"kernels-{version}"
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named) / name
    if os.access(_HERE, os.W_OK):
        return _HERE / "__pycache__" / name
    place = Path(tempfile.gettempdir()) / f"qna-kernels-{os.getuid()}-{version}"
    if not place.exists():
        # Filled under another name: a second process must not see half of it.
        filling = Path(tempfile.mkdtemp(prefix="qna-kernels-"))
        if (built := _BUILT / name).is_dir():
            shutil.copytree(built, filling, dirs_exist_ok=True)
        try:
            filling.rename(place)
        except OSError:  # the other process was faster
            shutil.rmtree(filling)
    return place if _is_own(place) else Path(tempfile.mkdtemp(prefix="qna-kernels-"))


def _is_own(place: Path) -> bool:
    """It holds code: a folder or a link that somebody else has put there is not for us."""
    found = place.lstat()
    mode = stat.S_IMODE(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not mode & 0o022


def mark(cache: Path) -> Path:
    """The file that says that all of `ahead.py` is in a cache, for this processor."""
    processor = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith("flags")), "")
    seen = hashlib.sha256((processor + _version()).encode())
    return cache / f"compiled-{seen.hexdigest()[:16]}"


def _version() -> str:
    seen = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        seen.update(path.read_bytes())
    for package in ("numba", "llvmlite", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            seen.update(importlib.metadata.version(package).encode())
    return seen.hexdigest()[:12]
