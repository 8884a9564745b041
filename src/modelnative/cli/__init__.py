"""The commands: parse, call, print. Whatever is wrong with the input is one line on standard error and exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, cast

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from modelnative.errors import UserError, choose
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import BENCH, recipe

PROGRAM = "modelnative"


@dataclass(frozen=True)
class Train:
    """Train a policy until every training problem is verified, and write the run.

    The defaults below are the recipe for the chosen --task, --core, --algorithm and --curriculum; name those before
    --help to see theirs. Ctrl-C stops the training so that `modelnative resume RUN` continues it bit for bit.
    The exit code is 0 whether or not every problem was solved; the last lines, and RUN/result.json, say which.
    """

    out: Path | None = None
    """The run folder, which must not exist; by default a new one under runs/."""
    config_file: Annotated[Path | None, arg(name="config", metavar="FILE")] = None
    """TOML or JSON with the fields below, such as another run's config.json; flags override it."""
    seeds: int = 1
    """Train so many seeds side by side as one computation, --seed and those after it; cheaper than one by one."""
    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=recipe)

    def run(self) -> int:
        from modelnative import api

        if self.seeds != 1:
            return _watched_seeds(lambda watch: api.train_seeds(self.config, self.seeds, self.out, watch))
        return _watched(lambda watch: api.train_config(self.config, self.out, watch))


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run from its newest checkpoint, bit for bit as if it had never stopped."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run folder, or that of `train --seeds` (where rounding may differ from what it would have been)."""

    def run(self) -> int:
        from modelnative import api
        from modelnative.runs.team import seeds_of

        if seeds_of(self.folder):
            return _watched_seeds(lambda watch: api.resume_seeds(self.folder, watch))
        return _watched(lambda watch: api.resume(self.folder, watch=watch))


@dataclass(frozen=True)
class Sweep:
    """Train many trials from one file: tasks, algorithms, seeds, any field; each in a process of its own.

    SPEC is TOML (or JSON): fields for all trials under [base], lists of values to try under [grid], and seeds:

        seeds = 10
        [base]
        updates = 200
        [grid]
        algorithm = ["ppo", "grpo"]
        policy.width = [32, 64]

    trains 40 trials. Whatever is killed, a trial or the sweep, loses nothing: a trial that dies is tried again from
    its newest checkpoint, and the same command continues a broken sweep without repeating what is finished. The
    folder then has results.csv, a row a trial, and comparison.svg. Exit code 1: a trial failed for good.
    """

    spec: Annotated[Positional[Path | None], arg(metavar="SPEC")] = None
    """The file that says what to try; not needed with --resume."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The sweep's folder, by default sweeps/NAME; if the sweep was begun there, it is continued."""
    resume: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Continue the sweep in this folder, without its file."""
    dry_run: bool = False
    """Check everything and show the trials; train and write nothing."""
    jobs: Annotated[int | None, arg(metavar="N")] = None
    """Trials at a time; by default as many as there are cores for, with the one thread that a trial has."""
    retries: int = 2
    """How often a trial that dies (kill -9, out of memory) is tried again."""
    on: str = "auto"
    """local (processes of this machine), ray, or auto: Ray where the extra is installed, else local."""
    address: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """A Ray cluster: HOST:PORT, or auto for the one on this machine. By default one is started for the sweep."""

    def run(self) -> int:
        if self.spec is None and self.resume is None:
            raise UserError(f"SPEC is missing; see: {PROGRAM} sweep --help")
        for name, value in (("SPEC", self.spec), ("--out", self.out)):
            if self.resume is not None and value is not None:
                raise UserError(f"{name}: '{value}' is not allowed beside --resume; the folder says it all")
        from modelnative import api
        from modelnative.studio import sweep as pictures
        from modelnative.studio import tables

        console = tables.console()
        options = {name: getattr(self, name) for name in ("jobs", "retries", "on", "address", "dry_run")}
        with pictures.SweepView(console) as view:
            try:
                if self.spec is not None:
                    swept = api.sweep(self.spec, self.out, watch=view, **options)
                else:
                    swept = api.resume_sweep(cast(Path, self.resume), watch=view, **options)
            except KeyboardInterrupt:
                view.close()
                print(view.farewell(), flush=True)
                return 128 + view.signal
        if self.dry_run:
            console.print(pictures.plan_table(swept.sweep))
            print(f"{len(swept.rows)} trials, to be written to {swept.sweep.path}; nothing was written or trained")
            return 0
        if swept.cells:
            console.print(pictures.comparison_table(swept.cells))
            for line in pictures.notes(swept.cells):
                print(line)
        for line in pictures.farewell(swept.sweep, swept.rows):
            print(line)
        return 1 if swept.failed else 0


@dataclass(frozen=True)
class Evaluate:
    """Play every problem once, greedily, and count. Nothing is estimated."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run folder."""
    stage: tuple[str, ...] = ()
    """Stages to play, such as T2; by default all."""
    split: str = "all"
    """train, heldout (never seen in training), or all, which shows both."""
    episodes: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write a JSON line for every episode to this file."""
    sampled: bool = False
    """Draw the actions from the policy (temperature 1), from the run's seed, instead of acting greedily."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the task to change, to test on what was not trained on, such as shapes=unseen."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        from modelnative import api
        from modelnative.studio import tables

        evaluation = api.evaluate(
            self.folder,
            stages=self.stage or None,
            split=self.split,  # type: ignore[arg-type]  # evaluate checks it
            sampled=self.sampled,
            episodes_file=self.episodes,
            options=self.options,
        )
        if self.json:
            print(json.dumps(evaluation.as_dict(), indent=2))
        else:
            tables.console().print(tables.results(evaluation))
            print(evaluation.line())
        return 0


@dataclass(frozen=True)
class Explain:
    """Show one problem token by token: how sure the policy was, what the tool did, what the oracle would write."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run folder."""
    stage: str
    """The problem's stage, such as T2."""
    problem: str
    """The problem's operands, such as "3 7 2 4 5"."""

    def run(self) -> int:
        from modelnative import api
        from modelnative.studio import tables

        explanation = api.explain(self.folder, stage=self.stage, problem=self.problem)
        console = tables.console()
        console.print(f"{explanation.stage}: {explanation.problem}", style="bold")
        console.print(tables.trajectory(explanation))
        console.print(tables.verdict(explanation))
        return 0


@dataclass(frozen=True)
class Tasks:
    """List the tasks; with a name, describe one: stages, vocabulary, options, the oracle's program."""

    name: Annotated[Positional[str], arg(metavar="NAME")] = ""
    """A task's name, or package.module:Class."""

    def run(self) -> int:
        from modelnative.studio import tables

        console = tables.console()
        for part in tables.task_page(self.name) if self.name else [tables.task_list()]:
            console.print(part)
        return 0


@dataclass(frozen=True)
class Certify:
    """Prove a task sound: its oracle succeeds, its splits are apart, and agents that should fail do.

    For every stage: success of the oracle (1.000 where the task claims it), random keys, doing nothing, the most
    frequent answer given always, the best program that reads nothing, a network without memory and one that cannot see
    the problem; and how many problems are in both splits. Every problem is played where a stage has no more than
    --problems; otherwise that many are drawn, and figures come with a 95% interval.

    TASK is a name (see `modelnative tasks`) or package.module:Class, from the current folder, too:

        modelnative certify mypkg:MyTask --no-train

    Below the table it says in words what is wrong and what to do: a clause of the contract that is broken, an oracle's
    counterexample, problems that nobody can solve, agents that succeed without doing what the stage asks (from 0.2 a
    warning, from 0.5 a defect). Progress goes to standard error. Ctrl-C shows what was measured so far.
    Exit code 1: there is a defect.
    """

    task: Annotated[Positional[str], arg(metavar="TASK")]
    """A task's name, or package.module:Class."""
    stage: tuple[str, ...] = ()
    """Stages to measure, such as T2; by default all."""
    options: dict[str, Any] = field(default_factory=dict)
    """The task's own options."""
    problems: int = 100_000
    """A stage with more problems is sampled: this many."""
    seconds: float = 20.0
    """Seconds of training a stage, shared by the two networks."""
    train: bool = True
    """Train the two networks; without them everything takes seconds."""
    json: bool = False
    """Print JSON instead of a table."""
    markdown: bool = False
    """Print Markdown, as the page docs/certificates.md has it."""

    def run(self) -> int:
        if self.json and self.markdown:
            raise UserError("--markdown: not allowed beside --json")
        from modelnative import api
        from modelnative.studio import certificate as pictures
        from modelnative.studio import tables

        certificate = api.certify(
            self.task,
            self.stage or None,
            options=self.options,
            problems=self.problems,
            seconds=self.seconds,
            train=self.train,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        if self.json:
            print(json.dumps(certificate.as_dict(), indent=2))
        elif self.markdown:
            print(pictures.markdown(certificate))
        else:
            console = tables.console()
            for part in pictures.page(certificate):
                console.print(part)
        if certificate.interrupted:
            return 130
        return 0 if certificate.sound else 1


@dataclass(frozen=True)
class Bench:
    """Measure this machine: steps per second of environment, rollout, update and training.

    A step is one action of a running episode. "% of matmul" compares with this machine's matrix-multiply speed: the
    fastest float32 matrix product of the policy's width.
    Everything is measured in one process with one thread, then in --processes that train one policy together, each
    with its share of the batch; shown are the median and the range of repetitions. It takes about a minute.

    The training is a recipe with a large batch, one epoch and no hints; --episodes, --policy.width and all other flags
    of `modelnative train` change it. Progress goes to standard error, so that --json > FILE holds JSON alone.
    """

    seconds: float = 5.0
    """Seconds for each measurement."""
    processes: int | None = None
    """Processes that train together; by default one a core, or as many as OMP_NUM_THREADS says."""
    compile: bool = False
    """Measure the environment under torch.compile, too; needs a C++ compiler and up to a minute."""
    solve: Annotated[int, arg(metavar="N")] = 0
    """Then train N seeds of the recipe, with hints, until all is solved: the time to solution."""
    profile: bool = False
    """Show the most expensive operations of an update instead, from torch.profiler."""
    json: bool = False
    """Print JSON instead of a table."""
    config_file: Annotated[Path | None, arg(name="config", metavar="FILE")] = None
    """TOML or JSON with the fields below, such as a run's config.json; flags override it."""
    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=recipe)

    def run(self) -> int:
        for name, value in (("--solve", self.solve), ("--compile", self.compile), ("--processes", self.processes)):
            if self.profile and value:
                raise UserError(f"{name}: not allowed beside --profile, which shows one process alone")
        from modelnative import __version__, api
        from modelnative.studio import bench as pictures
        from modelnative.studio import tables

        console = tables.console()
        if self.profile:
            operations = api.profile(self.config)
            if self.json:
                print(json.dumps([dataclasses.asdict(operation) for operation in operations], indent=2))
            else:
                for part in pictures.profile(operations):
                    console.print(part)
            return 0
        measured = api.bench(
            self.config,
            seconds=self.seconds,
            processes=self.processes,
            compiled=self.compile,
            solve=self.solve,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        if self.json:
            print(json.dumps({"modelnative": __version__, **measured.as_dict()}, indent=2))
        else:
            for part in pictures.page(measured):
                console.print(part)
        return 0


@dataclass(frozen=True)
class Tutorial:
    """Run the published tutorial's recipe and the mended one, and show what the published score measures."""

    seed: int = 0
    """Seed of both trainings."""
    updates: int = 100
    """Updates of the mended recipe; the published one has 60."""

    def run(self) -> int:
        from modelnative import api
        from modelnative.studio import tables
        from modelnative.studio import tutorial as pictures

        console = tables.console()
        for part in pictures.page(api.tutorial(seed=self.seed, updates=self.updates)):
            console.print(part)
        return 0


class Command(Protocol):
    """What each of the classes above is: its fields are the arguments, its docstring is the help."""

    def run(self) -> int:
        """Do it; returns the exit code."""


COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "resume": Resume,
    "sweep": Sweep,
    "evaluate": Evaluate,
    "explain": Explain,
    "tasks": Tasks,
    "certify": Certify,
    "bench": Bench,
    "tutorial": Tutorial,
}


def main() -> None:
    """The command `modelnative`; reads `sys.argv`, leaves by `SystemExit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show γ shows ?
    if "" not in sys.path:
        sys.path.append("")  # so that a task of the current folder is found, as `python -m modelnative` does
    try:
        code = _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone, as in `modelnative tasks | head -1`; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        code = _complain(f"{error.filename or 'output'}: {error.strerror}")
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = _complain("not enough memory; choose fewer --episodes or a smaller --policy.width")
    sys.exit(code)


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from modelnative import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    name = choose("command", argv[0], COMMANDS)
    if name == "train":
        return _train(argv[1:]).run()
    if name == "bench":
        return _bench(argv[1:]).run()
    return _parse(COMMANDS[name], argv[1:], f"{PROGRAM} {name}", None).run()


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} COMMAND [-h] [OPTIONS]",
        "",
        "Train small networks that plan, remember and use tools by themselves, and prove that they do.",
        "",
        "commands:",
        *(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()),
        "",
        "Start with:",
        f"  {PROGRAM} train --out runs/first           train the default agent: one file of weights, one report",
        f"  {PROGRAM} evaluate runs/first              play every problem",
        f'  {PROGRAM} explain runs/first --stage T2 --problem "3 7 2 4 5"',
        "",
        f"{PROGRAM} COMMAND --help teaches a command.",
        "Exit codes: 0 done, 1 a trial of a sweep failed or a task has a defect, 2 bad input, 130 and 143 interrupted.",
    ]
    return "\n".join(lines)


T = TypeVar("T")


def _parse(kind: type[T], argv: Sequence[str], program: str, default: T | None, *, partly: bool = False) -> T:
    """An instance of a dataclass from flags. With `partly`, flags that are not its own are left to someone else.

    Raises:
        UserError: a flag is unknown (the message has the nearest one), or a value is missing or of the wrong type.
    """
    said = io.StringIO()
    try:
        # Tyro draws a box of several lines around what it has to say; one line of it is enough.
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                kind,
                prog=program,
                args=list(argv),
                default=tyro.MISSING_NONPROP if default is None else default,
                registry=REGISTRY,
                return_unknown_args=True,
                add_help=not partly,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue(), program)) from None
    if unknown and not partly:
        raise UserError(_unknown(unknown[0], _flags(kind if default is None else default), program))
    return parsed


def _one_line(box: str, program: str) -> str:
    """What stands in tyro's box, up to its first rule; the box is of ASCII where nothing else can be shown."""
    lines: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╭╮╰╯|+ ")
        if not set(text) <= {"─", "-"}:
            lines.append(text)
        elif lines:
            break
    message = " ".join(lines)
    for pattern, said in PHRASES.items():
        message = re.sub(pattern, said, message)
    return f"{message.rstrip('.')}; see: {program} --help"


PHRASES = {
    "Error parsing ": "",
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not a whole number",
    r"could not convert string to float: (.*)": r"\1 is not a number",
    r"no type matching {None}\|INT could be instantiated from \['(.*)'\]": r"'\1' is not a whole number",
    r"Missing value for argument '(.*)'\. Expected 1 values\.": r"\1: a value is missing",
    r"Missing from [^:]*: (\S+).*": r"\1 is missing",
}


def _unknown(token: str, flags: list[str], program: str) -> str:
    """What to say of an argument that no field takes."""
    name = token.split("=")[0].replace("_", "-")
    if not name.startswith("-"):
        return f"{token!r} is one argument too many; see: {program} --help"
    by_leaf = {flag.lstrip("-").rpartition(".")[2]: flag for flag in reversed(flags)}
    near = difflib.get_close_matches(name, flags, n=1)
    near = near or [by_leaf[leaf] for leaf in difflib.get_close_matches(name.lstrip("-"), by_leaf, n=1)]
    hint = f"; did you mean {near[0]}?" if near else ";"
    return f"{name}: unknown flag{hint} see: {program} --help"


def _flags(fields: Any, path: str = "") -> list[str]:
    """The flags that tyro makes of a dataclass, or of an instance, which has nested ones."""
    flags = []
    for f in dataclasses.fields(fields):
        value = getattr(fields, f.name, None)
        if dataclasses.is_dataclass(value):
            flags += _flags(value, "" if f.name == "config" else f"{path}{f.name}.")
        else:
            flags.append(f"--{path}{f.name}".replace("_", "-").replace("--config-file", "--config"))
    return flags


# Configuration


@dataclass(frozen=True)
class Choice:
    """What decides the defaults of all other fields of a training."""

    task: str | None = None
    core: str | None = None
    algorithm: str | None = None
    curriculum: str | None = None
    config: Path | None = None


def _train(argv: Sequence[str]) -> Train:
    return _configured(Train, argv, {})


def _bench(argv: Sequence[str]) -> Bench:
    return _configured(Bench, argv, BENCH)


Configured = TypeVar("Configured", Train, Bench)


def _configured(kind: type[Configured], argv: Sequence[str], usual: dict[str, Any]) -> Configured:
    """A command with all fields of a training as the recipe, the file and the flags say, each over the one before.

    `usual` is what the command changes in the recipe.
    """
    program = f"{PROGRAM} {kind.__name__.lower()}"
    default = _recipe(argv, program, usual)
    command = _parse(kind, argv, program, kind(config=default))
    # A option among the flags is one field more; it does not unset the file's.
    options = {**default.options, **command.config.options}
    return dataclasses.replace(command, config=dataclasses.replace(command.config, options=options))


def _recipe(argv: Sequence[str], program: str, usual: dict[str, Any]) -> TrainConfig:
    """The defaults of a command: the recipe for the names among the flags, `usual`, and the file among the flags."""
    chosen = dataclasses.asdict(_parse(Choice, argv, program, None, partly=True))
    path = chosen.pop("config")
    table = _read_config(path) if path else {}
    names = {name: table.get(name, usual.get(name)) if value is None else value for name, value in chosen.items()}
    config = recipe(**{name: value for name, value in names.items() if value is not None})
    config = with_fields(config, {name: value for name, value in usual.items() if name not in names})
    changed: TrainConfig = with_fields(config, {name: v for name, v in table.items() if chosen.get(name) is None})
    return changed


def _read_config(path: Path) -> dict[str, Any]:
    """The fields in a TOML or JSON file.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"config: {str(path)!r} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"config: {str(path)!r} is neither TOML nor JSON ({error})") from error
    table.pop("format", None)  # stands in a run's config.json
    return dict(table)


REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _dials(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, Any]] | None:
    """A task's options on the command line: KEY=VALUE …, the value as JSON if it is, else as it stands."""
    if info.type_origin is not dict:
        return None

    def read(words: list[str]) -> dict[str, Any]:
        if wrong := [word for word in words if "=" not in word]:
            raise ValueError(f"{wrong[0]!r} is not allowed; expected KEY=VALUE, such as feedback=none")
        return {key: _json_or_text(value) for key, _, value in (word.partition("=") for word in words)}

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE …",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda options: [f"{key}={json.dumps(value)}" for key, value in options.items()],
    )


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# Printing


def _watched(start: Any) -> int:
    """Follow a training on the terminal, to its end or to the signal that stopped it; with torchrun, rank 0 does."""
    from modelnative.studio import tables
    from modelnative.studio.live import LiveView

    with LiveView() as view:
        try:
            finished = start(view)
        except KeyboardInterrupt:
            view.close()
            if _rank() == 0:
                print(view.farewell(), flush=True)
            return 128 + view.signal
    for line in tables.finished(finished) if _rank() == 0 else []:
        print(line)
    return 0


def _watched_seeds(start: Any) -> int:
    """As `_watched`, of several seeds; their table at the end."""
    from modelnative.studio import tables
    from modelnative.studio.live import TeamView

    with TeamView() as view:
        try:
            finished = start(view.tell)
        except KeyboardInterrupt:
            print(view.farewell(), flush=True)
            return 128 + view.signal
    console = tables.console()
    console.print(tables.seeds(finished))
    print(f"{sum(end.evaluation.perfect for end in finished)} of {len(finished)} seeds solved every problem")
    print(f"report: {finished[0].run.path.parent / 'report.html'}")
    return 0


def _rank() -> int:
    """Which of torchrun's processes this is; 0 without it."""
    return int(os.environ.get("RANK", 0))


def _complain(message: str) -> int:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from modelnative.training.parallel import speaks

        if not speaks():
            return 2
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
