"""Ends the connection of a client that is there and takes nothing of its answer.

Looked at from the request's beginning on, not only once every buffer on the way is full, and until
all of the answer has arrived: a small one lies in the kernel as a large one does. What the other
side's kernel has confirmed counts as taken, so who reads slowly is left alone; so is, for a while,
who does not answer at all, on a line that is broken (api.__main__.UNTAKEN_S). Event loop only.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

from api import logs

logger = logging.getLogger("api.access")
# A client that takes nothing for so long, while something waits for it, has it no more.
STUCK_S = 10.0
_LOOKS = 10
"""In that time."""
# In Linux's struct tcp_info: how often the last bytes were sent again, how many milliseconds ago
# the other side was heard of, and how many bytes it has confirmed.
_INFO_BYTES, _RESENT_AT, _SILENT_AT, _CONFIRMED_AT = 128, 2, 56, 120


@dataclass(frozen=True, slots=True)
class _Seen:
    waiting: int = 0
    """Bytes that the other side has not confirmed."""
    taken: int = 0
    """Bytes that it has."""
    is_away: bool = False
    """Its kernel does not answer either."""


class ReaderWatch:
    """Of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        is_answering: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._is_answering = is_answering
        self._timer: asyncio.TimerHandle | None = None
        self._moved_at = 0.0
        self._last = _Seen()

    def begin(self) -> None:
        """With each request; it ends by itself when nothing is left to be taken."""
        if self._timer is None:
            self._moved_at = self._loop.time()
            self._look_later()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(STUCK_S / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        seen, last = self._see(), self._last
        if not seen.waiting and not self._is_answering():
            return
        now = self._loop.time()
        moved = seen.taken > last.taken or seen.waiting < last.waiting
        if moved or not seen.waiting or seen.is_away:
            self._moved_at = now
        self._last = seen
        if now - self._moved_at < STUCK_S:
            self._look_later()
        else:
            self._reset()

    def _see(self) -> _Seen:
        """By the kernel's count, for it takes much at a time for who reads little; where it does
        not tell, what waits in this process.
        """
        here = self._transport.get_write_buffer_size()
        if sys.platform != "linux":
            return _Seen(here)
        try:
            connection = self._transport.get_extra_info("socket")
            unsent = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
            taken = struct.unpack_from("Q", info, _CONFIRMED_AT)[0]
            silent_ms = struct.unpack_from("I", info, _SILENT_AT)[0]
        except (OSError, struct.error):
            return _Seen(here)
        is_away = info[_RESENT_AT] > 0 and silent_ms > 500 * STUCK_S
        return _Seen(here + struct.unpack("i", unsent)[0], taken, is_away)

    def _reset(self) -> None:
        logs.event(logger, logging.INFO, "a client stopped reading")
        with contextlib.suppress(OSError):
            # Reset, or the kernel would keep what it holds of the answer for minutes.
            kept_s = struct.pack("ii", 1, 0)
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, kept_s)
        self._transport.abort()
