"""Every native kernel against its plain form in torch, which defines it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelnative import native
from modelnative.policies.config import PolicyConfig
from modelnative.policies.heads import Heads
from modelnative.policies.policy import Policy, Thought
from modelnative.tasks import make_task
from modelnative.training.config import LossConfig, with_fields
from modelnative.training.loss import surrogate
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Plan, play
from modelnative.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not native.computes(torch.device("cpu")), reason=f"kernels: {native.describe()}")

SEEDS = st.integers(0, 10**6)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, torch computes everything."""

    def switch() -> None:
        monkeypatch.setattr(native, "computes", lambda device: False)

    return switch


def heads(seed: int, width: int, copy: bool, size: float) -> Heads:
    """Of 11 tokens and 5 places, the last token being padding; with scores of that size."""
    torch.manual_seed(seed)
    made = Heads(width, 11, 5, 10, copy)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=size / width**0.5)
    return made


@dataclasses.dataclass
class Case:
    """Some tokens that heads are asked about, for both."""

    made: Heads
    hidden: Tensor
    context: Tensor
    heed: Tensor | None
    episode: Tensor | None

    @classmethod
    def of(cls, seed: int, rows: int, copy: bool, indexed: bool, size: float, width: int = 32) -> Case:
        made = heads(seed, width, copy, size)
        hidden = torch.randn(rows, width)
        context = torch.randint(11, (rows, 5))
        context[:, 0] = 3  # not all of it is padding
        heed = torch.randperm(rows)[: rows // 2 + 1].sort().values if indexed else None
        episode = torch.randint(rows, (len(heed),)) if heed is not None else None
        return cls(made, hidden.requires_grad_(), context, heed, episode)

    def choices(self) -> native.Choices:
        return self.made.weigh(self.hidden, self.context, self.heed, self.episode)

    def thought(self) -> Thought:
        hidden = self.hidden if self.heed is None else self.hidden[self.heed]
        context = self.context if self.episode is None else self.context[self.episode]
        log_probs, value, copied = self.made(hidden, context)
        return Thought(log_probs, value, hidden, copied)


CASES = st.builds(
    Case.of, SEEDS, st.integers(1, 230), st.booleans(), st.booleans(), st.sampled_from([0.1, 1.0, 30.0, 200.0])
)


@given(CASES)
@settings(deadline=None, max_examples=60)
def test_the_likeliest_action_is_chosen(case: Case) -> None:
    action, log_prob, value = native.choose(case.choices())
    thought = case.thought()
    best, expected = thought.log_probs.max(-1)
    torch.testing.assert_close(log_prob, best.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value, thought.value.detach(), rtol=1e-4, atol=1e-4)
    second = thought.log_probs.topk(2).values[:, 1]
    sure = best - second > 1e-3
    assert torch.equal(action[sure], expected[sure])


@given(CASES, SEEDS)
@settings(deadline=None, max_examples=60)
def test_actions_are_drawn_from_the_mixture(case: Case, seed: int) -> None:
    thought, generator = case.thought(), torch.Generator().manual_seed(seed)
    rows = len(thought.value)
    uniform, share = (torch.rand(rows, generator=generator) for _ in range(2))
    share[torch.rand(rows, generator=generator) < 0.5] = 0.0
    blind = torch.rand(rows, 11, generator=generator)
    blind /= blind.sum(1, keepdim=True)
    action, log_prob, _ = native.choose(case.choices(), uniform, share, blind)
    chances = torch.lerp(thought.log_probs.exp(), blind, share[:, None]).detach()
    torch.testing.assert_close(log_prob.exp(), chances.gather(1, action[:, None])[:, 0], rtol=1e-4, atol=1e-6)
    sums = chances.cumsum(1)
    bounds = (sums / sums[:, -1:] - uniform[:, None]).abs().amin(1)
    expected = (sums < uniform[:, None] * sums[:, -1:]).sum(1).clamp_max(10)
    assert torch.equal(action[bounds > 1e-5], expected[bounds > 1e-5])


LOSSES = st.builds(
    LossConfig,
    clip_low=st.sampled_from([0.0, 0.2]),
    clip_high=st.sampled_from([0.0, 0.3]),
    imitation_weight=st.sampled_from([0.0, 0.7]),
    hint_weight=st.sampled_from([0.0, 0.4]),
    value_weight=st.sampled_from([0.0, 0.5]),
)


@given(CASES, LOSSES, SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_loss_and_its_gradient(case: Case, config: LossConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    thought = case.thought()
    rows = len(thought.value)
    many = rows + 3
    where = torch.randperm(many, generator=generator)[:rows]
    action = torch.randint(11, (many,), generator=generator)
    own = thought.log_probs.detach().gather(1, action[where][:, None])[:, 0]
    behavior_log_prob = torch.zeros(many).index_copy(0, where, (own + torch.randn(rows, generator=generator) / 5))
    free = torch.rand(many, generator=generator) < 0.8
    # A ratio at the very edge of the clip counts as either, and so does a probability at the floor.
    ratio = (own - behavior_log_prob[where]).exp()
    edges = torch.stack([(ratio - 1 + config.clip_low).abs(), (ratio - 1 - config.clip_high).abs()]).amin()
    assume(bool(edges > 1e-4) and bool(((thought.log_probs + 69.07).abs() > 0.1).all()))
    behavior_log_prob[~free] = torch.nan  # means nothing where it is not free
    forced = ~free & (torch.rand(many, generator=generator) < 0.5)
    columns = {
        "action": action,
        "behavior_log_prob": behavior_log_prob,
        "advantage": torch.randn(many, generator=generator),
        "target": torch.randn(many, generator=generator),
        "free": free,
        "explored": torch.rand(many, generator=generator) < 0.3,
        "forced": forced if config.hint_weight else None,
    }
    rest = {"config": config, "entropy_weight": 0.03, "count": torch.tensor(17.0), "where": where}
    parameters = [case.hidden, *case.made.parameters()]
    ours, theirs = surrogate(case.choices(), **columns, **rest), surrogate(thought, **columns, **rest)
    torch.testing.assert_close(ours.vector(), theirs.vector(), rtol=2e-4, atol=2e-4)
    gradients = [torch.autograd.grad(terms.loss, parameters, materialize_grads=True) for terms in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        scale = float(other.abs().max()) + 1e-3
        torch.testing.assert_close(mine / scale, other / scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("stage_aware", [True, False])
@pytest.mark.parametrize("curriculum", ["hints", "uniform"])
def test_an_update(layers: int, stage_aware: bool, curriculum: str, plainly: Callable[[], None]) -> None:
    fields = {
        "episodes": 96,
        "curriculum": curriculum,
        "threads": 1,
        "policy": {"width": 32, "layers": layers, "stage_aware": stage_aware},
    }
    ours, theirs = (Trainer(make_task("arithmetic"), with_fields(recipe(), fields)) for _ in range(2))
    mine = [ours.update() for _ in range(2)]
    plainly()
    others = [theirs.update() for _ in range(2)]
    for a, b in zip(mine, others, strict=True):
        assert (a.steps, a.success) == (b.steps, b.success)
        assert a.policy_loss == pytest.approx(b.policy_loss, abs=1e-4)
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-3)
    # Adam divides by the size of a gradient, so that rounding near 0 is seen.
    for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("episodes", [7, 100, 1000])
def test_the_number_of_threads_changes_nothing_to_the_bit(episodes: int) -> None:
    fields = {"episodes": episodes, "curriculum": "uniform"}
    runs = [Trainer(make_task("arithmetic"), with_fields(recipe(), {**fields, "threads": n})) for n in (1, 2, 3)]
    for _ in range(3):
        metrics = [dataclasses.replace(run.update(), timing=None) for run in runs]  # type: ignore[arg-type]
    assert metrics[0] == metrics[1] == metrics[2]
    for run in runs[1:]:
        for a, b in zip(runs[0].parameters, run.parameters, strict=True):
            assert torch.equal(a, b)


def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it() -> None:
    task = make_task("arithmetic")
    policy = Policy(task.spec, "gru", PolicyConfig())
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.randint(3, (300,), generator=generator), generator)
    plan = Plan.free(problems, 12, generator)
    whole = play(policy, task, problems, plan)
    for rows in (torch.arange(1), torch.tensor([299, 5, 7]), torch.randperm(300)):
        part = play(policy, task, problems[rows], plan[rows])
        length = len(part.action)
        assert torch.equal(part.action, whole.action[:length, rows] * part.running)
        for name in ("behavior_log_prob", "value"):
            own, other = getattr(part, name), getattr(whole, name)[:length, rows]
            assert torch.equal(own[part.running], other[part.running])
