"""Linear layers for few rows on a CPU: weights in the order in which oneDNN multiplies them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ROWS = 32
"""The number of rows that the order is made for; others are a little slower."""


class PackedLinear(nn.Module):
    """The linears that share their input, as one. Their own weights are given up."""

    def __init__(self, linears: Sequence[nn.Linear], *, keep: bool = False) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears])
        biases = [linear.bias for linear in linears if linear.bias is not None]
        assert len(biases) in (0, len(linears)), "all have a bias or none"
        self.bias = torch.cat([bias.detach() for bias in biases]) if biases else None
        self.out_features, self.in_features = weight.shape
        if not keep:
            for linear in linears:
                linear.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) → (..., out_features)."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, "none", [], ""
        )
        return output


def pack_linears(model: nn.Module) -> None:
    """Every linear of a model in place, but for those whose weight something else uses too."""
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                shared = uses[id(child.weight)] > 1
                setattr(module, name, PackedLinear([child], keep=shared))
