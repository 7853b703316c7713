"""The fast kernels compute what torch computes, at shapes that are not even."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the name that torch's own code uses

from model.engine import kernels
from model.engine.attention import AttentionOptions, PlainAttention, Span, StepBatch
from model.engine.kv_cache import KVCache, LayerShape
from model.engine.paged_attention import NOTHING, PagedAttention

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
    """What the reference and the kernel make of the same step over the same scattered pages."""
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
    results = []
    for kind in (PlainAttention, PagedAttention):
        cache = KVCache([shape], sum(counts), block_size, torch.device("cpu"))
        cache.keys[0].copy_(normal(*cache.keys[0].shape, seed=5))
        cache.values[0].copy_(normal(*cache.values[0].shape, seed=6))
        attention = kind(cache)
        batch = StepBatch(attention, torch.cat(slots), tuple(spans))
        results.append(attention.forward(0, query, key, value, options, batch))
    return results[0], results[1]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "key_dim", "value_dim", "block_size"),
    [(1, 1, 8, 8, 1), (9, 3, 64, 64, 16), (4, 4, 24, 12, 5), (8, 1, 16, 16, 32), (6, 2, 7, 9, 3)],
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
    pasts, news = [0, 15, 16, 0, 31, 3, 40], [1, 1, 1, 11, 1, 6, 1]
    expected, got = both_attentions(heads, shape, block_size, pasts, news, options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("past", [4095, 4096])
def test_attention_over_long_contexts(past: int) -> None:
    shape = LayerShape(3, 64, 64, torch.float32)
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
    kernels.add_norm(stream, update.numpy(), weight.numpy(), EPS, output)
    torch.testing.assert_close(torch.from_numpy(stream), total)
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-5, atol=1e-6)
    kernels.add_norm(stream, np.empty((0, width), np.float32), weight.numpy(), EPS, output)
    torch.testing.assert_close(torch.from_numpy(stream), total)


@pytest.mark.parametrize("width", [1, 255, 256, 257, 1536])
def test_the_activation_is_torchs(width: int) -> None:
    gate_up = normal(3, 2 * width) * 20
    gate_up[0, 0], gate_up[1, 0] = 1e4, -1e4
    output = np.empty((3, width), np.float32)
    kernels.silu_mul(gate_up.numpy(), output)
    gate, up = gate_up.split(width, dim=1)
    torch.testing.assert_close(torch.from_numpy(output), F.silu(gate) * up, rtol=1e-5, atol=1e-5)


def test_keys_are_rotated_and_stored_where_they_belong() -> None:
    heads, kv_heads, dim, rows = 4, 2, 6, 3
    qkv = normal(rows, (heads + 2 * kv_heads) * dim)
    angles = normal(rows, dim // 2, seed=1).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    keys, values = (np.zeros((8, kv_heads, dim), np.float32) for _ in range(2))
    slots = np.array([6, 0, 3])

    def rotated(x: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], dim=-1)
        return x * cos[:, None] + half * sin[:, None]

    parts = qkv.clone().unflatten(1, (-1, dim))  # type: ignore[no-untyped-call]
    changed = qkv.numpy()
    kernels.rotate_and_store(
        changed, heads, cos.numpy(), sin.numpy(), slots, keys, values, NOTHING, NOTHING, EPS
    )
    expected = rotated(parts[:, : heads + kv_heads])
    got = torch.from_numpy(changed).view(rows, -1, dim)
    torch.testing.assert_close(got[:, : heads + kv_heads], expected)
    torch.testing.assert_close(torch.from_numpy(keys[slots]), expected[:, heads:])
    torch.testing.assert_close(torch.from_numpy(values[slots]), parts[:, heads + kv_heads :])
    assert not keys[[1, 2, 4, 5, 7]].any()
