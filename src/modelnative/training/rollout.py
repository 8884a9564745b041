"""Playing whole episodes: the policy acts, the task answers, everything is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative import native
from modelnative.native import Choices
from modelnative.policies.policy import Policy, Thought
from modelnative.policies.stack import Stack
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State, TaskSpec
from modelnative.training.parallel import Group

CROWDED = 0.75  # share of episodes still running below which the others are taken out of the batch
TOKENS, NUMBERS = ("token", "feedback", "action"), ("behavior_log_prob", "value", "reward")
COLUMNS = (*TOKENS, *NUMBERS, "running", "free", "explored", "invalid")  # of a rollout, time first
PRIVATE = (
    "token",
    "feedback",
    "action",
    "behavior_log_prob",
)  # nobody but the process that played an episode learns from it


@dataclass
class Plan(Batch):
    """How n episodes are to be played: all chance, and all that does not come from the policy.

    Attributes:
        uniform: float [n, horizon] in [0, 1), what each action is drawn with.
        program: int64 [n, horizon], tokens to force (the oracle's).
        forced: int64 [n], how many tokens of `program` are forced at the start of the episode.
        explore: float [n], probability that an action is drawn blindly (see `_blind`) at `reach` tokens, after the
            forced ones and `delay` more.
        delay, reach: int64 [n].
    """

    uniform: Tensor
    program: Tensor
    forced: Tensor
    explore: Tensor
    delay: Tensor
    reach: Tensor

    @classmethod
    def free(cls, problems: Problems, horizon: int, generator: torch.Generator) -> Plan:
        """Every action is the policy's own, drawn at temperature 1."""
        stage = problems.stage
        uniform = torch.rand(len(stage), horizon, generator=generator, device=stage.device)
        none, never = torch.zeros_like(stage), torch.zeros(len(stage), device=stage.device)
        return cls(uniform, none[:, None].expand(-1, horizon), none, never, none, none)


@dataclass
class Rollout:
    """n whole episodes, aligned at t = 0, time first. T is the longest of them, at most the horizon.

    Attributes:
        problems: the n problems.
        token, feedback: int64 [T, n] and [T, n, F], what the policy read before each action.
        action: int64 [T, n].
        behavior_log_prob: float [T, n], log-probability with which the action was drawn, exploration included.
        value: float [T, n], the critic's.
        reward: float [T, n].
        running: bool [T, n], the episode had not ended before the action.
        free: bool [T, n], running and not forced by a hint: the tokens that the loss sees.
        explored: bool [T, n], free, and drawn with exploration.
        invalid: bool [T, n], pressed without effect.
        success: bool [n], the verifier's verdict.
        final: the task's state after the last action; None where nobody asked for it.

    Where an episode is not free, `behavior_log_prob` and `value` mean nothing; where it is not running, nothing does.
    """

    problems: Problems
    token: Tensor
    feedback: Tensor
    action: Tensor
    behavior_log_prob: Tensor
    value: Tensor
    reward: Tensor
    running: Tensor
    free: Tensor
    explored: Tensor
    invalid: Tensor
    success: Tensor
    final: State | None

    @property
    def length(self) -> Tensor:
        """Actions of each episode: int64 [n]."""
        return self.running.sum(0)

    @property
    def truncated(self) -> Tensor:
        """Episodes that the horizon cut, no action having ended them: bool [n]."""
        assert self.final is not None, "played without `final`"
        return ~self.final.done


def blank(task: AnyTask, n: int, device: torch.device) -> dict[str, Tensor]:
    """Columns for n episodes of full length, and `success`, before anything was played."""
    columns = {}
    for name in COLUMNS:
        dtype = torch.int64 if name in TOKENS else torch.float32 if name in NUMBERS else torch.bool
        shape = (task.spec.feedback_width,) if name == "feedback" else ()
        columns[name] = torch.zeros(task.spec.horizon, n, *shape, dtype=dtype, device=device)
    return {**columns, "success": torch.zeros(n, dtype=torch.bool, device=device)}


@torch.no_grad()
def play(
    policy: Policy | Stack,
    task: AnyTask,
    problems: Problems,
    plan: Plan | None = None,
    *,
    final: bool = True,
    into: dict[str, Tensor] | None = None,
) -> Rollout:
    """Play every problem once.

    Args:
        policy: acts; its parameters are not changed and no gradient is kept.
        task: answers.
        problems: n of them.
        plan: how; None is greedily, without any hint.
        final: keep the task's last state of every episode.
        into: where to write, see `blank`; may be some episodes of a larger batch.

    Returns:
        The episodes. Forced tokens are in it, but not among the free ones.
    """
    spec, n, device = task.spec, len(problems), problems.stage.device
    looks = device.type == "cpu" and policy.packs  # a look at the data is free there; elsewhere it stalls the device
    columns = blank(task, n, device) if into is None else into
    success = columns["success"]
    state, thoughts = task.begin(problems), policy.begin(problems.context, problems.stage)
    think = _thinker(policy)
    token, feedback = torch.full((n,), spec.start, device=device), task.feedback(state)
    running, rows, finished = ~success, torch.arange(n, device=device), []
    blind = None if plan is None else _blind(problems.context, spec)
    length = spec.horizon if n else 0  # a process may have no episode of a small batch, and no core thinks about none
    for t in range(length):
        choosing = running if plan is None else running & (plan.forced <= t)
        heed = choosing.nonzero()[:, 0] if looks and not bool(choosing.all()) else None
        thought, thoughts = think(token, feedback, thoughts, [len(rows)], heed)
        action, chance, expected, blindly = _choose(thought, t, plan, blind, heed)
        if heed is not None:
            forced = torch.zeros_like(token) if plan is None else plan.program[:, t].clone()
            action = forced.index_copy_(0, heed, action)
        elif plan is not None:
            action = torch.where(choosing, action, plan.program[:, t])
        step = task.step(state, action)

        at = slice(None) if len(rows) == n else rows
        asked = at if heed is None else rows.index_select(0, heed)
        now = {"token": token, "feedback": feedback, "action": action, "reward": step.reward}
        for name, told in {**now, "running": running, "free": choosing, "invalid": step.invalid}.items():
            columns[name][t, at] = told
        columns["behavior_log_prob"][t, asked], columns["value"][t, asked] = chance, expected
        if blindly is not None:
            columns["explored"][t, asked] = blindly & (True if heed is not None else choosing)
        success[at] |= step.success

        state, token, feedback, running = step.state, action, step.feedback, ~step.done
        if looks:
            left = int(running.sum())
            if left == 0:
                length = t + 1
                break
            if left < CROWDED * len(rows):
                if final:
                    finished.append((rows[~running], state[~running]))
                keep = running.nonzero()[:, 0]
                rows, token, feedback, running = (x.index_select(0, keep) for x in (rows, token, feedback, running))
                state, thoughts = state[keep], thoughts[keep]
                if plan is not None and blind is not None:
                    plan, blind = plan[keep], blind.index_select(0, keep)
    if finished:
        order = torch.cat([*(part for part, _ in finished), rows]).argsort()
        state = Batch.cat([*(part for _, part in finished), state])[order]
    kept = {name: columns[name][:length] for name in COLUMNS}
    return Rollout(problems, success=success, final=state if final else None, **kept)


def _thinker(policy: Policy | Stack) -> Callable[..., tuple[Any, Any]]:
    """How a policy thinks as long as its parameters stay as they are."""
    if getattr(policy, "weighs", False):
        return functools.partial(policy.weigh, table=policy.table())
    return policy.think


def joined(columns: dict[str, Tensor], problems: Problems, length: int, group: Group) -> Rollout:
    """One rollout of all `problems` from the columns that this process and the others have played, each its share.

    What only its own process will read (see `PRIVATE`) stays there: in the others these rows are 0.
    """
    length, n = group.most(length), len(problems)

    def whole(name: str) -> Tensor:
        own = columns[name][:length]
        if group.size == 1:
            return own
        rows = own.transpose(0, 1)
        return (group.spread(rows, n) if name in PRIVATE else group.join(rows, n)).transpose(0, 1).contiguous()

    success = group.join(columns["success"], n)
    return Rollout(problems, success=success, final=None, **{name: whole(name) for name in COLUMNS})


def _choose(
    thought: Thought | Choices | list[Choices], t: int, plan: Plan | None, blind: Tensor | None, heed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The next action of M episodes, the log-probability it was drawn with, the value, and whether it was explored.

    The episodes are those at `heed` of the plan's and of `blind`, or all.
    """
    if plan is None or blind is None:
        if not isinstance(thought, Thought):
            return *native.choose(thought), None
        log_prob, action = thought.log_probs.max(-1)
        return action, log_prob.float(), thought.value.float(), None
    uniform, forced, explore, delay, reach = (
        x if heed is None else x.index_select(0, heed)
        for x in (plan.uniform[:, t], plan.forced, plan.explore, plan.delay, plan.reach)
    )
    first = forced + delay
    explored = (first <= t) & (t < first + reach) & (explore > 0)
    share = torch.where(explored, explore, 0.0)
    blind = blind if heed is None else blind.index_select(0, heed)
    if not isinstance(thought, Thought):
        return *native.choose(thought, uniform, share, blind), explored
    chances = torch.lerp(thought.log_probs.exp(), blind, share[:, None])
    sums = chances.cumsum(-1)
    action = (sums < uniform[:, None] * sums[:, -1:]).sum(-1).clamp_max(chances.shape[-1] - 1)
    return action, chances.gather(-1, action[:, None])[:, 0].log().float(), thought.value.float(), explored


def _blind(context: Tensor, spec: TaskSpec) -> Tensor:
    """How explored actions are drawn: half uniformly from the vocabulary, half from the problem's tokens. [n, V].

    Where the context says nothing, all of them uniformly.
    """
    vocabulary = len(spec.vocabulary)
    own = torch.zeros(len(context), vocabulary, device=context.device)
    own.scatter_add_(1, context, ((context != spec.end) & (context != spec.start)).float())
    total = own.sum(1, keepdim=True)
    return torch.where(total > 0, 0.5 / vocabulary + 0.5 * own / total, 1 / vocabulary)
