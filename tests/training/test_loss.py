from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.policies.contract import Policy
from modelnative.policies.registry import CORES
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import program_length
from modelnative.training.config import LossConfig, with_fields
from modelnative.training.loss import LossTerms, LossTokens, LossWeights, policy_loss
from modelnative.training.rollout import Plan, Rollout, play

TASK = Arithmetic()
PLAIN = LossConfig(clip_low=0.0, clip_high=0.0, value_weight=0.0, imitation_weight=0.0)
SEEDS = st.integers(0, 10**6)


@dataclasses.dataclass
class Inputs:
    """The arguments of the loss, without a network: logits stand in for it."""

    logits: Tensor
    value: Tensor
    action: Tensor
    behavior_log_prob: Tensor
    advantage: Tensor
    target: Tensor
    loss_mask: Tensor
    explored: Tensor

    def terms(
        self,
        config: LossConfig,
        entropy_weight: float = 0.0,
        count: Tensor | None = None,
        hint_mask: Tensor | None = None,
    ) -> LossTerms:
        hint_mask = torch.zeros_like(self.loss_mask) if hint_mask is None else hint_mask
        columns = (self.action, self.behavior_log_prob, self.advantage, self.target, self.loss_mask, self.explored)
        tokens = LossTokens(*(column.flatten() for column in (*columns, hint_mask)))
        count = (self.loss_mask | hint_mask).sum().clamp_min(1) if count is None else count
        weights = LossWeights.of(config, entropy_weight, float(count))
        loss, *others = policy_loss(self.logits.flatten(0, -2), self.value.flatten(), tokens, weights)
        return LossTerms(loss, *(term.detach() for term in others))

    def gradient(self, config: LossConfig, entropy_weight: float = 0.0) -> tuple[Tensor, Tensor]:
        loss = self.terms(config, entropy_weight).loss
        return torch.autograd.grad(loss, (self.logits, self.value), materialize_grads=True)

    @property
    def log_prob(self) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, self.action[..., None])[..., 0].detach()

    @property
    def ratio(self) -> Tensor:
        return (self.log_prob - self.behavior_log_prob).exp()


def vector(terms: LossTerms) -> Tensor:
    return torch.stack([term.detach() for term in terms])


def draw(seed: int, steps: int = 4, n: int = 6, on_policy: bool = False) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    free = normal(steps, n) > -0.5
    free[0, 0] = True
    made = Inputs(
        logits=normal(steps, n, 5).requires_grad_(),
        value=normal(steps, n).requires_grad_(),
        action=torch.randint(5, (steps, n), generator=generator),
        behavior_log_prob=-normal(steps, n).abs(),
        advantage=normal(steps, n),
        target=normal(steps, n),
        loss_mask=free,
        explored=free & (normal(steps, n) > 0.3),
    )
    if on_policy:
        made.behavior_log_prob = made.log_prob
    return made


# Only what is in the mask


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("copy", [True, False])
def test_what_is_not_in_the_mask_has_no_gradient(core: str, copy: bool, make_policy) -> None:
    """Actions of hints, what comes with them, and all that was read after the end can be garbage."""
    policy: Policy = make_policy(TASK, core, copy=copy)
    generator = torch.Generator().manual_seed(0)
    problems = TASK.sample(torch.arange(40) % 3, generator)
    program = TASK.oracle(problems)
    forced = (torch.rand(40, generator=generator) * program_length(program, TASK.spec.end)).long()
    plan = dataclasses.replace(
        Plan.sampled(problems, TASK.spec.horizon, generator),
        program=program,
        hints=forced,
        explore=torch.full((40,), 0.5),
        reach=torch.ones_like(forced),
    )
    rollout = play(policy, TASK, problems, plan)
    steps = rollout.reward.shape
    advantage, target = torch.randn(2, *steps, generator=generator)
    config = LossConfig()

    def gradient(rollout: Rollout, advantage: Tensor, target: Tensor) -> list[Tensor]:
        output = policy(rollout.token, rollout.feedback, policy.initial_state(problems))
        masks = (rollout.loss_mask, rollout.explored, torch.zeros_like(rollout.explored))
        columns = (rollout.action, rollout.behavior_log_prob, advantage, target, *masks)
        tokens = LossTokens(*(column.flatten() for column in columns))
        weights = LossWeights.of(config, 0.01, float(rollout.loss_mask.sum()))
        policy.zero_grad()
        policy_loss(output.logits.flatten(0, 1), output.value.flatten(), tokens, weights)[0].backward()
        return [p.grad.clone() for p in policy.parameters()]

    plain = gradient(rollout, advantage, target)
    free, over = rollout.loss_mask, ~rollout.running
    assert int(over.sum()) > 0
    assert int((rollout.running & ~free).sum()) > 0

    def garbage(tensor: Tensor, where: Tensor, other: Tensor) -> Tensor:
        return torch.where(where.view(*where.shape, *[1] * (tensor.dim() - 2)), other, tensor)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randint(len(TASK.spec.vocabulary), tensor.shape, generator=generator)

    spoilt = dataclasses.replace(
        rollout,
        action=garbage(rollout.action, ~free, noise(rollout.action)),
        behavior_log_prob=garbage(rollout.behavior_log_prob, ~free, -40.0 * torch.rand(steps, generator=generator)),
        token=garbage(rollout.token, over, noise(rollout.token)),
        feedback=garbage(rollout.feedback, over, noise(rollout.feedback)),
        explored=rollout.explored,
    )
    wild = 1e4 * torch.randn(2, *steps, generator=generator)
    found = gradient(spoilt, garbage(advantage, ~free, wild[0]), garbage(target, ~free, wild[1]))
    assert not torch.equal(spoilt.token, rollout.token)
    assert not torch.equal(spoilt.action, rollout.action)
    for left, right in zip(found, plain, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)
    assert max(float(g.abs().max()) for g in plain) > 1e-3


@given(SEEDS)
def test_terms_are_means_over_the_mask(seed: int) -> None:
    inputs = draw(seed)
    terms, free = inputs.terms(PLAIN), inputs.loss_mask
    log_probs, value = inputs.logits.detach().log_softmax(-1), inputs.value.detach()
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    assert float(terms.entropy) == pytest.approx(float(entropy[free].mean()))
    assert float(terms.value_loss) == pytest.approx(float((value - inputs.target)[free].square().mean()))
    assert float(terms.policy_loss) == pytest.approx(-float((inputs.ratio * inputs.advantage)[free].mean()))
    gradient = inputs.gradient(LossConfig(), 0.1)
    assert not bool(gradient[0][~free].any())
    assert not bool(gradient[1][~free].any())


def test_an_empty_mask_is_no_loss() -> None:
    inputs = draw(0)
    inputs.loss_mask, inputs.explored = torch.zeros_like(inputs.loss_mask), torch.zeros_like(inputs.loss_mask)
    assert float(inputs.terms(LossConfig(), 0.1).loss.detach()) == 0


@given(SEEDS, st.integers(1, 3))
def test_parts_of_a_minibatch_add_up(seed: int, cut: int) -> None:
    inputs = draw(seed)
    count = inputs.loss_mask.sum()
    parts = [
        Inputs(*(getattr(inputs, field.name)[:, part] for field in dataclasses.fields(inputs)))
        for part in (slice(cut), slice(cut, None))
    ]
    whole, one, two = (vector(part.terms(LossConfig(), 0.1, count)) for part in (inputs, *parts))
    torch.testing.assert_close(one + two, whole)
    assert float(LossTerms(*whole).loss) == pytest.approx(float(inputs.terms(LossConfig(), 0.1).loss.detach()))


# The surrogate


@given(SEEDS)
def test_without_clipping_it_is_the_policy_gradient(seed: int) -> None:
    """On-policy, the gradient is that of log π(a)·A (Williams, 1992)."""
    inputs = draw(seed, on_policy=True)
    found = inputs.gradient(PLAIN)[0]
    log_prob = inputs.logits.log_softmax(-1).gather(-1, inputs.action[..., None])[..., 0]
    reinforce = -(log_prob * inputs.advantage)[inputs.loss_mask].mean()
    torch.testing.assert_close(found, torch.autograd.grad(reinforce, inputs.logits)[0])


@given(SEEDS)
def test_on_policy_clipping_changes_nothing(seed: int) -> None:
    inputs = draw(seed, on_policy=True)
    clipped = with_fields(PLAIN, {"clip_low": 0.2, "clip_high": 0.2})
    assert float(inputs.terms(clipped).policy_loss) == pytest.approx(float(inputs.terms(PLAIN).policy_loss))
    assert float(inputs.terms(clipped).clip_fraction) == pytest.approx(0.0)
    assert float(inputs.terms(clipped).approximate_kl) == pytest.approx(0.0, abs=1e-12)


@given(SEEDS, st.floats(0.05, 0.9), st.floats(0.05, 2.0))
def test_clipping_is_that_of_ppo(seed: int, low: float, high: float) -> None:
    inputs = draw(seed)
    config = with_fields(PLAIN, {"clip_low": low, "clip_high": high})
    terms, gradient = inputs.terms(config), inputs.gradient(config)[0]
    ratio, advantage, free = inputs.ratio, inputs.advantage, inputs.loss_mask
    total, outside = 0.0, 0
    for t, i in free.nonzero().tolist():
        r, a = float(ratio[t, i]), float(advantage[t, i])
        bounded = min(max(r, 1 - low), 1 + high)
        total += min(r * a, bounded * a)
        outside += bounded != r
        # Beyond the bound in the direction that pays, an action pulls no more.
        stopped = (a > 0 and r > 1 + high) or (a < 0 and r < 1 - low)
        assert bool(gradient[t, i].any()) != stopped
    assert float(terms.policy_loss) == pytest.approx(-total / int(free.sum()))
    assert float(terms.clip_fraction) == pytest.approx(outside / int(free.sum()))


def test_both_bounds_at_zero_turn_clipping_off() -> None:
    inputs = draw(3)
    terms = inputs.terms(PLAIN)
    expected = -(inputs.ratio * inputs.advantage)[inputs.loss_mask].mean()
    assert float(terms.policy_loss) == pytest.approx(float(expected))
    assert float(terms.clip_fraction) == 0


@given(SEEDS)
def test_the_divergence_is_never_negative(seed: int) -> None:
    inputs = draw(seed)
    kl = float(inputs.terms(PLAIN).approximate_kl)
    difference = (inputs.log_prob - inputs.behavior_log_prob)[inputs.loss_mask]
    assert kl == pytest.approx(float((difference.exp() - 1 - difference).mean()))
    assert kl >= 0


# The other terms


def test_entropy_is_rewarded() -> None:
    inputs = draw(1)
    gradient = inputs.gradient(PLAIN, 0.5)[0] - inputs.gradient(PLAIN, 0.0)[0]
    before = float(inputs.terms(PLAIN).entropy)
    inputs.logits = (inputs.logits - 0.1 * gradient).detach().requires_grad_()
    assert float(inputs.terms(PLAIN).entropy) > before
    with_bonus, without = inputs.terms(PLAIN, 0.5), inputs.terms(PLAIN, 0.0)
    torch.testing.assert_close(with_bonus.loss, without.loss - 0.5 * without.entropy)


def test_the_value_goes_to_its_target() -> None:
    inputs = draw(1)
    config = with_fields(PLAIN, {"value_weight": 0.25})
    gradient = inputs.gradient(config)[1]
    expected = torch.where(inputs.loss_mask, 0.5 * (inputs.value - inputs.target) / inputs.loss_mask.sum(), 0.0)
    torch.testing.assert_close(gradient, expected)
    assert not bool(inputs.gradient(PLAIN)[1].any())


@given(SEEDS)
def test_only_explored_actions_that_did_well_are_imitated(seed: int) -> None:
    inputs = draw(seed)
    plain, found = inputs.gradient(PLAIN)[0], inputs.gradient(with_fields(PLAIN, {"imitation_weight": 0.7}))[0]
    imitated = inputs.explored & (inputs.advantage > 0)
    torch.testing.assert_close(found[~imitated], plain[~imitated])
    log_prob = inputs.logits.log_softmax(-1).gather(-1, inputs.action[..., None])[..., 0]
    imitation = -(0.7 * inputs.advantage * log_prob)[imitated].sum() / inputs.loss_mask.sum()
    expected = torch.autograd.grad(imitation, inputs.logits)[0]
    torch.testing.assert_close(found[imitated], expected[imitated])


@given(SEEDS)
def test_hints_are_imitated_where_they_are_given_weight(seed: int) -> None:
    inputs = draw(seed)
    config = with_fields(PLAIN, {"hint_weight": 0.3, "value_weight": 0.5})
    forced = ~inputs.loss_mask & (
        torch.rand(inputs.loss_mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    )
    count = (inputs.loss_mask | forced).sum()
    without, terms = inputs.terms(config, 0.1, count), inputs.terms(config, 0.1, hint_mask=forced)
    log_prob = inputs.logits.log_softmax(-1).gather(-1, inputs.action[..., None])[..., 0]
    imitation = -0.3 * log_prob[forced].sum() / count
    torch.testing.assert_close(terms.loss - without.loss, imitation)
    torch.testing.assert_close(terms.policy_loss - without.policy_loss, imitation.detach())
    torch.testing.assert_close(vector(terms)[2:], vector(without)[2:])  # what else is reported is of free tokens


def test_an_action_that_the_policy_never_takes_is_imitated_all_the_same() -> None:
    """Its ratio vanishes, and with it the surrogate's gradient: that is why there is imitation."""
    inputs = draw(0, steps=1, n=1)
    inputs.logits = torch.tensor([[[30.0, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    inputs.action, inputs.behavior_log_prob = torch.tensor([[1]]), torch.tensor([[0.06]], dtype=torch.float64).log()
    inputs.advantage = torch.ones(1, 1, dtype=torch.float64)
    inputs.loss_mask = inputs.explored = torch.ones(1, 1, dtype=torch.bool)
    assert inputs.gradient(PLAIN)[0].abs().max() < 1e-9
    assert inputs.gradient(with_fields(PLAIN, {"imitation_weight": 1.0}))[0][0, 0, 1] < -0.9
