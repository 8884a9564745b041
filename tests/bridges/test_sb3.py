"""The adapter for Stable-Baselines3, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from modelnative.bridges.gymnasium import VectorEnv

pytest.importorskip("stable_baselines3")
from modelnative.bridges import sb3


@pytest.mark.filterwarnings("default")  # torch.utils.tensorboard, and SB3 of itself
def test_episodes_are_those_of_the_vector_environment() -> None:
    """Observations are the one-hot tokens, and the last of an episode comes in SB3's info."""
    ours = sb3.SB3VecEnv("arithmetic", 5, stages=["T0"], seed=3)
    plain = VectorEnv("arithmetic", 5, stages=["T0"], autoreset_mode="SameStep")
    parts = plain.single_observation_space.spaces
    sizes = np.concatenate([np.atleast_1d(getattr(part, "nvec", getattr(part, "n", 0))) for part in parts.values()])

    def tokens(row: np.ndarray) -> list[int]:
        assert row.sum() == len(sizes)
        return (row.nonzero()[0] - (sizes.cumsum() - sizes)).tolist()

    def expected(observation: dict[str, np.ndarray], i: int) -> list[int]:
        return [int(x) for name in parts for x in np.atleast_1d(observation[name][i])]

    rows, (observation, _) = ours.reset(), plain.reset(seed=3)
    assert ours.observation_space.contains(rows[0])
    random, lengths, returns, ended = np.random.default_rng(0), np.zeros(5), np.zeros(5), 0
    for _ in range(40):
        assert [tokens(row) for row in rows] == [expected(observation, i) for i in range(5)]
        assert (np.stack(ours.env_method("action_masks")) == plain.action_masks()).all()
        chosen = random.integers(18, size=5)
        rows, reward, over, infos = ours.step(chosen)
        observation, paid, terminated, truncated, found = plain.step(chosen)
        assert (reward == paid).all()
        assert (over == (terminated | truncated)).all()
        lengths, returns = lengths + 1, returns + paid
        for i in over.nonzero()[0]:
            final = {name: np.asarray(part)[None] for name, part in found["final_obs"][i].items()}
            assert tokens(infos[i]["terminal_observation"]) == expected(final, 0)
            assert infos[i]["episode"] == {"r": returns[i], "l": lengths[i]}
            assert infos[i]["TimeLimit.truncated"] == truncated[i]
            assert infos[i]["success"] == found["final_info"]["success"][i]
            lengths[i] = returns[i] = 0
            ended += 1
    assert ended > 10
    assert ours.has_attr("action_masks")
