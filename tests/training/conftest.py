from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.registry import make_policy as new_policy
from modelnative.tasks.contract.task import AnyTask, Problems, State
from modelnative.training.rollout import Rollout


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """A small policy whose choices are far from uniform, as those of a fresh one are not."""

    def make(task: AnyTask, core: str = "gru", seed: int = 0, scale: float = 0.5, copy: bool = True) -> Policy:
        policy = new_policy(task.spec, core, PolicyConfig(width=16, heads=2, copy_head=copy))
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.parameters():
            parameter.data += scale * torch.randn(parameter.shape, generator=generator)
        return policy

    return make


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    """A rollout without a task: random rewards and lengths; all that must not matter is random as well."""

    def make(n: int, seed: int, horizon: int = 7, stages: int = 3) -> Rollout:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        length = torch.randint(1, horizon + 1, (n,), generator=generator)
        hint = (torch.rand(n, generator=generator) * length).long()  # each episode has a token of its own
        time = torch.arange(int(length.max()))[:, None]
        running, loss_mask = time < length, (time < length) & (time >= hint)
        steps = len(time)
        stage = torch.randint(stages, (n,), generator=generator)
        token = torch.randint(18, (2, steps, n), generator=generator)
        return Rollout(
            problems=Problems(stage, torch.zeros(n, 1, dtype=torch.int64), torch.arange(n)),
            token=token[0],
            feedback=torch.zeros(steps, n, 0, dtype=torch.int64),
            action=token[1],
            behavior_log_prob=draw(steps, n),
            value=draw(steps, n),
            reward=torch.where(running, draw(steps, n), 0.0),
            running=running,
            loss_mask=loss_mask,
            explored=loss_mask & (draw(steps, n) > 0.5),
            invalid=running & (draw(steps, n) > 0.5),
            success=draw(n) > 0,
            bootstrap=torch.zeros(n),
            final=State(draw(n) > 0),
        )

    return make
