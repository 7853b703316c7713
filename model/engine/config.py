"""What an engine is asked to be (`EngineConfig`), what became of it (`EngineInfo`), how it is
doing (`EngineStats`): three immutable values that any thread may read. Knows no torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,2})?")
DTYPES = ("auto", "float32", "bfloat16", "float16")
KERNELS = ("auto", "plain", "fast")
QUANTIZATIONS = ("none", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Raises ValueError that starts with the field's name."""

    model: str
    """A folder or a Hub id."""
    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int | None = None
    """Prompt and new tokens of one request; None takes the model's own."""
    block_size: int = 16
    """Tokens in a block of the KV cache."""
    kv_cache_memory: int | None = None
    """Bytes; None measures."""
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    """Token budget of a step."""
    max_queued_requests: int = 256
    max_queued_tokens: int | None = None
    """Prompt and new tokens of all waiting requests; None derives it."""
    threads: int | None = None
    trust_remote_code: bool = False
    kernels: str = "auto"
    """plain: torch's own operators, the reference. fast: our kernels, on a CPU, not in float16."""
    quantize: str = "none"
    """int8: the linears multiply in eight bits; it takes the fast kernels."""
    prefix_cache: bool = True
    """Requests that begin alike share what is computed for their beginning."""
    watchdog_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model: must name a folder or a Hub id")
        if not DEVICE.fullmatch(self.device):
            raise ValueError("device: must be auto, cpu, cuda or cuda:<number>")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: must be one of {', '.join(DTYPES)}")
        if self.kernels not in KERNELS:
            raise ValueError(f"kernels: must be one of {', '.join(KERNELS)}")
        if self.quantize not in QUANTIZATIONS:
            raise ValueError(f"quantize: must be one of {', '.join(QUANTIZATIONS)}")
        if self.quantize != "none" and self.kernels == "plain":
            raise ValueError(f"quantize: {self.quantize} needs the fast kernels, not plain ones")
        positive = (
            "max_model_len",
            "block_size",
            "kv_cache_memory",
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_queued_requests",
            "max_queued_tokens",
            "threads",
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                "max_num_batched_tokens: must be at least max_num_seqs,"
                " so that every running request can get its token in every step"
            )
        if not (math.isfinite(self.watchdog_s) and self.watchdog_s > 0):
            raise ValueError("watchdog_s: must be a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    model_id: str
    architecture: str
    device: str
    dtype: str
    kernels: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    num_kv_blocks: int
    block_size: int
    kv_bytes_per_token: int
    threads: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_queued_requests: int
    max_queued_tokens: int
    watchdog_s: float
    prefix_cache: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a size is what it is, by the field's name; for the start-up log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counters only rise; the rest is the state after the last step."""

    num_running: int = 0
    num_waiting: int = 0
    num_waiting_tokens: int = 0
    num_running_tokens: int = 0
    """Of prompts and answers, the most that they may become."""
    kv_blocks_total: int = 0
    kv_blocks_used: int = 0
    num_preemptions: int = 0
    steps: int = 0
    last_step_age_s: float = 0.0
    """Seconds since the loop last made progress; 0 while it has nothing to do."""
    prompt_tokens_total: int = 0
    generation_tokens_total: int = 0
    prefix_cache_queries_total: int = 0
    """Prompt tokens that were looked for in the cache, and those that were found."""
    prefix_cache_hits_total: int = 0
    cancelled: Mapping[str, int] = field(default_factory=dict)
    """Requests ended by abort or deadline, by stage reached: queue, prefill, decode."""
    step_batch_tokens: tuple[tuple[float, int], ...] = ()
    """Cumulative histogram of tokens per step: (upper bound, count), the last bound infinite."""
    step_batch_tokens_sum: int = 0
