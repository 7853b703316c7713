"""From an `EngineConfig` to an engine that is loaded, tested and warm.

Owns the order of these steps. Engine thread, once.
"""

from collections.abc import Callable

import torch

from model.engine.admission import Admission
from model.engine.backends import FORMS, candidates
from model.engine.block_manager import BlockManager
from model.engine.config import EngineConfig, EngineInfo
from model.engine.engine import Engine
from model.engine.errors import ModelLoadError, UnsupportedModel
from model.engine.kv_cache import KVCache
from model.engine.loader import eos_token_ids, load_config, load_model
from model.engine.model_runner import ModelRunner
from model.engine.pace import Pace
from model.engine.scheduler import Scheduler
from model.engine.self_test import probe, self_test
from model.engine.sizes import (
    Reasons,
    resolve_device,
    resolve_dtype,
    resolve_kv_blocks,
    resolve_model_len,
    resolve_queued_tokens,
    resolve_threads,
)
from model.engine.threads import Threads, flops_per_token

WATCHDOG_STEPS = 3
"""The watchdog waits for this many full steps at the speed measured at load, where that is longer
than it was told to, up to ten times: a long step of a large model is no hang."""


def build_engine(config: EngineConfig, on_progress: Callable[[str], None]) -> Engine:
    reasons = Reasons()
    threads = resolve_threads(config, reasons)
    torch.set_num_threads(threads)
    device = resolve_device(config, reasons)
    dtype = resolve_dtype(config, device, reasons)
    model_config = load_config(config)
    max_model_len = resolve_model_len(config, model_config, reasons)
    names, reason = candidates(config, device, dtype)
    for name in names:
        model = load_model(config, model_config, dtype, device, on_progress)
        on_progress("comparing the engine with transformers' own forward pass")
        # On a GPU the probe is a full step: what it takes is seen before the rest is given away.
        shapes = probe(model, config.max_num_batched_tokens if device.type == "cuda" else 2)
        work = flops_per_token(model)  # counted now: packing takes the weights away
        try:
            tested = self_test(
                model,
                shapes,
                FORMS[name],
                max_model_len,
                block_size=config.block_size,
                rounded=name == "int8",
            )
            break
        except UnsupportedModel as error:
            if name == names[-1]:
                raise
            reason = str(error)
            on_progress(f"the {name} kernels do not fit this model")
    backend = tested.backend
    step_s = tested.seconds_per_token * config.max_num_batched_tokens
    reasons.note("kernels", f"{backend.form}; {tested.seen}; {reason}")
    num_blocks, max_model_len = resolve_kv_blocks(config, shapes, max_model_len, device, reasons)
    try:
        cache = KVCache(shapes, num_blocks, config.block_size, device)
    except RuntimeError as error:  # torch says "out of memory" in several ways
        reason = reasons.by_name["num_kv_blocks"]
        raise ModelLoadError(f"the KV cache cannot be allocated: {reason}") from error
    watchdog_s = min(max(config.watchdog_s, WATCHDOG_STEPS * step_s), 10 * config.watchdog_s)
    reasons.note("watchdog_s", f"asked {config.watchdog_s:g}; a full step may take {step_s:.1f} s")
    info = EngineInfo(
        model_id=config.model,
        architecture=type(model).__name__,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        kernels=name,
        max_model_len=max_model_len,
        vocab_size=model.get_input_embeddings().num_embeddings,
        eos_token_ids=eos_token_ids(model),
        num_kv_blocks=num_blocks,
        block_size=config.block_size,
        kv_bytes_per_token=sum(shape.bytes_per_token for shape in shapes),
        threads=threads,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_queued_requests=config.max_queued_requests,
        max_queued_tokens=resolve_queued_tokens(config, num_blocks, max_model_len, reasons),
        watchdog_s=watchdog_s,
        prefix_cache=config.prefix_cache,
        reasons=reasons.by_name,
    )
    on_progress("ready")
    runner = ModelRunner(
        backend.compute,
        backend.attention(cache),
        config.block_size,
        device,
        Threads(threads, work, *backend.set_threads),
        backend.draw,
    )
    return assemble(runner, info)


def assemble(runner: ModelRunner, info: EngineInfo) -> Engine:
    scheduler = Scheduler(
        BlockManager(info.num_kv_blocks, info.block_size, prefix_cache=info.prefix_cache),
        max_num_seqs=info.max_num_seqs,
        max_num_batched_tokens=info.max_num_batched_tokens,
        pace=Pace(),
    )
    admission = Admission(
        max_queued_requests=info.max_queued_requests, max_queued_tokens=info.max_queued_tokens
    )
    return Engine(runner, scheduler, admission, info)
