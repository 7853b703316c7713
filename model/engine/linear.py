"""Linear layers for few rows on a CPU: weights in the order in which oneDNN multiplies them.

`PackedLinear` computes in float32. `Int8Linear` multiplies whole numbers of eight bits: weights
are rounded by output channel, once, and inputs by row, at every call, so that a request's numbers
do not depend on its batch-mates.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

ROWS = 32
"""The number of rows that the order is made for; others are a little slower."""


class PackedLinear(nn.Module):
    """The linears that share their input, as one. Their own weights are given up, unless
    something else uses them."""

    def __init__(self, linears: Sequence[nn.Linear], *, keep: bool = False) -> None:
        super().__init__()
        weight, self.bias = _merged(linears)
        self.out_features, self.in_features = weight.shape
        if not keep:
            _give_up(linears)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) → (..., out_features)."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, "none", [], ""
        )
        return output


class Int8Linear(nn.Module):
    """The same with weights and inputs of eight bits. Products are exact; a row of the input and
    a channel of the weight each have one scale."""

    def __init__(self, linears: Sequence[nn.Linear], *, keep: bool = False) -> None:
        super().__init__()
        from model.engine import kernels

        self._round, self._rescale = kernels.round_rows, kernels.rescale_rows
        weight, bias = _merged(linears)
        self.out_features, self.in_features = weight.shape
        self._bias = np.empty(0, np.float32) if bias is None else bias.numpy()
        if not keep:
            _give_up(linears)
        scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        whole = (weight / scales[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(whole, [ROWS, self.in_features])
        self._scales = scales
        self._no_points = torch.zeros(self.out_features, dtype=torch.long)
        self._levels = levels()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) → (..., out_features)."""
        rows = x.reshape(-1, self.in_features)
        whole = torch.empty(rows.shape, dtype=torch.uint8)
        scales = np.empty(len(rows), np.float32)
        self._round(rows.numpy(), np.int32(self._levels), whole.numpy(), scales)
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, self._levels + 1, self._packed, self._scales, self._no_points, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        self._rescale(output.numpy(), scales, self._bias)
        return output.view(*x.shape[:-1], self.out_features)


def levels() -> int:
    """Steps on each side of zero for an input. Without VNNI the CPU adds two products in sixteen
    bits, which 127 would overflow: half as many steps are exact there."""
    return 127 if torch.cpu._is_vnni_supported() else 63


def pack_linears(model: nn.Module, merge: Callable[..., nn.Module] = PackedLinear) -> None:
    """Every linear of a model in place, but for those whose weight something else uses too."""
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                shared = uses[id(child.weight)] > 1
                setattr(module, name, merge([child], keep=shared))


def _merged(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    assert len(biases) in (0, len(linears)), "all have a bias or none"
    return weight, torch.cat([bias.detach() for bias in biases]) if biases else None


def _give_up(linears: Sequence[nn.Linear]) -> None:
    for linear in linears:
        linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)
