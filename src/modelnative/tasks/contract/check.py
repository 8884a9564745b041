"""What every task must fulfil, as one executable check for the authors of tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import (
    SPLITS,
    AnyTask,
    Problems,
    Split,
    State,
    Step,
    Task,
    TaskSpec,
    program_length,
)


class TaskError(AssertionError):
    """A task breaks the contract; the message says which clause and where."""


def check_task(task: AnyTask, *, samples: int = 256, seed: int = 0, limit: int = 200_000) -> None:
    """Raise unless `task` fulfils the contract of `Task`.

    Checked are: shapes and dtypes; that the generator alone decides what is sampled; that row i of a result depends
    on row i of the arguments alone; that no argument is changed; that done is final and pays nothing; that invalid
    actions change nothing; that keys are canonical; that the splits are disjoint, cover every problem and are what
    `sample` draws from; that the oracle succeeds on every problem (at the stages that `spec.solvable` claims).

    Args:
        task: the task.
        samples: problems drawn for each check.
        seed: of the generator that draws problems and actions.
        limit: a stage with more problems than this is checked on samples alone.

    Raises:
        TaskError: the first clause that does not hold.

    Example:
        >>> from modelnative.tasks import make_task
        >>> check_task(make_task("arithmetic"), samples=64, limit=1000)
    """
    generator = torch.Generator().manual_seed(seed)
    _check_spec(task)
    stage = torch.arange(samples) % len(task.spec.stages)
    problems = _check_sampling(task, stage, seed)
    _check_splits(task, generator, samples, limit)
    _check_episodes(task, problems, generator)
    _check_words(task, problems)
    for index in range(len(task.spec.stages)):
        for chunk in _stage_problems(task, index, generator, samples, limit):
            _check_oracle(task, chunk, index)


# Declarations and problems


def _check_spec(task: AnyTask) -> None:
    _expect(isinstance(task, Task), f"{type(task).__name__} is not a subclass of Task")
    _expect(
        isinstance(getattr(task, "spec", None), TaskSpec), "spec: expected self.spec = TaskSpec(...), set in __init__"
    )
    spec = task.spec
    for field in ("vocabulary", "stages"):
        names = getattr(spec, field)
        _expect(len(names) > 0 and len(set(names)) == len(names), f"spec.{field}: expected distinct names, got {names}")
    for field in ("start", "end"):
        _expect(0 <= getattr(spec, field) < len(spec.vocabulary), f"spec.{field}: is no token of the vocabulary")
    for field, least in (("context_length", 1), ("feedback_width", 0), ("horizon", 1)):
        value = getattr(spec, field)
        _expect(isinstance(value, int) and value >= least, f"spec.{field}: expected an integer >= {least}, got {value}")
    _expect(len(spec.solvable) in (0, len(spec.stages)), "spec.solvable: expected one entry for each stage, or none")
    try:
        json.dumps(task.options())
    except TypeError as error:
        raise TaskError(f"options: {error}") from error


def _check_sampling(task: AnyTask, stage: Tensor, seed: int) -> Problems:
    before = torch.get_rng_state()
    asked = stage.clone()
    problems = task.sample(stage, torch.Generator().manual_seed(seed))
    _expect(torch.equal(torch.get_rng_state(), before), "sample: draws from torch's global generator")
    _expect(torch.equal(stage, asked), "sample: changes its argument `stage`")
    _check_problems(task, problems, len(stage), "sample")
    _expect(torch.equal(problems.stage, stage), "sample: the problems are not of the stages that were asked for")
    again = task.sample(stage, torch.Generator().manual_seed(seed))
    _expect_same(again, problems, "sample: the same generator state gives other problems")
    return problems


def _check_problems(task: AnyTask, problems: Problems, n: int, source: str) -> None:
    spec = task.spec
    _expect_tensor(problems.stage, (n,), torch.int64, f"{source}: stage")
    _expect_tensor(problems.context, (n, spec.context_length), torch.int64, f"{source}: context")
    _expect_tensor(problems.key, (n,), torch.int64, f"{source}: key")
    _expect_tokens(task, problems.context, f"{source}: context")
    _expect_length(problems, n, source)


def _stage_problems(
    task: AnyTask, stage: int, generator: torch.Generator, samples: int, limit: int
) -> Iterator[Problems]:
    """Every problem of a stage if they are few enough, else samples."""
    chunks = _enumerated(task, stage, "all", limit)
    if chunks is None:
        chunks = [task.sample(torch.full((samples,), stage), generator, split) for split in SPLITS]
    yield from chunks


def _enumerated(task: AnyTask, stage: int, split: Split, limit: int) -> list[Problems] | None:
    """All chunks of a stage; None if the stage has no end, or more than `limit` problems."""
    chunks: list[Problems] = []
    total = 0
    try:
        for chunk in task.enumerate(stage, split):
            chunks.append(chunk)
            total += len(chunk)
            if total > limit:
                return None
    except UserError:
        return None
    return chunks


def _check_splits(task: AnyTask, generator: torch.Generator, samples: int, limit: int) -> None:
    pool = []
    for index, name in enumerate(task.spec.stages):
        stage = torch.full((samples,), index)
        listed = {split: _enumerated(task, index, split, limit) for split in SPLITS}
        drawn = {split: task.sample(stage, generator, split) for split in SPLITS if listed[split] != []}
        for chunk in listed["all"] or []:
            _check_problems(task, chunk, len(chunk), f"enumerate({name})")
            _expect(bool((chunk.stage == index).all()), f"enumerate({name}): yields problems of another stage")
        keys = {split: torch.cat([p.key for p in chunks]) for split, chunks in listed.items() if chunks}
        for split, problems in drawn.items():
            if split in keys:
                inside = torch.isin(problems.key, keys[split])
                _expect(bool(inside.all()), f"sample: draws problems of {name} outside the split {split!r}")
        for split, key in keys.items():
            _expect(len(key.unique()) == len(key), f"enumerate({name}, {split!r}): yields a key twice")
            _expect(
                task.count(index, split) == len(key),
                f"count({name}, {split!r}): {task.count(index, split)}, but {len(key)} problems are enumerated",
            )
        if "train" in drawn and "heldout" in drawn:
            for sides in (keys, {split: problems.key for split, problems in drawn.items()}):
                if "train" in sides and "heldout" in sides:
                    shared = torch.isin(sides["train"], sides["heldout"]).any()
                    _expect(not bool(shared), f"splits: train and heldout share problems of {name}")
        if "all" in keys:
            parts = [keys[split] for split in ("train", "heldout") if split in keys]
            covered = torch.equal(torch.cat(parts).sort().values, keys["all"].sort().values)
            _expect(covered, f"splits: train and heldout together are not all of {name}")
        pool += [*(listed["all"] or []), *drawn.values()]
    _check_keys(Batch.cat(pool))


def _check_keys(problems: Problems) -> None:
    """Equal keys exactly where all other fields are equal."""
    digest = torch.zeros_like(problems.key)
    generator = torch.Generator().manual_seed(0)
    for tensor in _tensors(problems):
        if tensor is problems.key:
            continue
        # A random linear form over wrapping int64 tells any two rows apart, but for a chance of about n² / 2⁶⁴.
        rows = tensor.reshape(len(problems), -1)
        rows = rows.double().view(torch.int64) if rows.is_floating_point() else rows.long()
        factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator) | 1
        digest = digest + (rows * factors).sum(1)
    for by, other, clause in (
        (problems.key, digest, "two different problems have the same key"),
        (digest, problems.key, "the same problem has two different keys"),
    ):
        order = by.argsort()
        same = by[order].diff() == 0
        wrong = same & (other[order].diff() != 0)
        where = int(order[int(wrong.int().argmax())]) if len(wrong) else 0
        _expect(not bool(wrong.any()), f"key: {clause} ({int(problems.key[where])})")


# Episodes


def _check_episodes(task: AnyTask, problems: Problems, generator: torch.Generator) -> None:
    """Episodes that mostly follow the oracle, two actions past the horizon, each step put to every question."""
    n, spec = len(problems), task.spec
    shuffle = torch.randint(n, (n,), generator=generator)
    perturbed = torch.rand(n, generator=generator) < 0.5
    donor = torch.where(perturbed, shuffle, torch.arange(n))

    state = task.begin(problems.map(torch.clone))
    _expect_tensor(state.done, (n,), torch.bool, "begin: done")
    _expect_length(state, n, "begin")
    _check_pure(task.begin, problems, "begin")
    _expect(not bool(state.done.any()), "begin: some episodes are done before the first action")
    _expect_independent(task.begin(problems[donor]), state, perturbed, "begin")
    program = task.oracle(problems)
    _check_program(task, program, n)
    _check_pure(task.oracle, problems, "oracle")
    _expect_independent(task.oracle(problems[donor]), program, perturbed, "oracle")
    plan = torch.cat([program, torch.full((n, 2), spec.end)], 1)
    shown = task.feedback(state)
    _check_feedback(task, shown, n, "feedback of the first state")
    _check_pure(task.feedback, state, "feedback")
    _expect_independent(task.feedback(state[donor]), shown, perturbed, "feedback")

    for t in range(spec.horizon + 2):
        noise = torch.randint(len(spec.vocabulary), (2, n), generator=generator)
        action = torch.where(torch.rand(n, generator=generator) < 0.15, noise[0], plan[:, t])
        step = task.step(state.map(torch.clone), action.clone())
        _check_shapes(task, step, n)
        _check_pure(task.step, state, "step", action)
        other = torch.where(perturbed, noise[1], action)
        _expect_independent(task.step(state[donor], other), step, perturbed, "step")
        _check_step(task, state, step, t)
        state = step.state


def _check_shapes(task: AnyTask, step: Step[State], n: int) -> None:
    for name, dtype in (
        ("reward", torch.float32),
        ("done", torch.bool),
        ("success", torch.bool),
        ("invalid", torch.bool),
    ):
        _expect_tensor(getattr(step, name), (n,), dtype, f"step: {name}")
    _expect(bool(step.reward.isfinite().all()), "step: a reward is not finite")
    _check_feedback(task, step.feedback, n, "step: feedback")
    _expect_length(step.state, n, "step: state")


def _check_step(task: AnyTask, state: State, step: Step[State], t: int) -> None:
    at = f"at action {t + 1}"
    _expect(torch.equal(task.feedback(step.state), step.feedback), f"step: feedback is not `feedback(state)` {at}")
    _expect(torch.equal(step.done, step.state.done), f"step: done is not `state.done` {at}")
    over = state.done
    _expect(bool(step.done[over].all()), f"step: an episode that was done is not done {at}")
    _expect(not bool(step.reward[over].any()), f"step: an episode that was done earns a reward {at}")
    _expect(not bool(step.success[over].any()), f"step: an episode that was done succeeds again {at}")
    _expect(not bool(step.invalid[over].any()), f"step: an action after the end counts as invalid {at}")
    _expect(not bool((step.success & ~step.done).any()), f"step: success without the end of the episode {at}")
    for still, cause in ((over, "an action after the end"), (step.invalid, "an invalid action")):
        # Feedback is a function of the state, as was seen above, so it does not change either.
        _expect_same(step.state[still], state[still], f"step: {cause} changes the state {at}")


def _check_oracle(task: AnyTask, problems: Problems, stage: int) -> None:
    n, spec, name = len(problems), task.spec, task.spec.stages[stage]
    program = task.oracle(problems)
    _check_program(task, program, n)
    length = program_length(program, spec.end)
    tail = torch.arange(spec.horizon) >= length[:, None]
    _expect(bool((program[tail] == spec.end).all()), f"oracle: a program of {name} has the end token before its end")
    if spec.solvable and not spec.solvable[stage]:
        return
    state = task.begin(problems)
    right = torch.zeros(n, dtype=torch.bool)
    for t in range(int(length.max())):
        step = task.step(state, program[:, t])
        state, right = step.state, right | (step.success & (t == length - 1))
    if not bool(right.all()):
        i = int(right.int().argmin())
        raise TaskError(
            f"oracle: fails on {int((~right).sum())} of {n} problems of {name}, such as {task.render(problems, i)!r}"
        )
    wrong = [r for r in task.records(problems, state) if r["answer"] != r["target"]]
    _expect(not wrong, f"records: success, but the answer is not the target: {wrong[:1]}")


def _check_words(task: AnyTask, problems: Problems) -> None:
    """What people and files are shown."""
    state = task.begin(problems)
    text: Any = task.render(problems, 0)
    registers: Any = task.registers(state, 0)
    records = task.records(problems, state)
    _expect(isinstance(text, str) and text != "", "render: expected a text that is not empty")
    plain = isinstance(registers, dict) and all(isinstance(x, str) for pair in registers.items() for x in pair)
    _expect(plain, "registers: expected names and values that are texts")
    _expect(len(records) == len(problems), f"records: expected {len(problems)} records, got {len(records)}")
    missing = {"answer", "target"} - records[0].keys()
    _expect(not missing, f"records: lacks {' and '.join(sorted(missing))}")
    _expect(all(r["answer"] is None for r in records), "records: an answer before the first action")
    for i, record in enumerate(records[:8]):
        if "problem" in record:
            again = task.parse(int(problems.stage[i]), record["problem"])
            same = task.render(again, 0) == task.render(problems, i)
            _expect(same, f"records: parse makes another problem of {record['problem']!r}")
    try:
        json.dumps(records)
    except TypeError as error:
        raise TaskError(f"records: {error}") from error


# Comparisons


def _check_pure(function: Callable[..., Batch | Tensor], argument: Batch, name: str, *more: Tensor) -> None:
    """`function` leaves its arguments as they were and gives the same result twice."""
    kept, kept_more = argument.map(torch.clone), [tensor.clone() for tensor in more]
    first = function(argument, *more)
    _expect_same(argument, kept, f"{name}: changes its argument")
    _expect(all(map(torch.equal, more, kept_more)), f"{name}: changes its argument `action`")
    _expect_same(function(argument, *more), first, f"{name}: the same arguments give two results")


def _expect_independent(mixed: Batch | Tensor, plain: Batch | Tensor, perturbed: Tensor, name: str) -> None:
    clause = f"{name}: a row depends on other rows of the batch"
    for left, right in zip(_tensors(mixed), _tensors(plain), strict=True):
        _expect(torch.equal(left[~perturbed], right[~perturbed]), clause)


def _expect_same(left: Batch | Tensor, right: Batch | Tensor, clause: str) -> None:
    for a, b in zip(_tensors(left), _tensors(right), strict=True):
        _expect(torch.equal(a, b), clause)


def _tensors(value: Batch | Tensor) -> list[Tensor]:
    """All tensors of a batch, and of the batches in it."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for field in value.fields() for tensor in _tensors(field)]


def _check_program(task: AnyTask, program: Tensor, n: int) -> None:
    _expect_tensor(program, (n, task.spec.horizon), torch.int64, "oracle")
    _expect_tokens(task, program, "oracle")


def _check_feedback(task: AnyTask, feedback: Tensor, n: int, what: str) -> None:
    _expect_tensor(feedback, (n, task.spec.feedback_width), torch.int64, what)
    _expect_tokens(task, feedback, what)


def _expect_tensor(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> None:
    _expect(isinstance(tensor, Tensor), f"{what}: expected a tensor, got {type(tensor).__name__}")
    _expect(tensor.dtype == dtype, f"{what}: expected {dtype}, got {tensor.dtype}")
    _expect(tensor.shape == shape, f"{what}: expected shape {list(shape)}, got {list(tensor.shape)}")


def _expect_tokens(task: AnyTask, tokens: Tensor, what: str) -> None:
    known = ((tokens >= 0) & (tokens < len(task.spec.vocabulary))).all()
    _expect(bool(known), f"{what}: holds ids that are no token of the vocabulary")


def _expect_length(batch: Batch, n: int, what: str) -> None:
    lengths = {len(tensor) for tensor in _tensors(batch)}
    _expect(lengths == {n}, f"{what}: expected {n} rows in every field, got {sorted(lengths)}")


def _expect(condition: bool, clause: str) -> None:
    if not condition:
        raise TaskError(clause)
