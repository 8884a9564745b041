"""TorchRL's recurrent PPO on the batched world: EnvBase, Collector, LSTMModule or GRUModule, GAE, ClipPPOLoss."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from tensordict.nn import TensorDictSequential as Sequential
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.data import Binary, Composite, Unbounded
from torchrl.data import Categorical as Choice
from torchrl.envs import EnvBase, InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType
from torchrl.modules import GRUModule, LSTMModule, set_recurrent_mode
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from worlds import ACTIONS, HIDDEN, PLACES, Peer, Reader, Stages, TensorWorld

STATES = {"lstm": ["memory_h", "memory_c"], "gru": ["memory_h"]}


class CalculatorEnv(EnvBase):
    """The tensor world behind TorchRL's interface.

    The world resets by itself: `_step` gives the next episode's first observation where one has ended, which nothing
    reads, because its value is masked; `_reset` gives it again, as the first.
    """

    batch_locked = True

    def __init__(self, n: int, stages: Stages, seed: int) -> None:
        super().__init__(batch_size=[n])
        self.world = TensorWorld(n, stages, seed)
        observation = Unbounded((n, len(PLACES)), dtype=torch.int64)
        self.observation_spec = Composite(observation=observation, shape=(n,))
        self.action_spec = Choice(ACTIONS, shape=(n,), dtype=torch.int64)
        self.reward_spec = Unbounded((n, 1))
        flag = Binary(1, (n, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), shape=(n,))

    def _reset(self, tensordict: TensorDictBase | None, **options: Any) -> TensorDictBase:
        first = tensordict is None or "_reset" not in tensordict.keys()  # noqa: SIM118, a tensordict has no `in`
        observation = self.world.reset() if first else self.world.observation
        return TensorDict({"observation": observation}, self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation, reward, ended = self.world.step(tensordict["action"])
        ended = ended[:, None]
        fields = {"observation": observation, "reward": reward[:, None], "done": ended, "terminated": ended.clone()}
        return TensorDict(fields, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        pass  # the world was given its seed


class TorchRL(Peer):
    """One training.

    Args:
        stages: where problems are drawn from.
        seed: of weights, problems and actions.
        core: `lstm` or `gru`; backend: how it is unrolled in the update, TorchRL's `recurrent_backend`.
        environments: how many, always batched.
        steps: of every environment in a rollout.
        values: `collected` keeps the critic's values from the rollout; `again` lets GAE unroll the network once more.
        minibatches, epochs: of an update.
        learning_rate, gamma, trace, clip, entropy, gradient_norm: as in PPO.
    """

    def __init__(
        self,
        stages: Stages,
        seed: int = 0,
        *,
        core: str = "lstm",
        backend: str = "pad",
        environments: int = 512,
        world: str = "tensor",
        steps: int = 24,
        values: str = "collected",
        minibatches: int = 4,
        epochs: int = 1,
        learning_rate: float = 2.5e-3,
        gamma: float = 1.0,
        trace: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.01,
        gradient_norm: float = 0.5,
    ) -> None:
        assert world == "tensor"
        Categorical.set_default_validate_args(False)
        torch.manual_seed(seed)
        self.core, self.frames, self.n = core, environments * steps, environments
        self.minibatches, self.epochs, self.gradient_norm = minibatches, epochs, gradient_norm
        states = STATES[core]
        self.memory = (LSTMModule if core == "lstm" else GRUModule)(
            input_size=HIDDEN,
            hidden_size=HIDDEN,
            in_keys=["read", *states],
            out_keys=["hidden", *[("next", name) for name in states]],
            recurrent_backend=backend,
        )
        actor, critic = nn.Linear(HIDDEN, ACTIONS), nn.Linear(HIDDEN, 1)
        nn.init.orthogonal_(actor.weight, 0.01)
        nn.init.orthogonal_(critic.weight, 1.0)
        trunk = Sequential(
            TensorDictModule(nn.Sequential(Reader(), nn.ReLU()), in_keys=["observation"], out_keys=["read"]),
            self.memory,
        )
        choose = TensorDictModule(actor, in_keys=["hidden"], out_keys=["logits"])
        draw = ProbabilisticTensorDictModule(
            in_keys=["logits"],
            out_keys=["action"],
            distribution_class=Categorical,
            return_log_prob=True,
            log_prob_key="action_log_prob",
            default_interaction_type=ExplorationType.RANDOM,
        )
        self.judge = TensorDictModule(critic, in_keys=["hidden"], out_keys=["state_value"])
        self.policy = ProbabilisticTensorDictSequential(trunk, choose, draw)
        self.critic = Sequential(trunk, self.judge)
        collected = values == "collected"
        acting = ProbabilisticTensorDictSequential(trunk, self.judge, choose, draw) if collected else self.policy
        # The loss calls the trunk once, through the actor; the critic is the head alone and reads what that left.
        self.loss = ClipPPOLoss(
            self.policy,
            self.judge,
            clip_epsilon=clip,
            entropy_coeff=entropy,
            critic_coeff=0.5,
            loss_critic_type="l2",
            normalize_advantage=True,
        )
        self.estimate = GAE(
            gamma=gamma,
            lmbda=trace,
            value_network=None if collected else self.critic,
            vectorized=False,
            shifted=not collected,
        )
        self.parameters = sum(p.numel() for p in [*self.policy.parameters(), *critic.parameters()])
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=learning_rate, eps=1e-5)
        env = TransformedEnv(CalculatorEnv(environments, stages, seed), InitTracker())
        env.append_transform(self.memory.make_tensordict_primer())
        self.collector = Collector(
            env, acting, frames_per_batch=self.frames, total_frames=-1, exploration_type=ExplorationType.RANDOM,
            track_traj_ids=False, trust_policy=True,
        )  # fmt: skip
        self.batches = iter(self.collector)

    def update(self) -> int:
        data = next(self.batches)
        with torch.no_grad(), set_recurrent_mode(True):
            if self.estimate.value_network is None:
                self._shift_values(data)
            self.estimate(data)
        keep = ("observation", "is_init", "action", "action_log_prob", "advantage", "value_target", *STATES[self.core])
        data = data.select(*keep)
        for _ in range(self.epochs):
            for chosen in torch.randperm(self.n).chunk(self.minibatches):
                with set_recurrent_mode(True):
                    terms = self.loss(data[chosen])
                loss = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.loss.parameters(), self.gradient_norm)
                self.optimizer.step()
        return self.frames

    def _shift_values(self, data: TensorDictBase) -> None:
        """The value after each step is the one before the next; the last is computed. After an end it is masked."""
        values = data["state_value"]
        last = data[:, -1]["next"].select("observation", "is_init", *STATES[self.core])
        with set_recurrent_mode(False):
            after = self.critic(last)["state_value"]
        data["next", "state_value"] = torch.cat([values[:, 1:], after[:, None]], 1)

    def begin(self, n: int) -> dict[str, Tensor]:
        return {name: torch.zeros(n, 1, HIDDEN) for name in STATES[self.core]}

    @torch.no_grad()
    def act(self, observation: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        first = torch.zeros(len(observation), 1, dtype=torch.bool)
        data = TensorDict({"observation": observation, "is_init": first, **memory}, [len(observation)])
        for module in self.policy[:-1]:
            data = module(data)
        return data["logits"].argmax(-1), {name: data["next", name] for name in memory}
