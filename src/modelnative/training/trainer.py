"""The whole update on one screen: draw, play, advantage, gradient steps, measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative import native
from modelnative.native import Choices
from modelnative.policies.cores import GRU
from modelnative.policies.policy import Policy, Thought
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, program_length, require
from modelnative.training.advantages import advantages
from modelnative.training.config import TrainConfig, validate
from modelnative.training.curricula import Draw, make_curriculum
from modelnative.training.loss import Terms, surrogate
from modelnative.training.parallel import Group, Pool, cores
from modelnative.training.rollout import COLUMNS, Plan, Rollout, blank, joined, play

COUNTERS = ("updates", "episodes", "steps")
# The most episodes that one thread takes at a time, where threads take episodes.
PLAYED = 4096
LEARNT = 1024


@dataclass(frozen=True)
class Timing:
    """How long one update took; the only part of the metrics that is not reproducible.

    Attributes:
        seconds: of this update.
        steps_per_second: actions of running episodes over seconds.
        rollout_share, update_share: the parts of it spent playing and learning.
    """

    seconds: float
    steps_per_second: float
    rollout_share: float
    update_share: float


@dataclass(frozen=True)
class Metrics:
    """What one update did.

    Attributes:
        update: updates so far, this one included.
        episodes, steps: so far; a step is one action of a running episode, forced ones included.
        success: for each stage the smoothed success without hints, measured without exploration; None if unseen.
        greedy: for each stage the greedy success on 256 training problems; None but every `evaluate_every` updates.
        stages: for each stage where the curriculum stands.
        mean_return: mean sum of rewards of the episodes.
        entropy: mean over free tokens, in nats.
        approximate_kl: mean of the k3 estimator between behavior and new policy, in nats.
        clip_fraction: share of free tokens whose ratio was clipped.
        explained_variance: of the critic's targets by its values; 0 without a critic.
        gradient_norm: before clipping, the mean of the steps.
        invalid: presses without effect in an episode.
        excess: presses of a successful episode without hint beyond the oracle's; None if there was none.
        policy_loss, value_loss, learning_rate: as they are.
        timing: how long it took.
    """

    update: int
    episodes: int
    steps: int
    success: list[float | None]
    greedy: list[float] | None
    stages: list[str]
    mean_return: float
    entropy: float
    approximate_kl: float
    clip_fraction: float
    explained_variance: float
    gradient_norm: float
    invalid: float
    excess: float | None
    policy_loss: float
    value_loss: float
    learning_rate: float
    timing: Timing


@dataclass
class Lesson:
    """One update under way.

    Attributes:
        draw, rollout: what the curriculum wanted, and what came of it.
        heard: bool [T, n], the tokens that the loss sees: the free ones, and where hints are imitated the forced ones.
        length, count: int64 [n], actions of each episode, and those of them that are heard.
        advantage, target: float [T, n].
        entropy_weight: of this update.
        terms, norms: of the gradient steps so far: the loss's terms, and the norm of the gradient before clipping.
        start, played: when it began, and when the episodes were played.
    """

    draw: Draw
    rollout: Rollout
    heard: Tensor
    length: Tensor
    count: Tensor
    advantage: Tensor
    target: Tensor
    entropy_weight: float
    terms: list[Tensor]
    norms: list[Tensor]
    start: float
    played: float


class Trainer:
    """One training: policy, optimiser, curriculum and counters.

    Everything random in update u is drawn from a generator seeded by (seed, u) alone, so that continuing from a
    checkpoint needs no generator's state, and is the same to the bit.

    Args:
        task: what to learn.
        config: how; see `recipe`.

    Attributes:
        stages: the names of those that it trains on.
        practice: training problems that a verification found wrong; each is played about once an update or more often,
            in a sixteenth of the episodes at least and a quarter at most.

    Raises:
        UserError: a field of `config` is not sensible.
    """

    def __init__(self, task: AnyTask, config: TrainConfig) -> None:
        validate(config)
        self.task, self.config = task, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.policy = Policy(task.spec, config.core, config.policy).to(config.device)
        rate = config.optimizer.learning_rate
        self.parameters = list(self.policy.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=rate, eps=1e-5, fused=True)
        self.stages = task.spec.stages[: config.stages or None]
        most = len(task.spec.stages)
        require(config.stages <= most, "stages", config.stages, f"at most {most}, the stages of {task.spec.name}")
        lengths = oracle_lengths(task)[: len(self.stages)]
        self.curriculum = make_curriculum(config.curriculum, lengths, task.spec.horizon, config.curricula)
        self.curriculum.to(config.device)
        self.practice: Problems | None = None
        self.updates = self.episodes = self.steps = 0
        self.generator = torch.Generator(config.device)
        self.pool = Pool(config.threads or cores())
        self.group = Group(config.device)
        self.packs = torch.device(config.device).type == "cpu"

    def __iter__(self) -> Iterator[Metrics]:
        """Update after update, until the budget of updates is spent."""
        while self.updates < self.config.updates:
            yield self.update()

    def update(self) -> Metrics:
        """Play one batch of episodes and learn from it."""
        start = time.perf_counter()
        with native.crew(self.pool.threads):
            draw, problems, plan = self.draw()
            lesson = self.study(draw, self.play(problems, plan), start)
            for rows in self.minibatches():
                self.step(lesson, *self.gradient(lesson, rows))
            return self.close(lesson)

    def draw(self) -> tuple[Draw, Problems, Plan]:
        """What to play; with grpo and rloo, `group` episodes of each problem side by side."""
        config, task = self.config, self.task
        self.generator.manual_seed(config.seed * 1_000_003 + self.updates)
        group = config.loss.num_generations if config.algorithm in ("grpo", "rloo") else 1
        draw = self.curriculum.draw(config.episodes // group, self.generator, self.updates / config.updates)
        problems: Problems = task.sample(draw.stage, self.generator, config.split)  # type: ignore[arg-type]
        count = 0
        if self.practice is not None:
            count = min(len(draw) // 4, max(len(draw) // 16, len(self.practice)))
        if self.practice is not None and count:
            chosen = torch.randint(len(self.practice), (count,), generator=self.generator, device=draw.stage.device)
            again = self.practice[chosen]
            draw = Batch.cat([draw[count:], self.curriculum.practise(again.stage, self.generator)])
            problems = Batch.cat([problems[count:], again])
        if group > 1:
            same = torch.arange(config.episodes, device=draw.stage.device) // group
            draw, problems = draw[same], problems[same]
        program = task.oracle(problems)
        plan = Plan(
            uniform=torch.rand(len(draw), task.spec.horizon, generator=self.generator, device=draw.stage.device),
            program=program,
            forced=(program_length(program, task.spec.end) - draw.free).clamp_min(0),
            explore=draw.explore,
            delay=draw.delay,
            reach=draw.reach,
        )
        return draw, problems, plan

    def play(self, problems: Problems, plan: Plan) -> Rollout:
        """Play them, shared among processes and threads."""
        mine = self.group.share(torch.arange(len(problems), device=problems.stage.device))
        columns = blank(self.task, len(mine), problems.stage.device)
        alone = len(mine) == len(problems)

        def of(places: Tensor) -> int:
            part = slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
            rows = part if alone else mine[part]
            into = {name: column[:, part] if name in COLUMNS else column[part] for name, column in columns.items()}
            played = play(self.policy, self.task, problems[rows], plan[rows], final=False, into=into)
            return len(played.action)

        parts = torch.arange(len(mine)).tensor_split(self.parts(len(mine), PLAYED))
        return joined(columns, problems, max(self.pool.map(of, parts)), self.group)

    def parts(self, n: int, most: int) -> int:
        """Into how many parts to share n episodes among threads, however many there are of those.

        A part is no larger than `most`, and so small only that threads do not wait for one another all the time. Where
        the kernels share their work themselves, there is only one.
        """
        shares = isinstance(self.policy.core, GRU) and self.policy.weighs
        if shares or not self.packs or n < most // 4:
            return 1
        return 2 * -(-n // (2 * most))

    def study(self, draw: Draw, rollout: Rollout, start: float) -> Lesson:
        """What there is to learn from the episodes, and how fast to."""
        config, played = self.config, time.perf_counter()
        cooling = max(
            config.optimizer.min_lr_fraction, min(1.0, self.curriculum.failure / config.optimizer.anneal_below_failure)
        )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = config.optimizer.learning_rate * cooling
        advantage, target = advantages(config.algorithm, rollout, config.loss)
        entropy_weight = config.loss.entropy_weight * cooling**2
        heard = rollout.running if config.loss.hint_weight else rollout.free
        counts = (rollout.length, heard.sum(0))
        return Lesson(draw, rollout, heard, *counts, advantage, target, entropy_weight, [], [], start, played)

    def minibatches(self) -> list[Tensor]:
        """The episodes of every gradient step, int64 each."""
        config = self.config
        orders = [
            torch.randperm(config.episodes, generator=self.generator, device=config.device)
            for _ in range(config.loss.epochs)
        ]
        return [rows for order in orders for rows in order.tensor_split(config.loss.minibatches)]

    def gradient(self, lesson: Lesson, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradient of every parameter on some episodes, and the loss's terms (see `Terms`)."""
        count = lesson.count.index_select(0, rows).sum().clamp_min(1)
        if self.packs:
            length = lesson.length.index_select(0, rows)
            rows = rows.index_select(0, length.argsort(descending=True, stable=True))
        parameters = self.parameters

        def of(part: Tensor) -> list[Tensor]:
            if not len(part):  # of a minibatch smaller than the number of processes, some have nothing
                return [*map(torch.zeros_like, parameters), Terms.none(count.device)]
            terms = self.loss(lesson, *self.rethink(lesson, part), count)
            gradients = torch.autograd.grad(terms.loss, parameters, materialize_grads=True)
            return [*gradients, terms.vector()]

        mine = self.group.share(rows)
        # Every so manyth of the episodes, so that each part has long ones and short ones.
        parts = self.parts(len(mine), LEARNT)
        chunks = [mine[first::parts] for first in range(parts)]
        first, *others = self.pool.map(of, chunks)
        for other in others:
            torch._foreach_add_(first, other)
        *gradients, terms = self.group.add(first)
        return gradients, terms

    def rethink(self, lesson: Lesson, rows: Tensor) -> tuple[Thought | Choices, Tensor]:
        """A fresh forward pass over some episodes, the longest first, with gradients.

        On a CPU nothing is computed for tokens after the end, and no thought for those that nothing is learned from;
        elsewhere shapes that do not depend on the data are worth more.

        Returns:
            M thoughts; and int64 [M], where their tokens are in the flattened rollout.
        """
        rollout = lesson.rollout
        horizon, episodes = rollout.running.shape
        sizes, heed = [len(rows)] * horizon, None
        if self.packs:
            over = lesson.length.index_select(0, rows).bincount(minlength=horizon + 1).cumsum(0)
            sizes = [len(rows) - done for done in over[:horizon].tolist() if done < len(rows)]
        token = torch.cat([rows[:size] + t * episodes for t, size in enumerate(sizes)])
        state = self.policy.begin(
            rollout.problems.context.index_select(0, rows), rollout.problems.stage.index_select(0, rows)
        )
        read, shown = rollout.token.flatten(), rollout.feedback.flatten(0, 1)
        if self.packs:
            heard = lesson.heard.flatten().index_select(0, token)
            heed = None if bool(heard.all()) else heard.nonzero()[:, 0]
        chosen = token if heed is None else token.index_select(0, heed)
        if self.policy.weighs:
            return self.policy.weigh(read, shown, state, sizes, heed, where=token)[0], chosen
        read, shown = read.index_select(0, token), shown.index_select(0, token)
        return self.policy.think(read, shown, state, sizes, heed)[0], chosen

    def loss(self, lesson: Lesson, thought: Thought | Choices, chosen: Tensor, count: Tensor) -> Terms:
        """The part of a minibatch's loss that the tokens at `chosen` of the flattened rollout add."""
        rollout = lesson.rollout
        return surrogate(
            thought,
            action=rollout.action.flatten(),
            behavior_log_prob=rollout.behavior_log_prob.flatten(),
            advantage=lesson.advantage.flatten(),
            target=lesson.target.flatten(),
            free=rollout.free.flatten(),
            explored=rollout.explored.flatten(),
            config=self.config.loss,
            entropy_weight=lesson.entropy_weight,
            count=count,
            where=chosen,
            forced=(lesson.heard & ~rollout.free).flatten() if self.config.loss.hint_weight else None,
        )

    def step(self, lesson: Lesson, gradients: list[Tensor], terms: Tensor) -> None:
        """One step of the optimiser."""
        # In one piece, for the norm; each then lies as its parameter does, which fused Adam takes for granted.
        whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
        norm = whole.norm()
        whole *= (self.config.optimizer.max_grad_norm / (norm + 1e-6)).clamp_max(1.0)
        parts = whole.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        lesson.norms.append(norm)
        self.optimizer.step()
        lesson.terms.append(terms)

    def close(self, lesson: Lesson) -> Metrics:
        """Tell the curriculum, count, measure."""
        self.curriculum.observe(lesson.draw, lesson.rollout.success)
        self.updates += 1
        self.episodes += self.config.episodes
        self.steps += int(lesson.length.sum())
        return self.measure(lesson, time.perf_counter())

    def measure(self, lesson: Lesson, end: float) -> Metrics:
        """The numbers of one update."""
        rollout, target = lesson.rollout, lesson.target
        terms = Terms.of(torch.stack(lesson.terms).mean(0))
        free = rollout.free
        aim = target[free]
        spread = float(aim.var(correction=0)) if self.config.loss.value_weight else 0.0
        explained = 1 - float((aim - rollout.value[free]).var(correction=0)) / spread if spread > 0 else 0.0
        oracle = program_length(self.task.oracle(rollout.problems), self.task.spec.end)
        whole = rollout.success & free[0]
        seconds, untaught = end - lesson.start, len(self.task.spec.stages) - len(self.stages)
        return Metrics(
            update=self.updates,
            episodes=self.episodes,
            steps=self.steps,
            success=[
                value if seen else None
                for value, seen in zip(self.curriculum.success.tolist(), self.curriculum.seen.tolist(), strict=True)
            ]
            + untaught * [None],
            greedy=self.success(256) if self.updates % self.config.evaluate_every == 0 else None,
            stages=self.curriculum.describe() + untaught * ["only tested"],
            mean_return=float(rollout.reward.sum() / rollout.success.numel()),
            entropy=float(terms.entropy),
            approximate_kl=float(terms.approximate_kl),
            clip_fraction=float(terms.clip_fraction),
            explained_variance=explained,
            gradient_norm=float(torch.stack(lesson.norms).mean()),
            invalid=float(rollout.invalid.sum() / rollout.success.numel()),
            excess=float((lesson.length - oracle)[whole].float().mean()) if bool(whole.any()) else None,
            policy_loss=float(terms.policy_loss),
            value_loss=float(terms.value_loss),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            timing=Timing(
                seconds=seconds,
                steps_per_second=int(lesson.length.sum()) / seconds,
                rollout_share=(lesson.played - lesson.start) / seconds,
                update_share=(end - lesson.played) / seconds,
            ),
        )

    def mastered(self) -> bool:
        """Whether what there is to practise is now solved greedily."""
        solved = self.practice is None or bool(play(self.policy, self.task, self.practice).success.all())
        return bool(self.group.tell([float(solved)])[0])

    def success(self, episodes: int, sampled: bool = False) -> list[float]:
        """Success of each stage, greedy or sampled, in so many episodes drawn from the training problems.

        Sampled, it is of the stages that are trained on.
        """
        stages, generator = len(self.stages if sampled else self.task.spec.stages), self.generator
        stage = torch.arange(stages, device=self.config.device).repeat_interleave(episodes)
        problems = self.task.sample(stage, generator, self.config.split)  # type: ignore[arg-type]
        plan = Plan.free(problems, self.task.spec.horizon, generator) if sampled else None
        rows = torch.arange(len(stage), device=stage.device)
        parts = self.pool.map(
            lambda part: play(self.policy, self.task, problems[part], None if plan is None else plan[part]).success,
            self.group.share(rows).split(PLAYED if self.packs else len(rows)),
        )
        return self.group.join(torch.cat(parts), len(rows)).view(stages, episodes).float().mean(1).tolist()

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """All that a continuation needs, to the bit: tensors by name, and counters."""
        tensors = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        tensors |= {f"curriculum.{name}": value for name, value in self.curriculum.state_dict().items()}
        names = [name for name, _ in self.policy.named_parameters()]
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{key}": value for key, value in moments.items()}
        if self.practice is not None:
            tensors |= {f"practice.{i}": value for i, value in enumerate(self.practice.fields())}
        counters = {name: getattr(self, name) for name in COUNTERS}
        return tensors, counters

    def _moments(self) -> set[str]:
        """The names of Adam's tensors once every parameter had a gradient."""
        names = [name for name, _ in self.policy.named_parameters()]
        return {f"optimizer.{name}.{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, int]) -> None:
        """Continue from what `state` gave.

        Raises:
            KeyError, RuntimeError: a tensor is missing, left over, or of another shape.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}

        practice = part("practice.")
        unknown = set(tensors) - set(self.state()[0]) - self._moments() - {f"practice.{i}" for i in practice}
        if unknown:
            raise KeyError(f"left over: {', '.join(sorted(unknown)[:3])}")
        self.policy.load_state_dict(part("policy."))
        self.curriculum.load_state_dict(part("curriculum."))
        moments = part("optimizer.")
        state = {
            index: {key: moments[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, (name, _) in enumerate(self.policy.named_parameters())
            if f"{name}.step" in moments
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        kind = type(self.task.sample(torch.zeros(1, dtype=torch.int64), torch.Generator()))
        self.practice = kind(*(practice[str(i)] for i in range(len(practice)))) if practice else None
        for name in COUNTERS:
            setattr(self, name, counters[name])


def oracle_lengths(task: AnyTask) -> Tensor:
    """The longest oracle program of each stage in 256 problems; 0 where the oracle does not succeed: int64 [S]."""
    generator = torch.Generator().manual_seed(0)
    lengths = []
    for stage, solvable in enumerate(task.spec.solvable or (True,) * len(task.spec.stages)):
        problems = task.sample(torch.full((256,), stage), generator)
        lengths.append(solvable * program_length(task.oracle(problems), task.spec.end).amax())
    return torch.stack(lengths)
