"""Networks side by side think and learn what each of them would alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.policies.config import PolicyConfig
from modelnative.policies.policy import Policy, PolicyState, Thought
from modelnative.policies.stack import Stack
from modelnative.tasks.arithmetic.task import Arithmetic

FIELDS = ("log_probs", "value", "hidden", "copied")
SIZES = [4, 4, 3, 1]
NETWORKS, EPISODES, TOKENS = 3, SIZES[0], sum(SIZES)


def policies(layers: int, copy: bool, stage_aware: bool, feedback: str) -> list[Policy]:
    config = PolicyConfig(width=8, layers=layers, copy_head=copy, stage_aware=stage_aware)
    made = []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        policy = Policy(Arithmetic(feedback=feedback).spec, "gru", config).double()  # type: ignore[arg-type]
        for parameter in policy.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        made.append(policy)
    return made


@pytest.mark.parametrize("feedback", ["display", "none"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("copy", "stage_aware"), [(True, True), (False, True), (True, False)])
def test_each_network_thinks_and_learns_as_if_alone(layers: int, copy: bool, stage_aware: bool, feedback: str) -> None:
    alone = policies(layers, copy, stage_aware, feedback)
    stack, spec = Stack(alone), alone[0].spec
    generator = torch.Generator().manual_seed(9)
    token = torch.randint(18, (NETWORKS, TOKENS), generator=generator)
    shown = torch.randint(18, (NETWORKS, TOKENS, spec.feedback_width), generator=generator)
    context = torch.randint(18, (NETWORKS, EPISODES, spec.context_length), generator=generator)
    stage = torch.randint(3, (NETWORKS, EPISODES), generator=generator)
    heed = torch.stack([torch.randperm(TOKENS, generator=generator)[:5] for _ in range(NETWORKS)])
    weight = torch.randn(NETWORKS * 5, 8, generator=generator, dtype=torch.float64)

    def loss(thought: Thought, weight: Tensor) -> Tensor:
        return (thought.hidden * weight).sum() + thought.log_probs.square().sum() + thought.value.sum()

    start = stack.begin(context.flatten(0, 1), stage.flatten())
    whole, end = stack.think(token.flatten(), shown.flatten(0, 1), start, [3 * s for s in SIZES], heed)
    gradients = stack.gradients(loss(whole, weight))
    for i, policy in enumerate(alone):
        begun = policy.begin(context[i], stage[i])
        thought, after = policy.think(token[i], shown[i], begun, SIZES, heed[i])
        for name in FIELDS:
            torch.testing.assert_close(getattr(whole, name)[5 * i : 5 * i + 5], getattr(thought, name))
        for mine, own in zip(after.fields(), PolicyState(*(x[i : i + 1] for x in end.fields())).fields(), strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(mine, own)
        expected = torch.autograd.grad(
            loss(thought, weight[5 * i : 5 * i + 5]), list(policy.parameters()), materialize_grads=True
        )
        for left, right in zip(gradients[i], expected, strict=True):
            torch.testing.assert_close(left, right)


def test_only_a_gru_can_be_stacked() -> None:
    with pytest.raises(UserError, match="core: only networks with a gru"):
        Stack([Policy(Arithmetic().spec, "mingru", PolicyConfig(width=8))])
    with pytest.raises(UserError, match=r"policy\.reader: only networks that sum"):
        Stack([Policy(Arithmetic().spec, "gru", PolicyConfig(width=8, reader="gru"))])
