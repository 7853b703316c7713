import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from model.engine import EngineConfig, EngineError, ModelLoadError, UnsupportedModel, loader
from model.engine.build import build_engine
from model.engine.loader import load_config
from model.resources import Memory, mib
from tests.model.engine.tiny_models import VOCABULARY, make_model, save_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"), "llama")


def build(folder: Path | str, **values: Any) -> Any:
    config = EngineConfig(model=str(folder), device="cpu", threads=1, **values)
    return build_engine(config, lambda message: None)


def refusal(folder: Path | str, kind: type[EngineError]) -> str:
    with pytest.raises(kind) as error:
        build(folder)
    assert "\n" not in error.value.message
    return error.value.message


def copy(source: Path, target: Path, *, without: str = "") -> Path:
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name != without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_folder_is_loaded_and_every_resolved_size_has_a_reason(llama: Path) -> None:
    messages: list[str] = []
    config = EngineConfig(model=str(llama), device="cpu", threads=1)
    info = build_engine(config, messages.append).info
    assert (info.architecture, info.device, info.dtype) == ("LlamaForCausalLM", "cpu", "float32")
    assert (info.max_model_len, info.vocab_size, info.eos_token_ids) == (128, 160, ())
    assert info.kv_bytes_per_token == 4 * 2 * (16 + 16) * 4
    assert {"threads", "device", "dtype", "max_model_len", "num_kv_blocks"} <= info.reasons.keys()
    assert len(messages) >= 2


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_that_do_not_fit_while_they_are_loaded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    """Converted in memory; what is stored as it is loaded stays in its file."""
    model = make_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or not sharded
    needed = 4 * sum(parameter.numel() for parameter in model.parameters())
    left = Memory(needed - 1, "left of the cgroup's limit", own=True)
    monkeypatch.setattr(loader, "available_memory", lambda: left)
    said = refusal(tmp_path, ModelLoadError)
    assert said == (
        f"{tmp_path}: its weights take {mib(needed)} while they are loaded, as float32,"
        f" but there are {mib(needed - 1)} left of the cgroup's limit"
    )
    monkeypatch.setattr(loader, "available_memory", lambda: replace(left, left=needed))
    assert build(tmp_path).info.dtype == "float32"
    whole = save_model(tmp_path / "whole", "llama")
    monkeypatch.setattr(loader, "available_memory", lambda: replace(left, left=0))
    assert build(whole).info.dtype == "float32"


def test_end_tokens_come_from_the_generation_config_before_the_config(
    llama: Path, tmp_path: Path
) -> None:
    folder = copy(llama, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 5}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert build(folder).info.eos_token_ids == (5,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert build(folder).info.eos_token_ids == (7, 9)


def test_end_tokens_outside_the_vocabulary_are_left_out_with_a_warning(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or every request with min_tokens would fail, and its batch with it."""
    folder = copy(llama, tmp_path)
    ids = {"eos_token_id": [7, VOCABULARY, -1]}
    (folder / "generation_config.json").write_text(json.dumps(ids))
    assert build(folder).info.eos_token_ids == (7,)
    assert f"[{VOCABULARY}, -1] are outside" in caplog.text


@pytest.mark.parametrize("ids", ["2", [2, "3"], 2.5, True])
def test_an_end_token_that_is_no_token_id_is_refused(llama: Path, tmp_path: Path, ids: Any) -> None:
    folder = copy(llama, tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    assert refusal(folder, ModelLoadError) == (
        f"{folder}: generation_config.json: eos_token_id must be a token id or a list of them,"
        f" not {ids!r}"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"not json", "cannot be read: "),
        (b"\xff", "cannot be read: "),
        (b"[]", "must be a JSON obj"),
    ],
)
def test_a_generation_config_that_is_no_json_is_refused(
    llama: Path, tmp_path: Path, text: bytes, said: str
) -> None:
    folder = copy(llama, tmp_path)
    (folder / "generation_config.json").write_bytes(text)
    assert f"{folder / 'generation_config.json'}: {said}" in refusal(folder, ModelLoadError)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere", ModelLoadError)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert "no config.json" in refusal(tmp_path, ModelLoadError)


def test_a_config_that_is_no_json_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    (folder / "config.json").write_text("{")
    assert "config cannot be read" in refusal(folder, ModelLoadError)


def test_a_model_type_that_nobody_knows_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    assert "no-such-type" in refusal(folder, ModelLoadError)


def test_a_folder_without_weights_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path, without="model.safetensors")
    assert "no .safetensors file" in refusal(folder, ModelLoadError)


def test_pickled_weights_are_never_read(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path, without="model.safetensors")
    torch.save(load_file(llama / "model.safetensors"), folder / "pytorch_model.bin")
    message = refusal(folder, ModelLoadError)
    assert "pytorch_model.bin" in message
    assert "only safetensors" in message


def test_a_corrupt_file_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "weights cannot be read" in refusal(folder, ModelLoadError)


def test_a_missing_weight_is_not_made_up(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder, ModelLoadError)


def test_a_weight_of_another_shape_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refusal(folder, ModelLoadError)


def test_remote_code_is_not_run(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    marker = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    remote = {"model_type": "custom", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(remote))
    refusal(folder, ModelLoadError)
    assert not marker.exists()


def write_config(folder: Path, family: str, **values: Any) -> Path:
    AutoConfig.for_model(family, **values).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    return folder


@pytest.mark.parametrize(
    ("family", "values", "reason"),
    [
        ("t5", {}, "it is an encoder-decoder"),
        ("bart", {}, "it is an encoder-decoder"),
        ("bert", {}, "it is an encoder"),
        ("vit", {}, "no causal language model"),
        ("llava", {}, "it is a multimodal model"),
        ("gemma3", {}, "it is a multimodal model"),
        ("llama4_text", {}, "layers of the type chunked_attention"),
        ("qwen3_next", {}, "layers of the type linear_attention"),
        ("mamba", {}, "layers of the type"),
        ("jamba", {}, "layers of the type"),
        ("bamba", {}, "layers of the type"),
        ("falcon_h1", {}, "layers of the type"),
        ("recurrent_gemma", {}, "layers of the type"),
        ("gemma3n_text", {}, "share keys and values"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "not a causal"),
    ],
)
def test_a_family_that_cannot_be_served_is_refused_before_weights_are_read(
    tmp_path: Path, family: str, values: dict[str, Any], reason: str
) -> None:
    folder = write_config(tmp_path, family, **values)
    with pytest.raises(UnsupportedModel, match=reason) as error:
        load_config(EngineConfig(model=str(folder)))
    assert "cannot be served right" in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize("family", ["bloom", "gptj", "mpt", "stablelm", "nemotron"])
def test_a_family_outside_the_attention_interface_is_refused_at_load(
    tmp_path: Path, family: str
) -> None:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "d_model": 64, "n_layers": 2, "n_heads": 4}
    if family == "gptj":
        sizes["rotary_dim"] = 8
    make_model(family, **sizes, num_hidden_layers=2).save_pretrained(tmp_path)
    assert "cannot be served right" in refusal(tmp_path, UnsupportedModel)


def test_a_hub_that_cannot_be_reached_is_one_line_that_names_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("nobody/no-such-model", ModelLoadError)
    assert message.startswith("nobody/no-such-model: its config cannot be read: ")


def test_a_folder_that_lacks_one_of_its_shards_is_refused(llama: Path, tmp_path: Path) -> None:
    """As a fetch leaves it that was broken off between two files."""
    folder = copy(llama, tmp_path, without="model.safetensors")
    names = sorted(weights := load_file(llama / "model.safetensors"))
    half = {name: weights[name] for name in names[: len(names) // 2]}
    save_file(half, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    where = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weights cannot be read" in refusal(folder, ModelLoadError)
