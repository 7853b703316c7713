"""Our Muon takes the steps of torch's, which it only computes in another precision."""

import torch

from model.demo.muon import Muon


def test_it_steps_as_torchs_does() -> None:
    torch.manual_seed(5)
    shapes = ((24, 40), (40, 24), (24, 24), (24, 40))
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    started = [p.detach().clone() for p in ours]
    steppers = (
        Muon(ours, lr=0.02, momentum=0.9, weight_decay=0.1),
        torch.optim.Muon(
            theirs, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
    )
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            other.grad = mine.grad.clone()
        for stepper in steppers:
            stepper.step()
    for mine, other, start in zip(ours, theirs, started, strict=True):
        moved = (mine - start).norm()
        # torch orthogonalises in bfloat16: three digits.
        assert (mine - other).norm() < 0.02 * moved
