"""The whole update on one screen: draw, play, advantages, gradient steps, measure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from modelnative.native import backend
from modelnative.policies.contract import Policy
from modelnative.policies.registry import make_policy, named
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, program_length, require
from modelnative.training.adam import Adam
from modelnative.training.algorithm import Algorithm
from modelnative.training.audit import Alarm
from modelnative.training.auditor import audit_due, audit_terms, audit_update
from modelnative.training.config import TrainConfig
from modelnative.training.curriculum import Curriculum, Draw, Preparation
from modelnative.training.dynamic_sampling import replace_rejected
from modelnative.training.events import Alarmed, CallbackLike, Event, Searched, Started, Updated
from modelnative.training.gradient import policy_gradient
from modelnative.training.loss import LossTerms, LossWeights
from modelnative.training.metrics import Metrics, measure
from modelnative.training.parallel import PRIVATE, Group, Pool, cores, gather_rollout
from modelnative.training.recipes import recipe
from modelnative.training.registry import ALGORITHMS, CURRICULA
from modelnative.training.rollout import COLUMNS, Plan, Rollout, empty_columns, play
from modelnative.training.update_memory import require_training_memory
from modelnative.training.update_state import UpdateState

PLAYED_AT_ONCE, LEARNED_AT_ONCE = 4096, 1024  # the most episodes that one thread takes at a time


class Trainer:
    """One training: policy, optimizer, curriculum and counters. Iterate over it to train.

    All random numbers of update u are drawn from a generator that is seeded by (seed, u) alone, so that a training
    that continues from a checkpoint is the same, bit for bit, without the state of any generator.

    Args:
        task: what to learn.
        config: how; by default the recipe of the task.
        policy: the module to train, see `Policy`; by default made by `config.core` and `config.policy`.
        curriculum: by default made by `config.curriculum` and `config.curricula`.
        callbacks: are called with every event.

    Attributes:
        stages: the names of the stages that it trains on.
        practice: training problems that a verification found wrong; each is played about once an update or more often,
            in a sixteenth of the episodes at least and a quarter at most.
        alarms: what the audit of the last update found wrong; see `TrainConfig.alarms`.
        computed_by: `native` or `torch` (see `modelnative doctor`); both where a continuation was computed otherwise.

    Raises:
        UserError: the configuration does not fit the task.

    Example:
        >>> import modelnative as mn
        >>> for metrics in mn.Trainer(mn.make("arithmetic"), mn.TrainConfig(updates=1, episodes=8)):
        ...     print(metrics.update, metrics.episodes)
        1 8
    """

    @standard_settings()
    def __init__(
        self,
        task: AnyTask,
        config: TrainConfig | None = None,
        policy: nn.Module | None = None,
        curriculum: Curriculum | None = None,
        callbacks: Sequence[CallbackLike] = (),
    ) -> None:
        self.task, self.config = task, config or recipe(task.spec.name)
        config = self.config
        self.callbacks = list(callbacks)
        policy = make_policy(task.spec, config.core, config.policy, config.seed) if policy is None else policy
        self.policy = cast(Policy, policy.to(config.device))
        self.parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.optimizer = Adam(self.parameters, config.optimizer.learning_rate)
        most = len(task.spec.stages)
        require(config.stages <= most, "stages", config.stages, f"at most {most}, the stages of {task.spec.name}")
        self.stages = task.spec.stages[: config.stages or None]
        if curriculum is None:
            kind: type[Curriculum] = named("curriculum", config.curriculum, CURRICULA, Curriculum)
            curriculum = kind.for_task(task, config.curricula, config.stages)
        self.curriculum = curriculum.to(config.device)
        self.algorithm: Algorithm = named("algorithm", config.algorithm, ALGORITHMS, Algorithm)(config.loss)
        episodes, each = config.episodes, self.algorithm.num_generations
        require(episodes % each == 0, "loss.num_generations", each, f"a divisor of episodes ({episodes})")
        self.practice: Problems | None = None
        self.alarms: list[Alarm] = []
        self.updates = self.episodes = self.steps = 0
        self.generator = torch.Generator(config.device)
        self.pool = Pool(config.threads or cores())
        self.group = Group(config.device)
        self.on_cpu = torch.device(config.device).type == "cpu"
        self.computed_by = [backend() if self.on_cpu else "torch"]
        require_training_memory(self, PLAYED_AT_ONCE, LEARNED_AT_ONCE)

    def __iter__(self) -> Iterator[Metrics]:
        """Update after update, until the budget of updates is spent."""
        parameters = sum(parameter.numel() for parameter in self.parameters)
        self.emit(Started(None, self.updates, self.task.spec.stages, parameters, trainer=self))
        start = time.perf_counter()
        for event in self.prepare_curriculum():
            self.emit(event)
        while self.updates < self.config.updates:
            metrics = self.update()
            self.emit(Updated(metrics, time.perf_counter() - start, trainer=self))
            for alarm in self.alarms:
                self.emit(Alarmed(self.updates, alarm, trainer=self))
            yield metrics

    def prepare_curriculum(self) -> Iterator[Searched]:
        """What the curriculum does before the first update."""
        preparation = Preparation(self.config.seed, self.config.split, self.pool.map)
        events = self.curriculum.prepare(self.task, preparation)
        while True:
            with standard_settings():
                event = next(events, None)
            if event is None:
                return
            yield replace(event, trainer=self)

    def emit(self, event: Event) -> None:
        """Call every callback with an event; of several processes, in rank 0 alone."""
        for callback in self.callbacks if self.group.is_leader else ():
            callback(event)

    @standard_settings()
    def update(self) -> Metrics:
        """Play one batch of episodes and learn from it."""
        started = time.perf_counter()
        with self.pool.computing():
            self.generator.manual_seed(self.config.seed * 1_000_003 + self.updates)
            state = self.prepare(*self.collect(), started)
            audited = self.config.alarms != "off" and audit_due(self.updates + 1)
            self.alarms = audit_update(self, state).alarms if audited else []
            for rows in self.minibatches():
                gradients, terms = self.gradient(state, rows)
                if audited and not state.terms:
                    self.alarms += audit_terms(self, terms).alarms
                self.apply_gradients(state, gradients, terms)
            return self.finish(state)

    def collect(self) -> tuple[Rollout, list[tuple[Draw, Tensor]], int]:
        """The episodes to learn from, every draw with its verdicts, and the number of actions played."""
        played, rollouts, steps = [], [], 0
        for _ in range(self.algorithm.rounds):
            draw, problems, plan = self.draw()
            rollout = self.play(problems, plan)
            played.append((draw, rollout.success))
            steps += int(rollout.length.sum())
            keep = self.algorithm.keep(rollout)
            rollouts.append((rollout, torch.ones_like(rollout.success) if keep is None else keep))
            if sum(int(kept.sum()) for _, kept in rollouts) >= self.config.episodes:
                break
        return replace_rejected(rollouts, self.config.episodes), played, steps

    def draw(self) -> tuple[Draw, Problems, Plan]:
        """What to play; where the algorithm compares them, several episodes of each problem side by side."""
        config, task, generations = self.config, self.task, self.algorithm.num_generations
        draw = self.curriculum.draw(config.episodes // generations, self.generator, self.updates / config.updates)
        problems: Problems = self.curriculum.problems(task, draw, self.generator, config.split)
        count = 0 if self.practice is None else min(len(draw) // 4, max(len(draw) // 16, len(self.practice)))
        if self.practice is not None and count:
            chosen = torch.randint(len(self.practice), (count,), generator=self.generator, device=draw.stage.device)
            again = self.practice[chosen]
            draw = Batch.cat([draw[count:], self.curriculum.practice(again.stage, self.generator)])
            problems = Batch.cat([problems[count:], again])
        if generations > 1:
            same = torch.arange(config.episodes, device=draw.stage.device) // generations
            draw, problems = draw[same], problems[same]
        plan = Plan.sampled(problems, task.spec.horizon, self.generator)
        plan.explore, plan.delay, plan.reach = draw.explore, draw.delay, draw.reach
        if (program := self.curriculum.program(task, problems)) is not None:
            plan.program = program
            plan.hints = (program_length(plan.program, task.spec.end) - draw.own_tokens).clamp_min(0)
        return draw, problems, plan

    def play(self, problems: Problems, plan: Plan) -> Rollout:
        """Play them, shared among processes and threads."""
        mine = self.group.shard(torch.arange(len(problems), device=problems.stage.device))
        columns = empty_columns(self.task, len(mine), problems.stage.device)

        def play_part(places: Tensor) -> int:
            part = slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
            rows = part if self.group.size == 1 else mine[part]
            into = {name: column[:, part] if name in COLUMNS else column[part] for name, column in columns.items()}
            return len(play(self.policy, self.task, problems[rows], plan[rows], final=False, into=into).action)

        parts = torch.arange(len(mine)).tensor_split(self.parts(len(mine), PLAYED_AT_ONCE))
        # Where episodes are replaced, another process may learn from them; and some curricula read them.
        private = PRIVATE if self.algorithm.rounds == 1 and not self.curriculum.reads_rollouts else ()
        return gather_rollout(columns, problems, max(self.pool.map(play_part, parts)), self.group, private)

    def parts(self, n: int, most: int) -> int:
        """Into how many parts to split n episodes for threads, `most` in a part; it does not depend on their number."""
        if not self.on_cpu or getattr(self.policy, "parallel", False) or n < most // 4:
            return 1
        return 2 * -(-n // (2 * most))

    def prepare(self, rollout: Rollout, played: list[tuple[Draw, Tensor]], steps: int, started: float) -> UpdateState:
        """What to learn from the episodes, and how fast."""
        config, learning = self.config, time.perf_counter()
        left = min(1.0, self.curriculum.failure / config.optimizer.anneal_below_failure)
        annealed = max(config.optimizer.min_lr_fraction, left)
        self.optimizer.lr = config.optimizer.learning_rate * annealed
        advantage, target = self.algorithm.advantages(rollout)
        mask = rollout.running if config.loss.hint_weight else rollout.loss_mask
        entropy_weight = config.loss.entropy_weight * annealed**2
        times = {"started": started, "learning": learning}
        return UpdateState.of(
            rollout, advantage, target, mask, steps=steps, played=played, entropy_weight=entropy_weight, **times
        )

    def minibatches(self) -> list[Tensor]:
        """The episodes of every gradient step, int64 each."""
        config, device = self.config, self.config.device
        orders = [
            torch.randperm(config.episodes, generator=self.generator, device=device) for _ in range(config.loss.epochs)
        ]
        return [rows for order in orders for rows in order.tensor_split(config.loss.minibatches)]

    def gradient(self, state: UpdateState, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradient of every parameter on some episodes, and the loss's terms, float [8]."""
        mine = self.group.shard(rows)
        parts = self.parts(len(mine), LEARNED_AT_ONCE)  # each has every so manyth episode, so long ones and short ones
        split = [mine[offset::parts] for offset in range(parts)]
        first, *others = self.pool.map(lambda part: self.part_gradient(state, part, rows), split)
        for other in others:
            torch._foreach_add_(first, other)
        *gradients, terms = self.group.add(first)
        return gradients, terms

    def part_gradient(self, state: UpdateState, part: Tensor, rows: Tensor) -> list[Tensor]:
        """What some of these episodes add to the gradient, and to the loss's terms."""
        if not len(part):  # of a minibatch smaller than the number of processes, some have nothing
            return [*map(torch.zeros_like, self.parameters), torch.zeros(len(LossTerms._fields), device=rows.device)]
        tokens = state.tokens.index_select(0, rows).sum()
        count = float(self.algorithm.loss_denominator(tokens, len(rows), self.task.spec.horizon))
        weights = LossWeights.of(self.config.loss, state.entropy_weight, count)
        return policy_gradient(self.policy, self.parameters, state, part, weights)

    def apply_gradients(self, state: UpdateState, gradients: list[Tensor], terms: Tensor) -> None:
        """One step of the optimizer, with the gradient clipped to `max_grad_norm`."""
        state.norms.append(self.optimizer.step(gradients, self.config.optimizer.max_grad_norm))
        state.terms.append(terms)

    def finish(self, state: UpdateState) -> Metrics:
        """Update the curriculum and the counters, and measure."""
        for draw, success in state.played:
            self.curriculum.observe(draw, success)
        self.curriculum.learn(self.task, state.rollout, self.generator)
        self.updates += 1
        self.episodes += sum(len(success) for _, success in state.played)
        self.steps += state.steps
        return measure(self, state, time.perf_counter())
