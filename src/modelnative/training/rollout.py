"""Playing whole episodes: the policy acts, the task answers, everything is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.policies.policy import Policy
from modelnative.tasks.task import AnyTask, Problems, State


@dataclass
class Rollout:
    """n whole episodes, aligned at t = 0, time first. T is the longest of them, at most the horizon.

    Attributes:
        problems: the n problems.
        token, feedback: int64 [T, n] and [T, n, F], what the policy read before each action.
        action: int64 [T, n].
        behaviour: float [T, n], log-probability with which the action was drawn, exploration included.
        value: float [T, n], the critic's.
        reward: float [T, n].
        running: bool [T, n], the episode had not ended before the action.
        free: bool [T, n], running and not forced by a hint: the tokens that the loss sees.
        explored: bool [T, n], free, and drawn with exploration.
        invalid: bool [T, n], pressed without effect.
        success: bool [n], the verifier's verdict.
        final: the task's state after the last action.
    """

    problems: Problems
    token: Tensor
    feedback: Tensor
    action: Tensor
    behaviour: Tensor
    value: Tensor
    reward: Tensor
    running: Tensor
    free: Tensor
    explored: Tensor
    invalid: Tensor
    success: Tensor
    final: State

    @property
    def length(self) -> Tensor:
        """Actions of each episode: int64 [n]."""
        return self.running.sum(0)

    @property
    def truncated(self) -> Tensor:
        """Episodes that the horizon cut, no action having ended them: bool [n]."""
        return ~self.final.done


@torch.no_grad()
def play(
    policy: Policy,
    task: AnyTask,
    problems: Problems,
    *,
    generator: torch.Generator | None = None,
    program: Tensor | None = None,
    forced: Tensor | None = None,
    explore: Tensor | None = None,
    delay: Tensor | None = None,
    reach: Tensor | None = None,
) -> Rollout:
    """Play every problem once.

    Args:
        policy: acts; its parameters are not changed and no gradient is kept.
        task: answers.
        problems: n of them.
        generator: draws the actions; None acts greedily.
        program: int64 [n, horizon], tokens to force (the oracle's).
        forced: int64 [n], how many tokens of `program` are forced at the start of each episode.
        explore: float [n], probability that an action is drawn blindly (see `_blind`) at `reach` tokens, after the
            forced ones and `delay` more.
        delay, reach: int64 [n].

    Returns:
        The episodes. Forced tokens are in it, but not among the free ones.
    """
    spec, n, device = task.spec, len(problems), problems.stage.device
    vocabulary = len(spec.vocabulary)
    forced = torch.zeros_like(problems.stage) if forced is None else forced
    draws = None if generator is None else torch.rand(spec.horizon, n, generator=generator, device=device)
    state, thoughts = task.begin(problems), policy.begin(problems.context, problems.stage)
    token, feedback = torch.full((n,), spec.start, device=device), task.feedback(state)
    running = torch.ones(n, dtype=torch.bool, device=device)
    success = torch.zeros_like(running)
    nothing = torch.zeros_like(running)
    blind = _blind(problems.context, vocabulary, spec.end)
    rows = []
    for t in range(spec.horizon):
        thought, thoughts = policy.step(token, feedback, thoughts)
        explored = nothing
        if draws is None:
            action = thought.log_probs.argmax(-1)
            behaviour = thought.log_probs.gather(-1, action[:, None])[:, 0]
        else:
            chances = thought.log_probs.exp()
            if explore is not None and delay is not None and reach is not None:
                first = forced + delay
                explored = (first <= t) & (t < first + reach) & (explore > 0)
                chances = torch.lerp(chances, blind, torch.where(explored, explore, 0.0)[:, None])
            sums = chances.cumsum(-1)
            action = (sums < draws[t, :, None] * sums[:, -1:]).sum(-1).clamp_max(vocabulary - 1)
            behaviour = chances.gather(-1, action[:, None])[:, 0].log()
        free = running & (forced <= t)
        if program is not None:
            action = torch.where(free, action, program[:, t])
        step = task.step(state, action)
        rows.append(
            (
                token,
                feedback,
                action,
                behaviour,
                thought.value,
                step.reward,
                running,
                free,
                explored & free,
                step.invalid,
            )
        )
        success = success | step.success
        state, token, feedback, running = step.state, action, step.feedback, ~step.done
        if not bool(running.any()):
            break
    columns: list[Any] = [torch.stack(column) for column in zip(*rows, strict=True)]
    return Rollout(*[problems, *columns, success, state])


def _blind(context: Tensor, vocabulary: int, padding: int) -> Tensor:
    """How explored actions are drawn: half uniformly from the vocabulary, half from the problem's tokens. [n, V]."""
    own = torch.zeros(len(context), vocabulary, device=context.device)
    own.scatter_add_(1, context, (context != padding).float())
    return 0.5 / vocabulary + 0.5 * own / own.sum(1, keepdim=True)
