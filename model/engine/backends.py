"""The forms in which a step can be computed, and which of them serves.

`plain` runs transformers' own forward pass over the plain attention: the reference, on any device.
`fast` is for a CPU: pages read in place, packed linears, and for models made of Llama's layers a
decoder of our own. Its linears multiply float32, bfloat16 or, in the form `int8`, eight bits; with
the latter two the cache holds bfloat16. All else is float32. Engine thread, once.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PreTrainedModel

from model.engine.attention import Attention, PlainAttention
from model.engine.config import EngineConfig
from model.engine.errors import ModelLoadError
from model.engine.kv_cache import KVCache
from model.engine.model_runner import Compute, forward
from model.engine.sampler import CompiledPicker, Picker, PlainPicker


@dataclass(frozen=True, slots=True)
class Backend:
    compute: Compute
    attention: Callable[[KVCache], Attention]
    description: str
    """How the layers are computed, for the start-up log."""
    set_threads: tuple[Callable[[int], None], ...] = (torch.set_num_threads,)
    picker: Picker = field(default_factory=PlainPicker)


def plain(model: PreTrainedModel) -> Backend:
    return Backend(partial(forward, model), PlainAttention, "transformers' own layers")


def fast(numbers: str, block_size: int, model: PreTrainedModel) -> Backend:
    """Takes the model's linears apart: it computes nothing on its own from then on."""
    # Numba takes a second to import, which a plain engine need not wait for.
    from model.engine.decoder import Decoder, is_llama_like
    from model.engine.linear import Numbers, description, pack_linears
    from model.engine.paged_attention import PagedAttention
    from model.kernels import ahead, pool

    pool.set_threads(torch.get_num_threads())
    kind = Numbers(numbers)
    compute: Compute
    if is_llama_like(model):
        layers, compute = "fused layers", Decoder(model, kind)
        compute.compile_now(block_size)
    else:
        layers, compute = "transformers' layers", partial(forward, model)
        pack_linears(model, kind)
    ahead.wait()
    described = f"{layers}, {description(kind)}, pages read in place"
    set_threads = (torch.set_num_threads, pool.set_threads)
    return Backend(compute, PagedAttention, described, set_threads, CompiledPicker())


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute a step."""

    name: str
    make: Callable[[PreTrainedModel], Backend]
    dtype: torch.dtype
    """What transformers loads the weights as."""
    numbers: str
    """What the linears multiply."""
    cache: torch.dtype | None = None
    """What keys and values are kept as, where not as the layers make them."""


def form_of(name: str, dtype: torch.dtype, block_size: int) -> Form:
    if name == "plain":
        return Form(name, plain, dtype, str(dtype).removeprefix("torch."))
    numbers = "int8" if name == "int8" else str(dtype).removeprefix("torch.")
    # Who multiplies rounded numbers needs no others of earlier tokens, and reads half as much.
    cache = torch.float32 if numbers == "float32" else torch.bfloat16
    return Form(name, partial(fast, numbers, block_size), torch.float32, numbers, cache)


def candidates(
    config: EngineConfig, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[str, ...], str]:
    """The forms to try, best first, and why no better one. ModelLoadError when what was asked for
    cannot be."""
    if config.kernels == "plain":
        return ("plain",), "as configured"
    reason = _no_fast_kernels(device, dtype)
    if config.quantize != "none":
        if reason is None and dtype is not torch.float32:
            asked = str(dtype).removeprefix("torch.")
            reason = f"all but the linears is computed in float32, not {asked}"
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
    if dtype not in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        return f"the fast kernels compute in float32 or bfloat16, not in {name}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return None
