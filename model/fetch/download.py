"""Gets one file: goes on where an earlier try ended, and keeps only what has the right checksum."""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from model.fetch.errors import FetchError, TryAgain
from model.fetch.listing import Wanted, refusal

AT_ONCE = 4
CHUNK = 1 << 20
PART = ".part"
# Between tries of one file that bring nothing new; a try that brings some starts the row again.
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(Exception):
    """Another file has failed, so this one is not needed any more."""


class Downloads:
    """All files of a model, a few at a time."""

    def __init__(
        self,
        client: httpx.Client,
        folder: Path,
        say: Callable[[str], None],
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._client = client
        self._folder = folder
        self._say = say
        self._pauses_s = pauses_s
        self._stop = threading.Event()

    def run(self, files: Sequence[Wanted]) -> None:
        """Raises the first file's failure; what the others have got stays for the next try."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = [pool.submit(self._get, file) for file in files]
            done, rest = wait(running, return_when=FIRST_EXCEPTION)
            if rest:
                self._stop.set()
                for future in rest:
                    future.cancel()
        failures = [error for future in done if (error := future.exception())]
        failures.sort(key=lambda error: not isinstance(error, FetchError))
        if failures:
            raise failures[0]

    def _get(self, wanted: Wanted) -> None:
        target = self._folder / wanted.path
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + PART)
        began = time.monotonic()
        left = list(self._pauses_s)
        while True:
            before = _size(part)
            try:
                self._receive(wanted, part)
                break
            except TryAgain as error:
                if _size(part) > before:
                    left = list(self._pauses_s)
                if not left:
                    raise
                pause_s = left.pop(0)
                self._say(f"{error}; again in {pause_s:g} s")
                if self._stop.wait(pause_s):
                    raise Stopped from None
            except OSError as error:
                raise _disk_error(error, wanted.path, self._folder) from error
        part.rename(target)
        self._say(f"{wanted.path}: {_size(target):,} bytes in {time.monotonic() - began:.1f} s")

    def _receive(self, wanted: Wanted, part: Path) -> None:
        have = _size(part)
        if wanted.size is not None and have > wanted.size:
            part.unlink()
            have = 0
        digest = _digest_of(wanted, part)
        if not (have and have == wanted.size):
            digest, have = self._stream(wanted, part, have, digest)
        if digest.hexdigest() == wanted.checksum.value:
            return
        part.unlink(missing_ok=True)
        if have:
            raise TryAgain(f"{wanted.path}: what was there before is of another file")
        raise FetchError(
            f"{wanted.path}: its {wanted.checksum.kind} checksum is {digest.hexdigest()},"
            f" expected was {wanted.checksum.value}"
        )

    def _stream(self, wanted: Wanted, part: Path, have: int, digest: Any) -> tuple[Any, int]:
        """The digest of all that the part holds then, and how much of it is of earlier tries."""
        headers = {**wanted.headers, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with self._client.stream("GET", wanted.url, headers=headers) as answer:
                if answer.status_code == 416:
                    part.unlink()
                    raise TryAgain(f"{wanted.path}: what was there before is longer than the file")
                if answer.status_code not in (200, 206):
                    raise refusal(answer, wanted.url)
                if have and answer.status_code == 200:
                    have, digest = 0, wanted.checksum.begin(wanted.size)
                with part.open("ab" if have else "wb") as file:
                    for chunk in answer.iter_raw():
                        if self._stop.is_set():
                            raise Stopped
                        file.write(chunk)
                        digest.update(chunk)
                    file.flush()
                    os.fsync(file.fileno())
        except httpx.HTTPError as error:
            raise TryAgain(f"{wanted.path}: {type(error).__name__} {error}".rstrip()) from error
        return digest, have


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest_of(wanted: Wanted, part: Path) -> Any:
    digest = wanted.checksum.begin(wanted.size)
    if part.exists():
        with part.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest


def _disk_error(error: OSError, path: str, folder: Path) -> FetchError:
    if error.errno in FULL:
        return FetchError(f"{path}: no room is left in {folder.parent}: enlarge the claim")
    return FetchError(f"{path}: {folder} cannot be written: {error.strerror or error}")
