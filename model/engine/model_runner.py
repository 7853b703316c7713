"""Computes a scheduled batch.

Owns the computation, its attention and the sampler's place after it; turns requests into tensors
and logits into tokens. One flattened batch per step: all tokens of all requests in one row,
logits only where a token is to be picked. Knows no policy. Engine thread only.
"""

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.engine.attention import BATCH_KEYWORD, Attention, Span, StepBatch
from model.engine.errors import EngineError
from model.engine.request import SampledToken
from model.engine.sampler import Picker, sample
from model.engine.scheduler import Batch, ScheduledRequest
from model.engine.threads import Threads

Compute = Callable[[Tensor, Tensor, list[int], StepBatch], Tensor]
"""token_ids and positions (T,), rows to keep, batch → logits (rows to keep, vocabulary)."""


class ModelRunner:
    def __init__(
        self,
        compute: Compute,
        attention: Attention,
        block_size: int,
        device: torch.device,
        threads: Threads,
        picker: Picker,
    ) -> None:
        self._compute = compute
        self._attention = attention
        self._block_size = block_size
        self._device = device
        self._threads = threads
        self._picker = picker

    @torch.inference_mode()
    def run(self, batch: Batch) -> Sequence[SampledToken | EngineError]:
        self._threads.prepare(batch.num_tokens)
        token_ids, positions, last = _flatten(batch.scheduled)
        step_batch = StepBatch(self._attention, self._slots(batch), self._spans(batch))
        logits = self._compute(self._tensor(token_ids), self._tensor(positions), last, step_batch)
        sampling = [s.request for s in batch.scheduled if s.samples]
        return sample(logits, sampling, self._picker) if sampling else []

    def _slots(self, batch: Batch) -> Tensor:
        size = self._block_size
        return self._tensor(
            [
                s.request.block_ids[position // size] * size + position % size
                for s in batch.scheduled
                for position in _positions(s)
            ]
        )

    def _spans(self, batch: Batch) -> tuple[Span, ...]:
        spans = []
        start = 0
        for scheduled in batch.scheduled:
            end = start + scheduled.num_tokens
            context_len = scheduled.request.num_computed_tokens + scheduled.num_tokens
            block_ids = self._tensor(scheduled.request.block_ids)
            spans.append(Span(start, end, context_len, block_ids))
            start = end
        return tuple(spans)

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def forward(
    model: PreTrainedModel,
    token_ids: Tensor,
    positions: Tensor,
    keep: list[int],
    step_batch: StepBatch,
) -> Tensor:
    """token_ids and positions (T,) → logits (len(keep), vocabulary) of the rows in `keep`."""
    rows = torch.tensor(keep, dtype=torch.long, device=token_ids.device)
    inputs = {
        "input_ids": token_ids.unsqueeze(0),
        "position_ids": positions.unsqueeze(0),
        "use_cache": False,
        BATCH_KEYWORD: step_batch,
    }
    if _takes_logits_to_keep(type(model).forward):
        logits: Tensor = model(**inputs, logits_to_keep=rows).logits[0]
        return logits
    every: Tensor = model(**inputs).logits[0]
    return every[rows]


@cache
def _takes_logits_to_keep(model_forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in signature(model_forward).parameters


def _flatten(scheduled: tuple[ScheduledRequest, ...]) -> tuple[list[int], list[int], list[int]]:
    token_ids: list[int] = []
    last: list[int] = []
    for s in scheduled:
        start = s.request.num_computed_tokens
        token_ids += s.request.token_ids(start, start + s.num_tokens)
        if s.samples:
            last.append(len(token_ids) - 1)
    return token_ids, list(chain.from_iterable(map(_positions, scheduled))), last


def _positions(scheduled: ScheduledRequest) -> range:
    start = scheduled.request.num_computed_tokens
    return range(start, start + scheduled.num_tokens)
