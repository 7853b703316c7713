"""What "auto" comes to on this machine with this model, each value with the reason for it.

Owns the defaults that depend on hardware or on a model's config. Engine thread, once.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PretrainedConfig

from model.engine.config import EngineConfig
from model.engine.errors import ModelLoadError
from model.engine.kv_cache import LayerShape
from model.resources import available_memory, cpu_threads, mib

LENGTH_FIELDS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
DEFAULT_MODEL_LEN = 2048
BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")
SHARED_KV_SHARE = 0.5
"""Of a machine's free memory, where others may want some too."""
SERVER_RESERVE = 256 * 2**20
"""What connections, queued prompts and Python take beside the step."""
GPU_KV_SHARE = 0.9
LAYER_WEIGHTS = 12
"""Weights of a layer, as multiples of the hidden size squared."""
LINEAR_WIDTH = 4
"""Width of a typical linear, as a multiple of the hidden size."""
LARGE_MODEL = 32e6
"""Weights. Smaller models spend their time elsewhere than in products."""
LEAST_GAIN = 1.2
"""bfloat16 rounds what goes into each product: it has to be worth it."""
QUEUED_CACHES = 4
"""A full queue asks for this many times the tokens that the cache holds."""


class Reasons:
    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def note(self, name: str, reason: str) -> None:
        self.by_name[name] = reason


def resolve_threads(config: EngineConfig, reasons: Reasons) -> int:
    threads, reason = cpu_threads()
    if config.threads is not None:
        threads, reason = config.threads, "as configured"
    reasons.note("threads", reason)
    return threads


def resolve_device(config: EngineConfig, reasons: Reasons) -> torch.device:
    available = torch.cuda.is_available()
    if config.device.startswith("cuda") and not available:
        raise ModelLoadError(
            f"device {config.device} was asked for, but torch finds no CUDA device"
        )
    if config.device != "auto":
        reasons.note("device", "as configured")
        device = torch.device(config.device)
        if device.index is not None and device.index >= (count := torch.cuda.device_count()):
            last = f"the last that torch finds is cuda:{count - 1}"
            raise ModelLoadError(f"device {device} was asked for, but {last}")
        return device
    reasons.note("device", f"torch finds {'a' if available else 'no'} CUDA device")
    return torch.device("cuda" if available else "cpu")


def resolve_dtype(
    config: EngineConfig,
    model_config: PretrainedConfig,
    device: torch.device,
    reasons: Reasons,
) -> torch.dtype:
    if config.dtype != "auto":
        reasons.note("dtype", "as configured")
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[config.dtype]
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        reasons.note("dtype", f"the GPU's compute capability is {capability[0]}.{capability[1]}")
        return torch.bfloat16 if capability >= (8, 0) else torch.float16
    reason = _no_bfloat16(config, model_config, device)
    if reason is None:
        from model.engine.linear import gain_of_bfloat16

        text = model_config.get_text_config()
        gain = gain_of_bfloat16(text.hidden_size, LINEAR_WIDTH * text.hidden_size)
        reason = f"products of bfloat16 take 1/{gain:.1f} of the time of float32 here"
        if gain >= LEAST_GAIN:
            reasons.note("dtype", reason)
            return torch.bfloat16
    reasons.note("dtype", reason)
    return torch.float32


def _no_bfloat16(
    config: EngineConfig, model_config: PretrainedConfig, device: torch.device
) -> str | None:
    """Why it is not worth a measurement."""
    if device.type != "cpu":
        return f"the device is {device.type}"
    if config.kernels == "plain":
        return "the device is a CPU, and only the fast kernels may gain from bfloat16"
    if config.quantize != "none":
        return f"the device is a CPU, and beside {config.quantize} all is computed in float32"
    if getattr(model_config, "dtype", None) is not torch.bfloat16:
        return "the device is a CPU, and the checkpoint is not in bfloat16"
    text = model_config.get_text_config()
    hidden, layers = getattr(text, "hidden_size", 0), getattr(text, "num_hidden_layers", 0)
    if LAYER_WEIGHTS * hidden**2 * layers < LARGE_MODEL:
        return "the device is a CPU, and a model this small gains nothing from bfloat16"
    if importlib.util.find_spec("numba") is None:
        return "the device is a CPU, and numba is not installed"
    from model.kernels.products import MULTIPLIES_BFLOAT16

    return None if MULTIPLIES_BFLOAT16 else "this CPU does not multiply bfloat16"


def resolve_model_len(
    config: EngineConfig, model_config: PretrainedConfig, reasons: Reasons
) -> int:
    limit, reason = _own_model_len(model_config)
    asked = config.max_model_len
    if asked is not None and asked > limit:
        raise ModelLoadError(f"max_model_len is {asked}, but the model can take {limit}: {reason}")
    reasons.note("max_model_len", reason if asked is None else f"as configured; {reason}")
    return limit if asked is None else asked


def _own_model_len(model_config: PretrainedConfig) -> tuple[int, str]:
    limit, reason = DEFAULT_MODEL_LEN, "the model's config names no length"
    for name in LENGTH_FIELDS:
        value = getattr(model_config, name, None)
        if isinstance(value, int) and value > 0:
            limit, reason = value, f"{name} of the model's config"
            break
    for rope in _rope_parameters(model_config):
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") in BATCH_DEPENDENT_ROPE and original and original < limit:
            limit = int(original)
            reason = "beyond it this model's rotary frequencies depend on the longest batch-mate"
    return limit, reason


def _rope_parameters(model_config: PretrainedConfig) -> list[dict[str, Any]]:
    rope = getattr(model_config, "rope_parameters", None) or {}
    by_layer_type = [value for value in rope.values() if isinstance(value, dict)]
    return by_layer_type or [rope]


def resolve_kv_blocks(
    config: EngineConfig,
    shapes: Sequence[LayerShape],
    max_model_len: int,
    device: torch.device,
    reasons: Reasons,
    step_bytes: int = 0,
) -> tuple[int, int]:
    """The number of blocks, and max_model_len once more: it is cut to what the cache holds. The
    weights are in memory already; `step_bytes` stay free."""
    block_bytes = sum(shape.bytes_per_token for shape in shapes) * config.block_size
    budget, reason = _kv_budget(config, device, step_bytes)
    wanted = config.max_num_seqs * -(-max_model_len // config.block_size)
    num_blocks = min(budget // block_bytes, wanted)
    _check_room(config, device, num_blocks * block_bytes)
    if num_blocks == wanted:
        reason = f"{config.max_num_seqs} requests of {max_model_len} tokens"
    reasons.note("num_kv_blocks", f"{reason} ({mib(num_blocks * block_bytes)})")
    tokens = num_blocks * config.block_size
    if tokens >= max_model_len:
        return num_blocks, max_model_len
    if config.max_model_len is not None or num_blocks < 2:
        raise ModelLoadError(
            f"the KV cache holds {tokens} tokens in {mib(budget)} ({reason}), but a request may"
            f" need {max_model_len}: set a larger kv_cache_memory or a smaller max_model_len"
        )
    reasons.note("max_model_len", f"the KV cache holds no more; {reasons.by_name['max_model_len']}")
    return num_blocks, tokens


def _check_room(config: EngineConfig, device: torch.device, num_bytes: int) -> None:
    """Memory is taken as the cache fills up: one that is too large would end the process later."""
    if config.kv_cache_memory is None or device.type != "cpu":
        return
    memory = available_memory()
    if num_bytes > memory.left:
        raise ModelLoadError(
            f"kv_cache_memory is {mib(config.kv_cache_memory)}, of which {mib(num_bytes)} would be"
            f" used, but beside the weights there are {mib(memory.left)} {memory.reason}"
        )


def step_memory(
    config: EngineConfig,
    model_config: PretrainedConfig,
    device: torch.device,
    vocabulary: int,
    bytes_per_logit: int,
) -> int:
    """Bytes that a step takes at most, generously, beyond what is measured: logits with what the
    sampler makes of them, and on a CPU what lies between the layers."""
    logits = config.max_num_seqs * vocabulary * bytes_per_logit
    if device.type == "cuda":
        return logits
    text = model_config.get_text_config()
    hidden = getattr(text, "hidden_size", None) or 0
    inner = getattr(text, "intermediate_size", None)
    inner = inner if isinstance(inner, int) else 4 * hidden
    activations = config.max_num_batched_tokens * (8 * hidden + 4 * inner)
    return 4 * activations + logits


def _kv_budget(config: EngineConfig, device: torch.device, step_bytes: int) -> tuple[int, str]:
    if config.kv_cache_memory is not None:
        return config.kv_cache_memory, "kv_cache_memory as configured"
    if device.type == "cuda":
        # The probe has just run a full step, but for one row of logits: what it took at its peak
        # stays free for the others.
        peak = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0]
        step = peak + step_bytes
        return max(int(free * GPU_KV_SHARE) - step, 0), (
            f"{GPU_KV_SHARE:.0%} of the {mib(free)} free on the GPU"
            f" less the {mib(step)} that a step takes"
        )
    memory = available_memory()
    reserve = SERVER_RESERVE + step_bytes
    whole = f"{mib(memory.left)} {memory.reason}"
    if memory.own:
        return max(memory.left - reserve, 0), f"the {whole} less a reserve of {mib(reserve)}"
    budget = min(int(memory.left * SHARED_KV_SHARE), memory.left - reserve)
    return max(budget, 0), f"{SHARED_KV_SHARE:.0%} of the {whole}"


def resolve_queued_tokens(
    config: EngineConfig, num_blocks: int, max_model_len: int, reasons: Reasons
) -> int:
    if config.max_queued_tokens is not None:
        reasons.note("max_queued_tokens", "as configured")
        return config.max_queued_tokens
    reasons.note("max_queued_tokens", f"{QUEUED_CACHES} times what the KV cache holds")
    return max(QUEUED_CACHES * num_blocks * config.block_size, max_model_len)
