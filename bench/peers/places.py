"""Where peers are installed. Knows nothing of what they are."""

import os
from pathlib import Path

from bench.model_folder import CACHE
from bench.spec import NotForThis


def peers_folder() -> Path:
    return Path(os.environ.get("BENCH_PEERS") or CACHE / "peers")


def installed(*parts: str) -> Path:
    path = peers_folder().joinpath(*parts)
    if not path.exists():
        raise NotForThis(f"{path} is not there: run `make bench-peers`")
    return path
