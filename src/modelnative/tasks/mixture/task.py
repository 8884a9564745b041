"""Several tasks as one: one network acts in all of them, with one vocabulary and one set of weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks import make_task, require_task, task_entries
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import AnyTask, Problems, Split, State, Step, Task, TaskSpec, in_split, require


@dataclass
class MixtureProblems(Problems):
    """Adds the problems of the parts.

    Attributes:
        parts: for each part n of its problems; those in rows of other parts mean nothing.
    """

    parts: Batch


@dataclass
class MixtureState(State):
    """A batch of n episodes, each of one part.

    Attributes:
        part: int64 [n], the part of each episode.
        parts: for each part n of its states; those in rows of other parts mean nothing.
    """

    part: Tensor
    parts: Batch


class Mixture(Task[MixtureProblems, MixtureState]):
    """Several tasks as one. Its stages are those of the parts, in order: `arithmetic.T0`, …, `recall.L1`, ….

    Tokens of the same name are one token: the digits of a calculator and those of a memory task share their embedding.
    The padding tokens of all parts are one, too. In an episode of a part, a key that only other parts have is without
    effect (`invalid`). Contexts and feedback are padded to the longest. The problems, the verifier, the oracle and the
    split of a part are its own, so that a part is verified as it is alone.

    Args:
        parts: the tasks by name, an identifier each; at least two.

    Example:
        >>> task = make_task("arithmetic+recall", **{"recall.longest": 3})
        >>> task.spec.stages
        ('arithmetic.T0', 'arithmetic.T1', 'arithmetic.T2', 'recall.L1', 'recall.L3')
        >>> problem = task.parse(4, "5 17")
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0] if t != task.spec.end)
        'WAIT WAIT WAIT WAIT 5'
    """

    def __init__(self, parts: Mapping[str, AnyTask]) -> None:
        require(len(parts) >= 2, "parts", list(parts), "at least two tasks")
        for name in parts:
            require(name.isidentifier(), "parts", name, "names that are identifiers")
        self.names = tuple(parts)
        self.tasks = [require_task(task) for task in parts.values()]
        specs = [task.spec for task in self.tasks]
        self.spec = _joined(self.names, specs)
        self.evaluation_size = max(task.evaluation_size for task in self.tasks)
        ends = [spec.vocabulary[spec.end] for spec in specs]
        number = {token: i for i, token in enumerate(self.spec.vocabulary)}
        tables = [
            torch.tensor([self.spec.end if i == spec.end else number[token] for i, token in enumerate(spec.vocabulary)])
            for spec in specs
        ]
        for name, spec, end in zip(self.names, specs, ends, strict=True):
            alone = end == ends[0] or ends[0] not in spec.vocabulary
            require(alone, "parts", name, f"a task without the token {ends[0]!r}, which pads in {self.names[0]}")
        self._shared = [PerDevice(table.to) for table in tables]  # tokens of a part as those of the mixture: [its V]
        self._own = [PerDevice(_inverse(table, len(self.spec.vocabulary)).to) for table in tables]  # [V], −1: none
        counts = torch.tensor([len(spec.stages) for spec in specs])
        self._part = PerDevice(torch.arange(len(specs)).repeat_interleave(counts).to)  # of each stage
        self._first = (counts.cumsum(0) - counts).tolist()  # the first stage of each part
        generator = torch.Generator().manual_seed(0)
        blank = [task.sample(torch.tensor([0]), generator, "all") for task in self.tasks]
        self._blank = [PerDevice(problem.to) for problem in blank]
        self._join = make_dataclass("Parts", [(name, Batch) for name in self.names], bases=(Batch,))

    def options(self) -> dict[str, Any]:
        return {
            f"{name}.{option}": value
            for name, task in zip(self.names, self.tasks, strict=True)
            for option, value in task.options().items()
        }

    def notes(self) -> list[str]:
        return [note for task in self.tasks for note in task.notes()]

    @property
    def has_oracle(self) -> bool:
        return all(task.has_oracle for task in self.tasks)

    @property
    def can_enumerate(self) -> bool:
        return all(task.can_enumerate for task in self.tasks)

    # Episodes

    def begin(self, problems: MixtureProblems) -> MixtureState:
        part = self._part(problems.stage.device).index_select(0, problems.stage)
        states = [task.begin(own) for task, own in zip(self.tasks, problems.parts.fields(), strict=True)]
        return MixtureState(torch.zeros_like(part, dtype=torch.bool), part, self._join(*states))

    def step(self, state: MixtureState, action: Tensor) -> Step[MixtureState]:
        running = ~state.done
        feedback, invalid, done = self.feedback(state), running.clone(), state.done.clone()
        reward, success = torch.zeros(action.shape, device=action.device), torch.zeros_like(done)
        parts: list[Any] = state.parts.fields()
        for i, task in enumerate(self.tasks):
            own = self._own[i](action.device).index_select(0, action)
            rows = ((state.part == i) & running & (own >= 0)).nonzero()[:, 0]
            if not len(rows):
                continue
            step = task.step(parts[i][rows], own.index_select(0, rows))
            parts[i] = parts[i].put(rows, step.state)
            feedback[rows] = self._padded(i, step.feedback, self.spec.feedback_width)
            reward[rows], done[rows], success[rows], invalid[rows] = step.reward, step.done, step.success, step.invalid
        after = MixtureState(done, state.part, self._join(*parts))
        return Step(after, feedback, reward, done, success, invalid)

    def feedback(self, state: MixtureState) -> Tensor:
        shown = torch.full((len(state.part), self.spec.feedback_width), self.spec.end, device=state.part.device)
        for i, rows, own in self._rows(state.part, state.parts):
            shown[rows] = self._padded(i, self.tasks[i].feedback(own), self.spec.feedback_width)
        return shown

    def oracle(self, problems: MixtureProblems) -> Tensor:
        part = self._part(problems.stage.device).index_select(0, problems.stage)
        program = torch.full((len(part), self.spec.horizon), self.spec.end, device=part.device)
        for i, rows, own in self._rows(part, problems.parts):
            program[rows] = self._padded(i, self.tasks[i].oracle(own), self.spec.horizon)
        return program

    def truncated(self, state: MixtureState) -> Tensor | None:
        cut = torch.zeros_like(state.done)
        for i, rows, own in self._rows(state.part, state.parts):
            found = self.tasks[i].truncated(own)
            if found is not None:
                cut[rows] = found
        return cut if any(task.defines("truncated") for task in self.tasks) else None

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> MixtureProblems:
        part = self._part(stage.device).index_select(0, stage)
        return self._mixed(
            stage,
            {
                i: self.tasks[i].sample(stage[rows] - self._first[i], generator, split)
                for i, rows in self._by_part(part)
            },
        )

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[MixtureProblems]:
        i, own_stage = self._own_stage(stage)
        for problems in self.tasks[i].enumerate(own_stage, split, chunk):
            yield self._of_part(i, stage, problems)

    def count(self, stage: int, split: Split = "all") -> int:
        i, own_stage = self._own_stage(stage)
        return self.tasks[i].count(own_stage, split)

    def parse(self, stage: int, text: str) -> MixtureProblems:
        i, own_stage = self._own_stage(stage)
        return self._of_part(i, stage, self.tasks[i].parse(own_stage, text))

    def vary(self, problems: MixtureProblems, generator: torch.Generator) -> MixtureProblems:
        part = self._part(problems.stage.device).index_select(0, problems.stage)
        varied = {i: self.tasks[i].vary(own, generator) for i, _, own in self._rows(part, problems.parts)}
        return self._mixed(problems.stage, varied)

    def render(self, problems: MixtureProblems, i: int) -> str:
        task, own = self._row(problems, i)
        return task.render(own, 0)

    def records(self, problems: MixtureProblems, state: MixtureState) -> list[dict[str, Any]]:
        described: list[dict[str, Any]] = [{}] * len(problems)
        for i, rows, own in self._rows(state.part, problems.parts):
            states: Any = state.parts.fields()[i]
            for row, record in zip(rows.tolist(), self.tasks[i].records(own, states[rows]), strict=True):
                described[row] = record
        return described

    # For people and language models

    def registers(self, state: MixtureState, i: int) -> dict[str, str]:
        task, own = self._row(state, i)
        return task.registers(own, 0)

    def board(self, state: MixtureState, i: int) -> Sequence[BoardField]:
        task, own = self._row(state, i)
        return task.board(own, 0)

    def rules(self) -> str:
        return "\n".join(
            f"Problems of {name}: {task.rules()}" for name, task in zip(self.names, self.tasks, strict=True)
        )

    def prompt(self, problems: MixtureProblems, i: int) -> str:
        part, own_stage = self._own_stage(int(problems.stage[i]))
        task, own = self._row(problems, i)
        context = problems.context[i : i + 1, : task.spec.context_length]
        visible = dataclasses.replace(
            own, stage=own.stage * 0 + own_stage, context=self._own[part](context.device)[context]
        )
        return f"A problem of {self.names[part]}. {task.prompt(visible, 0)}"

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        groups: dict[str, tuple[str, ...]] = {}
        for name, task in zip(self.names, self.tasks, strict=True):
            for group, paths in task.state_groups().items():
                label = group if group == "mode" else f"{name}: {group}"
                groups[label] = (*groups.get(label, ()), *(f"parts.{name}.{path}" for path in paths))
        return groups

    # The parts

    def _own_stage(self, stage: int) -> tuple[int, int]:
        i = int(self._part(torch.device("cpu"))[stage])
        return i, stage - self._first[i]

    def _by_part(self, part: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The rows of each part that has some, int64."""
        for i in range(len(self.tasks)):
            rows = (part == i).nonzero()[:, 0]
            if len(rows):
                yield i, rows

    def _rows(self, part: Tensor, parts: Batch) -> Iterator[tuple[int, Tensor, Any]]:
        """The same, with what is in these rows."""
        batches: list[Any] = parts.fields()
        for i, rows in self._by_part(part):
            yield i, rows, batches[i][rows]

    def _row(self, batch: MixtureProblems | MixtureState, row: int) -> tuple[AnyTask, Any]:
        part = int(batch.part[row]) if isinstance(batch, MixtureState) else self._own_stage(int(batch.stage[row]))[0]
        own: Any = batch.parts.fields()[part]
        return self.tasks[part], own[row : row + 1]

    def _padded(self, i: int, tokens: Tensor, width: int) -> Tensor:
        """Tokens of a part, int64 [m, w], as those of the mixture: [m, width]."""
        shared = self._shared[i](tokens.device)[tokens]
        return torch.nn.functional.pad(shared, (0, width - shared.shape[1]), value=self.spec.end)

    def _of_part(self, i: int, stage: int, problems: Problems) -> MixtureProblems:
        return self._mixed(torch.full_like(problems.stage, stage), {i: problems})

    def _mixed(self, stage: Tensor, drawn: Mapping[int, Problems]) -> MixtureProblems:
        """Problems of the parts as those of the mixture; `drawn` has one for each row of a part, in order."""
        part = self._part(stage.device).index_select(0, stage)
        context = torch.full((len(stage), self.spec.context_length), self.spec.end, device=stage.device)
        key, parts = torch.zeros_like(stage), list[Batch]()
        for i in range(len(self.tasks)):
            own: Batch = self._blank[i](stage.device)[torch.zeros_like(stage)]
            if i in drawn:
                rows = (part == i).nonzero()[:, 0]
                own = own.put(rows, drawn[i])
                context[rows] = self._padded(i, drawn[i].context, self.spec.context_length)
                key[rows] = _marked(drawn[i].key, i)
            parts.append(own)
        return MixtureProblems(stage, context, key, self._join(*parts))


class NamedMixture(Mixture):
    """A mixture by the names of its parts, joined by `+`; an option is `PART.OPTION`.

    Raises:
        UserError: a name or an option is unknown, or a name is there twice.
    """

    def __init__(self, names: str, **options: Any) -> None:
        parts = [choose("task", name, task_entries()) for name in names.split("+")]
        require(len(set(parts)) == len(parts), "task", names, "different tasks, joined by +")
        given: dict[str, dict[str, Any]] = {name: {} for name in parts}
        for option, value in options.items():
            name, dot, own = option.partition(".")
            require(bool(dot), "options", option, f"PART.OPTION, such as {parts[0]}.{option}")
            given[choose("options", name, given)][own] = value
        super().__init__({name: make_task(name, **given[name]) for name in parts})


def _joined(names: Sequence[str], specs: Sequence[TaskSpec]) -> TaskSpec:
    """The constants of the mixture: the tokens that are actions somewhere come first."""
    end = specs[0].vocabulary[specs[0].end]

    def tokens(chosen: Callable[[TaskSpec], tuple[str, ...]]) -> list[str]:
        return [end if token == spec.vocabulary[spec.end] else token for spec in specs for token in chosen(spec)]

    actions = dict.fromkeys(tokens(lambda spec: spec.vocabulary[: spec.action_count]))
    vocabulary = tuple(dict.fromkeys([*actions, *tokens(lambda spec: spec.vocabulary)]))
    return TaskSpec(
        name="+".join(names),
        vocabulary=vocabulary,
        stages=tuple(f"{name}.{stage}" for name, spec in zip(names, specs, strict=True) for stage in spec.stages),
        context_length=max(spec.context_length for spec in specs),
        feedback_width=max(spec.feedback_width for spec in specs),
        horizon=max(spec.horizon for spec in specs),
        start=vocabulary.index(specs[0].vocabulary[specs[0].start]),
        end=vocabulary.index(end),
        solvable=tuple(able for spec in specs for able in spec.solvable or (True,) * len(spec.stages)),
        actions=len(actions),
    )


def _inverse(table: Tensor, size: int) -> Tensor:
    """The token of a part for each one of the mixture; −1 where there is none."""
    own = torch.full((size,), -1)
    own[table] = torch.arange(len(table))
    return own


def _marked(key: Tensor, part: int) -> Tensor:
    """Keys of a part that no other part has, in the same split: the split is a hash of the key.

    Each key is combined with the first of a sequence of numbers, one sequence for each part, that keeps its split.
    """
    if part == 0:
        return key
    marked, held = key.clone(), in_split(key, "heldout")
    wrong = torch.ones_like(held)
    generator = torch.Generator().manual_seed(part)
    while bool(wrong.any()):
        mark = int(torch.randint(1 << 62, (), generator=generator))
        marked = torch.where(wrong, key ^ mark, marked)
        wrong = wrong & (in_split(marked, "heldout") != held)
    return marked
