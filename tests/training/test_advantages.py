from __future__ import annotations

import dataclasses
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modelnative.training.advantages import (
    LEAST,
    advantages,
    episode_return,
    generalised,
    group_relative,
    leave_one_out,
    normalised,
    stage_mean,
    to_go,
)

from modelnative.training.config import ALGORITHMS, LossConfig
from modelnative.training.rollout import Rollout

CONFIG = LossConfig(gamma=0.9, trace=0.8, group=4)
SEEDS = st.integers(0, 10**6)
GROUP = 4
N = 12


@pytest.fixture(params=range(8))
def rollout(request, make_rollout) -> Rollout:
    return make_rollout(N, request.param)


def row(tensor: torch.Tensor, i: int, length: int) -> list[float]:
    return tensor[:length, i].tolist()


# Generalised advantage estimation


@pytest.mark.parametrize(("gamma", "trace"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_gae_equals_the_double_loop(rollout: Rollout, gamma: float, trace: float) -> None:
    found = generalised(rollout, gamma, trace)
    for i, length in enumerate(rollout.length.tolist()):
        reward, value = row(rollout.reward, i, length), [*row(rollout.value, i, length), 0.0]
        for t in range(length):
            total = 0.0
            for k in range(t, length):
                error = reward[k] + gamma * value[k + 1] - value[k]
                total += (gamma * trace) ** (k - t) * error
            assert float(found[t, i]) == pytest.approx(total, abs=1e-5)
        assert not bool(found[length:, i].any())


def test_gae_with_full_trace_is_return_minus_value(rollout: Rollout) -> None:
    expected = to_go(rollout.reward, 0.9) - rollout.value
    found = generalised(rollout, 0.9, 1.0)
    torch.testing.assert_close(found[rollout.running], expected[rollout.running])


@given(SEEDS, st.floats(0.1, 1.0))
def test_to_go_equals_the_double_loop(seed: int, gamma: float) -> None:
    reward = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = reward.clone()
    found = to_go(reward, gamma)
    for t in range(5):
        for i in range(3):
            expected = sum(gamma ** (k - t) * float(reward[k, i]) for k in range(t, 5))
            assert float(found[t, i]) == pytest.approx(expected)
    assert torch.equal(reward, kept)


# Groups


def returns(rollout: Rollout) -> list[float]:
    """The sum of the rewards from the first free token on."""
    return [
        sum(float(rollout.reward[t, i]) for t in range(len(rollout.reward)) if bool(rollout.free[t, i]))
        for i in range(N)
    ]


def test_the_return_does_not_count_what_the_hint_earned(rollout: Rollout) -> None:
    assert episode_return(rollout).tolist() == pytest.approx(returns(rollout), abs=1e-5)
    forced = rollout.running & ~rollout.free
    other = dataclasses.replace(rollout, reward=rollout.reward + 9.0 * forced)
    assert bool(forced.any())
    assert torch.equal(episode_return(other), episode_return(rollout))


@pytest.mark.parametrize("scale", [True, False])
def test_group_relative_equals_the_double_loop(rollout: Rollout, scale: bool) -> None:
    found, earned = group_relative(rollout, GROUP, scale), returns(rollout)
    assert found.shape == rollout.reward.shape
    for i in range(N):
        group = earned[i // GROUP * GROUP : (i // GROUP + 1) * GROUP]
        expected = earned[i] - statistics.mean(group)
        if scale:
            expected /= statistics.stdev(group) + 1e-4
        assert found[:, i].tolist() == pytest.approx([expected] * len(found), abs=1e-4)


def test_a_group_that_agrees_says_nothing(rollout: Rollout) -> None:
    alike = dataclasses.replace(rollout, reward=torch.zeros_like(rollout.reward))
    for scale in (True, False):
        assert not bool(group_relative(alike, GROUP, scale).any())
    assert not bool(leave_one_out(alike, GROUP).any())


def test_leave_one_out_equals_the_double_loop(rollout: Rollout) -> None:
    found, earned = leave_one_out(rollout, GROUP), returns(rollout)
    for i in range(N):
        others = [earned[j] for j in range(N) if j // GROUP == i // GROUP and j != i]
        expected = earned[i] - statistics.mean(others)
        assert found[:, i].tolist() == pytest.approx([expected] * len(found), abs=1e-4)


# REINFORCE


def test_the_baseline_is_the_mean_of_the_stage(rollout: Rollout) -> None:
    earned = to_go(rollout.reward, 0.9)
    found = stage_mean(rollout, earned)
    assert found.shape == earned.shape
    for i, stage in enumerate(rollout.problems.stage.tolist()):
        same = [
            float(earned[t, j])
            for j in range(N)
            for t in range(len(earned))
            if bool(rollout.free[t, j]) and int(rollout.problems.stage[j]) == stage
        ]
        assert found[:, i].tolist() == pytest.approx([statistics.mean(same)] * len(earned), abs=1e-5)


def test_reinforce_is_return_minus_baseline(rollout: Rollout) -> None:
    found, target = advantages("reinforce", rollout, CONFIG)
    earned = to_go(rollout.reward, CONFIG.gamma)
    plain = (earned - stage_mean(rollout, earned))[rollout.free]
    torch.testing.assert_close(found[rollout.free], plain / max(float(plain.square().mean().sqrt()), LEAST))
    assert torch.equal(target, earned)


# Normalisation


@pytest.mark.parametrize("centre", [True, False])
def test_statistics_are_those_of_the_free_tokens(rollout: Rollout, centre: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    advantage = 3.0 + 2.0 * torch.randn(rollout.reward.shape, generator=generator)
    found = normalised(advantage, rollout.free, centre)[rollout.free]
    if centre:
        assert float(found.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(found.std()) == pytest.approx(1.0, abs=1e-3)
    else:
        assert float(found.square().mean()) == pytest.approx(1.0, abs=1e-3)
        assert torch.equal(found.sign(), advantage[rollout.free].sign()), "without centring no sign is turned"
    garbage = torch.where(rollout.free, advantage, 1e6)
    assert torch.equal(normalised(garbage, rollout.free, centre)[rollout.free], found)


def test_normalising_next_to_nothing_is_finite() -> None:
    one = torch.tensor([[True, False]])
    assert normalised(torch.tensor([[2.0, 5.0]]), one)[0, 0] == 2.0
    alike = normalised(torch.full((3, 4), 2.0), torch.ones(3, 4, dtype=torch.bool))
    assert alike.abs().max() < 1e-3


def test_noise_is_not_blown_up() -> None:
    """Where nothing fails the advantages are the critic's errors, and stay as small as those."""
    noise = 0.01 * torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
    assert normalised(noise, torch.ones_like(noise, dtype=torch.bool)).std() == pytest.approx(0.1, rel=0.1)


# All algorithms


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_not_free_never_enters(algorithm: str, rollout: Rollout) -> None:
    """After the end nothing enters; a hint's rewards and values only touch the hint's own entries."""
    advantage, target = advantages(algorithm, rollout, CONFIG)
    free, over = rollout.free, ~rollout.running
    assert advantage.shape == target.shape == rollout.reward.shape
    assert bool(advantage[free].isfinite().all())
    other = dataclasses.replace(
        rollout,
        value=torch.where(free, rollout.value, 77.0),
        reward=torch.where(free | over, rollout.reward, -55.0),
        behavior_log_prob=rollout.behavior_log_prob + 3.0,
        action=17 - rollout.action,
        invalid=~rollout.invalid,
    )
    advantage_2, target_2 = advantages(algorithm, other, CONFIG)
    torch.testing.assert_close(advantage_2[free], advantage[free])
    torch.testing.assert_close(target_2[free], target[free])


def test_nothing_crosses_episodes(rollout: Rollout) -> None:
    other = dataclasses.replace(rollout, value=rollout.value.clone(), reward=rollout.reward.clone())
    other.value[:, 5] += 9.0
    other.reward[:, 5] += 9.0
    rest = torch.arange(N) != 5
    assert torch.equal(generalised(other, 0.9, 0.8)[:, rest], generalised(rollout, 0.9, 0.8)[:, rest])
    assert torch.equal(to_go(other.reward, 0.9)[:, rest], to_go(rollout.reward, 0.9)[:, rest])
    apart = torch.arange(N) // GROUP != 5 // GROUP
    for function in (lambda r: group_relative(r, GROUP, True), lambda r: leave_one_out(r, GROUP)):
        left, right = function(other), function(rollout)
        assert torch.equal(left[:, apart], right[:, apart])
        assert not bool((left == right)[:, ~apart].any())


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_the_critics_target_is_its_value_plus_the_plain_advantage(algorithm: str, rollout: Rollout) -> None:
    advantage, target = advantages(algorithm, rollout, CONFIG)
    plain = generalised(rollout, CONFIG.gamma, CONFIG.trace)
    assert torch.equal(target, plain + rollout.value)
    seen = plain[rollout.free]
    expected = (seen - seen.mean()) / max(float(seen.std()), LEAST)
    torch.testing.assert_close(advantage[rollout.free], expected)


def test_the_options_of_grpo_count(rollout: Rollout) -> None:
    scaled = advantages("grpo", rollout, dataclasses.replace(CONFIG, scale_rewards=True))[0]
    plain = advantages("grpo", rollout, dataclasses.replace(CONFIG, scale_rewards=False))[0]
    torch.testing.assert_close(plain, group_relative(rollout, GROUP, False))
    torch.testing.assert_close(scaled, group_relative(rollout, GROUP, True))
    assert not torch.equal(scaled, plain)
    assert not torch.equal(advantages("grpo", rollout, dataclasses.replace(CONFIG, group=6))[0], scaled)


def test_rloo_keeps_the_signs_of_leave_one_out(rollout: Rollout) -> None:
    found = advantages("rloo", rollout, CONFIG)[0]
    assert torch.equal(found.sign(), leave_one_out(rollout, GROUP).sign())
