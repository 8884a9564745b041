"""Playing whole episodes: the policy acts, the task answers, everything is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.native import operator
from modelnative.policies.contract import Policy, select_rows
from modelnative.policies.memory import require_memory
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State, TaskSpec

COMPACT_BELOW = 0.75  # share of running episodes below which the finished ones are taken out of the batch
SHORTER = "episodes, or options with shorter episodes"
INTEGERS, FLOATS = ("token", "feedback", "action"), ("behavior_log_prob", "value", "reward")
COLUMNS = (*INTEGERS, *FLOATS, "running", "loss_mask", "explored", "invalid")  # of a rollout, time first
VERDICTS = ("success", "bootstrap")  # of a rollout, one for each episode


@dataclass
class Plan(Batch):
    """How n episodes are to be played: all random numbers, and all that does not come from the policy.

    Attributes:
        uniform: float [n, horizon] in [0, 1), what each action is drawn with.
        program: int64 [n, horizon], the oracle's tokens.
        hints: int64 [n], how many tokens of `program` are written at the start of the episode.
        explore: float [n], probability that an action is drawn blindly (see `blind_distribution`) at `reach` tokens,
            after the hint and `delay` more.
        delay, reach: int64 [n].
    """

    uniform: Tensor
    program: Tensor
    hints: Tensor
    explore: Tensor
    delay: Tensor
    reach: Tensor

    @classmethod
    def sampled(cls, problems: Problems, horizon: int, generator: torch.Generator) -> Plan:
        """Every action is the policy's own, drawn at temperature 1."""
        stage = problems.stage
        uniform = torch.rand(len(stage), horizon, generator=generator, dtype=torch.float32, device=stage.device)
        none, never = torch.zeros_like(stage), torch.zeros_like(uniform[:, 0])
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
        loss_mask: bool [T, n], running and not written by a hint: the tokens that the policy gradient sees.
        explored: bool [T, n], drawn with exploration.
        invalid: bool [T, n], the action had no effect.
        success: bool [n], the verifier's verdict.
        bootstrap: float [n], the critic's value after the last action, of episodes that `Task.truncated` names; 0 of
            the others.
        final: the task's state after the last action; None where it was not asked for.

    Outside `loss_mask`, `behavior_log_prob` and `value` mean nothing; outside `running`, nothing does.
    """

    problems: Problems
    token: Tensor
    feedback: Tensor
    action: Tensor
    behavior_log_prob: Tensor
    value: Tensor
    reward: Tensor
    running: Tensor
    loss_mask: Tensor
    explored: Tensor
    invalid: Tensor
    success: Tensor
    bootstrap: Tensor
    final: State | None

    @property
    def length(self) -> Tensor:
        """Actions of each episode: int64 [n]."""
        return self.running.sum(0)

    @property
    def hint_mask(self) -> Tensor:
        """Tokens that a hint wrote: bool [T, n]."""
        return self.running & ~self.loss_mask

    @property
    def truncated(self) -> Tensor:
        """Episodes that the horizon cut, no action having ended them: bool [n]."""
        assert self.final is not None, "played without `final`"
        return ~self.final.done

    def select(self, rows: Tensor) -> Rollout:
        """Some of the episodes, int64 [m], without `final`."""
        columns = {name: getattr(self, name).index_select(1, rows) for name in COLUMNS}
        verdicts = {name: getattr(self, name).index_select(0, rows) for name in VERDICTS}
        return Rollout(self.problems[rows], final=None, **columns, **verdicts)


def rollout_bytes(task: AnyTask, n: int) -> int:
    """The memory of n episodes of full length."""
    each = 8 * (len(INTEGERS) - 1 + task.spec.feedback_width) + 4 * len(FLOATS) + len(COLUMNS)
    return each * n * task.spec.horizon


def empty_columns(task: AnyTask, n: int, device: torch.device) -> dict[str, Tensor]:
    """Columns for n episodes of full length, and what there is one of for each, before anything was played."""
    columns: dict[str, Tensor] = {}
    require_memory(rollout_bytes(task, n), device, SHORTER)
    for name in COLUMNS:
        dtype = torch.int64 if name in INTEGERS else torch.float32 if name in FLOATS else torch.bool
        shape = (task.spec.feedback_width,) if name == "feedback" else ()
        columns[name] = torch.zeros(task.spec.horizon, n, *shape, dtype=dtype, device=device)
    success, bootstrap = torch.zeros(n, dtype=torch.bool, device=device), torch.zeros(n, device=device)
    return {**columns, "success": success, "bootstrap": bootstrap}


@standard_settings()
@torch.no_grad()
def play(
    policy: Policy,
    task: AnyTask,
    problems: Problems,
    plan: Plan | None = None,
    *,
    final: bool = True,
    into: dict[str, Tensor] | None = None,
) -> Rollout:
    """Play every problem once.

    Args:
        policy: see `Policy`; its parameters are not changed and no gradient is kept.
        task: answers.
        problems: n of them.
        plan: how; None is greedily, without any hint.
        final: keep the task's last state of every episode.
        into: where to write, see `empty_columns`; may be some episodes of a larger batch.

    Returns:
        The episodes. Tokens that a hint wrote are in it, outside `loss_mask`.
    """
    columns = empty_columns(task, len(problems), problems.stage.device) if into is None else into
    if final:
        length, state = _play_steps(policy, task, problems, plan, columns, True)
    else:
        length, state = play_columns(policy, task, problems, plan, columns), None
    kept = {name: columns[name][:length] for name in COLUMNS}
    return Rollout(problems, final=state, **kept, **{name: columns[name] for name in VERDICTS})


@operator("play")
def play_columns(
    policy: Policy, task: AnyTask, problems: Problems, plan: Plan | None, columns: dict[str, Tensor]
) -> int:
    """As `play`, into columns that hold zeros; returns the actions of the longest episode."""
    return _play_steps(policy, task, problems, plan, columns, False)[0]


def _play_steps(
    policy: Policy, task: AnyTask, problems: Problems, plan: Plan | None, columns: dict[str, Tensor], final: bool
) -> tuple[int, State | None]:
    """The actions of the longest episode and, where it is asked for, the task's last state of every episode."""
    spec, n, device = task.spec, len(problems), problems.stage.device
    state, memory = task.begin(problems), policy.initial_state(problems)
    token, feedback = torch.full((n,), spec.start, device=device), task.feedback(state)
    running, rows = torch.ones(n, dtype=torch.bool, device=device), torch.arange(n, device=device)
    finished: list[tuple[Tensor, State]] = []
    steps = None if plan is None else _StepPlan.of(plan, problems, spec)
    length = spec.horizon if n else 0
    for t in range(length):
        output = policy(token[None], feedback[None], memory)
        action, log_prob, chosen, explored = _choose(output.logits[0], t, steps, running)
        step = task.step(state, action)
        written: dict[str, Tensor] = {
            "token": token,
            "feedback": feedback,
            "action": action,
            "behavior_log_prob": log_prob,
            "value": output.value[0].float(),
            "reward": step.reward,
            "running": running,
            "loss_mask": chosen,
            "explored": explored,
            "invalid": step.invalid,
        }
        at = slice(None) if len(rows) == n else rows
        for name, column in written.items():
            columns[name][t, at] = column
        columns["success"][at] |= step.success
        cut = task.truncated(step.state)
        if cut is not None and bool((cut & running).any()):
            ahead = policy(action[None], step.feedback[None], output.state).value[0].float()
            columns["bootstrap"][at] = torch.where(cut & running, ahead, columns["bootstrap"][at])

        state, memory, token, feedback, running = step.state, output.state, action, step.feedback, ~step.done
        if device.type != "cpu":
            continue  # counting what still runs would make the device wait
        left = int(running.sum())
        if left == 0:
            length = t + 1
            break
        if left < COMPACT_BELOW * len(rows):
            if final:
                finished.append((rows[~running], state[~running]))
            keep = running.nonzero()[:, 0]
            rows, token, feedback, running = (x.index_select(0, keep) for x in (rows, token, feedback, running))
            state, memory = state[keep], select_rows(memory, keep)
            steps = None if steps is None else steps[keep]
    if finished:
        order = torch.cat([*(part for part, _ in finished), rows]).argsort()
        state = Batch.cat([*(part for _, part in finished), state])[order]
    return length, state if final else None


@dataclass
class _StepPlan(Batch):
    """A plan in the form that a step needs: [n, ...], `share` being the weight of `blind` at each token."""

    uniform: Tensor
    program: Tensor
    hints: Tensor
    share: Tensor
    blind: Tensor

    @classmethod
    def of(cls, plan: Plan, problems: Problems, spec: TaskSpec) -> _StepPlan:
        time = torch.arange(spec.horizon, device=plan.hints.device)
        first = (plan.hints + plan.delay)[:, None]
        explores = (first <= time) & (time < first + plan.reach[:, None])
        share = torch.where(explores, plan.explore[:, None], 0.0)
        return cls(plan.uniform, plan.program, plan.hints, share, blind_distribution(problems.context, spec))


def _choose(logits: Tensor, t: int, steps: _StepPlan | None, running: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next action of n episodes, the log-probability it was drawn with, and whether it was chosen and explored."""
    if steps is None:
        return *sample_actions(logits), running, torch.zeros_like(running)
    chosen, share = running & (steps.hints <= t), steps.share[:, t]
    action, log_prob = sample_actions(logits, steps.uniform[:, t], share, steps.blind)
    return torch.where(chosen, action, steps.program[:, t]), log_prob, chosen, chosen & (share > 0)


@operator("sample_actions")
def sample_actions(
    logits: Tensor, uniform: Tensor | None = None, share: Tensor | None = None, blind: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Actions int64 [n], and the log-probabilities they were drawn with, float [n].

    Args:
        logits: float [n, V].
        uniform: float [n] in [0, 1), what they are drawn with; None: the most likely action.
        share: float [n], the weight of `blind` in the mixture that they are drawn from; None: 0.
        blind: float [n, V], a distribution.
    """
    log_probs = logits.log_softmax(-1)
    if uniform is None:
        log_prob, action = log_probs.max(-1)
        return action, log_prob.float()
    probabilities = log_probs.exp()
    if share is not None and blind is not None:
        share, blind = share.to(probabilities.dtype), blind.to(probabilities.dtype)
        probabilities = torch.lerp(probabilities, blind, share[:, None])
    sums = probabilities.cumsum(-1)
    action = (sums < uniform[:, None] * sums[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    return action, probabilities.gather(-1, action[:, None])[:, 0].log().float()


def blind_distribution(context: Tensor, spec: TaskSpec) -> Tensor:
    """How explored actions are drawn: half uniformly from the actions, half from the context's tokens. [n, V].

    Where the context is blank, all of them uniformly.
    """
    own = torch.zeros(len(context), len(spec.vocabulary), device=context.device)
    own.scatter_add_(1, context, ((context != spec.end) & (context != spec.start)).float())
    own[:, spec.action_count :] = 0
    uniform = torch.zeros_like(own[:1])
    uniform[:, : spec.action_count] = 1 / spec.action_count
    total = own.sum(1, keepdim=True)
    return torch.where(total > 0, 0.5 * uniform + 0.5 * own / total, uniform)
