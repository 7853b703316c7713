"""Attention over the pages of the cache, in place: compiled by Numba for the CPU at hand.

Pages hold a key head as columns and a value head as rows:

    keys    (num_blocks, kv_heads, key_dim, block_size)
    values  (num_blocks, kv_heads, block_size, value_dim)

so that both products run along memory, sixteen tokens or dimensions to an instruction, and nothing
is summed across one. They are float32, or bfloat16, which is widened as it is read. A tile is some
consecutive tokens of one sequence; all query heads that share a key head go over its pages
together, which are then read from the fastest cache. One new token of a running request is a tile
of one.

Indices are unsigned and arrays flat. Numba looks for negative indices otherwise, and every slice
counts a reference, in a counter that the threads would fight for.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit, prange

from model.kernels.elementwise import Ints
from model.kernels.vectors import (
    NONE,
    OPTIONS,
    Floats,
    Pages,
    exp,
    largest,
    mix_page,
    number_for,
    score_page,
)

Attend = Callable[..., None]
TILE_ROWS = 32
"""Query vectors that go over a page together: tokens times the heads that share a key head."""
_PASS = 64
"""Tokens about whose largest score a running softmax is rebased."""
_STRIP = 4
"""Query vectors whose sums stay in registers together."""
_LOW = np.float32(-1e30)
_MASKED = np.float32(-2e30)
_INFINITE = np.float32(np.inf)
_U = np.uint64


@njit(parallel=True, **OPTIONS)
def store(key: Floats, value: Floats, slots: Ints, keys: Pages, values: Pages) -> None:
    """key and value (T, kv_heads, dim) go to their slots (T,)."""
    block_size = keys.shape[3]
    for row in prange(key.shape[0]):
        block, place = slots[row] // block_size, slots[row] % block_size
        for head in range(key.shape[1]):
            for d in range(key.shape[2]):
                keys[block, head, d, place] = number_for(keys, key[row, head, d])
            for d in range(value.shape[2]):
                values[block, head, place, d] = number_for(values, value[row, head, d])


@cache
def kernel_for(group: int, key_dim: int, value_dim: int, block_size: int) -> Attend:
    """The kernel for these sizes, which are constants in its code; `group` query heads share a
    key head. Its closure holds numbers alone, or Numba would not find it in its cache again."""
    blocks_in_pass = max(_PASS // block_size, 1)
    span = blocks_in_pass * block_size
    strip = group if 1 < group <= _STRIP else _STRIP

    @njit(parallel=True, **OPTIONS)
    def attend(
        query: Floats, output: Floats, rows: Ints, counts: Ints, lengths: Ints, firsts: Ints,
        blocks: Ints, keys: Pages, values: Pages, scaling: np.float32, window: int,
        softcap: np.float32, sinks: Floats,
    ) -> None:  # fmt: skip
        """Each tile's tokens attend to all keys and values up to their own, in place.

        query (T, at least heads * key_dim), output (T, heads * value_dim). Of each tile (n,): its
        first row in both, its number of rows, the context of its last row, and where its
        sequence's blocks begin in `blocks`. No window is 0, no soft-cap is 0.0, no sinks is an
        empty array.
        """
        kv_heads = keys.shape[1]
        stride = _U(kv_heads)
        key_page, value_page = _U(key_dim * block_size), _U(block_size * value_dim)
        queries, outputs = query.reshape(-1), output.reshape(-1)
        all_keys, all_values = keys.reshape(-1), values.reshape(-1)
        for item in prange(rows.shape[0] * kv_heads):
            tile, kv_head = item // kv_heads, _U(item % kv_heads)
            first = firsts[tile]
            # The first token's own place, and the end of the last one's context.
            place, end = lengths[tile] - counts[tile], lengths[tile]
            vectors = _U(counts[tile] * group)
            scaled = np.empty(vectors * _U(key_dim), np.float32)
            scores = np.empty(vectors * _U(span), np.float32)
            mixed = np.zeros(vectors * _U(value_dim), np.float32)
            top = np.full(vectors, _LOW, np.float32)
            total = np.zeros(vectors, np.float32)
            for i in range(vectors):
                row, head = _U(rows[tile]) + i // _U(group), kv_head * _U(group) + i % _U(group)
                q = row * _U(query.shape[1]) + head * _U(key_dim)
                for d in range(_U(key_dim)):
                    scaled[i * _U(key_dim) + d] = queries[q + d] * scaling
                if sinks.shape[0]:
                    top[i], total[i] = sinks[head], np.float32(1)
            begin = max(place + 1 - window, 0) if window else 0
            last = (end + block_size - 1) // block_size
            for block in range(begin // block_size, last, blocks_in_pass):
                here = min(blocks_in_pass, last - block)
                start = block * block_size
                # The pages that are needed next are fetched meanwhile.
                for b in range(here):
                    page = _U(blocks[first + block + b]) * stride + kv_head
                    s, key, value = _U(b * block_size), page * key_page, page * value_page
                    for i in range(_U(0), vectors, _U(strip)):
                        ahead = _U(NONE) if i else value
                        if i + _U(strip) <= vectors:
                            score_page(
                                scaled, i * _U(key_dim), all_keys, key, scores, i * _U(span) + s,
                                all_values, ahead, strip, key_dim, block_size, span, value_dim,
                            )  # fmt: skip
                        else:
                            for j in range(i, vectors):
                                score_page(
                                    scaled, j * _U(key_dim), all_keys, key, scores,
                                    j * _U(span) + s, all_values, ahead, 1, key_dim, block_size,
                                    span, value_dim,
                                )  # fmt: skip
                known = here * block_size
                for i in range(vectors):
                    at, own = i * _U(span), place + np.int64(i // _U(group)) - start
                    if softcap:
                        for t in range(known):
                            capped = np.tanh(scores[at + _U(t)] / softcap)
                            scores[at + _U(t)] = np.float32(capped) * softcap
                    if window:
                        for t in range(min(max(own + 1 - window, 0), known)):
                            scores[at + _U(t)] = _MASKED
                    for t in range(max(own + 1, 0), known):
                        scores[at + _U(t)] = _MASKED
                    highest = largest(scores, at, known, top[i])
                    shrink = exp(top[i] - highest)
                    top[i] = highest
                    added = np.float32(0)
                    for t in range(known):
                        share = exp(scores[at + _U(t)] - highest)
                        scores[at + _U(t)] = share
                        added += share
                    total[i] = total[i] * shrink + added
                    if not highest < _INFINITE:
                        total[i] = np.float32(np.nan)  # exp promises nothing for NaN
                    for d in range(_U(value_dim)):
                        mixed[i * _U(value_dim) + d] *= shrink
                for b in range(here):
                    page = _U(blocks[first + block + b]) * stride + kv_head
                    s, value = _U(b * block_size), page * value_page
                    # What lies behind the last token may be anything, even NaN.
                    count = _U(min(block_size, end - start - b * block_size))
                    coming = _U(blocks[first + min(block + blocks_in_pass + b, last - 1)])
                    for i in range(_U(0), vectors, _U(strip)):
                        ahead = _U(NONE) if i else (coming * stride + kv_head) * key_page
                        if i + _U(strip) <= vectors:
                            mix_page(
                                scores, i * _U(span) + s, all_values, value, mixed,
                                i * _U(value_dim), all_keys, ahead, count, strip, block_size,
                                value_dim, span, key_dim,
                            )  # fmt: skip
                        else:
                            for j in range(i, vectors):
                                mix_page(
                                    scores, j * _U(span) + s, all_values, value, mixed,
                                    j * _U(value_dim), all_keys, ahead, count, 1, block_size,
                                    value_dim, span, key_dim,
                                )  # fmt: skip
            for i in range(vectors):
                row, head = _U(rows[tile]) + i // _U(group), kv_head * _U(group) + i % _U(group)
                o = row * _U(output.shape[1]) + head * _U(value_dim)
                for d in range(_U(value_dim)):
                    outputs[o + d] = mixed[i * _U(value_dim) + d] / total[i]

    return attend  # type: ignore[no-any-return]


def compile_now(
    group: int, key_dim: int, value_dim: int, block_size: int, number: type[np.generic]
) -> None:
    """`number` is what pages hold."""
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    none, scaling = np.zeros(0, np.float32), np.float32(1)
    keys = np.zeros((1, 1, key_dim, block_size), number)
    values = np.zeros((1, 1, block_size, value_dim), number)
    query = np.zeros((1, group * key_dim), np.float32)
    output = np.zeros((1, group * value_dim), np.float32)
    kernel_for(group, key_dim, value_dim, block_size)(
        query, output, zero, one, one, zero, zero, keys, values, scaling, 0, np.float32(0), none
    )
