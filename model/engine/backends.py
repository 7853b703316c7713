"""The forms in which a step can be computed, and which of them serves.

`plain` runs transformers' own forward pass over the plain attention: the reference, on any device.
`fast` is for a CPU in float32: pages read in place, packed linears, and for models made of Llama's
layers a decoder of our own. Engine thread, once.
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


@dataclass(frozen=True, slots=True)
class Backend:
    compute: Compute
    attention: Callable[[KVCache], Attention]
    form: str
    """How the layers are computed, for the start-up log."""
    set_threads: tuple[Callable[[int], None], ...] = (torch.set_num_threads,)


def plain(model: PreTrainedModel) -> Backend:
    return Backend(partial(forward, model), PlainAttention, "transformers' own layers")


def fast(model: PreTrainedModel) -> Backend:
    """Takes the model's linears apart: it computes nothing on its own from then on."""
    # Numba takes a second to import, which a plain engine need not wait for.
    from model.engine import kernels
    from model.engine.decoder import Decoder, is_llama_like
    from model.engine.linear import pack_linears
    from model.engine.paged_attention import PagedAttention

    set_threads = (torch.set_num_threads, kernels.set_threads)
    kernels.set_threads(torch.get_num_threads())
    if is_llama_like(model):
        form = "fused layers, pages read in place"
        return Backend(Decoder(model), PagedAttention, form, set_threads)
    pack_linears(model)
    form = "transformers' layers with packed linears, pages read in place"
    return Backend(partial(forward, model), PagedAttention, form, set_threads)


FORMS = {"plain": plain, "fast": fast}


def candidates(
    config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[str, ...], str]:
    """The forms to try, best first, and why no better one. ModelLoadError when what was asked for
    cannot be."""
    if config.kernels == "plain":
        return ("plain",), "as configured"
    reason = _no_fast_kernels(device, dtype)
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
