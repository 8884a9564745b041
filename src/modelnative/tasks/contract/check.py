"""`check_task`: an executable version of the contract, for the authors of tasks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.check_episodes import check_episodes, check_oracle
from modelnative.tasks.contract.expectations import (
    TaskError,
    all_tensors,
    expect,
    expect_length,
    expect_same,
    expect_tensor,
    expect_tokens,
)
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split, State, Task, TaskSpec, hidden_methods

__all__ = ["TaskError", "check_task"]


def check_task(task: AnyTask, *, samples: int = 256, seed: int = 0, limit: int = 200_000) -> None:
    """Raise a `TaskError` unless `task` fulfills the contract of `Task`.

    The check covers: shapes and dtypes; that `sample` draws from its generator alone; that row i of a result depends on
    row i of the arguments alone; that arguments are not changed; that done is final and pays nothing; that invalid
    actions change nothing; that keys are canonical, and that `parse` gives back the key of a problem in `records`; that
    the splits are disjoint, cover every problem and are what `sample` draws from; that the oracle succeeds on every
    problem (of the stages that `spec.solvable` declares); that a prompt tells no more than stage and context.

    Optional methods are checked if the task defines them.

    Args:
        task: the task.
        samples: number of problems drawn for each check.
        seed: seed of the generator that draws problems and actions.
        limit: a stage with more problems is checked on samples.

    Raises:
        TaskError: names the first clause that does not hold.

    Example:
        >>> from modelnative.tasks import make_task
        >>> check_task(make_task("arithmetic"), samples=64, limit=1000)
    """
    generator = torch.Generator().manual_seed(seed)
    _check_spec(task)
    stage = torch.arange(samples) % len(task.spec.stages)
    problems = _check_sampling(task, stage, seed)
    _check_splits(task, generator, samples, limit)
    check_episodes(task, problems, generator)
    _check_texts(task, problems)
    if task.has_oracle:
        for index in range(len(task.spec.stages)):
            chunks = _enumerated(task, index, "all", limit)
            if chunks is None:
                chunks = [task.sample(torch.full((samples,), index), generator, split) for split in SPLITS]
            for chunk in chunks:
                check_oracle(task, chunk, index)


def _check_spec(task: AnyTask) -> None:
    expect(isinstance(task, Task), f"{type(task).__name__} is not a subclass of Task")
    has_spec = isinstance(getattr(task, "spec", None), TaskSpec)
    expect(has_spec, "spec: expected self.spec = TaskSpec(...), set in __init__")
    for name in hidden_methods(task):
        raise TaskError(f"{name}: is an attribute that hides the method Task.{name}; rename it")
    spec = task.spec
    for field in ("vocabulary", "stages"):
        names = getattr(spec, field)
        expect(len(names) > 0 and len(set(names)) == len(names), f"spec.{field}: expected distinct names, got {names}")
    for field in ("start", "end"):
        expect(0 <= getattr(spec, field) < len(spec.vocabulary), f"spec.{field}: is not a token of the vocabulary")
    for field, least in (("context_length", 1), ("feedback_width", 0), ("horizon", 1)):
        value = getattr(spec, field)
        expect(isinstance(value, int) and value >= least, f"spec.{field}: expected an integer >= {least}, got {value}")
    expect(len(spec.solvable) in (0, len(spec.stages)), "spec.solvable: expected one entry for each stage, or none")
    _check_json(task.options(), "options")


def _check_sampling(task: AnyTask, stage: Tensor, seed: int) -> Problems:
    before = torch.get_rng_state()
    wanted = stage.clone()
    problems = task.sample(stage, torch.Generator().manual_seed(seed))
    expect(torch.equal(torch.get_rng_state(), before), "sample: draws from torch's global generator")
    expect(torch.equal(stage, wanted), "sample: changes its argument `stage`")
    _check_problems(task, problems, len(stage), "sample")
    expect(torch.equal(problems.stage, stage), "sample: the problems are not of the requested stages")
    again = task.sample(stage, torch.Generator().manual_seed(seed))
    expect_same(again, problems, "sample: the same generator state gives other problems")
    return problems


def _check_problems(task: AnyTask, problems: Problems, n: int, source: str) -> None:
    expect_tensor(problems.stage, (n,), torch.int64, f"{source}: stage")
    expect_tokens(task, problems.context, (n, task.spec.context_length), f"{source}: context")
    expect_tensor(problems.key, (n,), torch.int64, f"{source}: key")
    expect_length(problems, n, source)


def _enumerated(task: AnyTask, stage: int, split: Split, limit: int) -> list[Problems] | None:
    """Return all chunks of a stage; None if it cannot be listed or has more than `limit` problems."""
    chunks: list[Problems] = []
    try:
        for chunk in task.enumerate(stage, split):
            chunks.append(chunk)
            if sum(map(len, chunks)) > limit:
                return None
    except UserError:  # also from a task that does not define it
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
            expect(bool((chunk.stage == index).all()), f"enumerate({name}): yields problems of another stage")
        keys = {split: torch.cat([p.key for p in chunks]) for split, chunks in listed.items() if chunks}
        for split, problems in drawn.items():
            if split in keys:
                inside = torch.isin(problems.key, keys[split])
                expect(bool(inside.all()), f"sample: draws problems of {name} outside the split {split!r}")
        for split, key in keys.items():
            expect(len(key.unique()) == len(key), f"enumerate({name}, {split!r}): yields a key twice")
            count = task.count(index, split)
            expect(count == len(key), f"count({name}, {split!r}): {count}, but {len(key)} problems are enumerated")
        for sides in (keys, {split: problems.key for split, problems in drawn.items()}):
            if "train" in sides and "heldout" in sides:
                shared = torch.isin(sides["train"], sides["heldout"]).any()
                expect(not bool(shared), f"splits: train and heldout share problems of {name}")
        if "all" in keys:
            parts = [keys[split] for split in ("train", "heldout") if split in keys]
            covered = torch.equal(torch.cat(parts).sort().values, keys["all"].sort().values)
            expect(covered, f"splits: train and heldout together are not all of {name}")
        pool += [*(listed["all"] or []), *drawn.values()]
    _check_keys(Batch.cat(pool))


def _check_keys(problems: Problems) -> None:
    """Keys are equal if and only if all other fields are equal."""
    digest = torch.zeros_like(problems.key)
    generator = torch.Generator().manual_seed(0)
    for tensor in all_tensors(problems):
        if tensor is problems.key:
            continue
        # A random linear form over int64 distinguishes all rows, except with probability n² / 2⁶⁴.
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
        expect(not bool(wrong.any()), f"key: {clause} ({int(problems.key[where])})")


def _check_texts(task: AnyTask, problems: Problems) -> None:
    """Check the methods that produce text and JSON."""
    state = task.begin(problems)
    if task.defines("render"):
        text: Any = task.render(problems, 0)
        expect(isinstance(text, str) and text != "", "render: expected a text that is not empty")
    registers: Any = task.registers(state, 0)
    records = task.records(problems, state)
    plain = isinstance(registers, dict) and all(isinstance(x, str) for pair in registers.items() for x in pair)
    expect(plain, "registers: expected names and values that are strings")
    expect(len(records) == len(problems), f"records: expected {len(problems)} records, got {len(records)}")
    missing = {"answer", "target"} - records[0].keys()
    expect(not missing, f"records: lacks {' and '.join(sorted(missing))}")
    expect(all(r["answer"] is None for r in records), "records: an answer before the first action")
    for i, record in enumerate(records[:8]):
        if "problem" in record and task.defines("parse"):
            again = task.parse(int(problems.stage[i]), record["problem"])
            same = int(again.key[0]) == int(problems.key[i])
            expect(same, f"records: parse returns a problem with another key for {record['problem']!r}")
    _check_json(records, "records")
    _check_words(task, problems, state)


def _check_words(task: AnyTask, problems: Problems, state: State) -> None:
    """Check what a language model reads and calls."""
    shown = [task.show(row) for row in task.feedback(state)[:8].tolist()] if task.spec.feedback_width else []
    texts: list[tuple[str, Any]] = [("rules", task.rules()), *(("show", text) for text in shown)]
    for name, text in texts:
        expect(isinstance(text, str), f"{name}: expected a text")
    # The problems are of all stages in turn. A prompt must not change with what the context does not tell.
    stages = len(task.spec.stages)
    for i in range(min(64, len(problems) - stages)):
        prompt: Any = task.prompt(problems, i)
        expect(isinstance(prompt, str) and prompt != "", "prompt: expected a text that is not empty")
        one, other = problems[i : i + 1], problems[i + stages : i + stages + 1]
        hidden = dataclasses.replace(other, stage=one.stage, context=one.context)
        expect(task.prompt(hidden, 0) == prompt, f"prompt: tells more than stage and context do: {prompt!r}")
    names = [call.name for call in task.calls()]
    expect(len(names) > 0 and len(set(names)) == len(names), f"calls: expected calls with distinct names, got {names}")
    _check_json([call.schema() for call in task.calls()], "calls")


def _check_json(value: object, what: str) -> None:
    try:
        json.dumps(value)
    except TypeError as error:
        raise TaskError(f"{what}: {error}") from error
