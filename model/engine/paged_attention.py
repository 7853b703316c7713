"""Attention that reads the pages of the cache in place, on a CPU; what lies in them is float32 or
bfloat16, all else float32.

Owns what the memory of a `KVCache` means to the kernel, and how a step is cut into tiles that keep
all threads busy. Engine thread only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.engine.attention import AttentionOptions, StepBatch
from model.engine.kv_cache import KVCache
from model.engine.linear import NOTHING
from model.kernels import attention, pool
from model.kernels.vectors import Floats, Pages


@dataclass(frozen=True, slots=True)
class Tiles:
    """Parts of a step that one thread goes through at once; all int64, (n,) but for the last."""

    rows: NDArray[np.int64]
    """The first row of the batch in each."""
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """The context of the last row."""
    firsts: NDArray[np.int64]
    """Where its sequence's blocks begin in `block_ids`."""
    block_ids: NDArray[np.int64]


class PagedAttention:
    def __init__(self, cache: KVCache) -> None:
        size = cache.block_size
        self._block_size = size
        # The same memory as the plain form's, in the order in which the kernel reads it.
        self.keys = [_pages(t, t.shape[1], t.shape[2], size) for t in cache.keys]
        self.values = [_pages(t, t.shape[1], size, t.shape[2]) for t in cache.values]
        self._tiles: tuple[StepBatch, int, Tiles] | None = None

    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        heads, rows, _ = query.shape
        attention.store(
            key.transpose(0, 1).contiguous().numpy(),
            value.transpose(0, 1).contiguous().numpy(),
            batch.slots.numpy(),
            self.keys[layer],
            self.values[layer],
        )
        flat = query.transpose(0, 1).contiguous().view(rows, -1)
        output = query.new_empty(rows, heads * value.shape[-1])
        self.attend(layer, flat.numpy(), heads, options, batch, output.numpy())
        return output.view(rows, heads, -1)

    def attend(
        self,
        layer: int,
        query: Floats,
        heads: int,
        options: AttentionOptions,
        batch: StepBatch,
        output: Floats,
    ) -> None:
        """query (T, at least heads * key_dim), output (T, heads * value_dim); the step's keys and
        values are in the cache already."""
        keys, values = self.keys[layer], self.values[layer]
        group = heads // keys.shape[1]
        tiles = self._tiles_of(batch, max(attention.TILE_ROWS // group, 1))
        attend = attention.kernel_for(group, keys.shape[2], values.shape[3], self._block_size)
        attend(
            query,
            output,
            tiles.rows,
            tiles.counts,
            tiles.lengths,
            tiles.firsts,
            tiles.block_ids,
            keys,
            values,
            np.float32(options.scaling),
            options.window or 0,
            np.float32(options.softcap or 0),
            NOTHING if options.sinks is None else options.sinks.numpy(),
        )

    def _tiles_of(self, batch: StepBatch, rows: int) -> Tiles:
        kept = self._tiles
        if kept is None or kept[0] is not batch or kept[1] != rows:
            kept = self._tiles = batch, rows, cut(batch, rows, pool.threads())
        return kept[2]


def _pages(tensor: Tensor, *shape: int) -> Pages:
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.uint16)  # numpy has no name for it
    pages: Pages = tensor.view(-1, *shape).numpy()
    return pages


def cut(batch: StepBatch, rows: int, threads: int) -> Tiles:
    """Tiles of at most `rows` rows, in an order that gives each thread about the same work."""
    found = []
    first = 0
    for span in batch.spans:
        before = span.context_len - span.end
        for row in range(span.start, span.end, rows):
            end = min(row + rows, span.end)
            found.append((row, end - row, before + end, first))
        first += len(span.block_ids)
    table = np.array(found, np.int64).reshape(-1, 4)
    # Each thread takes as many tiles in a row: deal them out, largest first, to and fro.
    largest_first = np.argsort(-table[:, 1] * table[:, 2], kind="stable")
    turn, seat = np.divmod(np.arange(len(table)), threads)
    seat = np.where((turn % 2 == 1) & (turn < len(table) // threads), threads - 1 - seat, seat)
    table = table[largest_first[np.argsort(seat, kind="stable")]]
    rows_, counts, lengths, firsts = np.ascontiguousarray(table.T)
    blocks = [span.block_ids.numpy() for span in batch.spans] or [np.empty(0, np.int64)]
    return Tiles(rows_, counts, lengths, firsts, np.concatenate(blocks))
