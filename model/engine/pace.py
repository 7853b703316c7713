"""How long a chunk of prompts may hold up those who wait for their next token.

Learns from finished steps what a step of single tokens takes, and what a prompt's token adds to it.
Knows requests only by their number, and no torch. Engine thread only.
"""

SLOWDOWN = 2.2
"""A step with a chunk may take so many times as long as one without, while no more than one request
is in prefill for every `CROWD` in decode."""
CROWD = 32
"""Where more are in prefill than one for so many in decode, a chunk may add as many times more: the
wait for a first token is the long one, and an answer that starts late leaves the batch half empty
at its end."""
LEAST_CHUNK = 16
"""Smaller chunks cost more in all than they spare."""
_WEIGHT = 0.2
"""What the newest step counts against those before it."""


class Pace:
    def __init__(self) -> None:
        self._decode_s: float | None = None
        self._token_s: float | None = None

    def observe(self, decodes: int, prefill_tokens: int, seconds: float) -> None:
        """A step of so many single tokens and so many tokens of chunks has taken `seconds`."""
        if not prefill_tokens:
            self._decode_s = _moved(self._decode_s, seconds)
        elif prefill_tokens >= LEAST_CHUNK and (not decodes or self._decode_s is not None):
            before = self._decode_s if decodes and self._decode_s is not None else 0.0
            added = max(seconds - before, 0.0) / prefill_tokens
            self._token_s = _moved(self._token_s, added)

    def prefill_tokens(self, decodes: int, prefills: int) -> int | None:
        """Tokens of chunks in a step of `decodes` single tokens, while `prefills` requests wait for
        their first; None is as many as fit."""
        if not decodes or not self._decode_s or not self._token_s:
            return None
        share = max(CROWD * prefills / decodes, 1.0)
        return max(int((SLOWDOWN - 1) * share * self._decode_s / self._token_s), LEAST_CHUNK)


def _moved(value: float | None, newest: float) -> float:
    return newest if value is None else value + _WEIGHT * (newest - value)
