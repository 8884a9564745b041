from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.contract import PolicyOutput
from modelnative.policies.policy import TokenPolicy, TokenState
from modelnative.policies.registry import make_policy
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import Problems, TaskSpec

KINDS = [
    *itertools.product(CORES, (True, False), (True, False)),
    *((core, copy, True, "gru") for core, copy in itertools.product(CORES, (True, False))),
]
FIELDS = ("logits", "value", "hidden", "copied")


@dataclass
class Case:
    """A policy in float64 whose outputs are far from uniform, and inputs that a task would give."""

    core: str
    config: PolicyConfig
    policy: TokenPolicy
    problems: Problems  # n
    tokens: Tensor  # [T, n]
    feedback: Tensor  # [T, n, F]

    @property
    def start(self) -> TokenState:
        return self.policy.initial_state(self.problems)

    def whole(self) -> PolicyOutput:
        """All T tokens in one call."""
        return self.policy(self.tokens, self.feedback, self.start)

    def steps(self, state: TokenState, start: int, end: int) -> PolicyOutput:
        """The tokens from `start` to `end`, one call for each."""
        outputs = []
        for t in range(start, end):
            outputs.append(self.policy(self.tokens[t : t + 1], self.feedback[t : t + 1], state))
            state = outputs[-1].state
        columns = {name: torch.cat([getattr(output, name) for output in outputs]) for name in FIELDS}
        return PolicyOutput(state=state, **columns)


def shaken(policy: TokenPolicy, seed: int, scale: float = 0.3) -> TokenPolicy:
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
        policy = make_policy(task.spec, core, config)
        assert isinstance(policy, TokenPolicy)
        return Case(core, config, shaken(policy, seed), *draw_inputs(task, n, steps, seed))

    return make


def draw_inputs(task: Arithmetic, n: int, steps: int, seed: int) -> tuple[Problems, Tensor, Tensor]:
    """Problems of every stage, tokens and feedback, drawn without regard to the rules of the task."""
    generator = torch.Generator().manual_seed(seed)
    spec: TaskSpec = task.spec
    problems = task.sample(torch.arange(n) % len(spec.stages), generator)
    tokens = torch.randint(len(spec.vocabulary), (steps, n), generator=generator)
    feedback = torch.randint(len(spec.vocabulary), (steps, n, spec.feedback_width), generator=generator)
    return problems, tokens, feedback


@pytest.fixture
def redraw() -> Callable[..., tuple[Problems, Tensor, Tensor]]:
    """Other inputs of the same shape."""
    return lambda case, seed: draw_inputs(Arithmetic(), len(case.problems), len(case.tokens), seed)


@pytest.fixture(
    params=KINDS,
    ids=lambda kind: (
        f"{kind[0]}{'' if kind[1] else '-nocopy'}{'' if kind[2] else '-unaware'}{'-reads' * (len(kind) > 3)}"
    ),
)
def case(request: pytest.FixtureRequest, make_case: Callable[..., Case]) -> Case:
    """Every core, with and without copy head, with and without stage; and with a reader."""
    return make_case(*request.param)
