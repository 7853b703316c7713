"""Which blocks of the KV cache belong to which requests, and what those hold that nobody uses now.

A full block is known by a hash of its tokens and of all before them, seeded with the request's
salt, so that a request which begins like an earlier one takes over its blocks instead of
computing them. Such blocks are shared and counted, and nobody writes to a full block again. A
freed block keeps its contents and can be found until it is taken for something else: blank
blocks go first, then those unused for longest.

Owns block ids only: the tensors behind them are the model runner's, and what deserves a block
is the scheduler's to say. Knows no torch. Engine thread only.
"""

from array import array
from collections import OrderedDict
from hashlib import blake2b

from model.engine.request import Request


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self.ref_counts = [0] * num_blocks
        """By block: the requests that hold it."""
        # Last in, first out: a lightly loaded engine keeps touching the same few pages of memory.
        self._blank = list(range(num_blocks - 1, -1, -1))
        # Unused ones that can be found, least recently used first.
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._unused)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def can_allocate(self, request: Request, headroom: int = 0) -> bool:
        """Whether all tokens known so far fit and `headroom` blocks stay free."""
        needed = self._num_needed(request) + headroom
        if needed <= self.num_free:
            return True
        held = sum(self.ref_counts[block] > 0 for block in self._find(request))
        return needed - held <= self.num_free

    def allocate(self, request: Request) -> int:
        """Gives a request that holds none the blocks of all its tokens known so far; returns how
        many tokens are in them already."""
        assert not request.block_ids, "blocks are allocated once, then appended"
        for block in self._find(request):
            self._share(block, request)
        request.num_findable_blocks = len(request.block_ids)
        self._take(request, self._num_missing(request))
        return request.num_findable_blocks * self.block_size

    def can_append(self, request: Request) -> bool:
        return self._num_missing(request) <= self.num_free

    def append(self, request: Request) -> None:
        """Makes sure that the newest token has a slot."""
        self._take(request, self._num_missing(request))

    def free(self, request: Request) -> None:
        # The last block first: the beginning of a text is worth most, so it goes last.
        for block in reversed(request.block_ids):
            self.ref_counts[block] -= 1
            if self.ref_counts[block]:
                continue
            if block in self._hash_of:
                self._unused[block] = None
            else:
                self._blank.append(block)
        request.block_ids.clear()

    def num_cached_tokens(self, request: Request) -> int:
        """What `allocate` would return now."""
        return len(self._find(request)) * self.block_size

    def publish(self, request: Request) -> None:
        """Lets others find its full blocks. To be called when their keys and values are computed
        and have been seen to give usable numbers."""
        first, full = request.num_findable_blocks, request.num_computed_tokens // self.block_size
        if full <= first or not self.prefix_cache:
            return
        hashes = self._hashes(request, full)
        for block, key in zip(request.block_ids[first:full], hashes[first:full], strict=True):
            # Who has computed the same at the same time keeps a copy that only he knows.
            if self._block_of.setdefault(key, block) == block:
                self._hash_of[block] = key
        request.num_findable_blocks = full

    def forget(self, request: Request) -> None:
        """Nobody finds any block of this request again; who shares one already keeps it."""
        for block in request.block_ids:
            self._hide(block)

    def _find(self, request: Request) -> list[int]:
        """The blocks that hold its first tokens. At least one token is left to be computed, for
        its logits are wanted."""
        found: list[int] = []
        if self.prefix_cache:
            limit = (request.num_tokens - 1) // self.block_size
            for key in self._hashes(request, limit)[:limit]:
                if (block := self._block_of.get(key)) is None:
                    break
                found.append(block)
        return found

    def _hashes(self, request: Request, count: int) -> list[bytes]:
        """Those of at least its first `count` blocks, each computed once in a request's life."""
        hashes, size = request.block_hashes, self.block_size
        for start in range(len(hashes) * size, count * size, size):
            parent = hashes[-1] if hashes else _root(request.cache_salt)
            hashes.append(_digest(parent, request.token_ids(start, start + size)))
        return hashes

    def _num_needed(self, request: Request) -> int:
        return -(-request.num_tokens // self.block_size)

    def _num_missing(self, request: Request) -> int:
        return max(self._num_needed(request) - len(request.block_ids), 0)

    def _share(self, block: int, request: Request) -> None:
        self._unused.pop(block, None)
        self.ref_counts[block] += 1
        request.block_ids.append(block)

    def _take(self, request: Request, count: int) -> None:
        assert count <= self.num_free, "ask can_allocate or can_append first"
        for _ in range(count):
            block = self._blank.pop() if self._blank else self._evict()
            self.ref_counts[block] = 1
            request.block_ids.append(block)

    def _evict(self) -> int:
        block, _ = self._unused.popitem(last=False)
        self._hide(block)
        return block

    def _hide(self, block: int) -> None:
        if (key := self._hash_of.pop(block, None)) is not None:
            del self._block_of[key]


def _root(salt: str | None) -> bytes:
    return b"" if salt is None else blake2b(salt.encode(errors="surrogatepass")).digest()


def _digest(parent: bytes, token_ids: list[int]) -> bytes:
    # Of a strength that nobody can make two texts with one digest: they would share answers.
    return blake2b(parent + array("I", token_ids).tobytes(), digest_size=32).digest()
