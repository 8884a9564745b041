"""The optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelnative.native import operator

BETAS, EPSILON = (0.9, 0.999), 1e-5
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@operator("adam")
def clipped_adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    averages: Sequence[Tensor],
    squares: Sequence[Tensor],
    steps: Sequence[Tensor],
    lr: float,
    max_norm: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> Tensor:
    """One step of Adam, in place, with the norm of all gradients clipped; the norm before, float [].

    Args:
        parameters, gradients, averages, squares: one of each for every parameter, of its shape.
        steps: float [], how many there were; are counted here.
        lr, beta1, beta2, epsilon: as Adam's.
        max_norm: of the gradient.
    """
    # In one piece, for the norm; each then lies as its parameter does, which fused Adam takes for granted.
    whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
    norm = whole.norm()
    whole *= (max_norm / (norm + 1e-6)).clamp_max(1.0)
    parts = whole.split([parameter.numel() for parameter in parameters])
    clipped = [part.view_as(parameter) for parameter, part in zip(parameters, parts, strict=True)]
    torch._foreach_add_(list(steps), 1)
    torch._fused_adam_(
        list(parameters),
        clipped,
        list(averages),
        list(squares),
        [],
        list(steps),
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
    )
    return norm


class Adam:
    """Adam (Kingma and Ba, 2015) without weight decay, by torch's fused operator.

    The numbers are those of `torch.optim.Adam(parameters, lr, eps=1e-5, fused=True)`. That class imports torch's
    compiler, which takes longer than the rest of a training's start.

    Args:
        parameters: to train.
        lr: the learning rate, which may be changed between steps.

    Attributes:
        moments: by name in `MOMENTS`, a tensor for each parameter; empty before the first step.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        self.moments: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], max_norm: float) -> Tensor:
        """Change every parameter by its gradient; see `clipped_adam`."""
        if not self.moments:
            for name in MOMENTS:
                self.moments[name] = [torch.zeros_like(parameter) for parameter in self.parameters]
            self.moments["step"] = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
        steps, averages, squares = (self.moments[name] for name in MOMENTS)
        return clipped_adam(self.parameters, gradients, averages, squares, steps, self.lr, max_norm, *BETAS, EPSILON)

    def load(self, moments: dict[str, list[Tensor]]) -> None:
        """Continue with such moments; none: begin anew.

        Raises:
            ValueError: one has another shape than its parameter.
        """
        for name, values in moments.items():
            for parameter, value in zip(self.parameters, values, strict=True):
                shape = torch.Size() if name == "step" else parameter.shape
                if value.shape != shape:
                    raise ValueError(f"{name} has shape {list(value.shape)}, its parameter {list(parameter.shape)}")
        devices = [parameter.device for parameter in self.parameters]
        self.moments = {
            name: [value.to(device, copy=True) for value, device in zip(values, devices, strict=True)]
            for name, values in moments.items()
        }
