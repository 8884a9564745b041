"""Your own algorithms: Dr. GRPO, and GRPO with DAPO's dynamic sampling.

modelnative train --algorithm own_algorithm:DrGRPO
modelnative train --algorithm own_algorithm:DAPO
"""

from torch import Tensor

import modelnative as mn
from modelnative.training.algorithm import discounted_returns, episode_returns, group_advantages

GROUPED = {"loss": {"value_weight": 0.0, "epochs": 2, "minibatches": 4}}


class DrGRPO(mn.Algorithm):
    """GRPO without its two biases (Liu et al., 2025, "Understanding R1-Zero-like training").

    Advantages are not divided by the deviation of their group, and sums over tokens not by the number of tokens, but by
    a constant: long episodes weigh as much as short ones.
    """

    recipe = GROUPED
    learning_rate_factor = 0.5
    grouped = True

    def advantages(self, rollout: mn.Rollout) -> tuple[Tensor, Tensor]:
        """Return minus the mean of the group; there is no critic."""
        advantage = group_advantages(rollout, self.num_generations, scale=False)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)

    def loss_denominator(self, tokens: Tensor, episodes: int, horizon: int) -> float:
        """The most tokens that the episodes could have had."""
        return episodes * horizon


class DAPO(mn.Algorithm):
    """GRPO with dynamic sampling (Yu et al., 2025): groups whose episodes all have the same return are drawn again.

    The other parts of DAPO are in the default configuration: clipping that is wider upwards (`loss.clip_high`), and a
    loss that is a mean over tokens.
    """

    recipe = GROUPED
    learning_rate_factor = 0.5
    grouped = True
    rounds = 4

    def advantages(self, rollout: mn.Rollout) -> tuple[Tensor, Tensor]:
        """As GRPO."""
        advantage = group_advantages(rollout, self.num_generations, self.config.scale_rewards)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)

    def keep(self, rollout: mn.Rollout) -> Tensor:
        """The episodes of groups that have something to compare, bool [n]."""
        returns = episode_returns(rollout).view(-1, self.num_generations)
        return (returns.std(1) > 0).repeat_interleave(self.num_generations)


if __name__ == "__main__":
    task = mn.make("arithmetic")
    for algorithm in ("DrGRPO", "DAPO"):
        config = mn.with_fields(mn.recipe(task, algorithm=f"own_algorithm:{algorithm}"), {"updates": 40})
        for metrics in mn.Trainer(task, config):
            if metrics.update % 10 == 0:
                print(algorithm, metrics.update, metrics.episodes, metrics.stages, metrics.greedy)
