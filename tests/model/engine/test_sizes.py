from typing import Any

import pytest
import torch
from transformers import AutoConfig, PretrainedConfig

from model.engine import EngineConfig, ModelLoadError, linear, sizes
from model.engine.kv_cache import LayerShape
from model.engine.sizes import (
    Reasons,
    resolve_device,
    resolve_dtype,
    resolve_kv_blocks,
    resolve_model_len,
    resolve_queued_tokens,
    resolve_threads,
    step_memory,
)
from model.kernels import products
from model.resources import Memory

CPU = torch.device("cpu")
SHAPES = [LayerShape(2, 8, 8, torch.float32)] * 4  # 512 bytes per token


def config_of(**values: Any) -> EngineConfig:
    return EngineConfig(**{"model": "m", "block_size": 16, **values})


def llama(**values: Any) -> PretrainedConfig:
    return AutoConfig.for_model("llama", **{"max_position_embeddings": 1000, **values})


def test_the_models_own_length_is_the_default() -> None:
    reasons = Reasons()
    assert resolve_model_len(config_of(), llama(), reasons) == 1000
    assert "max_position_embeddings" in reasons.by_name["max_model_len"]


def test_a_shorter_length_can_be_asked_for_and_a_longer_one_cannot() -> None:
    assert resolve_model_len(config_of(max_model_len=9), llama(), Reasons()) == 9
    with pytest.raises(ModelLoadError, match="1000"):
        resolve_model_len(config_of(max_model_len=1001), llama(), Reasons())


def test_a_rope_that_depends_on_the_batch_ends_the_length() -> None:
    factors = [1.0] * 64
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": factors,
        "long_factor": factors,
        "original_max_position_embeddings": 256,
    }
    model_config = llama(rope_parameters=rope)
    assert resolve_model_len(config_of(), model_config, Reasons()) == 256


def test_the_cache_is_no_larger_than_its_requests_can_be() -> None:
    config = config_of(max_num_seqs=2, kv_cache_memory=2**30)
    blocks, length = resolve_kv_blocks(config, SHAPES, 100, CPU, Reasons())
    assert (blocks, length) == (2 * 7, 100)


def test_the_cache_stays_within_its_budget() -> None:
    config = config_of(kv_cache_memory=512 * 16 * 10 + 1)
    assert resolve_kv_blocks(config, SHAPES, 100, CPU, Reasons()) == (10, 100)


def test_the_length_is_cut_to_what_the_cache_holds() -> None:
    reasons = Reasons()
    reasons.note("max_model_len", "x")
    config = config_of(kv_cache_memory=512 * 16 * 10)
    assert resolve_kv_blocks(config, SHAPES, 1000, CPU, reasons) == (10, 160)
    assert "KV cache" in reasons.by_name["max_model_len"]


@pytest.mark.parametrize(
    "values", [{"kv_cache_memory": 512 * 16 * 10, "max_model_len": 1000}, {"kv_cache_memory": 100}]
)
def test_a_cache_too_small_for_what_was_asked_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ModelLoadError, match="kv_cache_memory"):
        resolve_kv_blocks(config_of(**values), SHAPES, 1000, CPU, Reasons())


def test_a_cache_that_is_larger_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "available_memory", lambda: Memory(2**20, "left", own=True))
    config = config_of(kv_cache_memory=2**30, max_num_seqs=1)
    with pytest.raises(ModelLoadError, match=r"kv_cache_memory is 1,024 MiB.* 1 MiB left"):
        resolve_kv_blocks(config, SHAPES, 4000, CPU, Reasons())
    # Requests that are allowed would never fill it.
    assert resolve_kv_blocks(config, SHAPES, 2000, CPU, Reasons()) == (125, 2000)


def test_the_cache_takes_half_of_the_memory_that_is_left() -> None:
    reasons = Reasons()
    blocks, _ = resolve_kv_blocks(config_of(max_num_seqs=1), SHAPES, 64, CPU, reasons)
    assert blocks == 4
    assert "1 requests of 64 tokens" in reasons.by_name["num_kv_blocks"]


def test_a_step_takes_what_its_picker_does_for_each_logit_and_on_a_cpu_the_layers_too() -> None:
    config = config_of(max_num_seqs=3, max_num_batched_tokens=5)
    model = llama(hidden_size=64, intermediate_size=20)
    logits = 3 * 1000 * 7
    assert step_memory(config, model, torch.device("cuda"), 1000, 7) == logits
    assert step_memory(config, model, CPU, 1000, 7) == logits + 4 * 5 * (8 * 64 + 4 * 20)


def test_a_gpus_cache_leaves_room_for_the_probes_peak_and_for_the_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 300_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100_000)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000_000, 2_000_000))
    block = 512 * 16
    gpu, config = torch.device("cuda"), config_of(max_model_len=64)
    without, _ = resolve_kv_blocks(config, SHAPES, 64, gpu, Reasons())
    assert without == (900_000 - 200_000) // block
    with_sampler, _ = resolve_kv_blocks(config, SHAPES, 64, gpu, Reasons(), 100_000)
    assert with_sampler == (900_000 - 200_000 - 100_000) // block


def test_the_queue_holds_four_caches_by_default() -> None:
    assert resolve_queued_tokens(config_of(), 10, 100, Reasons()) == 640
    assert resolve_queued_tokens(config_of(max_queued_tokens=7), 10, 100, Reasons()) == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no CUDA device"):
        resolve_device(config_of(device="cuda"), Reasons())
    assert resolve_device(config_of(), Reasons()) == CPU


def test_a_gpu_beyond_those_that_are_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device(config_of(device="cuda:1"), Reasons()) == torch.device("cuda:1")
    with pytest.raises(ModelLoadError, match=r"device cuda:9 .* the last .* is cuda:1"):
        resolve_device(config_of(device="cuda:9"), Reasons())


def dtype_of(own: torch.dtype, hidden: int = 576, **asked: str) -> tuple[torch.dtype, str]:
    reasons = Reasons()
    model = llama(hidden_size=hidden, num_hidden_layers=30, dtype=own)
    return resolve_dtype(config_of(**asked), model, CPU, reasons), reasons.by_name["dtype"]


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert dtype_of(torch.float32)[0] is torch.float32
    assert dtype_of(torch.float32, dtype="bfloat16")[0] is torch.bfloat16
    small, reason = dtype_of(torch.bfloat16, 64)
    assert small is torch.float32
    assert "gains nothing" in reason


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize("gain", [1.0, 1.9])
def test_bfloat16_has_to_win_a_measurement(
    can: bool, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "MULTIPLIES_BFLOAT16", can)
    monkeypatch.setattr(linear, "gain_of_bfloat16", lambda *_: gain)
    got, reason = dtype_of(torch.bfloat16)
    assert got is (torch.bfloat16 if can and gain > 1.5 else torch.float32)
    assert (f"1/{gain}" in reason) is can


def test_the_gain_is_measured() -> None:
    assert 0.2 < linear.gain_of_bfloat16(576, 2304) < 20


def test_threads_can_be_set() -> None:
    reasons = Reasons()
    assert resolve_threads(config_of(threads=3), reasons) == 3
    assert reasons.by_name["threads"] == "as configured"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("device", "tpu"),
        ("device", "auto:1"),
        ("device", "cpu:x"),
        ("device", "cuda:"),
        ("dtype", "int8"),
        ("kernels", "fancy"),
        ("block_size", 0),
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 8),
        ("threads", 0),
        ("watchdog_s", float("nan")),
    ],
)
def test_a_wrong_setting_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        config_of(**{field: value})
