from __future__ import annotations

import dataclasses
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.policies.registry import named
from modelnative.tasks.contract.task import Problems
from modelnative.training.algorithm import (
    MIN_DEVIATION,
    Algorithm,
    discounted_returns,
    episode_returns,
    generalized_advantages,
    group_advantages,
    in_reward_units,
    largest_return,
    leave_one_out,
    normalize,
    stage_baseline,
)
from modelnative.training.config import ALGORITHMS, LossConfig, with_fields
from modelnative.training.rollout import Rollout

CONFIG = LossConfig(gamma=0.9, gae_lambda=0.8, num_generations=4)
SEEDS = st.integers(0, 10**6)
GROUP = 4
N = 12


@pytest.fixture(params=range(8))
def rollout(request, make_rollout) -> Rollout:
    return make_rollout(N, request.param)


def advantages(name: str, rollout: Rollout, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    algorithm: Algorithm = named("algorithm", name, ALGORITHMS, Algorithm)(config)
    return algorithm.advantages(rollout)


def row(tensor: torch.Tensor, i: int, length: int) -> list[float]:
    return tensor[:length, i].tolist()


# Generalized advantage estimation


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_gae_equals_the_double_loop(rollout: Rollout, gamma: float, gae_lambda: float) -> None:
    found = generalized_advantages(rollout, gamma, gae_lambda)
    for i, length in enumerate(rollout.length.tolist()):
        reward, value = row(rollout.reward, i, length), [*row(rollout.value, i, length), 0.0]
        for t in range(length):
            total = 0.0
            for k in range(t, length):
                error = reward[k] + gamma * value[k + 1] - value[k]
                total += (gamma * gae_lambda) ** (k - t) * error
            assert float(found[t, i]) == pytest.approx(total, abs=1e-5)
        assert not bool(found[length:, i].any())


def test_gae_with_lambda_one_is_return_minus_value(rollout: Rollout) -> None:
    expected = discounted_returns(rollout.reward, 0.9) - rollout.value
    found = generalized_advantages(rollout, 0.9, 1.0)
    torch.testing.assert_close(found[rollout.running], expected[rollout.running])


@given(SEEDS, st.floats(0.1, 1.0))
def test_discounted_returns_equal_the_double_loop(seed: int, gamma: float) -> None:
    reward = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = reward.clone()
    found = discounted_returns(reward, gamma)
    for t in range(5):
        for i in range(3):
            expected = sum(gamma ** (k - t) * float(reward[k, i]) for k in range(t, 5))
            assert float(found[t, i]) == pytest.approx(expected)
    assert torch.equal(reward, kept)


# Groups


def returns(rollout: Rollout) -> list[float]:
    """The sum of the rewards from the first token of the loss on."""
    return [
        sum(float(rollout.reward[t, i]) for t in range(len(rollout.reward)) if bool(rollout.loss_mask[t, i]))
        for i in range(N)
    ]


def test_the_return_does_not_count_what_the_hint_earned(rollout: Rollout) -> None:
    assert episode_returns(rollout).tolist() == pytest.approx(returns(rollout), abs=1e-5)
    hint = rollout.hint_mask
    other = dataclasses.replace(rollout, reward=rollout.reward + 9.0 * hint)
    assert bool(hint.any())
    assert torch.equal(episode_returns(other), episode_returns(rollout))


@pytest.mark.parametrize("scale", [True, False])
def test_group_advantages_equal_the_double_loop(rollout: Rollout, scale: bool) -> None:
    found, earned = group_advantages(rollout, GROUP, scale), returns(rollout)
    assert found.shape == rollout.reward.shape
    for i in range(N):
        group = earned[i // GROUP * GROUP : (i // GROUP + 1) * GROUP]
        expected = earned[i] - statistics.mean(group)
        if scale:
            expected /= statistics.stdev(group) + 1e-4 * max(map(abs, group))
        assert found[:, i].tolist() == pytest.approx([expected] * len(found), abs=1e-4)


def test_a_group_that_agrees_says_nothing(rollout: Rollout) -> None:
    alike = dataclasses.replace(rollout, reward=torch.zeros_like(rollout.reward))
    for scale in (True, False):
        assert not bool(group_advantages(alike, GROUP, scale).any())
    assert not bool(leave_one_out(alike, GROUP).any())


def test_leave_one_out_equals_the_double_loop(rollout: Rollout) -> None:
    found, earned = leave_one_out(rollout, GROUP), returns(rollout)
    for i in range(N):
        others = [earned[j] for j in range(N) if j // GROUP == i // GROUP and j != i]
        expected = earned[i] - statistics.mean(others)
        assert found[:, i].tolist() == pytest.approx([expected] * len(found), abs=1e-4)


# REINFORCE


def test_the_baseline_is_the_mean_of_the_stage(rollout: Rollout) -> None:
    earned = discounted_returns(rollout.reward, 0.9)
    found = stage_baseline(rollout, earned)
    assert found.shape == earned.shape
    for i, stage in enumerate(rollout.problems.stage.tolist()):
        same = [
            float(earned[t, j])
            for j in range(N)
            for t in range(len(earned))
            if bool(rollout.loss_mask[t, j]) and int(rollout.problems.stage[j]) == stage
        ]
        assert found[:, i].tolist() == pytest.approx([statistics.mean(same)] * len(earned), abs=1e-5)


def test_reinforce_is_return_minus_baseline(rollout: Rollout) -> None:
    found, target = advantages("reinforce", rollout, CONFIG)
    earned = discounted_returns(rollout.reward, CONFIG.gamma)
    plain = (earned - stage_baseline(rollout, earned))[rollout.loss_mask]
    torch.testing.assert_close(
        found[rollout.loss_mask],
        plain / max(float(plain.square().mean().sqrt()), MIN_DEVIATION * float(largest_return(rollout))),
    )
    assert torch.equal(target, earned)


# Normalization


@pytest.mark.parametrize("center", [True, False])
def test_statistics_are_those_of_the_tokens_in_the_loss(rollout: Rollout, center: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    advantage = 3.0 + 2.0 * torch.randn(rollout.reward.shape, generator=generator)
    found = normalize(advantage, rollout.loss_mask, center)[rollout.loss_mask]
    if center:
        assert float(found.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(found.std()) == pytest.approx(1.0, abs=1e-3)
    else:
        assert float(found.square().mean()) == pytest.approx(1.0, abs=1e-3)
        assert torch.equal(found.sign(), advantage[rollout.loss_mask].sign()), "without centering no sign is turned"
    garbage = torch.where(rollout.loss_mask, advantage, 1e6)
    assert torch.equal(normalize(garbage, rollout.loss_mask, center)[rollout.loss_mask], found)


def test_normalizing_next_to_nothing_is_finite() -> None:
    one = torch.tensor([[True, False]])
    assert normalize(torch.tensor([[2.0, 5.0]]), one)[0, 0] == 2.0
    alike = normalize(torch.full((3, 4), 2.0), torch.ones(3, 4, dtype=torch.bool))
    assert alike.abs().max() < 1e-3


def test_noise_is_not_blown_up() -> None:
    """Where nothing fails the advantages are the critic's errors, and stay as small as those."""
    noise = 0.01 * torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
    assert normalize(noise, torch.ones_like(noise, dtype=torch.bool)).std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 5e3, 1e7])
def test_group_advantages_do_not_depend_on_the_unit_of_the_reward(rollout: Rollout, scale: float) -> None:
    """Nor does rounding count as a difference: five returns that are equal but for the order of their sums."""
    scaled = dataclasses.replace(rollout, reward=rollout.reward * scale)
    torch.testing.assert_close(group_advantages(scaled, GROUP, True), group_advantages(rollout, GROUP, True))
    alike = dataclasses.replace(scaled, reward=torch.full_like(scaled.reward, 0.7 * scale))
    alike.reward[0] += alike.reward[0] * 3e-7 * torch.randn(N, generator=torch.Generator().manual_seed(0))
    alike.loss_mask = torch.ones_like(alike.loss_mask)
    assert group_advantages(alike, GROUP, True).abs().max() < 0.02


UNITS = [1e-6, 1e-3, 0.03, 40.0, 5e3, 1e7]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("algorithm", ["rloo", "reinforce"])
def test_advantages_do_not_depend_on_the_unit_of_the_reward(rollout: Rollout, algorithm: str, unit: float) -> None:
    """Also where hardly anything fails, so that the least deviation counts."""
    for spread in (1.0, 0.01):
        plain = dataclasses.replace(rollout, reward=torch.where(rollout.running, 1 + spread * rollout.reward, 0.0))
        scaled = dataclasses.replace(plain, reward=plain.reward * unit)
        torch.testing.assert_close(
            advantages(algorithm, scaled, CONFIG)[0], advantages(algorithm, plain, CONFIG)[0], atol=1e-4, rtol=1e-3
        )


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1000.0, 1e7])
def test_a_critic_learns_numbers_near_one(rollout: Rollout, algorithm: str, unit: float) -> None:
    """Rewards of a thousand are the same to the critic and the policy as rewards of one."""
    last = torch.arange(len(rollout.reward))[:, None] == rollout.length - 1
    plain = dataclasses.replace(rollout, reward=(last & rollout.success).float())
    scaled = dataclasses.replace(plain, reward=plain.reward * unit)
    for found, expected in zip(
        advantages(algorithm, scaled, CONFIG), advantages(algorithm, plain, CONFIG), strict=True
    ):
        torch.testing.assert_close(found[rollout.loss_mask], expected[rollout.loss_mask])


@pytest.mark.parametrize("reward", [0.0, 0.04, 1.0, -2.0, 30.0])
def test_usual_rewards_are_taken_as_they_are(rollout: Rollout, reward: float) -> None:
    usual = dataclasses.replace(rollout, reward=torch.zeros_like(rollout.reward))
    usual.reward[-1, 3] = reward
    usual.loss_mask = torch.ones_like(usual.loss_mask)
    assert in_reward_units(usual) is usual
    assert float(largest_return(usual)) == pytest.approx(abs(reward) or 1.0)


def test_rewards_are_scaled_as_told_or_by_the_discounted_return(rollout: Rollout) -> None:
    scaled = in_reward_units(rollout, scale=0.25)
    assert torch.equal(scaled.reward, rollout.reward * 0.25)
    steady = dataclasses.replace(
        rollout, reward=torch.full((400, 2), 1.0), loss_mask=torch.ones(400, 2, dtype=torch.bool)
    )
    assert float(largest_return(steady)) == 400
    assert float(largest_return(steady, gamma=0.9)) == pytest.approx(10)
    assert in_reward_units(steady, gamma=0.9) is steady
    assert torch.equal(in_reward_units(steady).reward, steady.reward / 1000)


@given(st.integers(0, 1000), st.floats(0.5, 1), st.floats(0, 1))
def test_a_bootstrapped_value_is_the_value_of_one_more_step(seed: int, gamma: float, gae_lambda: float) -> None:
    """As if each episode had one action more, which pays the value and ends it."""
    generator = torch.Generator().manual_seed(seed)
    length, n = torch.tensor([1, 3, 4]), 3
    running = torch.arange(5)[:, None] < length
    value, reward = torch.randn(2, 5, n, generator=generator)
    ahead = torch.randn(n, generator=generator)
    names = ("token", "action", "behavior_log_prob", "explored", "invalid")
    none = {name: torch.zeros(5, n) for name in names}
    plain = Rollout(
        problems=Problems(torch.zeros(n), torch.zeros(n, 1), torch.arange(n)),
        **none,
        feedback=torch.zeros(5, n, 0),
        value=value,
        reward=reward * running,
        running=running,
        loss_mask=running,
        success=torch.zeros(n, dtype=torch.bool),
        bootstrap=ahead,
        final=None,
    )
    longer = dataclasses.replace(plain, bootstrap=torch.zeros(n), running=torch.arange(5)[:, None] <= length)
    longer.value = torch.where(running, value, ahead)  # as good as predicted, so that its own advantage is 0
    longer.reward = torch.where(running, plain.reward, ahead) * longer.running
    expected = generalized_advantages(longer, gamma, gae_lambda)
    found = generalized_advantages(plain, gamma, gae_lambda)
    assert torch.allclose(found[running], expected[running], atol=1e-5)


# All algorithms


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_not_in_the_loss_never_enters(algorithm: str, rollout: Rollout) -> None:
    """After the end nothing enters; a hint's rewards and values only touch the hint's own entries."""
    advantage, target = advantages(algorithm, rollout, CONFIG)
    mask, over = rollout.loss_mask, ~rollout.running
    assert advantage.shape == target.shape == rollout.reward.shape
    assert bool(advantage[mask].isfinite().all())
    other = dataclasses.replace(
        rollout,
        value=torch.where(mask, rollout.value, 77.0),
        reward=torch.where(mask | over, rollout.reward, -55.0),
        behavior_log_prob=rollout.behavior_log_prob + 3.0,
        action=17 - rollout.action,
        invalid=~rollout.invalid,
    )
    advantage_2, target_2 = advantages(algorithm, other, CONFIG)
    torch.testing.assert_close(advantage_2[mask], advantage[mask])
    torch.testing.assert_close(target_2[mask], target[mask])


def test_nothing_crosses_episodes(rollout: Rollout) -> None:
    other = dataclasses.replace(rollout, value=rollout.value.clone(), reward=rollout.reward.clone())
    other.value[:, 5] += 9.0
    other.reward[:, 5] += 9.0
    rest = torch.arange(N) != 5
    assert torch.equal(
        generalized_advantages(other, 0.9, 0.8)[:, rest], generalized_advantages(rollout, 0.9, 0.8)[:, rest]
    )
    assert torch.equal(discounted_returns(other.reward, 0.9)[:, rest], discounted_returns(rollout.reward, 0.9)[:, rest])
    apart = torch.arange(N) // GROUP != 5 // GROUP
    for function in (lambda r: group_advantages(r, GROUP, True), lambda r: leave_one_out(r, GROUP)):
        left, right = function(other), function(rollout)
        assert torch.equal(left[:, apart], right[:, apart])
        assert not bool((left == right)[:, ~apart].any())


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_the_critics_target_is_its_value_plus_the_plain_advantage(algorithm: str, rollout: Rollout) -> None:
    advantage, target = advantages(algorithm, rollout, CONFIG)
    plain = generalized_advantages(rollout, CONFIG.gamma, CONFIG.gae_lambda)
    assert torch.equal(target, plain + rollout.value)
    seen = plain[rollout.loss_mask]
    expected = (seen - seen.mean()) / max(float(seen.std()), MIN_DEVIATION * float(largest_return(rollout)))
    torch.testing.assert_close(advantage[rollout.loss_mask], expected)


def test_the_options_of_grpo_count(rollout: Rollout) -> None:
    scaled = advantages("grpo", rollout, with_fields(CONFIG, {"scale_rewards": True}))[0]
    plain = advantages("grpo", rollout, with_fields(CONFIG, {"scale_rewards": False}))[0]
    torch.testing.assert_close(plain, group_advantages(rollout, GROUP, False))
    torch.testing.assert_close(scaled, group_advantages(rollout, GROUP, True))
    assert not torch.equal(scaled, plain)
    assert not torch.equal(advantages("grpo", rollout, with_fields(CONFIG, {"num_generations": 6}))[0], scaled)


def test_rloo_keeps_the_signs_of_leave_one_out(rollout: Rollout) -> None:
    found = advantages("rloo", rollout, CONFIG)[0]
    assert torch.equal(found.sign(), leave_one_out(rollout, GROUP).sign())
