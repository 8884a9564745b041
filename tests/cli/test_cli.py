"""The command line as a person meets it: exit codes, one line for bad input, and nothing written then."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from worlds import SMALL, calculate

import modelnative
from modelnative import cli
from modelnative.policies.config import CORES
from modelnative.policies.config_model import leaf_fields
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.speed.measure import default_config
from modelnative.studio.report import write_report
from modelnative.training.config import ALGORITHMS, CURRICULA, TrainConfig, with_fields
from modelnative.training.recipes import recipe

SOURCE = Path(__file__).parents[2] / "src"
EXAMPLES = Path(__file__).parents[2] / "examples"
HELPERS = Path(__file__).parents[1] / "helpers"
TINY = "--task worlds:Small --updates 2 --episodes 16 --policy.width 8 --threads 1"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[[str], Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # a runner's own width would fold the tables

    def run(line: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["modelnative", *shlex.split(line)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small world."""
    path = tmp_path_factory.mktemp("trained") / "run"
    fields = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
    list(Training.start(path, with_fields(recipe(), fields)).events())
    write_report(Run.open(path))
    return path


@pytest.fixture
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    fields = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
    Training.start(path, with_fields(recipe(), fields))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(outcome: Outcome) -> str:
    """The message, once it is certain that it is one line and nothing else."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"modelnative: error: [^\n]+\n", outcome.err), outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err.removeprefix("modelnative: error: ").strip()


# Bad input


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "command: unknown value 'trian'; did you mean 'train'?"),
        ("--verbose", "command: unknown value '--verbose'"),
        ("train --sed 3", "--sed: unknown flag; did you mean --seed?"),
        ("train --policy.widht 3", "--policy.widht: unknown flag; did you mean --policy.width?"),
        ("train --width 3", "--width: unknown flag; did you mean --policy.width?"),
        ("train --learning_rate=1", "--learning-rate: unknown flag; did you mean --optimizer.learning-rate?"),
        ("train run", "'run' is one argument too many"),
        ("train --seed x", "argument --seed: invalid int value: 'x'; see: modelnative train --help"),
        ("train --seed 1.5", "argument --seed: invalid int value: '1.5'"),
        ("train --seed", "argument --seed: expected one argument"),
        ("train --seed -1", "seed: -1 is not allowed; expected from 0 to 2147483647"),
        ("train --minutes soon", "argument --minutes: invalid float value: 'soon'"),
        ("train --minutes nan", "minutes: nan is not allowed"),
        ("train --policy.layers x", "argument --policy.layers: invalid int value: 'x'"),
        (
            "train --policy.copy_head maybe",
            "argument --policy.copy-head: 'maybe' is not allowed; expected true or false",
        ),
        ("train --policy.width 0", "policy.width: 0 is not allowed; expected from 1 to 16384"),
        ("train --task arithmetik", "task: unknown value 'arithmetik'; did you mean 'arithmetic'?"),
        ("train --task tutorial.py", "expected the name of a task in the file: tutorial:NAME"),
        ("certify echoes:Echo --options x=3", "x=3 is not allowed; this task has no options"),
        ("train --task no.such:Task", "task: 'no.such:Task' is not allowed; cannot import"),
        ("train --core grru", "core: unknown value 'grru'; did you mean 'gru'?"),
        ("train --algorithm pppo", "algorithm: unknown value 'pppo'; did you mean 'ppo'?"),
        ("train --curriculum hint", "curriculum: unknown value 'hint'; did you mean 'hints'?"),
        ("train --split tran", "split: unknown value 'tran'; did you mean 'train'?"),
        ("train --device cuda:77", "device: 'cuda:77' is not available here"),
        ("train --device abacus", "device: 'abacus' is not available here"),
        ("train --options horizon=5", "horizon: 5 is not allowed; expected at least 12, the length of the oracle's"),
        ("train --options horizon=long", "horizon: 'long' is not allowed; expected int"),
        ("train --options horizn=12", "option of task arithmetic: unknown value 'horizn'; did you mean 'horizon'?"),
        ("train --options feedback=dsplay", "feedback: unknown value 'dsplay'; did you mean 'display'?"),
        ("train --options feedback", "--options: 'feedback' is not allowed; expected KEY=VALUE"),
        ("train --policy.width 1000000000000", "policy.width: 1000000000000 is not allowed; expected from 1 to 16384"),
        ("train --policy own_core", "core: unknown value 'own_core'"),
        ("train --policy own:LTSM", "core: 'own:LTSM' is not allowed; cannot import own:LTSM: there is no 'LTSM'"),
        ("train --core math:pi", "core: 'math:pi' is not allowed; expected a class"),
        (
            "train --episodes 10000000000000000000",
            "episodes: 10000000000000000000 is not allowed; expected from 1 to 1",
        ),
        ("train --policy.width 10000000000000000000", "policy.width: 10000000000000000000 is not allowed"),
        (f"train --minutes {'9' * 400}", "minutes: inf is not allowed"),
        (f"train --seed {'9' * 5000}", "argument --seed: invalid int value: '99999999999999999999999999999999999"),
        ("train --updates 1000000000000000000000000000000", "updates: 1000000000000000000000000000000 is not allowed"),
        ("train --policy.layers 1000000", "policy.layers: 1000000 is not allowed; expected from 1 to 128"),
        (
            "train --loss.clip-high inf",
            "loss.clip_high: inf is not allowed; expected a finite number from 0 to 1000000",
        ),
        ("train --minutes inf", "minutes: inf is not allowed"),
        ("train --optimizer.max-grad-norm inf", "optimizer.max_grad_norm: inf is not allowed"),
        ("train --options x=NaN", "options.x: nan is not allowed; expected what JSON can hold, numbers finite"),
        ("train --options horizon=1000000000", "horizon: 1000000000 is not allowed"),
        ("train --device hpu", "device: 'hpu' is not available here ("),
        ("train --device mps", "device: 'mps' is not available here ("),
        ("train --out=--", "--out: '--' is not allowed; expected a value"),
        ("bench --seconds inf", "seconds: inf is not allowed; expected more than 0, at most 1000000"),
        ("certify arithmetic --seconds inf", "seconds: inf is not allowed; expected more than 0, at most 1000000"),
        ("explain r --stage T0 --stage T2 --problem 1", "--stage: is given twice, T0 and T2; expected one; see: model"),
        ("train --seeds 0", "seeds: 0 is not allowed"),
        ("train --seeds x", "argument --seeds: invalid int value: 'x'"),
        ("train --seeds 3 --seed 2147483646", "trial seed=2147483648: seed: 2147483648 is not allowed"),
        ("train --seeds 2 --seed 2147483647", "trial seed=2147483648: seed: 2147483648 is not allowed"),
        ("train --lr 1", "--lr: unknown flag; did you mean --optimizer.learning-rate?"),
        ("train --clip 1", "--clip: unknown flag; did you mean --loss.clip-high?"),
        ("train --out /dev/null/run", "cannot be written"),
        (f"train --out {'x' * 300}", "expected a shorter path"),
        ("train --config none.toml", "config: 'none.toml' cannot be read (No such file or directory)"),
        ("train --config .", "config: '.' cannot be read (Is a directory)"),
        ("resume", "the following arguments are required: RUN; see: modelnative resume --help"),
        ("resume nowhere", "run: 'nowhere' is not a run folder"),
        ("sweep", "the following arguments are required: SPEC, or --resume FOLDER; see: modelnative sweep --help"),
        ("sweep none.toml", "spec: 'none.toml' cannot be read (No such file or directory)"),
        ("sweep a.toml --resume b", "SPEC: 'a.toml' is not allowed beside --resume"),
        ("sweep --resume nowhere", "sweep: 'nowhere' is not a sweep folder; expected one made by: modelnative sweep"),
        ("sweep --resume nowhere --out b", "--out: 'b' is not allowed beside --resume"),
        ("bench --seconds 0", "seconds: 0.0 is not allowed; expected more than 0"),
        ("bench --processes 0", "processes: 0 is not allowed; expected from 1 to 85"),
        ("bench --solve -1", "solve: -1 is not allowed"),
        ("bench --threads 2", "threads: 2 is not allowed; expected 1: cores are shared among processes"),
        ("bench --device cuda", "device: 'cuda' is not allowed; expected cpu"),
        ("bench --profile --solve 2", "--solve: not allowed beside --profile"),
        ("bench --profile --core grru", "core: unknown value 'grru'; did you mean 'gru'?"),
        ("bench --profiel", "--profiel: unknown flag; did you mean --profile? see: modelnative bench --help"),
        ("sweep a b", "'b' is one argument too many"),
        ("sweep a --jobs two", "argument --jobs: invalid int value: 'two'"),
        ("evaluate", "the following arguments are required: RUN"),
        ("evaluate nowhere", "run: 'nowhere' is not a run folder"),
        ("evaluate a b", "'b' is one argument too many"),
        ("explain nowhere --stage T2", "the following arguments are required: --problem"),
        ("explain nowhere --stage T2 --problem '1 2 3 4 5'", "run: 'nowhere' is not a run folder"),
        ("tasks arithmetik", "task: unknown value 'arithmetik'; did you mean 'arithmetic'?"),
        ("certify", "the following arguments are required: TASK; see: modelnative certify --help"),
        ("certify arithmetik", "task: unknown value 'arithmetik'; did you mean 'arithmetic'?"),
        ("certify arithmetic --stage T9", "stage: unknown value 'T9'. Allowed: T0, T1, T2"),
        ("certify arithmetic --options horizon=5", "horizon: 5 is not allowed"),
        ("certify arithmetic --problems 0", "problems: 0 is not allowed; expected from 1 to 1000000000"),
        (
            "certify arithmetic --seconds 0",
            "seconds: 0.0 is not allowed; expected more than 0, at most 1000000; to train nothing: --no-train",
        ),
        ("certify arithmetic --json --markdown", "argument --markdown: not allowed with argument --json"),
        ("certify no.such:Task", "task: 'no.such:Task' is not allowed; cannot import"),
        (
            "certify echoes:Unfinished",
            "task: 'echoes:Unfinished' cannot be made; Unfinished lacks required methods of Task: begin, ",
        ),
        ("tutorial --updates 0", "updates: 0 is not allowed; expected from 1 to 1000000000"),
        ("tutorial --epochs 3", "--epochs: unknown flag"),
        ("schema swep", "argument kind: invalid choice: 'swep'"),
    ],
)
def test_bad_input_is_one_line(command: Command, tmp_path: Path, line: str, message: str) -> None:
    assert message in refused(command(line))
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.toml", "seed = ", "'c.toml' is neither TOML nor JSON"),
        ("c.json", '{"seed": ', "'c.json' is neither TOML nor JSON"),
        ("c.toml", b"\xff\xfe", "'c.toml' is neither TOML nor JSON"),
        ("c.toml", "sed = 3", "config: unknown field 'sed'; did you mean 'seed'?"),
        ("c.toml", "[policy]\nwidht = 3", "policy: unknown field 'widht'; did you mean 'width'?"),
        ("c.toml", "policy = 3", "policy: 3 is not allowed; expected a table"),
        ("c.toml", 'seed = "3"', "seed: '3' is not allowed; expected a whole number from 0"),
        ("c.toml", "core = 3", "core: unknown value 3"),
        ("c.toml", "episodes = 0", "episodes: 0 is not allowed"),
        ("c.json", '{"options": {"horizon": 5}}', "horizon: 5 is not allowed"),
        ("c.json", '{"task": "arithmetik"}', "did you mean 'arithmetic'?"),
        ("c.json", '{"confidence": 0.5}', "config: unknown field 'confidence'"),
    ],
)
def test_bad_configuration_files(
    command: Command, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refused(command(f"train --config {name} --out run"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("[grid]\nalgoritm = ['ppo']", "", "grid: unknown field 'algoritm'; did you mean 'algorithm'?"),
        ("[grid]\nalgorithm = ['pppo']", "", "trial algorithm=pppo: algorithm: unknown value 'pppo'"),
        ("[base]\ntask = 'arithmetik'", "", "trial base: task: unknown value 'arithmetik'"),
        ("seeds = 2", "--jobs 0", "jobs: 0 is not allowed; expected at least 1"),
        ("seeds = 2", "--on rya", "on: unknown value 'rya'; did you mean 'ray'? Allowed: auto, local, ray"),
        ("seeds = 2", "--on local --address a:1", "address: 'a:1' is not allowed with --on local"),
        ("seeds = 2", "--on local --out /dev/null/x", "cannot be written"),
        ("seeds = 2", "--on local --out .", "out: '.' exists already and is not a sweep"),
    ],
)
def test_bad_sweeps(command: Command, tmp_path: Path, content: str, flags: str, message: str) -> None:
    (tmp_path / "spec.toml").write_text(content)
    assert message in refused(command(f"sweep spec.toml {flags}"))
    if message != "cannot be written":
        assert message in refused(command(f"sweep spec.toml --dry-run {flags}"))
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"], "nothing is written"


def test_a_run_folder_that_exists(command: Command, trained: Path) -> None:
    before = contents(trained)
    assert "exists already; choose another folder" in refused(command(f"train {TINY} --out {trained}"))
    assert f"run: '{trained}' is finished" in refused(command(f"resume {trained}"))
    assert contents(trained) == before


def test_a_file_where_a_folder_should_be(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "exists already" in refused(command(f"train {TINY} --out file"))
    assert "Not a directory" in refused(command(f"train {TINY} --out file/run"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("evaluate {} --stage T9", "stage: unknown value 'T9'. Allowed: T0, T1, T2"),
        ("evaluate {} --split held", "split: unknown value 'held'; did you mean 'heldout'?"),
        ("evaluate {} --episodes /dev/null/x", "cannot be written"),
        (
            "evaluate {0} --episodes {0}/config.json",
            "config.json: holds something else than episodes; choose another file",
        ),
        ("evaluate {0} --episodes {0}/metrics.jsonl", "holds something else than episodes"),
        ("evaluate {0} --episodes {0}/weights.safetensors", "holds something else than episodes"),
        ("evaluate {} --episodes new.jsonl --stage T9", "stage: unknown value 'T9'"),
        ("evaluate {} --episodes new.jsonl --split tran", "split: unknown value 'tran'"),
        ("evaluate {} --episodes .", "cannot be written (Is a directory)"),
        ("explain {} --stage T3 --problem '1 2 3'", "stage: unknown value 'T3'"),
        ("explain {} --stage T2 --problem '3 7 2 4 15'", "expected 5 operands from 0 to 9"),
        ("explain {} --stage T2 --problem '3 7 2 4'", "expected 5 operands from 0 to 9"),
        ("explain {} --stage T2 --problem '3 7 2 4 x'", "expected 5 operands from 0 to 9"),
        ("explain {} --stage T2 --problem ''", "expected 5 operands from 0 to 9"),
    ],
)
def test_bad_questions_about_a_run(command: Command, trained: Path, tmp_path: Path, line: str, message: str) -> None:
    before = contents(trained)
    assert message in refused(command(line.format(trained)))
    assert contents(trained) == before
    assert list(tmp_path.iterdir()) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def replace_by_foreign(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)


def replace_by_text(path: Path) -> None:
    path.write_text("not tensors")


def replace_by_another_tasks(path: Path) -> None:
    fields = {"task": "tutorial", "episodes": 16, "policy": {"width": 8}, "threads": 1}
    other = Training.start(path.parents[2] / "other", with_fields(recipe(), fields))
    other.run.save_weights(other.trainer.policy)
    ours = other.run.weights_path if path.name == "weights.safetensors" else other.run.checkpoints()[-1]
    path.write_bytes(ours.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "damaged or not a safetensors file"),
        (replace_by_foreign, "not a modelnative file"),
        (replace_by_text, "damaged or not a safetensors file"),
        (replace_by_another_tasks, "its task is 'tutorial', but this run's is 'worlds:Small'"),
    ],
)
def test_spoilt_checkpoints_and_weights(
    command: Command, trained: Path, stopped: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    checkpoint = Run.open(stopped).checkpoints()[-1]
    spoil(checkpoint)
    before = contents(stopped)
    assert message in refused(command(f"resume {stopped}"))
    assert message in refused(command(f"evaluate {stopped}")), "which reads the checkpoint until there are weights"
    assert contents(stopped) == before
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(trained, copy)
    spoil(copy / "weights.safetensors")
    assert message in refused(command(f"evaluate {copy}"))
    assert message in refused(command(f"explain {copy} --stage T0 --problem '1 2 3'"))


def test_a_run_without_a_configuration(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert "is not a run folder" in refused(command("evaluate run"))
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "not a modelnative configuration" in refused(command("resume run"))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")]
)
def test_a_lack_of_memory_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def train(**arguments: Any) -> None:
        raise error

    monkeypatch.setattr(modelnative, "train", train, raising=False)
    assert refused(command("train")) == "not enough memory; choose fewer --episodes or a smaller --policy.width"


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("--policy.width 16384", "policy.width or policy.layers"),
        ("--policy.layers 128 --policy.width 1024", "policy.width or policy.layers"),
        ("--policy.width 2048 --core transformer --policy.heads 8", "policy.width or policy.layers"),
        ("--episodes 10000000", "episodes, or options with shorter episodes"),
        ("--options horizon=1000 --episodes 40960", "episodes, or options with shorter episodes"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_allocated(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, choices: str
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 2**15)  # pages of so many bytes: 1.1 GB
    message = refused(command(f"train {line}"))
    assert re.fullmatch(
        rf"memory: at least \S+ GB are needed, and device 'cpu' has 1\.1 GB; choose smaller {choices}", message
    )
    assert list(tmp_path.iterdir()) == []


def test_a_defect_keeps_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(**arguments: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(modelnative, "train", train, raising=False)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        command("train")


# Help


def test_help_of_every_command(command: Command) -> None:
    overview = command("--help")
    assert overview.code == 0
    assert command("").out == command("-h").out == overview.out
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"  {name:<10} {summary}\n" in overview.out
        shown = command(f"{name} --help")
        assert shown.code == 0
        assert shown.err == ""
        assert shown.out.startswith(f"usage: modelnative {name} ")
        assert summary in shown.out


def test_help_waits_for_neither_torch_nor_pydantic(tmp_path: Path) -> None:
    for name in ("--help", "--version"):
        code = f"import sys; sys.argv[1:] = ['{name}']; import atexit; from modelnative.cli import main; "
        code += "atexit.register(lambda: print({'torch', 'numpy', 'pydantic', 'argparse'} & set(sys.modules))); main()"
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(("usage: ", "modelnative "))
        assert done.stdout.endswith("set()\n")


def test_version(command: Command) -> None:
    assert re.fullmatch(r"modelnative \d+\.\d+\.\d+\n", command("--version").out)


def squeezed(text: str) -> str:
    """The text without white space, so that it does not depend on where lines are folded."""
    return "".join(text.split())


def require_fields(shown: str, config: TrainConfig) -> None:
    """Every field is there: its flag, its description and its default."""
    for name, field in leaf_fields(TrainConfig):
        flag = f"--{name.replace('_', '-')}"
        default = "" if name == "options" else f" (default: {value_of(config, name)})"
        assert re.search(rf"^  {flag}[ ,\n]", shown, re.MULTILINE), flag
        assert squeezed(f"{field.description}{default}") in squeezed(shown), name


def value_of(config: TrainConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_help_of_train_shows_the_recipe(command: Command, core: str, algorithm: str) -> None:
    require_fields(
        command(f"train --core {core} --algorithm {algorithm} --help").out, recipe(core=core, algorithm=algorithm)
    )


def test_the_help_of_bench_shows_what_is_measured(command: Command) -> None:
    require_fields(command("bench --help").out, default_config())


# Schemas


def test_the_schema_of_a_configuration(command: Command) -> None:
    """It says every bound, and an editor completes the names of cores, algorithms and curricula."""
    schema = json.loads(command("schema").out)
    assert schema == json.loads(command("schema train").out) == TrainConfig.model_json_schema()
    assert set(schema["properties"]) == set(TrainConfig.model_fields)
    assert (schema["additionalProperties"], schema["properties"]["episodes"]["maximum"]) == (False, 10_000_000)
    for name, names in (("core", CORES), ("algorithm", ALGORITHMS), ("curriculum", CURRICULA)):
        assert schema["properties"][name]["anyOf"][0]["enum"] == list(names)


def test_the_schema_of_a_sweep(command: Command) -> None:
    schema = json.loads(command("schema sweep").out)
    assert set(schema["properties"]) == {"name", "seeds", "base", "grid", "trials"}
    for table in (schema["properties"]["base"], schema["properties"]["trials"]["items"], schema["properties"]["grid"]):
        assert set(table["properties"]) == set(TrainConfig.model_fields)
    assert schema["properties"]["base"]["properties"]["episodes"]["maximum"] == 10_000_000
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert references == set(schema["$defs"]), "every reference is defined"


# Doing


def test_training_and_what_it_prints(command: Command, tmp_path: Path) -> None:
    done = command(f"train {TINY} --updates 11 --out run")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "worlds:Small: gru" in lines[0]
    assert lines[1].startswith("update   10  T0")
    verdict = next(line for line in lines if re.fullmatch(r"T0=\d\.\d{3} T1=\S+ T2=\S+ \(\d+/240 problems\)", line))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["line"] == verdict
    for part in ("train split  T0=", "held-out     T0=", "sampled      T0=", "11 updates, 176 episodes"):
        assert part in done.out
    for name in ("run/report.html", "run/weights.safetensors"):
        assert name in done.out
        assert (tmp_path / name).is_file()
    assert "Not solved: " in done.out
    assert "Next: modelnative evaluate run" in done.out
    next_command = re.search(r"modelnative (explain run .*)", done.out)
    assert next_command
    assert command(next_command[1]).code == 0, "what it proposes works"


@pytest.mark.slow
def test_training_several_seeds(command: Command, tmp_path: Path) -> None:
    done = command(f"train {TINY} --seed 3 --seeds 2 --out seeds")
    assert done.code == 0, done.err
    verdict = "0 of 2 seeds solved every problem; median 2 updates"
    assert verdict in done.out
    assert sorted(path.name for path in (tmp_path / "seeds" / "trials").iterdir()) == ["seed-3", "seed-4"]
    assert command(f"train {TINY} --seed 4 --out alone").code == 0
    weights = [tmp_path / run / "weights.safetensors" for run in ("alone", "seeds/trials/seed-4")]
    assert weights[0].read_bytes() == weights[1].read_bytes(), "a seed's run is the same as alone"
    again = command("resume seeds")
    assert again.code == 0, again.err
    assert "2 of them finished already, 2 at a time, in local processes → seeds\n" in again.out
    assert verdict in again.out
    assert command("evaluate seeds/trials/seed-3").code == 0
    assert "exists already; choose another folder" in refused(command(f"train {TINY} --seeds 2 --out seeds"))


def test_a_policy_of_the_users_own(tmp_path: Path) -> None:
    """As the example says, from its folder."""
    process = start(f"train {TINY} --policy own_core:LSTM --out {tmp_path / 'run'}", EXAMPLES)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "own_core:LSTM" in out.splitlines()[0]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = (config["core"], config["optimizer"]["learning_rate"])
    assert recipe == ("own_core:LSTM", 0.005), "with the recipe of its class"
    process = start(f"evaluate {tmp_path / 'run'}", EXAMPLES)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert "add --trust own_core" in err
    process = start(f"evaluate {tmp_path / 'run'} --trust own_core", EXAMPLES)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    verdict = json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["line"]
    assert out.splitlines()[-1] == verdict


def test_the_default_run_folder_is_new(command: Command, tmp_path: Path) -> None:
    assert command(f"train {TINY} --seed 5").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-worlds.Small-gru-ppo-5")


def test_evaluating(command: Command, trained: Path, tmp_path: Path) -> None:
    done = command(f"evaluate {trained} --episodes episodes.jsonl")
    assert done.code == 0
    assert re.search(r"stage\s+train\s+held-out\s+all", done.out)
    assert re.search(r"T0=\d\.\d{3} T1=\S+ T2=\S+ \(\d+/240 problems\)\n$", done.out)
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * SMALL
    assert f"({sum(line['success'] for line in lines)}/240 problems)" in done.out
    for line in lines:
        answered, value = calculate(line["actions"])
        assert line["success"] == (answered and value == line["target"])
    again = command(f"evaluate {trained} --episodes episodes.jsonl --stage T2 --split heldout")
    assert again.code == 0
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == SMALL, "the file is replaced"
    as_json = json.loads(command(f"evaluate {trained} --json --stage T0 T1").out)
    assert [(count["stage"], count["split"]) for count in as_json["counts"]] == [
        ("T0", "train"),
        ("T0", "heldout"),
        ("T1", "train"),
        ("T1", "heldout"),
    ]
    assert "floors" not in as_json
    sampled = command(f"evaluate {trained} --sampled")
    assert re.search(r"/40 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", sampled.out), "an interval where chance had a part"


def test_evaluating_beside_floors(command: Command, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "copy")
    done = command(f"evaluate {run} --floors --stage T0 T2 --split heldout")
    for row in (
        r"success +T0 +T2",
        r"this agent, held-out +\d\.\d{3} +\d\.\d{3}",
        r"oracle +1\.000 +1\.000",
        "random +0",
    ):
        assert re.search(row, done.out), row
    assert "always the commonest answer" in done.out
    assert "blind" not in done.out, "which needs training"
    assert "T2: the oracle" in done.err
    path = run / "certificate.json"
    assert not path.exists()
    command(f"certify {run} --no-train --stage T0")
    found = json.loads(path.read_text())
    found["stages"][0]["random"]["successes"] = found["stages"][0]["random"]["problems"]  # where it is read from
    for options, rate in (({}, 1.0), ({"n": 1}, None)):
        path.write_text(json.dumps({**found, "options": {**found["options"], **options}}))
        again = command(f"evaluate {run} --floors --stage T0 T2 --json")
        floors = json.loads(again.out)["floors"]
        assert set(floors) == {"T0", "T2"}
        assert (floors["T0"]["random"]["rate"] == 1.0) == (rate == 1.0), "a certificate of other options says nothing"
        assert ("T0: the oracle" in again.err) == (rate is None)
        assert floors["T0"]["oracle"] == {"rate": 1.0, "best": True, "interval": None}
    path.write_text(json.dumps({**found, "stages": [{}]}))
    assert "is damaged; expected a certificate; write it again with: modelnative certify" in refused(
        command(f"evaluate {run} --floors --stage T0")
    )


def test_evaluating_while_it_trains(command: Command, stopped: Path) -> None:
    assert command(f"evaluate {stopped}").code == 0, "the newest checkpoint stands in for the weights"
    done = command(f"resume {stopped}")
    assert done.code == 0
    assert "Next: modelnative evaluate" in done.out


def test_explaining(command: Command, trained: Path) -> None:
    done = command(f"explain {trained} --stage T2 --problem '3 7 2 4 5'")
    assert done.code == 0
    assert done.out.startswith("T2: a=3 b=7 c=2 d=4 e=5; compute (a*b + c) - d*e\n")
    for column in ("step", "token", "prob.", "value", "entropy", "copied", "memory", "display", "oracle"):
        assert column in done.out
    assert re.search(r"(Right|Wrong): ", done.out)


def test_tasks(command: Command) -> None:
    assert "arithmetic" in command("tasks").out
    assert "4 MUL" in command("tasks arithmetic").out


def test_certifying(command: Command) -> None:
    sound = command("certify echoes:Echo --no-train")
    assert sound.code == 0
    assert re.search(r"E +100 +1\.000 .* 0\.100 +0\.100 .*– +– +0", sound.out)
    assert "Certified: no defect" in sound.out
    assert "E: the best fixed program\n" in sound.err
    spoilt = command("certify echoes:Mistaken --stage E --no-train")
    assert spoilt.code == 1
    flat = " ".join(spoilt.out.split())
    assert "Counterexample: the second digit of 37; its program 3 SAY answers 3, the target is 7" in flat
    assert "Not certified: 2 defects" in flat
    written = command("certify echoes:Seven --no-train --json")
    assert written.code == 1
    (stage,) = json.loads(written.out)["stages"]
    assert (stage["constant"]["rate"], stage["constant"]["exact"], stage["memoryless"]) == (0.91, True, None)
    page = command("certify echoes:Seven --no-train --markdown").out.splitlines()
    assert page[:3] == ["## echoes:Seven", "", "| stage | problems | " + page[2].removeprefix("| stage | problems | ")]
    assert re.match(r"\| E \| 100 \| 1\.000 \| 0\.\d+ \[0\.\d+, 0\.\d+\] \| 0\.000 \| 0\.910 \| 0\.910 \|", page[4])


def test_a_task_of_the_current_folder_is_found(tmp_path: Path) -> None:
    """As the installed command starts it: without the current folder on Python's path."""
    (tmp_path / "mine.py").write_text("from modelnative.tasks.tutorial.task import Tutorial as Mine\n")
    code = "import sys; sys.path.remove(''); sys.argv[:] = sys.argv[0:1] + ['tasks', 'mine:Mine']; "
    code += "from modelnative.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine:Mine: ")


def test_sweeping(command: Command, tmp_path: Path) -> None:
    base = 'task = "worlds:Small"\nupdates = 2\nepisodes = 16\npolicy.width = 8\n'
    rates = "core = 'transformer'\n[grid]\noptimizer.learning_rate = [0.01, 1000.0]\n"
    (tmp_path / "two.toml").write_text(f"[base]\n{base}{rates}")
    planned = command("sweep two.toml --dry-run --on local")
    assert planned.code == 0, planned.err
    assert planned.out.count("starts") == 2
    assert "2 trials, to be written to sweeps/two; nothing was written or trained" in planned.out
    assert not (tmp_path / "sweeps").exists()
    done = command("sweep two.toml --on local --jobs 2")
    assert done.code == 1, done.err
    assert done.err == ""
    flat = " ".join(done.out.split())
    for part in (
        "two: 2 trials, 2 at a time, in local processes → sweeps/two",
        "optimizer.learning_rate: 1000.0 made the numbers overflow at update",
        "0 of 1 0.00 to 0.79",
        "1 seed in the smallest group: too few for a claim",
        "1 of 2 trials failed",
    ):
        assert part in flat
    again = re.search(r"modelnative (sweep --resume .*)", done.out)
    assert again
    resumed = command(f"{again[1]} --on local")
    assert resumed.code == 1
    assert "2 trials, 1 of them finished already" in resumed.out, "what it proposes works"
    for name in ("results.csv", "comparison.svg", "comparison.png"):
        assert (tmp_path / "sweeps" / "two" / name).is_file()
    (run,) = (tmp_path / "sweeps" / "two" / "trials").glob("optimizer.learning_rate=0.01*")
    assert (run / "report.html").is_file()
    assert command(f"evaluate {run}").code == 0, "a trial is a run as any other"
    (tmp_path / "two.toml").write_text(f"seeds = 3\n[base]\n{base}{rates}")
    assert "made from another spec: seeds: [0, 1, 2] instead of []" in refused(command("sweep two.toml --on local"))


@pytest.mark.slow
def test_measuring(command: Command) -> None:
    tiny = "--task worlds:Small --episodes 16 --policy.width 8 --seconds 0.02 --processes 1"
    shown = command(f"bench {tiny}")
    assert shown.code == 0
    assert re.search(r"training +steps/s +\S+ +\S+–\S+ +\d+\.\d%", shown.out)
    assert "rollout, update and training, 1 process: 0.02 s\n" in shown.err
    written = json.loads(command(f"bench {tiny} --json").out)
    assert {"modelnative", "machine", "config", "rates", "matmul", "utilization", "memory", "solved"} <= set(written)
    assert written["utilization"]["1"]["training"] > 0


@pytest.mark.slow
def test_profiling(command: Command) -> None:
    tiny = "--task worlds:Small --episodes 16 --policy.width 8"
    shown = command(f"bench --profile {tiny}")
    assert (shown.code, shown.err) == (0, "")
    assert "One update, 1 thread:" in shown.out
    assert json.loads(command(f"bench --profile --json {tiny}").out)[0]["share"] > 0


def test_the_tutorial(command: Command) -> None:
    done = command("tutorial --updates 2 --seed 1")
    assert done.code == 0
    flat = " ".join(done.out.split())
    for part in (
        "published recipe",
        "corrected recipe",
        "Published 'accuracy' 1.06 means 10% correct answers",
        "27.1%",
        "T0=1.061 T1=0.000 T2=0.176",
        "4,096 problems",
        "seed 1",
    ):
        assert part in flat


# Processes of their own


def start(line: str, folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(SOURCE), str(HELPERS)])
    command = [sys.executable, "-m", "modelnative", *shlex.split(line)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    process = start("train --task worlds:Small --episodes 16 --policy.width 8 --threads 1 --out run", tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err == ""
    assert re.search(r"stopped at update (\d+); continue with: modelnative resume run --trust worlds\n$", out)
    assert Run.open(tmp_path / "run").checkpoints()


def test_a_signal_ends_a_measurement(tmp_path: Path) -> None:
    process = start("bench --task worlds:Small --episodes 16 --policy.width 8 --seconds 600", tmp_path)
    assert process.stderr is not None
    while "matrix product" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_a_signal_shows_what_was_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # a row for each agent
    process = start("certify echoes:Echo --seconds 600", tmp_path)
    assert process.stderr is not None
    while "training" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert re.search(r"oracle +1\.000", out)
    assert re.search(r"Interrupted after \d+ s: missing rates were not measured\.\n$", out)


def test_a_closed_pipe_is_no_news(tmp_path: Path) -> None:
    process = start("tasks arithmetic", tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_to_a_full_disk_is_one_line(tmp_path: Path) -> None:
    path = os.pathsep.join([str(SOURCE), str(HELPERS)])
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "modelnative", "tasks"]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "modelnative: error: output: No space left on device\n"
