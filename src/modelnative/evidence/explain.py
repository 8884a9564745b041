"""One problem, token by token: what the policy wrote, how certain it was, and what the tool did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelnative.evidence.problem_set import problem_text
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.task import AnyTask, Problems, TaskSpec, program_length


@dataclass(frozen=True)
class ExplainedToken:
    """One token of an episode.

    Attributes:
        token: the token that the policy wrote.
        oracle: the oracle's token at the same position; empty after the end of its program, None without a program.
        probability: of the token.
        value: expected return before the token.
        entropy: of the policy's distribution, in nats.
        source: name of the context position that most of the probability was copied from; empty if the token was
            generated from the vocabulary.
        copied: share of the token's probability that was copied from the context.
        registers: the tool's registers after the token.
        valid: whether the token had an effect.
    """

    token: str
    oracle: str | None
    probability: float
    value: float
    entropy: float
    source: str
    copied: float
    registers: dict[str, str]
    valid: bool


@dataclass(frozen=True)
class Explanation:
    """A greedy episode and the oracle's program for the same problem.

    Attributes:
        stage: its name.
        problem: the problem as text.
        record: the task's record of the episode.
        rows: the tokens that the policy wrote.
        success: the verifier's verdict.
        truncated: the episode reached the horizon.
        oracle: the oracle's program; empty for a task without an oracle.
    """

    stage: str
    problem: str
    record: dict[str, Any]
    rows: tuple[ExplainedToken, ...]
    success: bool
    truncated: bool
    oracle: tuple[str, ...]


@torch.no_grad()
def explain(policy: Policy, task: AnyTask, problems: Problems) -> Explanation:
    """Play one problem greedily and describe every token.

    Args:
        policy: the policy that plays.
        task: the task that it plays.
        problems: a batch of one problem.
    """
    spec = task.spec
    problems = problems.to(next(policy.parameters()).device)
    oracle = oracle_tokens(task, problems)
    state, memory = task.begin(problems), policy.initial_state(problems)
    token = torch.full_like(problems.stage, spec.start)
    feedback = task.feedback(state)
    rows: list[ExplainedToken] = []
    success = False
    for t in range(spec.horizon):
        output = policy(token[None], feedback[None], memory)
        memory, log_probs, value = output.state, output.log_probs[0, 0], output.value[0, 0]
        probabilities = log_probs.exp()
        token = log_probs.argmax(-1, keepdim=True)
        step = task.step(state, token)
        state, feedback, success = step.state, step.feedback, success or bool(step.success[0])
        source, copied_share = "", 0.0
        if output.copied is not None and output.copied.numel():
            by_position = torch.where(problems.context[0] == token, output.copied[0, 0], 0.0)
            copied_share = float(by_position.sum() / probabilities[token])
            source = _position_name(spec, problems, int(by_position.argmax())) if copied_share > 0.5 else ""
        rows.append(
            ExplainedToken(
                token=spec.vocabulary[int(token)],
                oracle="".join(oracle[t : t + 1]) if oracle else None,
                probability=float(probabilities[token]),
                value=float(value),
                entropy=float(-(probabilities * log_probs).sum()),
                source=source,
                copied=copied_share,
                registers=task.registers(state, 0),
                valid=not bool(step.invalid[0]),
            )
        )
        if bool(step.done[0]):
            break
    return Explanation(
        stage=spec.stages[int(problems.stage[0])],
        problem=problem_text(task, problems, 0),
        record=task.records(problems, state)[0],
        rows=tuple(rows),
        success=success,
        truncated=not bool(state.done[0]),
        oracle=oracle,
    )


def oracle_tokens(task: AnyTask, problems: Problems) -> tuple[str, ...]:
    """The oracle's program for the first problem, as token names; empty for a task without an oracle."""
    if not task.has_oracle:
        return ()
    program = task.oracle(problems)
    length = int(program_length(program, task.spec.end)[0])
    return tuple(task.spec.vocabulary[token] for token in program[0, :length].tolist())


def _position_name(spec: TaskSpec, problems: Problems, position: int) -> str:
    """The name of a context position, or of the token there where it is the mark that ends a short context."""
    token = int(problems.context[0, position])
    return spec.vocabulary[token] if token == spec.start else spec.position_name(position)
