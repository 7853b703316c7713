"""The folder that is filled: complete under its name or not there, whoever is killed when.

Everything is gathered beside it and gets its name last. A record inside says what was fetched, so
that the next run needs no network to see that there is nothing to do.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from model.fetch.download import PART, PAUSES_S, Downloads
from model.fetch.errors import FetchError
from model.fetch.listing import Listing, Wanted, list_files

RECORD = ".fetched.json"
TIMEOUT = httpx.Timeout(60.0, connect=15.0)


def fill(
    folder: Path,
    source: str,
    *,
    say: Callable[[str], None],
    revision: str = "",
    expected: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
) -> None:
    """Raises FetchError or TryAgain with one line; the folder is not there then."""
    environ = os.environ if environ is None else environ
    with _alone(folder, say):
        if folder.exists():
            _check_unchanged(folder)
            say(f"{folder} is complete already")
            return
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
            listing = list_files(client, source, revision, expected or {}, environ)
            staging = _staging(folder, listing)
            _check_room(staging, listing)
            known = sum(file.size or 0 for file in listing.files)
            say(f"{source} at {listing.version[:12]}: {len(listing.files)} files, {known:,} bytes")
            Downloads(client, staging, say, pauses_s).run(listing.files)
        _write_record(staging, source, listing)
        staging.rename(folder)
        _sync(folder.parent)
        say(f"{folder} is complete")


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One at a time: a Job's second pod may start while the first still ends."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock").open("w")
    except OSError as error:
        raise FetchError(f"{folder.parent} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"somebody else fills {folder}; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _staging(folder: Path, listing: Listing) -> Path:
    """Of this very version: what a branch that moved on left there is of no use."""
    staging = folder.with_name(f".{folder.name}.{listing.version[:12]}.partial")
    for other in folder.parent.glob(f".{folder.name}.*.partial"):
        if other != staging:
            shutil.rmtree(other)
    staging.mkdir(exist_ok=True)
    return staging


def _check_room(staging: Path, listing: Listing) -> None:
    """Before hours of fetching, where the sizes are known."""
    missing = sum(_missing(staging, file) for file in listing.files)
    free = shutil.disk_usage(staging).free
    if missing > free:
        raise FetchError(
            f"{missing:,} bytes are still to come, and {staging.parent} has room for {free:,}:"
            " enlarge the claim"
        )


def _missing(staging: Path, file: Wanted) -> int:
    target = staging / file.path
    part = target.with_name(target.name + PART)
    have = next((path.stat().st_size for path in (target, part) if path.exists()), 0)
    return max(0, (file.size or 0) - have)


def _write_record(staging: Path, source: str, listing: Listing) -> None:
    files = {
        file.path: {
            "size": (staging / file.path).stat().st_size,
            file.checksum.kind: file.checksum.value,
        }
        for file in listing.files
    }
    record = {"source": source, "version": listing.version, "files": files}
    with (staging / RECORD).open("w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(staging)


def _check_unchanged(folder: Path) -> None:
    try:
        record: Any = json.loads((folder / RECORD).read_text())
        sizes = {path: facts["size"] for path, facts in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(
            f"{folder} was not filled by this program ({RECORD} is missing or broken): remove it"
        ) from error
    for path, size in sizes.items():
        file = folder / path
        if not file.is_file() or file.stat().st_size != size:
            have = f"{file.stat().st_size} bytes" if file.is_file() else "nothing"
            raise FetchError(
                f"{file}: {size} bytes were fetched, {have} is there now: remove {folder}"
                " to have it fetched again"
            )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
