"""Attention that reads the pages of the cache in place, on a CPU in float32.

A sequence's one new token goes through a kernel of ours; a chunk of a prompt through torch's tiled
attention, on the chunk's own keys where it is the first and on a copy of the pages where not.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.engine import kernels
from model.engine.attention import AttentionOptions, Span, StepBatch, attend, visible_from
from model.engine.kv_cache import KVCache

Array = NDArray[np.float32]
NOTHING = np.empty(0, np.float32)


class PagedAttention:
    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self.keys = [t.numpy() for t in cache.keys]
        self.values = [t.numpy() for t in cache.values]

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
        key, value = key.transpose(0, 1), value.transpose(0, 1)
        self._cache.write(layer, batch.slots, key, value)
        flat = query.transpose(0, 1).contiguous().view(rows, -1)
        output = query.new_empty(rows, heads * value.shape[-1])
        self.attend(layer, flat, heads, key, value, options, batch, output)
        return output.view(rows, heads, -1)

    def attend(
        self,
        layer: int,
        query: Tensor,
        heads: int,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
        output: Tensor,
    ) -> None:
        """query (T, at least heads * dim), output (T, heads * dim), key and value
        (T, kv_heads, dim), which are in the cache already."""
        decodes = batch.decodes
        if len(decodes.rows):
            group, size = heads // key.shape[1], self._cache.block_size
            kernels.attend_decode(group, key.shape[2], value.shape[2], size)(
                query.numpy(),
                output.numpy(),
                decodes.rows,
                decodes.context_lens,
                decodes.firsts,
                decodes.block_ids,
                self.keys[layer],
                self.values[layer],
                np.float32(options.scaling),
                options.window or 0,
                np.float32(options.softcap or 0),
                NOTHING if options.sinks is None else options.sinks.numpy(),
            )
        dim = key.shape[-1]
        for span in batch.chunks:
            keys, values = self._visible(layer, key, value, span, options.window)
            rows = slice(span.start, span.end)
            queries = query[rows, : heads * dim].reshape(-1, heads, dim)
            attended = attend(
                queries.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), options
            )
            output[rows] = attended.transpose(0, 1).flatten(1)

    def _visible(
        self, layer: int, key: Tensor, value: Tensor, span: Span, window: int | None
    ) -> tuple[Tensor, Tensor]:
        if span.context_len == span.end - span.start:
            return key[span.start : span.end], value[span.start : span.end]
        first = visible_from(span, window)
        return self._cache.read(layer, span.block_ids, first, span.context_len)
