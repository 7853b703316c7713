"""Which form of computation serves, and that a model is not harmed by the choice."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from model.engine import EngineConfig, ModelLoadError, UnsupportedModel, backends
from model.engine.build import build_engine
from model.engine.linear import PackedLinear, pack_linears
from model.engine.threads import Threads, flops_per_token
from tests.model.engine.tiny_models import make_model, save_model


def config(folder: Path, **changed: object) -> EngineConfig:
    values = {"model": str(folder), "device": "cpu", "threads": 1} | changed
    return EngineConfig(**values)  # type: ignore[arg-type]


def test_a_llama_is_served_by_the_fused_layers(tmp_path: Path) -> None:
    info = build_engine(config(save_model(tmp_path, "llama")), lambda _: None).info
    assert info.kernels == "fast"
    assert "fused layers" in info.reasons["kernels"]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_each_family_of_llamas_layers_gets_them(tmp_path: Path, family: str, quantize: str) -> None:
    """With a window, where the family has one."""
    folder = save_model(tmp_path, family)
    info = build_engine(config(folder, quantize=quantize), lambda _: None).info
    assert "fused layers" in info.reasons["kernels"]


def test_other_families_keep_transformers_layers(tmp_path: Path) -> None:
    info = build_engine(config(save_model(tmp_path, "gemma2")), lambda _: None).info
    assert info.kernels == "fast"
    assert "transformers' layers, packed linears" in info.reasons["kernels"]


@pytest.mark.parametrize("changed", [{"kernels": "plain"}, {"dtype": "bfloat16"}])
def test_the_reference_serves_what_the_kernels_are_not_for(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    info = build_engine(config(save_model(tmp_path, "llama"), **changed), lambda _: None).info
    assert info.kernels == "plain"


def test_kernels_that_cannot_be_had_are_refused_by_name(tmp_path: Path) -> None:
    asked = config(save_model(tmp_path, "llama"), kernels="fast", dtype="bfloat16")
    with pytest.raises(ModelLoadError, match=r"kernels: fast cannot be.*not in bfloat16"):
        build_engine(asked, lambda _: None)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox", "phi3"])
def test_int8_serves_every_kind_of_layer_and_reports_its_agreement(
    tmp_path: Path, family: str
) -> None:
    info = build_engine(config(save_model(tmp_path, family), quantize="int8"), lambda _: None).info
    assert info.kernels == "int8"
    found = re.search(r"the same next token after (\d+) of 96", info.reasons["kernels"])
    assert found is not None
    assert int(found[1]) > 60


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"dtype": "bfloat16"}, "not in bfloat16"), ({"device": "meta"}, "device")],
)
def test_int8_is_refused_by_name_where_it_cannot_be(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises((ModelLoadError, ValueError), match=message):
        build_engine(
            config(save_model(tmp_path, "llama"), quantize="int8", **changed), lambda _: None
        )


def test_int8_takes_the_fast_kernels() -> None:
    with pytest.raises(ValueError, match="quantize: int8 needs the fast kernels"):
        EngineConfig(model="m", kernels="plain", quantize="int8")


def _wrong(model: PreTrainedModel) -> backends.Backend:
    backend = backends.fast(model)
    return replace(backend, compute=lambda *args: -backend.compute(*args))


def test_kernels_that_are_wrong_for_a_model_give_way_to_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backends.FORMS, "fast", _wrong)
    folder = save_model(tmp_path, "llama")
    said: list[str] = []
    info = build_engine(config(folder), said.append).info
    assert info.kernels == "plain"
    assert "logits differ" in info.reasons["kernels"]
    assert "the fast kernels do not fit this model" in said
    with pytest.raises(UnsupportedModel, match="logits differ"):
        build_engine(config(folder, kernels="fast"), lambda _: None)


def test_packing_leaves_a_shared_embedding_alone() -> None:
    model = make_model("llama", tie_word_embeddings=True).eval()
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        pack_linears(model)
        got = model(input_ids=ids).logits
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    assert model.get_input_embeddings().weight.shape[0] > 0
    torch.testing.assert_close(got, expected)


def test_a_small_step_takes_one_thread() -> None:
    told: list[int] = []
    threads = Threads(4, 1e6, told.append)
    for num_tokens in (512, 1, 3, 99, 100, 101, 1):
        threads.prepare(num_tokens)
    assert told == [1, 4, 1]
    assert flops_per_token(torch.nn.Linear(10, 3)) == 66
