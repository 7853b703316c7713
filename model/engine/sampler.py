"""From logits to tokens, row by row.

Each row has its own settings and its own randomness: one uniform number, a pure function of the
request's seed and of the position of the token. So a request's luck depends neither on its
batch-mates, nor on chunking, nor on preemption, and no state has to be kept. Its logits may depend
on them in their last bits (ADR 14).

Order: log probabilities are taken from the model's own logits; then penalties and the ban of
end tokens before min_tokens; then temperature, top-k, top-p, min-p. Engine thread only.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from math import isfinite
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.engine.errors import EngineError, StepFailed
from model.engine.request import Request, SampledToken, TokenLogprob

MASK64 = 2**64 - 1


class Picker(Protocol):
    """What is done to all numbers of many rows. Two forms of it give the same tokens, but for sums
    that fall on an edge."""

    bytes_per_logit: int
    """What a step takes at its peak for each number of the rows that it samples, the model's own
    and log probabilities of all rows among them."""

    def likeliest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits (R, vocabulary) → each row's likeliest token, the first of equal ones, and that
        one's number, NaN if there is one in the row. Both (R,)."""

    def penalise(self, logits: Tensor, rows: list[int], requests: Sequence[Request]) -> None:
        """Changes these rows of logits (R, vocabulary) in place, by their requests' penalties."""

    def draw(
        self, logits: Tensor, tops: Tensor, rows: list[int], requests: Sequence[Request]
    ) -> Tensor:
        """logits (R, vocabulary) and the numbers of their likeliest (R,), the rows that draw and
        their requests → tokens (rows,)."""


def sample(
    logits: Tensor, requests: Sequence[Request], picker: Picker | None = None
) -> list[SampledToken | EngineError]:
    """logits (rows, vocabulary), which may change; a row without usable numbers fails alone."""
    picker = picker or PlainPicker()
    logits = logits.float()
    token_ids, tops = picker.likeliest(logits)
    usable = list(map(isfinite, tops.tolist()))
    logprobs = _logprobs(logits, requests)
    if _adjust(logits, requests, picker):
        token_ids, tops = picker.likeliest(logits)
        usable = [ok and isfinite(top) for ok, top in zip(usable, tops.tolist(), strict=True)]
    rows = [i for i, r in enumerate(requests) if usable[i] and not r.params.greedy]
    if rows:
        token_ids[rows] = picker.draw(logits, tops, rows, [requests[i] for i in rows])
    return [
        _result(row, token_id, ok, logprobs.get(row))
        for row, (token_id, ok) in enumerate(zip(token_ids.tolist(), usable, strict=True))
    ]


def uniform(seed: int, position: int) -> float:
    """In [0, 1): splitmix64 of seed and position."""
    state = (_mix(seed & MASK64) + (position + 1) * 0x9E3779B97F4A7C15) & MASK64
    return (_mix(state) >> 11) * 2.0**-53


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


Logprobs = tuple[Tensor, list[int], list[float]]
"""A row's log probabilities, and the likeliest tokens with theirs."""


def _logprobs(logits: Tensor, requests: Sequence[Request]) -> dict[int, Logprobs]:
    wanted = {i: n for i, r in enumerate(requests) if (n := r.params.logprobs) is not None}
    if not wanted:
        return {}
    rows = torch.log_softmax(logits[list(wanted)], dim=-1)
    values, ids = rows.topk(min(max(wanted.values()), rows.shape[-1]), dim=-1)
    return {
        row: (rows[i], ids[i, :n].tolist(), values[i, :n].tolist())
        for i, (row, n) in enumerate(wanted.items())
    }


def _result(
    row: int, token_id: int, usable: bool, logprobs: Logprobs | None
) -> SampledToken | EngineError:
    if not usable:
        return StepFailed("the model gave no usable numbers for this request")
    if logprobs is None:
        return SampledToken(token_id)
    all_logprobs, ids, values = logprobs
    top = tuple(zip(ids, values, strict=True))
    return SampledToken(token_id, TokenLogprob(token_id, all_logprobs[token_id].item(), top))


def _adjust(logits: Tensor, requests: Sequence[Request], picker: Picker) -> bool:
    """Whether any row has changed."""
    penalised = [i for i, r in enumerate(requests) if _has_penalty(r)]
    if penalised:
        picker.penalise(logits, penalised, [requests[i] for i in penalised])
    banned = [i for i, r in enumerate(requests) if _bans_end(r)]
    for i in banned:
        logits[i, sorted(requests[i].stop_token_ids)] = float("-inf")
    return bool(penalised or banned)


def _has_penalty(request: Request) -> bool:
    p = request.params
    return bool(p.repetition_penalty != 1.0 or p.presence_penalty or p.frequency_penalty)


def _bans_end(request: Request) -> bool:
    return len(request.output_token_ids) < request.params.min_tokens and bool(
        request.stop_token_ids
    )


class PlainPicker:
    """With torch's own operations, on any device: the reference."""

    bytes_per_logit = 80
    """Measured: sums are taken in float64, several at once, and torch widens what it compares."""

    def likeliest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        token_ids = logits.argmax(dim=-1)
        return token_ids, logits.gather(1, token_ids[:, None])[:, 0]

    def penalise(self, logits: Tensor, rows: list[int], requests: Sequence[Request]) -> None:
        for row, request in zip(rows, requests, strict=True):
            _penalise(logits[row], request)

    def draw(
        self, logits: Tensor, tops: Tensor, rows: list[int], requests: Sequence[Request]
    ) -> Tensor:
        return draw_sorted(logits, rows, requests)


def _penalise(row: Tensor, request: Request) -> None:
    p = request.params
    if p.repetition_penalty != 1.0:
        seen = torch.tensor(
            sorted({*request.prompt_token_ids, *request.output_token_ids}), device=row.device
        )
        scores = row[seen]
        factor = p.repetition_penalty
        row[seen] = torch.where(scores > 0, scores / factor, scores * factor)
    counts = Counter(request.output_token_ids)
    if counts and (p.presence_penalty or p.frequency_penalty):
        ids = torch.tensor(list(counts), device=row.device)
        times = torch.tensor(list(counts.values()), device=row.device, dtype=row.dtype)
        row[ids] -= p.presence_penalty + p.frequency_penalty * times


def draw_sorted(logits: Tensor, rows: list[int], requests: Sequence[Request]) -> Tensor:
    """Inverts the cumulative distribution of each row's tokens, likeliest first, at the row's
    uniform number. Always in that order: what a row gets must not depend on what others ask."""
    device = logits.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float64)[:, None]

    vocabulary = logits.shape[-1]
    logits, order = logits[rows].sort(dim=-1, descending=True, stable=True)
    probabilities = torch.softmax(
        logits.double() / column([r.params.temperature for r in requests]), dim=-1
    )
    ranks = torch.arange(vocabulary, device=device)[None, :]
    keep = ranks < column([r.params.top_k or vocabulary for r in requests])
    probabilities = probabilities * keep
    before = probabilities.cumsum(dim=-1) - probabilities
    total = probabilities.sum(dim=-1, keepdim=True)
    # The likeliest token always stays: nothing comes before it, and it is as likely as itself.
    keep = before < column([r.params.top_p for r in requests]) * total
    keep |= ranks == 0
    keep &= probabilities >= column([r.params.min_p for r in requests]) * probabilities[:, :1]
    probabilities = probabilities * keep
    cumulative = probabilities.cumsum(dim=-1)
    points = column([uniform(r.seed, len(r.output_token_ids)) for r in requests])
    index = torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return order.gather(1, index.minimum(last))[:, 0]


class CompiledPicker:
    """The same on a CPU, without sorting the vocabulary. Keeps its scratch, for memory that is
    taken anew at every step costs more than the draw."""

    bytes_per_logit = 24

    def __init__(self) -> None:
        # Numba takes a second to import, which a plain engine need not wait for.
        from model.kernels import sampling

        self._kernels = sampling
        self._bins = np.empty((0, 0), np.int16)
        self._times = np.zeros(0, np.int64)
        sampling.compile_now()

    def likeliest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        tokens, tops = np.empty(len(logits), np.int64), np.empty(len(logits), np.float32)
        self._kernels.likeliest(logits.numpy(), tokens, tops)
        return torch.from_numpy(tokens), torch.from_numpy(tops)

    def penalise(self, logits: Tensor, rows: list[int], requests: Sequence[Request]) -> None:
        if len(self._times) != logits.shape[-1]:
            self._times = np.zeros(logits.shape[-1], np.int64)
        prompts = [len(r.prompt_token_ids) for r in requests]
        lengths = [n + len(r.output_token_ids) for n, r in zip(prompts, requests, strict=True)]
        tokens = chain.from_iterable((*r.prompt_token_ids, *r.output_token_ids) for r in requests)
        begins = np.concatenate([[0], np.cumsum(lengths)])
        self._kernels.penalise(
            logits.numpy(),
            np.array(rows, np.int64),
            np.fromiter(tokens, np.int64, sum(lengths)),
            begins,
            begins[:-1] + np.array(prompts),
            np.array([r.params.repetition_penalty for r in requests], np.float32),
            np.array([r.params.presence_penalty for r in requests], np.float32),
            np.array([r.params.frequency_penalty for r in requests], np.float32),
            self._times,
        )

    def draw(
        self, logits: Tensor, tops: Tensor, rows: list[int], requests: Sequence[Request]
    ) -> Tensor:
        count, vocabulary = len(rows), logits.shape[-1]
        if self._bins.shape[0] < count or self._bins.shape[1] != vocabulary:
            self._bins = np.empty((count, vocabulary), np.int16)
        params = [r.params for r in requests]
        drawn = np.empty(count, np.int64)
        self._kernels.draw(
            logits.numpy(),
            self._bins,
            np.array(rows, np.int64),
            tops.numpy()[rows],
            np.array([p.temperature for p in params], np.float64),
            np.array([p.top_k for p in params], np.int64),
            np.array([p.top_p for p in params], np.float64),
            np.array([p.min_p for p in params], np.float64),
            np.array([uniform(r.seed, len(r.output_token_ids)) for r in requests], np.float64),
            drawn,
        )
        return torch.from_numpy(drawn)
