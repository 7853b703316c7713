"""Muon (https://kellerjordan.github.io/posts/muon/) in float32 for a CPU.

`torch.optim.Muon` orthogonalises in bfloat16, one matrix at a time. On a CPU that does not compute
in bfloat16 that took 0.57 s of a step of 1.5 s; batches of equal matrices in float32 take 0.20 s.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


def orthogonalise(update: torch.Tensor) -> torch.Tensor:
    """Return matrices `[n, rows, columns]`, rows <= columns, with singular values near one."""
    x: torch.Tensor = update / update.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised Nesterov momentum, scaled to the size of an Adam step."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient; a closure is not supported."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    rows, columns = sorted(matrix.shape)
                    alike.setdefault((rows, columns), []).append(matrix)
            for (rows, columns), matrices in alike.items():
                updates = orthogonalise(
                    torch.stack([self._nesterov(m, group["momentum"]) for m in matrices])
                )
                size = 0.2 * max(rows, columns) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    turned = update if matrix.shape[0] <= matrix.shape[1] else update.T
                    matrix.add_(turned, alpha=-group["lr"] * size)

    def _nesterov(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Return the momentum-corrected gradient, lying down."""
        gradient = matrix.grad
        assert gradient is not None
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(state["momentum"], momentum)
        return ahead if ahead.shape[0] <= ahead.shape[1] else ahead.T
