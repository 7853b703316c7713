"""Linear layers for few rows on a CPU: weights in the order in which `model.kernels` reads them.

Arithmetic is float32 where nothing else is asked for; weights that are bfloat16 numbers, as most
checkpoints' are, take half the memory and give the same. `Numbers.BFLOAT16` rounds the rows as
well. `Numbers.INT8` rounds weights by output channel, once, and rows one by one, at every call, so
that a request's numbers do not depend on its batch-mates.
"""

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn

from model.kernels import elementwise, memory, pool
from model.kernels.layer import Weights
from model.kernels.products import (
    BFLOAT16,
    DEPTH,
    FLOAT32,
    INT8,
    LEVELS,
    NUMBERS,
    WIDENED,
    product_of,
)
from model.kernels.tiles import HAS_TILES
from model.kernels.vectors import LANES, Floats

NOTHING = np.empty(0, np.float32)


class Numbers(StrEnum):
    """What products are made of."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class PackedLinear(nn.Module):
    """The linears that share their input, as one. Their own weights are given up, unless `keep`
    is set: something else uses them."""

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        numbers: Numbers = Numbers.FLOAT32,
        *,
        keep: bool = False,
        levels: int = LEVELS,
        kind: int | None = None,
    ) -> None:
        """`kind` is what `kind_of` says of these and of others that are to be of the same."""
        super().__init__()
        self.kind = kind_of(linears, numbers) if kind is None else kind
        self.levels = np.int32(levels)
        weight, bias = _merged(linears)
        self.out_features, self.in_features = weight.shape
        if not keep:
            _give_up(linears)
        width = _up(self.out_features, LANES)
        self._begin = _padded(bias, width)
        self._scales = self._bias = NOTHING
        if self.kind == INT8:
            weight, scales = _rounded(weight)
            middle = -(levels + 1) * weight.sum(dim=1, dtype=torch.int32)
            self._bias, self._scales = self._begin, _padded(scales, width)
            self._begin = _padded(middle.view(torch.float32), width)
        elif self.kind != FLOAT32:
            weight = weight.to(torch.bfloat16)
        self._panels = _panels(weight, NUMBERS[self.kind])
        self.weights: Weights = (self._panels, self._begin, self._scales, self._bias)
        """As `kernels/layer.py` takes them."""
        self._width = self._panels.shape[1] * NUMBERS[self.kind]
        """in_features and what fills the last word."""
        self._multiply = product_of(self.kind)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) → (..., out_features)."""
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features).numpy())
        return torch.from_numpy(self.of(rows)).view(*x.shape[:-1], self.out_features)

    def room(self, rows: int) -> Floats:
        """For what the kernels make of so many rows."""
        return np.empty((rows, len(self._begin)), np.float32)

    def of(self, x: Floats) -> Floats:
        """x (T, in_features) → (T, out_features), both float32."""
        words, row_scales = self._words(x)
        output = self.room(len(x))
        self._multiply(
            words, self._panels, output, self._begin, self._scales, self._bias, row_scales,
            pool.threads(),
        )  # fmt: skip
        if output.shape[1] != self.out_features:
            return np.ascontiguousarray(output[:, : self.out_features])
        return output

    def _words(self, x: Floats) -> tuple[Floats, Floats]:
        """Rows as the kernel takes them, and for INT8 what their numbers are multiples of."""
        if self.kind == INT8:
            whole = np.empty((len(x), self._width), np.uint8)
            scales = np.empty(len(x), np.float32)
            elementwise.round_rows(x, self.levels, whole, scales)
            return whole.view(np.float32), scales
        if self.kind == BFLOAT16:
            halves = np.empty((len(x), self._width), np.uint16)
            elementwise.round_to_bfloat16(x, halves)
            return halves.view(np.float32), NOTHING
        if self._width != self.in_features:
            x = np.pad(x, ((0, 0), (0, self._width - self.in_features)))
        return x, NOTHING


def description(numbers: Numbers) -> str:
    """For the start-up log."""
    steps = f" of {LEVELS} levels" if numbers is Numbers.INT8 else ""
    tiles = ", many rows in tiles" if HAS_TILES and numbers is not Numbers.FLOAT32 else ""
    return f"{numbers} linears{steps} on {LANES} lanes{tiles}"


def gain_of_bfloat16(inputs: int, width: int) -> float:
    """How many times faster it is than float32 on this CPU, over few and many rows. One thread's
    own time tells it: whatever else this machine does, it does not count."""
    threads = pool.threads()
    pool.set_threads(1)
    layers = [nn.Linear(inputs, width, bias=False, dtype=torch.bfloat16).float()]
    seconds = []
    for numbers in (Numbers.FLOAT32, Numbers.BFLOAT16):
        packed = PackedLinear(layers, numbers, keep=True)
        total = 0.0
        for rows in (1, 32):
            x = np.ones((rows, inputs), np.float32)
            packed.of(x)
            total += min(_seconds_of(packed, x) for _ in range(15))
        seconds.append(total)
    pool.set_threads(threads)
    return seconds[0] / seconds[1]


def _seconds_of(packed: PackedLinear, x: Floats) -> float:
    begun = time.thread_time()
    packed.of(x)
    return time.thread_time() - begun


def pack_linears(model: nn.Module, numbers: Numbers = Numbers.FLOAT32) -> None:
    """Every linear of a model in place, but for those whose weight something else uses too."""
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    packed: dict[nn.Module, PackedLinear] = {}
    for module in list(model.modules()):
        for name, child in module._modules.items():  # two names may stand for one linear
            if type(child) is nn.Linear:
                if child not in packed:
                    shared = uses[id(child.weight)] > 1
                    packed[child] = PackedLinear([child], numbers, keep=shared)
                setattr(module, name, packed[child])


def _merged(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    assert len(biases) in (0, len(linears)), "all have a bias or none"
    return weight, torch.cat([bias.detach() for bias in biases]) if biases else None


def _give_up(linears: Sequence[nn.Linear]) -> None:
    for linear in linears:
        linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)


def kind_of(linears: Iterable[nn.Linear], numbers: Numbers) -> int:
    """Of the products, for linears whose weights are still theirs."""
    if numbers is Numbers.INT8:
        return INT8
    if numbers is Numbers.BFLOAT16:
        return BFLOAT16
    weights = (linear.weight.detach() for linear in linears)
    are_bfloat16 = all(bool((w.view(torch.int32) & 0xFFFF == 0).all()) for w in weights)
    return WIDENED if are_bfloat16 else FLOAT32


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers up to 127 by channel, and what they are multiples of."""
    scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight / scales[:, None]).round_().to(torch.int8), scales


def _panels(weight: Tensor, numbers: int) -> Floats:
    """weight (channels, inputs), `numbers` of them to a word → (panels, depth, LANES) words."""
    channels, inputs = weight.shape
    panels, depth = _up(channels, LANES) // LANES, _up(-(-inputs // numbers), DEPTH)
    whole = weight.new_zeros(panels * LANES, depth * numbers)
    whole[:channels, :inputs] = weight
    words = whole.view(torch.float32).view(panels, LANES, depth)
    out = memory.empty((panels, depth, LANES))
    out[:] = words.transpose(1, 2).numpy()
    return out


def _padded(values: Tensor | None, width: int) -> Floats:
    out = np.zeros(width, np.float32)
    if values is not None:
        out[: len(values)] = values.numpy()
    return out


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
