"""The part of `check_task` that plays episodes."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.expectations import (
    TaskError,
    expect,
    expect_independent,
    expect_length,
    expect_pure,
    expect_same,
    expect_tensor,
    expect_tokens,
)
from modelnative.tasks.contract.task import AnyTask, Problems, State, Step, program_length


def check_episodes(task: AnyTask, problems: Problems, generator: torch.Generator) -> None:
    """Check every step of episodes that mostly follow the oracle, two actions beyond the horizon.

    Without an oracle the actions are random.
    """
    n, spec = len(problems), task.spec
    shuffle = torch.randint(n, (n,), generator=generator)
    perturbed = torch.rand(n, generator=generator) < 0.5
    donor = torch.where(perturbed, shuffle, torch.arange(n))

    state = task.begin(problems.map(torch.clone))
    expect_tensor(state.done, (n,), torch.bool, "begin: done")
    expect_length(state, n, "begin")
    expect_pure(task.begin, problems, "begin")
    expect(not bool(state.done.any()), "begin: some episodes are done before the first action")
    expect_independent(task.begin(problems[donor]), state, perturbed, "begin")
    if task.has_oracle:
        program = task.oracle(problems)
        expect_tokens(task, program, (n, spec.horizon), "oracle")
        expect_pure(task.oracle, problems, "oracle")
        expect_independent(task.oracle(problems[donor]), program, perturbed, "oracle")
    else:
        program = torch.randint(len(spec.vocabulary), (n, spec.horizon), generator=generator)
    plan = torch.cat([program, torch.full((n, 2), spec.end)], 1)
    shown = task.feedback(state)
    expect_tokens(task, shown, (n, spec.feedback_width), "feedback of the first state")
    expect_pure(task.feedback, state, "feedback")
    expect_independent(task.feedback(state[donor]), shown, perturbed, "feedback")

    for t in range(spec.horizon + 2):
        noise = torch.randint(len(spec.vocabulary), (2, n), generator=generator)
        action = torch.where(torch.rand(n, generator=generator) < 0.15, noise[0], plan[:, t])
        step = task.step(state.map(torch.clone), action.clone())
        _check_shapes(task, step, n)
        expect_pure(task.step, state, "step", action)
        other = torch.where(perturbed, noise[1], action)
        expect_independent(task.step(state[donor], other), step, perturbed, "step")
        _check_step(task, state, step, t)
        if t in (0, 1, spec.horizon - 1):
            _check_valid(task, state[:16], action[:16], step[:16], t)
        state = step.state


def _check_shapes(task: AnyTask, step: Step[State], n: int) -> None:
    for name in ("reward", "done", "success", "invalid"):
        dtype = torch.float32 if name == "reward" else torch.bool
        expect_tensor(getattr(step, name), (n,), dtype, f"step: {name}")
    expect(bool(step.reward.isfinite().all()), "step: a reward is not finite")
    expect_tokens(task, step.feedback, (n, task.spec.feedback_width), "step: feedback")
    expect_length(step.state, n, "step: state")


def _check_step(task: AnyTask, state: State, step: Step[State], t: int) -> None:
    at = f"at action {t + 1}"
    expect(torch.equal(task.feedback(step.state), step.feedback), f"step: feedback is not `feedback(state)` {at}")
    expect(torch.equal(step.done, step.state.done), f"step: done is not `state.done` {at}")
    over = state.done
    for wrong, what in (
        (~step.done[over], "an episode that was done is not done"),
        (step.reward[over], "an episode that was done earns a reward"),
        (step.success[over], "an episode that was done succeeds again"),
        (step.invalid[over], "an action after the end counts as invalid"),
        (step.success & ~step.done, "success without the end of the episode"),
    ):
        expect(not bool(wrong.any()), f"step: {what} {at}")
    for still, cause in ((over, "an action after the end"), (step.invalid, "an invalid action")):
        # Feedback is a function of the state (checked above), so it does not change either.
        expect_same(step.state[still], state[still], f"step: {cause} changes the state {at}")


def _check_valid(task: AnyTask, state: State, action: Tensor, step: Step[State], t: int) -> None:
    """What `valid` says of the next token fits what the token led to."""
    valid = task.valid(state)
    expect_tensor(valid, (len(state), len(task.spec.vocabulary)), torch.bool, "valid")
    expect(not bool(valid[state.done].any()), f"valid: accepts a token after the end at action {t + 1}")
    accepted = valid.gather(1, action[:, None])[:, 0]
    expect(not bool((accepted & step.invalid).any()), f"valid: accepts a token without effect at action {t + 1}")


def check_oracle(task: AnyTask, problems: Problems, stage: int) -> None:
    """The oracle succeeds on all problems of a stage that is declared solvable."""
    n, spec, name = len(problems), task.spec, task.spec.stages[stage]
    program = task.oracle(problems)
    expect_tokens(task, program, (n, spec.horizon), "oracle")
    length = program_length(program, spec.end)
    tail = torch.arange(spec.horizon) >= length[:, None]
    padded = bool((program[tail] == spec.end).all())
    expect(padded, f"oracle: a program of {name} contains the end token before its last action")
    if spec.solvable and not spec.solvable[stage]:
        return
    state = task.begin(problems)
    right = torch.zeros(n, dtype=torch.bool)
    for t in range(int(length.max())):
        if task.defines("valid"):
            accepted = task.valid(state[:16]).gather(1, program[:16, t, None])[:, 0]
            expect(
                bool(accepted[t < length[:16]].all()), f"valid: does not accept action {t + 1} of an oracle's program"
            )
        step = task.step(state, program[:, t])
        state, right = step.state, right | (step.success & (t == length - 1))
    if not bool(right.all()):
        i = int(right.int().argmin())
        example = repr(task.render(problems, i)) if task.defines("render") else f"key {int(problems.key[i])}"
        message = f"oracle: fails on {int((~right).sum())} of {n} problems of {name}, such as {example}"
        if bool(task.step(state, torch.full((n,), spec.end)).success[i]):
            message += "; the end token submits its answer, but programs are padded with it: use another token for that"
        raise TaskError(message)
    wrong = [r for r in task.records(problems, state) if r["answer"] != r["target"]]
    expect(not wrong, f"records: success, but the answer is not the target: {wrong[:1]}")
