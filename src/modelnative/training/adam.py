"""The optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-5
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Adam:
    """Adam (Kingma and Ba, 2015) without weight decay, by torch's fused operator.

    The numbers are those of `torch.optim.Adam(parameters, lr, eps=1e-5, fused=True)`. That class imports torch's
    compiler, which takes longer than the rest of a training's start.

    Args:
        parameters: to train, with a gradient each at every step.
        lr: the learning rate, which may be changed between steps.

    Attributes:
        moments: by name in `MOMENTS`, a tensor for each parameter; empty before the first step.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        self.moments: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter by its gradient."""
        if not self.moments:
            for name in MOMENTS:
                self.moments[name] = [torch.zeros_like(parameter) for parameter in self.parameters]
            self.moments["step"] = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
        steps, averages, squares = (self.moments[name] for name in MOMENTS)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            self.parameters,
            gradients,
            averages,
            squares,
            [],
            steps,
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

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
