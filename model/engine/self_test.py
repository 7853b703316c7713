"""Is a loaded model served right? Asked of the model itself, at load.

`probe` runs a few tokens through and learns each layer's key and value shapes. `self_test` runs
short random requests through transformers' own attention and through the paged path, in two
chunks and beside a stranger, and compares the logits. Sliding windows are shortened meanwhile,
so that they matter in a short request. Both end in UnsupportedModel with one line, and the
second warms the model up. Engine thread, once.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.engine.attention import (
    IMPLEMENTATION,
    AttentionOptions,
    Span,
    StepBatch,
    UnservedAttention,
    attend,
)
from model.engine.backends import Backend, Form
from model.engine.errors import UnsupportedModel
from model.engine.kv_cache import KVCache, LayerShape
from model.engine.model_runner import forward

NUM_TOKENS = 24
FEW_DECODES, DECODES = 2, 8
"""Tokens at the end of a request that are computed one by one. Many are asked for once: they are
slow beside chunks."""
OWN_OUTPUTS = 4
"""Texts of the model's own on which rounded weights are judged."""
SHORT_WINDOW = 5
LARGEST_BLOCK = 16
"""A larger block of the engine's would hold all of a request here: SMALL_BLOCK stands in."""
SMALL_BLOCK = 4
# How far a token's logits may be from transformers' own, relative to their size. A wrong mask
# gives 0.1 and more; the same computation in another order gives some 1e-6, 1e-2 and 2e-3. Eight
# bits move logits further than a wrong mask may, so what they choose decides as well.
TOLERANCE = {"float32": 1e-3, "bfloat16": 6e-2, "float16": 1e-2, "int8": 0.2}
# Rounded numbers can send a token to another expert, and that token is then far off: below
# float32 the tokens at this share of the order of differences must agree, above it they may not.
# Tokens of chunks and those computed one by one, of which there are fewer, are judged by
# themselves: a fault in the one kind must not hide behind the other.
QUANTILES = {
    "float32": (1.0, 1.0),
    "bfloat16": (0.5, 0.25),
    "float16": (0.5, 0.25),
    "int8": (1.0, 1.0),
}
LEAST_AGREEMENT = {"int8": 0.5, "bfloat16": 0.8}


@dataclass(frozen=True, slots=True)
class Tested:
    backend: Backend
    seen: str
    """How near its logits are, in a few words."""
    seconds_per_token: float
    """Of small steps, warm."""


class _ShapeProbe:
    """Attends to nothing but the step's own tokens and notes what each layer brings."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        self.calls: Counter[int] = Counter()

    def forward(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        options: AttentionOptions,
        batch: StepBatch,
    ) -> Tensor:
        self.calls[layer] += 1
        self.shapes[layer] = LayerShape(key.shape[0], key.shape[2], value.shape[2], key.dtype)
        return attend(query, key, value, options).transpose(0, 1)


@torch.inference_mode()
def probe(model: PreTrainedModel, num_tokens: int = 2) -> list[LayerShape]:
    shape_probe = _ShapeProbe()
    tokens = torch.zeros(num_tokens, dtype=torch.long, device=model.device)
    positions = torch.arange(num_tokens, device=model.device)
    step_batch = StepBatch(shape_probe, positions, ())
    with _failures_named(model):
        forward(model, tokens, positions, [num_tokens - 1], step_batch)
    layers = model.config.get_text_config().num_hidden_layers
    if shape_probe.calls != Counter(range(layers)):
        served = sum(1 for n in shape_probe.calls.values() if n == 1)
        raise unsupported(
            model, f"{served} of its {layers} layers run attention through the interface just once"
        )
    return [shape_probe.shapes[layer] for layer in range(layers)]


@torch.inference_mode()
def self_test(
    model: PreTrainedModel,
    shapes: list[LayerShape],
    form: Form,
    max_model_len: int,
    *,
    block_size: int = SMALL_BLOCK,
) -> Tested:
    """The model in this form, tried; UnsupportedModel where it is not right."""
    numbers = form.numbers
    # Kernels are compiled for a block size: the engine's own need not be compiled again.
    size = block_size if block_size <= LARGEST_BLOCK else SMALL_BLOCK
    vocabulary = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    ours, stranger = (
        torch.randint(vocabulary, (NUM_TOKENS,), generator=generator).to(model.device)
        for _ in range(2)
    )
    with _failures_named(model), _short_windows(model, max_model_len):
        with _transformers_attention(model):
            expected = _own_logits(model, ours)
            least = LEAST_AGREEMENT.get(numbers, 0.0) if model.dtype is torch.float32 else 0.0
            own = _own_outputs(model) if least else []
            chosen = [_own_logits(model, tokens).argmax(dim=-1) for tokens in own]
        backend = form.make(model)
        got = _paged_logits(backend, shapes, size, ours, stranger, DECODES).float()
        same = [
            _paged_logits(backend, shapes, size, tokens, stranger).argmax(dim=-1) == best
            for tokens, best in zip(own, chosen, strict=True)
        ]
    by_token = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    kinds = by_token.split([NUM_TOKENS - DECODES, DECODES])
    pairs = zip(kinds, QUANTILES[numbers], strict=True)
    # Of all of them: max() would pass over NaN.
    difference = float(torch.stack([kind.quantile(share) for kind, share in pairs]).max())
    if not difference <= TOLERANCE[numbers]:
        raise unsupported(
            model, f"its logits differ from transformers' own by {difference:.1e} of their size"
        )
    seen = f"logits within {difference:.0e} of transformers' own"
    if least:
        agreed, total = sum(int(row.sum()) for row in same), len(same) * NUM_TOKENS
        seen += f"; the same next token after {agreed} of {total} tokens of its own"
        if agreed < least * total:
            raise unsupported(model, f"in {numbers} it chooses other tokens: {seen}")
    begun = time.monotonic()
    _paged_logits(backend, shapes, size, ours, stranger)
    return Tested(backend, seen, (time.monotonic() - begun) / NUM_TOKENS)


def _own_logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens.unsqueeze(0), use_cache=False).logits[0]
    return logits.float()


def _own_outputs(model: PreTrainedModel) -> list[Tensor]:
    """What the model says after single tokens, NUM_TOKENS long each."""
    vocabulary = model.get_input_embeddings().num_embeddings
    firsts = torch.arange(1, OWN_OUTPUTS + 1) * (vocabulary // (OWN_OUTPUTS + 2))
    texts = firsts.to(model.device).unsqueeze(1)
    for _ in range(NUM_TOKENS - 1):
        best = model(input_ids=texts, use_cache=False).logits[:, -1].argmax(dim=-1)
        texts = torch.cat([texts, best.unsqueeze(1)], dim=1)
    return list(texts)


def unsupported(model: PreTrainedModel, reason: str) -> UnsupportedModel:
    return UnsupportedModel(f"{type(model).__name__} cannot be served right: {reason}")


@contextmanager
def _failures_named(model: PreTrainedModel) -> Iterator[None]:
    try:
        yield
    except UnservedAttention as error:
        raise unsupported(model, str(error)) from None
    except Exception as error:
        # A family that was never meant for this may fail anywhere, in any way.
        line = next(iter(str(error).splitlines()), "")[:200]
        raise unsupported(
            model, f"its forward pass fails in the engine ({type(error).__name__}: {line})"
        ) from error


@dataclass(slots=True)
class _Sequence:
    tokens: Tensor
    block_ids: Tensor
    computed: int = 0


def _paged_logits(
    backend: Backend,
    shapes: list[LayerShape],
    size: int,
    ours: Tensor,
    stranger: Tensor,
    decodes: int = FEW_DECODES,
) -> Tensor:
    """Logits of all of `ours`: a chunk alone, a chunk beside the stranger, tokens one by one, with
    the stranger and without."""
    blocks = -(-NUM_TOKENS // size)
    device = ours.device
    attention = backend.attention(KVCache(shapes, 2 * blocks, size, device))
    # Interleaved and backwards, so that neither order nor adjacency of blocks can be relied on.
    ids = torch.arange(2 * blocks, device=device).flip(0)
    a, b = _Sequence(ours, ids[::2].contiguous()), _Sequence(stranger, ids[1::2].contiguous())
    half = (NUM_TOKENS - decodes) // 2
    steps = [[(a, half)], [(b, 7), (a, half)], [(a, 1), (b, 3)]]
    steps += [[(b, 1), (a, 1)] if n % 2 else [(a, 1)] for n in range(1, decodes)]
    logits = []
    for step in steps:
        tokens, positions, slots, spans, keep = [], [], [], [], []
        row = 0
        for sequence, count in step:
            begin, end = sequence.computed, sequence.computed + count
            sequence.computed = end
            place = torch.arange(begin, end, device=device)
            tokens.append(sequence.tokens[begin:end])
            positions.append(place)
            slots.append(sequence.block_ids[place // size] * size + place % size)
            spans.append(Span(row, row + count, end, sequence.block_ids))
            if sequence is a:
                keep = list(range(row, row + count))
            row += count
        step_batch = StepBatch(attention, torch.cat(slots), tuple(spans))
        logits.append(backend.compute(torch.cat(tokens), torch.cat(positions), keep, step_batch))
    return torch.cat(logits)


@contextmanager
def _transformers_attention(model: PreTrainedModel) -> Iterator[None]:
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(IMPLEMENTATION)


@contextmanager
def _short_windows(model: PreTrainedModel, max_model_len: int) -> Iterator[None]:
    """The mask of the one path comes from the config, that of the other from each layer. A window
    that no request can outgrow is no window."""
    holders = [model.config.get_text_config(), *model.modules()]
    windows = [
        (holder, window)
        for holder in holders
        if isinstance(window := getattr(holder, "sliding_window", None), int)
        and window < max_model_len
    ]
    try:
        for holder, window in windows:
            holder.sliding_window = min(window, SHORT_WINDOW)
        yield
    finally:
        for holder, window in windows:
            holder.sliding_window = window
