"""One problem, token by token: what the policy wrote, how sure it was, and what the tool did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelnative.policies.policy import Policy
from modelnative.tasks.contract.task import AnyTask, Problems, TaskSpec, program_length


@dataclass(frozen=True)
class Row:
    """One token of a trajectory.

    Attributes:
        token: written; oracle: the oracle's token at the same place, empty past its end.
        probability: of the token; value: expected return before it; entropy: of the choice, in nats.
        source: the name of the context position that most of the probability was copied from, empty if it was
            written from the vocabulary.
        copied: how much of the token's probability came from the context.
        registers: the tool's registers after the token.
        valid: the token had an effect.
    """

    token: str
    oracle: str
    probability: float
    value: float
    entropy: float
    source: str
    copied: float
    registers: dict[str, str]
    valid: bool


@dataclass(frozen=True)
class Explanation:
    """A greedy trajectory beside the oracle's program."""

    stage: str
    problem: str
    record: dict[str, Any]
    rows: tuple[Row, ...]
    success: bool
    truncated: bool
    oracle: tuple[str, ...]


def explain(policy: Policy, task: AnyTask, stage: str, problem: str) -> Explanation:
    """Play one problem greedily and keep what a person would ask about.

    Args:
        policy, task: who plays what.
        stage: its name.
        problem: as a person types it, such as "3 7 2 4 5".

    Raises:
        UserError: an unknown stage, or a problem that is not of it.
    """
    return explain_one(policy, task, task.parse(task.spec.stage_index(stage), problem))


@torch.no_grad()
def explain_one(policy: Policy, task: AnyTask, problems: Problems) -> Explanation:
    """As `explain`, of a batch that holds one problem."""
    spec = task.spec
    problems = problems.to(next(policy.parameters()).device)
    program = task.oracle(problems)
    oracle = [spec.vocabulary[t] for t in program[0, : int(program_length(program, spec.end)[0])].tolist()]
    state, thoughts = task.begin(problems), policy.begin(problems.context, problems.stage)
    token = torch.full_like(problems.stage, spec.start)
    feedback = task.feedback(state)
    rows: list[Row] = []
    success = False
    for t in range(spec.horizon):
        thought, thoughts = policy.step(token, feedback, thoughts)
        token = thought.log_probs.argmax(-1)
        step = task.step(state, token)
        state, feedback, success = step.state, step.feedback, success or bool(step.success[0])
        chance = thought.log_probs[0].exp()
        sources = (
            torch.where(problems.context[0] == token[0], thought.copied[0], 0.0) if thought.copied.numel() else None
        )
        copied = float(sources.sum() / chance[token[0]]) if sources is not None else 0.0
        rows.append(
            Row(
                token=spec.vocabulary[int(token[0])],
                oracle=oracle[t] if t < len(oracle) else "",
                probability=float(chance[token[0]]),
                value=float(thought.value[0]),
                entropy=float(-(chance * thought.log_probs[0]).sum()),
                source=_place(spec, problems, int(sources.argmax())) if sources is not None and copied > 0.5 else "",
                copied=copied,
                registers=task.registers(state, 0),
                valid=not bool(step.invalid[0]),
            )
        )
        if bool(step.done[0]):
            break
    return Explanation(
        stage=spec.stages[int(problems.stage[0])],
        problem=task.render(problems, 0),
        record=task.records(problems, state)[0],
        rows=tuple(rows),
        success=success,
        truncated=not bool(state.done[0]),
        oracle=tuple(oracle),
    )


def _place(spec: TaskSpec, problems: Problems, place: int) -> str:
    """What a person calls a place of the context; where the mark that closes a short context stands, the mark."""
    token = int(problems.context[0, place])
    return spec.vocabulary[token] if token == spec.start else spec.position_name(place)
