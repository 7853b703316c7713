"""The forms in which a step can be computed, and which of them serves.

`plain` runs transformers' own forward pass over the plain attention: the reference, on any device.
`fast` is for a CPU in float32: pages read in place, packed linears, and for models made of Llama's
layers a decoder of our own. `int8` is the same with linears of eight bits. Engine thread, once.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from model.engine.attention import Attention, PlainAttention
from model.engine.config import EngineConfig
from model.engine.errors import ModelLoadError
from model.engine.kv_cache import KVCache
from model.engine.model_runner import Compute, forward
from model.engine.sampler import BinnedDraw, Draw, draw_sorted


@dataclass(frozen=True, slots=True)
class Backend:
    compute: Compute
    attention: Callable[[KVCache], Attention]
    form: str
    """How the layers are computed, for the start-up log."""
    set_threads: tuple[Callable[[int], None], ...] = (torch.set_num_threads,)
    draw: Draw = draw_sorted


def plain(model: PreTrainedModel) -> Backend:
    return Backend(partial(forward, model), PlainAttention, "transformers' own layers")


def fast(model: PreTrainedModel, *, int8: bool = False) -> Backend:
    """Takes the model's linears apart: it computes nothing on its own from then on."""
    # Numba takes a second to import, which a plain engine need not wait for.
    from model.engine import kernels
    from model.engine.decoder import Decoder, is_llama_like
    from model.engine.linear import Int8Linear, PackedLinear, levels, pack_linears
    from model.engine.paged_attention import PagedAttention

    set_threads = (torch.set_num_threads, kernels.set_threads)
    kernels.set_threads(torch.get_num_threads())
    linear = Int8Linear if int8 else PackedLinear
    kind = f"int8 linears of {levels()} levels" if int8 else "packed linears"
    if is_llama_like(model):
        form = f"fused layers, {kind}, pages read in place"
        return Backend(Decoder(model, linear), PagedAttention, form, set_threads, BinnedDraw())
    pack_linears(model, linear)
    form = f"transformers' layers, {kind}, pages read in place"
    return Backend(partial(forward, model), PagedAttention, form, set_threads, BinnedDraw())


FORMS: dict[str, Callable[[PreTrainedModel], Backend]] = {
    "plain": plain,
    "fast": fast,
    "int8": partial(fast, int8=True),
}


def candidates(
    config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[str, ...], str]:
    """The forms to try, best first, and why no better one. ModelLoadError when what was asked for
    cannot be."""
    if config.kernels == "plain":
        return ("plain",), "as configured"
    reason = _no_fast_kernels(device, dtype)
    if config.quantize != "none":
        if reason is not None:
            raise ModelLoadError(f"quantize: {config.quantize} cannot be: {reason}")
        return (config.quantize,), f"this CPU has {torch.backends.cpu.get_cpu_capability()}"
    if reason is None:
        names = ("fast",) if config.kernels == "fast" else ("fast", "plain")
        return names, f"this CPU has {torch.backends.cpu.get_cpu_capability()}"
    if config.kernels == "fast":
        raise ModelLoadError(f"kernels: fast cannot be: {reason}")
    return ("plain",), reason


def _no_fast_kernels(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return "the fast kernels are for a CPU"
    if dtype is not torch.float32:
        return f"the fast kernels compute in float32, not in {str(dtype).removeprefix('torch.')}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this build of torch has no oneDNN"
    return None
