"""Every engine by its name: what it is, what it may be told, and where it is made.

Its module is imported when it is to be measured: torch takes seconds, and who asks for a list or
puts load on an address needs none.
"""

import dataclasses
import importlib
import runpy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.model_folder import ROOT
from bench.spec import NotForThis, Spec
from bench.workloads import Workload

if TYPE_CHECKING:
    from bench.engines import Engine


@dataclass(frozen=True, slots=True)
class Known:
    about: str
    made_by: str
    """Module and class."""
    options: tuple[str, ...]


def _config_fields() -> tuple[str, ...]:
    """Of EngineConfig, whose file knows no torch, though the package around it does."""
    found = runpy.run_path(str(ROOT / "model" / "engine" / "config.py"))["EngineConfig"]
    return tuple(item.name for item in dataclasses.fields(found))


OUR_OPTIONS = _config_fields()
TRANSFORMERS_OPTIONS = ("dtype", "model", "device")
VLLM_OPTIONS = ("dtype", "model", "prefix_cache", "kv_gib", "eager")
ENGINES = {
    "ours": Known("our engine, in process", "bench.engines:Ours", OUR_OPTIONS),
    "ours-http": Known("our model host, streamed over HTTP", "bench.engines:OursHttp", OUR_OPTIONS),
    "generate": Known(
        "transformers' generate, one request after the other",
        "bench.transformers_engines:OneByOne",
        TRANSFORMERS_OPTIONS,
    ),
    "padded": Known(
        "transformers' generate, in batches padded to the longest",
        "bench.transformers_engines:Padded",
        (*TRANSFORMERS_OPTIONS, "batch"),
    ),
    "transformers-cb": Known(
        "transformers' continuous batching",
        "bench.transformers_engines:ContinuousBatching",
        (*TRANSFORMERS_OPTIONS, "blocks", "page_size", "max_batch_tokens", "prefix_cache"),
    ),
    "vllm": Known("vLLM's CPU build, in process", "bench.peers.vllm_cpu:VllmOffline", VLLM_OPTIONS),
    "vllm-http": Known(
        "vLLM's CPU build, streamed over HTTP", "bench.peers.vllm_cpu:VllmHttp", VLLM_OPTIONS
    ),
    "llama.cpp": Known(
        "llama.cpp's server",
        "bench.peers.llama_cpp:LlamaCpp",
        ("type", "model", "batch", "ubatch"),
    ),
}


def known(name: str) -> Known:
    if name not in ENGINES:
        raise NotForThis(f"there is no engine {name}; there are: {', '.join(ENGINES)}")
    return ENGINES[name]


def make_engine(spec: Spec, workload: Workload) -> "Engine":
    found = known(spec.name)
    if unknown := sorted(spec.options.keys() - set(found.options)):
        raise NotForThis(f"no option {unknown[0]}; there are: {', '.join(found.options)}")
    module, _, attribute = found.made_by.partition(":")
    made: Engine = getattr(importlib.import_module(module), attribute)(workload, spec.options)
    return made
