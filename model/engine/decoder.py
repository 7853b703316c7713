"""Llama's decoder without transformers' modules: merged linears, fused kernels, no dispatch.

Takes the weights of a loaded model whose layers are built like Llama's and computes the same
logits. What is made of other layers keeps transformers' own forward pass. The self-test at load
compares the two. For a CPU; what the linears multiply is `linear.py`'s matter.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.engine.attention import AttentionOptions, StepBatch
from model.engine.linear import NOTHING, Numbers, PackedLinear, kind_of
from model.engine.paged_attention import PagedAttention
from model.kernels import ahead, attention, elementwise, pool
from model.kernels.elementwise import Ints
from model.kernels.layer import halves_of
from model.kernels.vectors import Floats, Pages

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Floats
    qkv: PackedLinear
    query_norm: Floats
    key_norm: Floats
    output: PackedLinear
    mlp_norm: Floats
    gate_up: PackedLinear
    down: PackedLinear
    attention: Any
    """For its scaling and window, which the self-test changes for a while."""
    own_window: bool
    """Qwen's layers have one each, Mistral's read the config's."""


def is_llama_like(model: PreTrainedModel) -> bool:
    config = model.config
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and getattr(config, "pretraining_tp", 1) == 1
    )


class Decoder:
    """Takes the model apart: only its embedding and its rotary angles are used from then on."""

    def __init__(self, model: PreTrainedModel, numbers: Numbers) -> None:
        body = model.get_decoder()
        self._embedding = model.get_input_embeddings()
        self._rotary = body.rotary_emb
        self._eps = np.float32(model.config.rms_norm_eps)
        self._config = model.config
        self._heads = model.config.num_attention_heads
        tied = model.get_output_embeddings().weight is self._embedding.weight
        linears = (m for m in body.layers.modules() if isinstance(m, torch.nn.Linear))
        kind = kind_of(linears, numbers)
        self._into_attention, self._out_of_attention = halves_of(kind)
        self._layers = [_take(layer, numbers, kind) for layer in body.layers]
        self._norm = _numbers(body.norm)
        self._page_number = np.float32 if numbers is Numbers.FLOAT32 else np.uint16
        self._head = PackedLinear([model.get_output_embeddings()], numbers, keep=tied)

    def compile_now(self, block_size: int) -> None:
        """What depends on the model, while another process compiles what does not; and then what
        is made of both."""
        layer, kv_heads = self._layers[0], self._config.num_key_value_heads
        stream = np.zeros((1, len(layer.attention_norm)), np.float32)
        dim = layer.qkv.out_features // (self._heads + 2 * kv_heads)
        layer.qkv.of(stream)
        attention.compile_now(self._heads // kv_heads, dim, dim, block_size, self._page_number)
        ahead.wait()
        keys = np.zeros((1, kv_heads, dim, block_size), self._page_number)
        values = np.zeros((1, kv_heads, block_size, dim), self._page_number)
        angles, slots = np.zeros((1, dim), np.float32), np.zeros(1, np.int64)
        qkv, update = layer.qkv.room(1), layer.down.room(1)
        self._before(layer, stream, update[:0], angles, angles, slots, keys, values, qkv)
        self._after(layer, stream, np.zeros((1, self._heads * dim), np.float32), update)

    def __call__(
        self, token_ids: Tensor, positions: Tensor, keep: list[int], batch: StepBatch
    ) -> Tensor:
        """token_ids and positions (T,) → logits (len(keep), vocabulary) of the rows in `keep`."""
        paged = batch.attention
        assert isinstance(paged, PagedAttention)
        residual = self._embedding(token_ids)
        cos, sin = (t[0].numpy() for t in self._rotary(residual, positions.unsqueeze(0)))
        stream, slots = residual.numpy(), batch.slots.numpy()
        first = self._layers[0]
        qkv, room = first.qkv.room(len(stream)), first.down.room(len(stream))
        attended = np.empty((len(stream), first.output.in_features), np.float32)
        update = room[:0]
        # Once a step: transformers' configs are slow to read.
        common_window = getattr(self._config, "sliding_window", None)
        for number, layer in enumerate(self._layers):
            keys, values = paged.keys[number], paged.values[number]
            self._before(layer, stream, update, cos, sin, slots, keys, values, qkv)
            window = layer.attention.sliding_window if layer.own_window else common_window
            options = AttentionOptions(layer.attention.scaling, window, softcap=None, sinks=None)
            paged.attend(number, qkv, self._heads, options, batch, attended)
            if layer is self._layers[-1]:
                # Of the other rows nothing is needed any more: their keys and values are stored.
                attended, stream, room = attended[keep], stream[keep], room[: len(keep)]
            self._after(layer, stream, attended, room)
            update = room
        normed = np.empty_like(stream)
        elementwise.add_norm(stream, update, self._norm, self._eps, normed)
        return torch.from_numpy(self._head.of(normed))

    def _before(
        self, layer: _Layer, stream: Floats, update: Floats, cos: Floats, sin: Floats, slots: Ints,
        keys: Pages, values: Pages, qkv: Floats,
    ) -> None:  # fmt: skip
        self._into_attention(
            stream, update, layer.attention_norm, layer.qkv.weights, layer.query_norm,
            layer.key_norm, self._eps, layer.qkv.levels, self._heads, cos, sin, slots, keys, values,
            pool.threads(), qkv,
        )  # fmt: skip

    def _after(self, layer: _Layer, stream: Floats, attended: Floats, update: Floats) -> None:
        self._out_of_attention(
            stream, attended, layer.output.weights, layer.mlp_norm, layer.gate_up.weights,
            layer.down.weights, layer.down.in_features, self._eps, layer.down.levels,
            pool.threads(), update,
        )  # fmt: skip


def _take(layer: Any, numbers: Numbers, kind: int) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp

    def pack(*linears: torch.nn.Linear) -> PackedLinear:
        return PackedLinear(linears, numbers, kind=kind)

    return _Layer(
        attention_norm=_numbers(layer.input_layernorm),
        qkv=pack(attention.q_proj, attention.k_proj, attention.v_proj),
        query_norm=_numbers(getattr(attention, "q_norm", None)),
        key_norm=_numbers(getattr(attention, "k_norm", None)),
        output=pack(attention.o_proj),
        mlp_norm=_numbers(layer.post_attention_layernorm),
        gate_up=pack(mlp.gate_proj, mlp.up_proj),
        down=pack(mlp.down_proj),
        attention=attention,
        own_window=hasattr(attention, "sliding_window"),
    )


def _numbers(norm: Any) -> Floats:
    if norm is None:
        return NOTHING
    weights: Floats = norm.weight.detach().numpy()
    return weights
