import math

import pytest
import torch
from torch import Tensor

from model.engine import attention
from model.engine.attention import AttentionOptions, PlainAttention, Span, StepBatch
from model.engine.kv_cache import KVCache, LayerShape

HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 2, 8, 6


def reference(
    query: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions, context_len: int
) -> Tensor:
    """One query row, one head, one key at a time."""
    heads, rows, _ = query.shape
    output = torch.zeros(rows, heads, VALUE_DIM)
    for head in range(heads):
        kv_head = head // (heads // KV_HEADS)
        for row in range(rows):
            position = context_len - rows + row
            first = 0 if options.window is None else max(position - options.window + 1, 0)
            scores = []
            for token in range(first, position + 1):
                score = float(query[head, row] @ keys[token, kv_head]) * options.scaling
                if options.softcap is not None:
                    score = math.tanh(score / options.softcap) * options.softcap
                scores.append(score)
            weights = [math.exp(s) for s in scores]
            total = sum(weights)
            if options.sinks is not None:
                total += math.exp(float(options.sinks[head]))
            for token, weight in zip(range(first, position + 1), weights, strict=True):
                output[row, head] += values[token, kv_head] * (weight / total)
    return output


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("most_scores", [1, 100, attention.MOST_SCORES])
def test_two_requests_in_one_step_each_attend_to_their_own_blocks(
    window: int | None,
    softcap: float | None,
    sinks: bool,
    most_scores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Request a has 11 tokens and adds its last 4; request b has 6 and adds its last one."""
    monkeypatch.setattr(attention, "MOST_SCORES", most_scores)
    torch.manual_seed(0)
    cache = KVCache(
        [LayerShape(KV_HEADS, DIM, VALUE_DIM, torch.float32)], 8, 4, torch.device("cpu")
    )
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(math.nan)  # what was never written must never be read
    options = AttentionOptions(0.3, window, softcap, torch.randn(HEADS) if sinks else None)
    lengths, added, blocks = (11, 6), (4, 1), ([5, 2, 7], [0, 3])
    keys = [torch.randn(n, KV_HEADS, DIM) for n in lengths]
    values = [torch.randn(n, KV_HEADS, VALUE_DIM) for n in lengths]
    slots = [
        [b[p // 4] * 4 + p % 4 for p in range(n)] for b, n in zip(blocks, lengths, strict=True)
    ]
    for i in range(2):
        old = lengths[i] - added[i]
        cache.write(0, torch.tensor(slots[i][:old]), keys[i][:old], values[i][:old])
    query = torch.randn(HEADS, 5, DIM)
    batch = StepBatch(
        PlainAttention(cache),
        torch.tensor(slots[0][7:] + slots[1][5:]),
        (
            Span(0, 4, 11, torch.tensor(blocks[0])),
            Span(4, 5, 6, torch.tensor(blocks[1])),
        ),
    )
    new_keys = torch.cat([keys[0][7:], keys[1][5:]]).transpose(0, 1)
    new_values = torch.cat([values[0][7:], values[1][5:]]).transpose(0, 1)
    output = batch.attention.forward(0, query, new_keys, new_values, options, batch)
    torch.testing.assert_close(output[:4], reference(query[:, :4], keys[0], values[0], options, 11))
    torch.testing.assert_close(output[4:], reference(query[:, 4:], keys[1], values[1], options, 6))


def test_layers_may_differ_in_shape() -> None:
    shapes = [LayerShape(1, 4, 4, torch.float32), LayerShape(3, 8, 2, torch.bfloat16)]
    cache = KVCache(shapes, 2, 4, torch.device("cpu"))
    assert [t.shape for t in (*cache.keys, *cache.values)] == [
        (8, 1, 4),
        (8, 3, 8),
        (8, 1, 4),
        (8, 3, 2),
    ]
    assert [s.bytes_per_token for s in shapes] == [32, 60]
