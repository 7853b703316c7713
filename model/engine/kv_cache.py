"""The keys and values of all tokens, in tensors that are allocated once.

    keys[layer]    (num_blocks * block_size, kv_heads, key_dim)
    values[layer]  (num_blocks * block_size, kv_heads, value_dim)

Slot s is row s; block b is rows b * block_size and on. Shapes may differ between layers. Owns
the memory and the way into it; which block is whose is the block manager's. Engine thread only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerShape:
    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


class KVCache:
    def __init__(
        self,
        layers: Sequence[LayerShape],
        num_blocks: int,
        block_size: int,
        device: torch.device,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        slots = num_blocks * block_size

        # Not zeroed: on the CPU a page of memory is taken when it is first written.
        def allocate(shape: LayerShape, dim: int) -> Tensor:
            return torch.empty(slots, shape.kv_heads, dim, dtype=shape.dtype, device=device)

        self.keys = [allocate(shape, shape.key_dim) for shape in layers]
        self.values = [allocate(shape, shape.value_dim) for shape in layers]

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """slots (T,), key and value (T, kv_heads, dim)."""
        self.keys[layer].index_copy_(0, slots, key.to(self.keys[layer].dtype))
        self.values[layer].index_copy_(0, slots, value.to(self.values[layer].dtype))

    def read(self, layer: int, block_ids: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of tokens [start, end) of the request that owns `block_ids`, (tokens, kv_heads,
        dim) each."""
        first = start // self.block_size
        blocks = block_ids[first : -(-end // self.block_size)]
        start, end = start - first * self.block_size, end - first * self.block_size
        return (
            self._gather(self.keys[layer], blocks)[start:end],
            self._gather(self.values[layer], blocks)[start:end],
        )

    def _gather(self, cache: Tensor, blocks: Tensor) -> Tensor:
        return cache.view(self.num_blocks, -1).index_select(0, blocks).view(-1, *cache.shape[1:])
