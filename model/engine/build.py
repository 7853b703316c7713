"""From an `EngineConfig` to an engine that is loaded, tested and warm.

Owns the order of these steps. Engine thread, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PretrainedConfig, PreTrainedModel

from model.engine.admission import Admission
from model.engine.backends import Form, candidates, form_of
from model.engine.block_manager import BlockManager
from model.engine.config import EngineConfig, EngineInfo
from model.engine.engine import Engine
from model.engine.errors import ModelLoadError, UnsupportedModel
from model.engine.kv_cache import KVCache, LayerShape
from model.engine.loader import eos_token_ids, load_config, load_model
from model.engine.model_runner import ModelRunner
from model.engine.pace import Pace
from model.engine.scheduler import Scheduler
from model.engine.self_test import Tested, probe, self_test
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
from model.engine.threads import Threads, flops_per_token
from model.kernels import ahead
from model.resources import give_back_freed

WATCHDOG_STEPS = 3
"""The watchdog waits for this many full steps at the speed measured at load, where that is longer
than it was told to, up to ten times: a long step of a large model is no hang."""


def build_engine(config: EngineConfig, on_progress: Callable[[str], None]) -> Engine:
    reasons = Reasons()
    threads = resolve_threads(config, reasons)
    torch.set_num_threads(threads)
    device = resolve_device(config, reasons)
    model_config = load_config(config)
    dtype = resolve_dtype(config, model_config, device, reasons)
    max_model_len = resolve_model_len(config, model_config, reasons)
    forms, reason = _forms(config, device, dtype)
    loaded = _first_that_fits(
        forms, config, model_config, max_model_len, device, reasons, on_progress
    )
    # Of the weights as they were read: a quarter of all memory, of a model of 135M.
    give_back_freed()
    model, shapes = loaded.model, loaded.shapes
    backend = loaded.tested.backend
    step_s = loaded.tested.seconds_per_token * config.max_num_batched_tokens
    why = loaded.refused or reason
    reasons.note("kernels", f"{backend.description}; {loaded.tested.seen}; {why}")
    vocabulary = model.get_input_embeddings().num_embeddings
    step_bytes = step_memory(
        config, model_config, device, vocabulary, backend.picker.bytes_per_logit
    )
    num_blocks, max_model_len = resolve_kv_blocks(
        config, shapes, max_model_len, device, reasons, step_bytes=step_bytes
    )
    try:
        cache = KVCache(shapes, num_blocks, config.block_size, device)
    except RuntimeError as error:  # torch says "out of memory" in several ways
        size = reasons.by_name["num_kv_blocks"]
        raise ModelLoadError(f"the KV cache cannot be allocated: {size}") from error
    watchdog_s = min(max(config.watchdog_s, WATCHDOG_STEPS * step_s), 10 * config.watchdog_s)
    reasons.note("watchdog_s", f"asked {config.watchdog_s:g}; a full step may take {step_s:.1f} s")
    info = EngineInfo(
        model_id=config.model,
        architecture=type(model).__name__,
        device=str(device),
        dtype=_dtype_of(loaded.form),
        kernels=loaded.form.name,
        max_model_len=max_model_len,
        vocab_size=vocabulary,
        eos_token_ids=eos_token_ids(model, vocabulary),
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
        Threads(threads, loaded.flops_per_token, *backend.set_threads),
        backend.picker,
    )
    return assemble(runner, info)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in the form that serves it."""

    form: Form
    model: PreTrainedModel
    shapes: list[LayerShape]
    tested: Tested
    flops_per_token: float
    refused: str | None
    """Why a better form does not serve it."""


def _forms(
    config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> tuple[list[Form], str]:
    """Those to try, best first, and why no better one."""
    names, reason = candidates(config, device, dtype)
    if names == ("plain",):
        ahead.give_up()
    forms = [form_of(name, dtype, config.block_size) for name in names]
    if config.dtype == "auto" and dtype is torch.bfloat16 and device.type == "cpu":
        # What won the measurement is our kernels' bfloat16, not torch's.
        exact = (form_of(name, torch.float32, config.block_size) for name in names)
        forms = [forms[0], *exact]
    return forms, reason


def _first_that_fits(
    forms: Sequence[Form],
    config: EngineConfig,
    model_config: PretrainedConfig,
    max_model_len: int,
    device: torch.device,
    reasons: Reasons,
    on_progress: Callable[[str], None],
) -> _Loaded:
    refused = None
    for form in forms:
        model = load_model(config, model_config, form.dtype, device, on_progress)
        on_progress("comparing the engine with transformers' own forward pass")
        # On a GPU the probe is a full step: what it takes is seen before the rest is given away.
        shapes = probe(model, config.max_num_batched_tokens if device.type == "cuda" else 2)
        if form.cache is not None:
            shapes = [replace(shape, dtype=form.cache) for shape in shapes]
        work = flops_per_token(model)  # counted now: packing takes the weights away
        try:
            tested = self_test(model, shapes, form, max_model_len, block_size=config.block_size)
        except UnsupportedModel as error:
            if form is forms[-1]:
                raise
            refused = str(error)
            del model
            give_back_freed()
            on_progress(f"the {form.name} kernels do not fit this model")
        else:
            if form.numbers != forms[0].numbers:
                reasons.note("dtype", f"{forms[0].numbers} does not fit this model: {refused}")
            return _Loaded(form, model, shapes, tested, work, refused)
    raise AssertionError("there is a form to try")


def _dtype_of(form: Form) -> str:
    """What the linears multiply, but for int8, beside which all else is computed in float32."""
    return "float32" if form.numbers == "int8" else form.numbers


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
