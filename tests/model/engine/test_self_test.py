from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.engine import UnsupportedModel
from model.engine.attention import (
    IMPLEMENTATION,
    AttentionOptions,
    PlainAttention,
    StepBatch,
)
from model.engine.backends import Backend, form_of, plain
from model.engine.kv_cache import LayerShape
from model.engine.self_test import probe, self_test
from tests.model.engine.tiny_models import make_model


def paged(family: str, **changes: Any) -> PreTrainedModel:
    model = make_model(family, **changes)
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def test_the_probe_learns_each_layers_shapes() -> None:
    assert probe(paged("llama")) == [LayerShape(2, 16, 16, torch.float32)] * 4
    # Keys and values of different sizes.
    assert probe(paged("deepseek_v3")) == [LayerShape(4, 24, 12, torch.float32)] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_a_model_that_is_served_right_passes(family: str, dtype: torch.dtype) -> None:
    """With experts too, between which rounding sends single tokens to and fro."""
    model = paged(family).to(dtype)
    seen = self_test(model, probe(model), form_of("plain", dtype, 16), 128).seen
    difference = float(seen.split()[2])
    assert difference < 0.05


def test_windows_and_attention_are_as_before_afterwards() -> None:
    model = paged("mistral", sliding_window=100)
    self_test(model, probe(model), form_of("plain", torch.float32, 16), 128)
    assert model.config.sliding_window == 100
    assert model.config._attn_implementation == IMPLEMENTATION


class _Deaf(PlainAttention):
    """Attends rightly but for one option."""

    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        deaf = AttentionOptions(options.scaling, None, None, options.sinks)
        return super().forward(layer, query, key, value, deaf, batch)


class _Shifted(PlainAttention):
    """Writes one slot too far."""

    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        slots = (batch.slots + 1) % len(self._cache.keys[layer])
        shifted = StepBatch(batch.attention, slots, batch.spans)
        return super().forward(layer, query, key, value, options, shifted)


@pytest.mark.parametrize(
    ("family", "attention"),
    [("mistral", _Deaf), ("gemma2", _Deaf), ("llama", _Shifted)],
    ids=["window", "softcap", "slots"],
)
def test_an_attention_that_is_wrong_is_seen(family: str, attention: type[PlainAttention]) -> None:
    """The window is longer than the test's requests, and is seen all the same."""
    model = paged(family, sliding_window=100) if family == "mistral" else paged(family)
    with pytest.raises(UnsupportedModel, match="logits differ"):
        form = form_of("plain", torch.float32, 16)
        deaf = replace(form, make=lambda m: replace(plain(m), attention=attention))
        self_test(model, probe(model), deaf, 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fault_in_steps_of_few_tokens_alone_is_seen(dtype: torch.dtype) -> None:
    """Though rounded numbers excuse single tokens."""
    model = paged("llama").to(dtype)

    def faulty(served: PreTrainedModel) -> Backend:
        right = plain(served)

        def compute(tokens: Tensor, *rest: Any) -> Tensor:
            logits = right.compute(tokens, *rest)
            return -logits if len(tokens) <= 4 else logits

        return replace(right, compute=compute)

    form = replace(form_of("plain", dtype, 16), make=faulty)
    with pytest.raises(UnsupportedModel, match="logits differ"):
        self_test(model, probe(model), form, 128)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("stablelm", "does not pass its keywords on"),
        ("bloom", "0 of its 4 layers"),
        ("rwkv", "layers"),
    ],
)
def test_a_family_outside_the_attention_interface_is_refused_by_name(
    family: str, reason: str
) -> None:
    model = make_model(family, n_layer=4, n_head=4, attention_hidden_size=64)
    model.config._attn_implementation = IMPLEMENTATION
    with pytest.raises(UnsupportedModel, match=reason) as error:
        probe(model)
    assert error.value.message.startswith(type(model).__name__)
    assert "\n" not in error.value.message
