"""Every engine by its name. Its module is imported when it is asked for: torch takes seconds."""

import importlib

from bench.engines import Engine, NotForThis, Spec
from bench.workloads import Workload

ENGINES = {
    "ours": "bench.engines:Ours",
    "ours-http": "bench.engines:OursHttp",
    "generate": "bench.transformers_engines:OneByOne",
    "padded": "bench.transformers_engines:Padded",
    "transformers-cb": "bench.transformers_engines:ContinuousBatching",
    "vllm": "bench.peers.vllm_cpu:VllmOffline",
    "vllm-http": "bench.peers.vllm_cpu:VllmHttp",
    "llama.cpp": "bench.peers.llama_cpp:LlamaCpp",
}


def engine_class(name: str) -> type[Engine]:
    if name not in ENGINES:
        raise NotForThis(f"there is no engine {name}; there are: {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(importlib.import_module(module), attribute)
    return found


def make_engine(spec: Spec, workload: Workload) -> Engine:
    return engine_class(spec.name)(workload, spec.options)
