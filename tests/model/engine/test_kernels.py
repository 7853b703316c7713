"""The fast kernels compute what torch computes, at shapes that are not even."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the name that torch's own code uses

from model.engine.attention import AttentionOptions, PlainAttention, Span, StepBatch
from model.engine.kv_cache import KVCache, LayerShape
from model.engine.linear import NOTHING
from model.engine.paged_attention import PagedAttention, cut
from model.kernels import elementwise
from model.kernels.vectors import Pages

EPS = np.float32(1e-5)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both_attentions(
    heads: int,
    shape: LayerShape,
    block_size: int,
    pasts: list[int],
    news: list[int],
    options: AttentionOptions,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the reference and the kernel make of the same step over the same scattered pages; the
    reference keeps float32 of what the kernel's pages can hold."""
    lengths = [past + new for past, new in zip(pasts, news, strict=True)]
    counts = [-(-length // block_size) for length in lengths]
    ids = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1))
    spans, slots, row = [], [], 0
    for past, new, length, blocks in zip(pasts, news, lengths, ids.split(counts), strict=True):
        spans.append(Span(row, row + new, length, blocks))
        places = torch.arange(past, length)
        slots.append(blocks[places // block_size] * block_size + places % block_size)
        row += new
    query = normal(heads, row, shape.key_dim, seed=2)
    key = normal(shape.kv_heads, row, shape.key_dim, seed=3)
    value = normal(shape.kv_heads, row, shape.value_dim, seed=4)
    exact = replace(shape, dtype=torch.float32)
    results = []
    for kind, kept in ((PlainAttention, exact), (PagedAttention, shape)):
        cache = KVCache([kept], sum(counts), block_size, torch.device("cpu"))
        attention = kind(cache)
        old_keys = normal(*cache.keys[0].shape, seed=5).to(shape.dtype)
        old_values = normal(*cache.values[0].shape, seed=6).to(shape.dtype)
        new = key, value
        if isinstance(attention, PagedAttention):
            by_page = (sum(counts), block_size, shape.kv_heads, -1)
            attention.keys[0][:] = numbers(old_keys.view(by_page).permute(0, 2, 3, 1))
            attention.values[0][:] = numbers(old_values.view(by_page).transpose(1, 2))
        else:
            cache.keys[0].copy_(old_keys)
            cache.values[0].copy_(old_values)
            new = key.to(shape.dtype).float(), value.to(shape.dtype).float()
        batch = StepBatch(attention, torch.cat(slots), tuple(spans))
        results.append(attention.forward(0, query, *new, options, batch))
    return results[0], results[1]


def numbers(tensor: torch.Tensor) -> Pages:
    """As pages hold them."""
    tensor = tensor.contiguous()
    bits = tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor
    pages: Pages = bits.numpy()
    return pages


@pytest.mark.parametrize(
    ("heads", "kv_heads", "key_dim", "value_dim", "block_size"),
    [
        (1, 1, 8, 8, 1),
        (9, 3, 64, 64, 16),
        (4, 4, 24, 12, 5),
        (8, 1, 16, 16, 32),
        (6, 2, 7, 9, 3),
        (5, 1, 128, 128, 16),
        (7, 1, 80, 80, 128),
        (2, 1, 16, 256, 16),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        AttentionOptions(0.125, None, None, None),
        AttentionOptions(0.3, 7, None, None),
        AttentionOptions(0.125, None, 3.0, None),
        AttentionOptions(0.125, 4, 20.0, None),
    ],
    ids=["plain", "window", "softcap", "both"],
)
def test_attention_is_the_references(
    heads: int, kv_heads: int, key_dim: int, value_dim: int, block_size: int,
    options: AttentionOptions,
) -> None:  # fmt: skip
    """First tokens, block edges, chunks of prompts before, between and after single tokens."""
    shape = LayerShape(kv_heads, key_dim, value_dim, torch.float32)
    pasts, news = [0, 15, 16, 0, 31, 3, 40, 200, 70], [1, 1, 1, 11, 1, 6, 1, 70, 1]
    expected, got = both_attentions(heads, shape, block_size, pasts, news, options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "key_dim", "value_dim", "block_size"),
    [(1, 1, 8, 8, 1), (9, 3, 64, 64, 16), (4, 4, 24, 12, 5), (6, 2, 7, 9, 3), (5, 1, 128, 128, 16)],
)
def test_pages_of_bfloat16_hold_the_nearest_numbers(
    heads: int, kv_heads: int, key_dim: int, value_dim: int, block_size: int
) -> None:
    shape = LayerShape(kv_heads, key_dim, value_dim, torch.bfloat16)
    options = AttentionOptions(0.125, None, None, None)
    pasts, news = [0, 15, 16, 0, 31, 3, 40, 200, 70], [1, 1, 1, 11, 1, 6, 1, 70, 1]
    expected, got = both_attentions(heads, shape, block_size, pasts, news, options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("past", [4095, 4096])
def test_attention_over_long_contexts(past: int, dtype: torch.dtype) -> None:
    shape = LayerShape(3, 64, 64, dtype)
    options = AttentionOptions(0.125, None, None, None)
    expected, got = both_attentions(9, shape, 16, [past, 5], [1, 1], options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_attention_sinks_take_their_share() -> None:
    shape = LayerShape(2, 16, 16, torch.float32)
    options = AttentionOptions(0.25, None, None, normal(6, seed=7))
    expected, got = both_attentions(6, shape, 4, [9, 0, 3], [1, 1, 4], options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    shape = LayerShape(1, 8, 8, torch.float32)
    options = AttentionOptions(500.0, None, None, None)
    expected, got = both_attentions(2, shape, 4, [50], [1], options)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (5, 576)])
def test_the_norm_is_taken_after_the_sum(rows: int, width: int) -> None:
    residual, update, weight = normal(rows, width), normal(rows, width, seed=1), normal(width)
    total = residual + update
    expected = F.rms_norm(total, (width,), weight, float(EPS))
    output = np.empty((rows, width), np.float32)
    stream = residual.clone().numpy()
    elementwise.add_norm(stream, update.numpy(), weight.numpy(), EPS, output)
    torch.testing.assert_close(torch.from_numpy(stream), total)
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-5, atol=1e-6)
    elementwise.add_norm(stream, np.empty((0, width), np.float32), weight.numpy(), EPS, output)
    torch.testing.assert_close(torch.from_numpy(stream), total)


@pytest.mark.parametrize("width", [1, 255, 256, 257, 1536])
def test_the_activation_is_torchs(width: int) -> None:
    gate_up = normal(3, 2 * width) * 20
    gate_up[0, 0], gate_up[1, 0] = 1e4, -1e4
    output = np.empty((3, width), np.float32)
    elementwise.silu_mul(gate_up.numpy(), output)
    gate, up = gate_up.split(width, dim=1)
    torch.testing.assert_close(torch.from_numpy(output), F.silu(gate) * up, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [np.float32, np.uint16])
def test_keys_are_rotated_and_stored_where_they_belong(number: type[np.generic]) -> None:
    heads, kv_heads, dim, rows = 4, 2, 6, 3
    qkv = normal(rows, (heads + 2 * kv_heads) * dim)
    angles = normal(rows, dim // 2, seed=1).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    keys = np.zeros((2, kv_heads, dim, 4), number)
    values = np.zeros((2, kv_heads, 4, dim), number)
    slots = np.array([6, 0, 3])

    def rotated(x: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], dim=-1)
        return x * cos[:, None] + half * sin[:, None]

    parts = qkv.clone().unflatten(1, (-1, dim))  # type: ignore[no-untyped-call]
    changed = qkv.numpy()
    elementwise.rotate_and_store(
        changed, heads, cos.numpy(), sin.numpy(), slots, keys, values, NOTHING, NOTHING, EPS
    )
    expected = rotated(parts[:, : heads + kv_heads])
    got = torch.from_numpy(changed).view(rows, -1, dim)
    torch.testing.assert_close(got[:, : heads + kv_heads], expected)

    def close(kept: torch.Tensor, exact: torch.Tensor) -> None:
        if number is np.float32:
            torch.testing.assert_close(kept, exact)
        else:
            assert torch.equal(kept.view(torch.bfloat16), exact.to(torch.bfloat16))

    by_slot = torch.from_numpy(keys.transpose(0, 3, 1, 2).reshape(8, kv_heads, dim))
    close(by_slot[slots], got[:, heads : heads + kv_heads])
    values_by_slot = torch.from_numpy(values.transpose(0, 2, 1, 3).reshape(8, kv_heads, dim))
    close(values_by_slot[slots], parts[:, heads + kv_heads :])
    assert not by_slot[[1, 2, 4, 5, 7]].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_lies_behind_the_last_token_of_a_page_is_never_read(dtype: torch.dtype) -> None:
    """Memory that nobody has written may hold anything."""
    shape = LayerShape(2, 16, 16, dtype)
    cache = KVCache([shape], 2, 16, torch.device("cpu"))
    attention = PagedAttention(cache)
    for memory in (cache.keys[0], cache.values[0]):
        memory.fill_(torch.nan)
    slots = torch.arange(21)
    batch = StepBatch(attention, slots, (Span(0, 21, 21, torch.tensor([0, 1])),))
    options = AttentionOptions(0.25, None, None, None)
    key, value = normal(2, 21, 16), normal(2, 21, 16, seed=1)
    got = attention.forward(0, normal(4, 21, 16, seed=2), key, value, options, batch)
    assert torch.isfinite(got).all()


def test_a_row_without_usable_numbers_stays_without() -> None:
    query, key = normal(4, 1, 16), normal(2, 1, 16, seed=1)
    # The sign that processors give it: 0 times infinity.
    query[0, 0, 3] = torch.tensor(np.array(0xFFC00000, np.uint32).view(np.float32))
    cache = KVCache([LayerShape(2, 16, 16, torch.float32)], 1, 16, torch.device("cpu"))
    attention = PagedAttention(cache)
    batch = StepBatch(attention, torch.tensor([0]), (Span(0, 1, 1, torch.tensor([0])),))
    options = AttentionOptions(0.25, None, None, None)
    got = attention.forward(0, query, key, key, options, batch)
    assert got[0, 0].isnan().all()
    assert torch.isfinite(got[0, 1:]).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tiles_cover_every_row_once_and_share_the_work(threads: int) -> None:
    news, pasts = [1, 70, 1, 33, 1, 1], [900, 0, 12, 64, 5, 300]
    spans, row = [], 0
    for new, past in zip(news, pasts, strict=True):
        blocks = torch.arange(-(-(past + new) // 16))
        spans.append(Span(row, row + new, past + new, blocks))
        row += new
    tiles = cut(StepBatch(PlainAttention, torch.empty(0), tuple(spans)), 10, threads)  # type: ignore[arg-type]
    covered = [
        r
        for begin, n in zip(tiles.rows, tiles.counts, strict=True)
        for r in range(begin, begin + n)
    ]
    assert sorted(covered) == list(range(row))
    assert tiles.counts.max() <= 10
    work = [part.sum() for part in np.array_split(tiles.counts * tiles.lengths, threads)]
    assert max(work) <= 1.35 * min(work)
