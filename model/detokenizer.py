"""Token ids to text as they come, for one answer.

Holds back what may still change: bytes that are no whole character yet, and text that may be the
beginning of a stop string. Joined, the pieces are the decoded whole, cut before the first stop
string. Knows no engine; used by one request on the event loop.
"""

from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"
# No character is spread over so many tokens; beyond, the model itself has written broken bytes.
_MAX_HELD_TOKENS = 64


class Decoder(Protocol):
    def decode(self, token_ids: Sequence[int]) -> str: ...


class Detokenizer:
    """Decodes a small window: the tokens of the last piece, which decide about leading space and
    joined bytes, and the new ones.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._token_ids: list[int] = []
        self._window = 0
        """First token of the window."""
        self._read = 0
        """First token whose text has not been returned."""

    def add(self, token_ids: Sequence[int]) -> str:
        self._token_ids.extend(token_ids)
        old, new = self._texts()
        waiting = len(self._token_ids) - self._read
        if new.endswith(_REPLACEMENT) and waiting < _MAX_HELD_TOKENS:
            return ""
        if len(new) <= len(old):  # tokens without text, such as control tokens
            self._read = len(self._token_ids)
            return ""
        self._window, self._read = self._read, len(self._token_ids)
        return new[len(old) :]

    def finish(self) -> str:
        """What is left: bytes that never became a character are shown as such."""
        old, new = self._texts()
        self._read = len(self._token_ids)
        return new[len(old) :]

    def _texts(self) -> tuple[str, str]:
        old = self._decoder.decode(self._token_ids[self._window : self._read])
        new = self._decoder.decode(self._token_ids[self._window :])
        return old, new


class StopMatcher:
    """Passes text on up to the first stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def add(self, text: str) -> str:
        if self.matched:
            return ""
        if not self._stops:
            return text
        self._held += text
        ends = [at + len(stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            # The one that is complete first, so that the answer does not depend on the pieces.
            seen = self._held[: min(ends)]
            start = min(at for stop in self._stops if (at := seen.find(stop)) >= 0)
            self.matched = True
            return self._release(start, drop=True)
        return self._release(len(self._held) - self._longest_beginning())

    def finish(self) -> str:
        """The end has come: what was held back is text after all."""
        return "" if self.matched else self._release(len(self._held))

    def _release(self, length: int, *, drop: bool = False) -> str:
        released = self._held[:length]
        self._held = "" if drop else self._held[length:]
        return released

    def _longest_beginning(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        for length in range(min(len(self._held), max(map(len, self._stops)) - 1), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
