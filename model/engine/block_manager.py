"""Which blocks of the KV cache belong to which request.

Owns block ids only: the tensors behind them are the model runner's, and what deserves a block
is the scheduler's to say. Knows no torch. Engine thread only.
"""

from model.engine.request import Request


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Last in, first out: a lightly loaded engine keeps touching the same few pages of memory.
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def can_allocate(self, request: Request, headroom: int = 0) -> bool:
        """Whether all tokens known so far fit and `headroom` blocks stay free."""
        return self._num_needed(request) + headroom <= len(self._free)

    def allocate(self, request: Request) -> None:
        """Gives a request that holds none the blocks of all its tokens known so far."""
        assert not request.block_ids, "blocks are allocated once, then appended"
        self._take(request, self._num_needed(request))

    def can_append(self, request: Request) -> bool:
        return self._num_missing(request) <= len(self._free)

    def append(self, request: Request) -> None:
        """Makes sure that the newest token has a slot."""
        self._take(request, self._num_missing(request))

    def free(self, request: Request) -> None:
        self._free.extend(reversed(request.block_ids))
        request.block_ids.clear()

    def _num_needed(self, request: Request) -> int:
        return -(-request.num_tokens // self.block_size)

    def _num_missing(self, request: Request) -> int:
        return max(self._num_needed(request) - len(request.block_ids), 0)

    def _take(self, request: Request, count: int) -> None:
        assert count <= len(self._free), "ask can_allocate or can_append first"
        request.block_ids.extend(self._free.pop() for _ in range(count))
