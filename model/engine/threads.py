"""How many threads compute a step.

Threads meet at the end of every operation, and on a busy machine the one waits there until the
other gets its core. A step that one thread does in a millisecond is not worth that. Engine thread
only.
"""

from collections.abc import Callable

import torch

SMALL_STEP = 100e6
"""Floating-point operations: 1 to 3 ms on one thread."""


class Threads:
    def __init__(self, threads: int, flops_per_token: float, *use: Callable[[int], None]) -> None:
        """`use` tells every library how many threads it may take from now on."""
        self._threads = self._now = threads
        self._flops_per_token = flops_per_token
        self._use = use

    def prepare(self, num_tokens: int) -> None:
        wanted = 1 if num_tokens * self._flops_per_token < SMALL_STEP else self._threads
        if wanted != self._now:
            self._now = wanted
            for use in self._use:
                use(wanted)


def flops_per_token(model: torch.nn.Module) -> float:
    """Two for each parameter; an embedding that is only looked up counts as well."""
    return 2.0 * sum(parameter.numel() for parameter in model.parameters())
