"""Llama's decoder without transformers' modules: merged linears, fused kernels, no dispatch.

Takes the weights of a loaded model whose layers are built like Llama's and computes the same
logits. What is made of other layers keeps transformers' own forward pass. The self-test at load
compares the two. CPU, float32.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.engine import kernels
from model.engine.attention import AttentionOptions, StepBatch
from model.engine.linear import Int8Linear, PackedLinear
from model.engine.paged_attention import NOTHING, Array, PagedAttention

Linear = PackedLinear | Int8Linear
FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Array
    qkv: Linear
    query_norm: Array
    key_norm: Array
    output: Linear
    mlp_norm: Array
    gate_up: Linear
    down: Linear
    attention: Any
    """For its scaling and window, which the self-test changes for a while."""


def is_llama_like(model: PreTrainedModel) -> bool:
    config = model.config
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and getattr(config, "pretraining_tp", 1) == 1
    )


class Decoder:
    """Takes the model apart: only its embedding and its rotary angles are used from then on."""

    def __init__(self, model: PreTrainedModel, linear: type[Linear]) -> None:
        body = model.get_decoder()
        self._embedding = model.get_input_embeddings()
        self._rotary = body.rotary_emb
        self._eps = np.float32(model.config.rms_norm_eps)
        self._heads = model.config.num_attention_heads
        tied = model.get_output_embeddings().weight is self._embedding.weight
        self._layers = [_take(layer, linear) for layer in body.layers]
        self._norm = _numbers(body.norm)
        self._head = linear([model.get_output_embeddings()], keep=tied)

    def __call__(
        self, token_ids: Tensor, positions: Tensor, keep: list[int], batch: StepBatch
    ) -> Tensor:
        """token_ids and positions (T,) → logits (len(keep), vocabulary) of the rows in `keep`."""
        attention = batch.attention
        assert isinstance(attention, PagedAttention)
        residual = self._embedding(token_ids)
        cos, sin = (t[0].numpy() for t in self._rotary(residual, positions.unsqueeze(0)))
        normed, activated = torch.empty_like(residual), None
        into, stream = normed.numpy(), residual.numpy()
        slots = batch.slots.numpy()
        update = np.empty((0, residual.shape[1]), np.float32)
        for number, layer in enumerate(self._layers):
            kernels.add_norm(stream, update, layer.attention_norm, self._eps, into)
            qkv = layer.qkv(normed)
            keys, values = attention.keys[number], attention.values[number]
            kernels.rotate_and_store(
                qkv.numpy(), self._heads, cos, sin, slots, keys, values,
                layer.query_norm, layer.key_norm, self._eps,
            )  # fmt: skip
            attended = torch.empty(len(qkv), self._heads * keys.shape[2])
            attention.attend(number, qkv, self._heads, _options(layer.attention), batch, attended)
            update = layer.output(attended).numpy()
            kernels.add_norm(stream, update, layer.mlp_norm, self._eps, into)
            gate_up = layer.gate_up(normed)
            if activated is None:
                activated = torch.empty(gate_up.shape[0], gate_up.shape[1] // 2)
            kernels.silu_mul(gate_up.numpy(), activated.numpy())
            update = layer.down(activated).numpy()
        last = torch.from_numpy(stream[keep])
        kernels.add_norm(last.numpy(), update[keep], self._norm, self._eps, last.numpy())
        logits: Tensor = self._head(last)
        return logits


def _take(layer: Any, linear: type[Linear]) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        attention_norm=_numbers(layer.input_layernorm),
        qkv=linear([attention.q_proj, attention.k_proj, attention.v_proj]),
        query_norm=_numbers(getattr(attention, "q_norm", None)),
        key_norm=_numbers(getattr(attention, "k_norm", None)),
        output=linear([attention.o_proj]),
        mlp_norm=_numbers(layer.post_attention_layernorm),
        gate_up=linear([mlp.gate_proj, mlp.up_proj]),
        down=linear([mlp.down_proj]),
        attention=attention,
    )


def _options(attention: Any) -> AttentionOptions:
    # Qwen's layers have a window each, Mistral's read the config's.
    holder = attention if hasattr(attention, "sliding_window") else attention.config
    window = getattr(holder, "sliding_window", None)
    return AttentionOptions(float(attention.scaling), window, softcap=None, sinks=None)


def _numbers(norm: Any) -> Array:
    if norm is None:
        return NOTHING
    weights: Array = norm.weight.detach().numpy()
    return weights
