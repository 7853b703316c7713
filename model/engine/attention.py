"""Attention over the paged cache, registered with transformers under our own name.

A transformers model calls `paged_attention_forward` in each layer and hands it, untouched, the
`StepBatch` that the model runner passed as a keyword of the model's forward. What is computed is
behind `Attention`: `PlainAttention` is the reference; `backends.py` knows the faster forms.

Knows nothing of requests, only of spans of tokens. Engine thread only.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name that torch's own code uses
from transformers import AttentionInterface

from model.engine.kv_cache import KVCache

IMPLEMENTATION = "qna_paged"
BATCH_KEYWORD = "step_batch"
MOST_SCORES = 2**24
"""At a time, where they are made one by one: a long prompt over a long context has billions."""


@dataclass(frozen=True, slots=True)
class Span:
    """One request's part of a step: rows [start, end) of the batch, its last `end - start` tokens
    of `context_len`."""

    start: int
    end: int
    context_len: int
    block_ids: Tensor


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    scaling: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None
    """(heads,): logits that take part in the softmax and have no value."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    attention: "Attention"
    slots: Tensor
    """(T,): where each token's key and value go."""
    spans: tuple[Span, ...]


class Attention(Protocol):
    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        """query (heads, T, key_dim), key and value (kv_heads, T, dim) → (T, heads, value_dim)."""


class UnservedAttention(Exception):
    """A model asks its attention for something that the paged form does not have."""


def paged_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    batch = kwargs.get(BATCH_KEYWORD)
    if batch is None:
        raise UnservedAttention("it does not pass its keywords on to its attention")
    if attention_mask is not None:
        raise UnservedAttention("it needs an attention mask of its own")
    if position_bias is not None:
        raise UnservedAttention("it adds a position bias to its attention scores")
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise UnservedAttention("its attention layers have no number")
    options = AttentionOptions(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    output = batch.attention.forward(layer, query[0], key[0], value[0], options, batch)
    return output.unsqueeze(0), None


AttentionInterface.register(IMPLEMENTATION, paged_attention_forward)


class PlainAttention:
    """Copies each request's keys and values out of their blocks and attends to the copy."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        self._cache.write(layer, batch.slots, key.transpose(0, 1), value.transpose(0, 1))
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        for span in batch.spans:
            first = visible_from(span, options.window)
            keys, values = self._cache.read(layer, span.block_ids, first, span.context_len)
            attended = attend(
                query[:, span.start : span.end],
                keys.transpose(0, 1).to(query.dtype),
                values.transpose(0, 1).to(query.dtype),
                options,
            )
            output[span.start : span.end] = attended.transpose(0, 1)
        return output


def visible_from(span: Span, window: int | None) -> int:
    """The first token that any of the span's tokens can see."""
    if window is None:
        return 0
    return max(span.context_len - (span.end - span.start) - window + 1, 0)


def attend(query: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions) -> Tensor:
    """query (heads, q, dim): the last q of the n tokens in keys and values (kv_heads, n, dim)."""
    if options.softcap is not None or options.sinks is not None:
        return _attend_in_parts(query, keys, values, options)
    heads, q, _ = query.shape
    if q == 1:
        # The heads that share keys stand in for rows, so that nothing is repeated or masked.
        rows = query.view(1, keys.shape[0], heads // keys.shape[0], -1)
        output = F.scaled_dot_product_attention(
            rows, keys.unsqueeze(0), values.unsqueeze(0), scale=options.scaling
        )
        return output.view(heads, 1, -1)
    return F.scaled_dot_product_attention(
        query.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=visible(q, keys.shape[1], options.window, query.device),
        scale=options.scaling,
        enable_gqa=keys.shape[0] != heads,
    )[0]


def visible(q: int, n: int, window: int | None, device: torch.device) -> Tensor:
    """(q, n): which of n tokens each of the last q sees."""
    rows = torch.arange(n - q, n, device=device)[:, None]
    columns = torch.arange(n, device=device)[None, :]
    mask = columns <= rows
    return mask if window is None else mask & (columns > rows - window)


def _attend_in_parts(
    query: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
) -> Tensor:
    heads, q, _ = query.shape
    hidden = keys.shape[1] - q
    rows = max(MOST_SCORES // (heads * keys.shape[1]), 1)
    parts = []
    for begin in range(0, q, rows):
        end = min(begin + rows, q)
        seen = hidden + end
        parts.append(
            _attend_explicitly(query[:, begin:end], keys[:, :seen], values[:, :seen], options)
        )
    return torch.cat(parts, dim=1)


def _attend_explicitly(
    query: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions
) -> Tensor:
    groups = query.shape[0] // keys.shape[0]
    keys, values = (t.repeat_interleave(groups, dim=0) for t in (keys, values))
    scores = torch.matmul(query, keys.transpose(1, 2)) * options.scaling
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    mask = visible(query.shape[1], keys.shape[1], options.window, query.device)
    scores = scores.float().masked_fill(~mask, float("-inf"))
    if options.sinks is not None:
        sinks = options.sinks.float().view(-1, 1, 1).expand(-1, query.shape[1], 1)
        probabilities = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    else:
        probabilities = torch.softmax(scores, dim=-1)
    return torch.matmul(probabilities.to(values.dtype), values)
