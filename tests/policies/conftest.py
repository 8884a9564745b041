from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.policy import Policy, PolicyState, Thought
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import TaskSpec

KINDS = [
    *itertools.product(CORES, (True, False), (True, False)),
    *((core, copy, True, "gru") for core, copy in itertools.product(CORES, (True, False))),
]


@dataclass
class Case:
    """A policy in float64 whose outputs are far from uniform, and inputs that a task would give."""

    core: str
    config: PolicyConfig
    policy: Policy
    context: Tensor  # [n, C]
    stage: Tensor  # [n]
    tokens: Tensor  # [T, n]
    feedback: Tensor  # [T, n, F]

    def unroll(self) -> tuple[Thought, PolicyState]:
        return self.policy.unroll(self.tokens, self.feedback, self.policy.begin(self.context, self.stage))

    def steps(self, state: PolicyState, start: int, end: int) -> tuple[Thought, PolicyState]:
        """`unroll` of the times from `start` to `end`, one `step` at a time."""
        thoughts = []
        for t in range(start, end):
            thought, state = self.policy.step(self.tokens[t], self.feedback[t], state)
            thoughts.append(thought)
        fields = ("log_probs", "value", "hidden", "copied")
        return Thought(*(torch.stack([getattr(thought, f) for thought in thoughts]) for f in fields)), state


def shaken(policy: Policy, seed: int, scale: float = 0.3) -> Policy:
    """Noise on every parameter: fresh heads are so close to uniform that hardly anything could show in them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return policy.double()


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(
        core: str,
        copy: bool = True,
        stage_aware: bool = True,
        reader: str = "sum",
        *,
        layers: int | None = None,
        feedback: str = "display",
        n: int = 7,
        steps: int = 12,
        seed: int = 0,
    ) -> Case:
        task = Arithmetic(feedback=feedback)  # type: ignore[arg-type]
        config = PolicyConfig(width=16, layers=layers, heads=2, copy_head=copy, stage_aware=stage_aware, reader=reader)
        policy = shaken(Policy(task.spec, core, config), seed)
        return Case(core, config, policy, *draw_inputs(task, n, steps, seed))

    return make


def draw_inputs(task: Arithmetic, n: int, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contexts, stages, tokens and feedback: problems of every stage, read with a wild history."""
    generator = torch.Generator().manual_seed(seed)
    spec: TaskSpec = task.spec
    stage = torch.arange(n) % len(spec.stages)
    problems = task.sample(stage, generator)
    tokens = torch.randint(len(spec.vocabulary), (steps, n), generator=generator)
    feedback = torch.randint(len(spec.vocabulary), (steps, n, spec.feedback_width), generator=generator)
    return problems.context, stage, tokens, feedback


@pytest.fixture
def redraw() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Other inputs of the same shape."""
    return lambda case, seed: draw_inputs(Arithmetic(), len(case.stage), len(case.tokens), seed)


@pytest.fixture(
    params=KINDS,
    ids=lambda kind: (
        f"{kind[0]}{'' if kind[1] else '-nocopy'}{'' if kind[2] else '-unaware'}{'-reads' * (len(kind) > 3)}"
    ),
)
def case(request: pytest.FixtureRequest, make_case: Callable[..., Case]) -> Case:
    """Every core, with and without copy head, with and without stage; and with a reader."""
    return make_case(*request.param)
