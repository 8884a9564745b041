"""Every command that is printed for a run of the user's own module works when it is pasted into a new shell."""

from __future__ import annotations

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import TINY

from modelnative.cli import COMMANDS
from modelnative.errors import UserError
from modelnative.runs.events import Finished
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio import sweep as pictures
from modelnative.studio import tables
from modelnative.studio.live import LiveView
from modelnative.studio.report import write_report, write_seeds
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import read_row
from modelnative.sweeps.spec import parse_spec
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.events import Started
from modelnative.training.recipes import recipe

COMMAND = re.compile(rf"modelnative (?:{'|'.join(COMMANDS)}) [^\n;<]*")


def commands(text: str) -> list[list[str]]:
    """The commands in a text, as the shell splits them."""
    found = [shlex.split(command) for command in COMMAND.findall(html.unescape(text))]
    assert found, text
    return found


def modules(command: list[str]) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == "--trust"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    config = with_fields(recipe(), {**TINY, "updates": 1})
    training = Training.start(tmp_path_factory.mktemp("runs") / "my first", config)
    *_, last = training.events()
    assert isinstance(last, Finished)
    return last


def refusals(run: Run) -> str:
    """What opening, finishing and starting a run in its folder says."""
    said = []
    for refuse in (run.require_new, run.require_unfinished, lambda: Sweep.of_seeds(run.config, 2, run.path)):
        with pytest.raises(UserError) as caught:
            refuse()
        said.append(str(caught.value))
    return "\n".join(said)


def test_commands_of_a_run(finished: Finished, tmp_path: Path) -> None:
    run = finished.run
    view = LiveView()
    view.started = Started(run, 0, (), 1)
    unfinished = Run(tmp_path / "unfinished", run.config)
    with pytest.raises(UserError) as caught:
        write_report(unfinished)
    texts = ["\n".join(tables.finished(finished)), view.interrupt_message(), refusals(run), str(caught.value)]
    write_report(run)
    for text in [*texts, run.report_path.read_text()]:
        for command in commands(text):
            assert modules(command) == ["worlds"], command
            assert str(run.path) in command or str(run.path / "config.json") in command or "unfinished" in command[2]


def test_commands_of_a_run_of_what_is_shipped() -> None:
    assert Run(Path("runs/a"), TrainConfig()).command("resume") == "modelnative resume runs/a"
    inside = TrainConfig(core="modelnative.policies.cores.gru:GRU")
    assert "--trust" not in Run(Path("runs/a"), inside).command("resume")


def test_commands_of_seeds(finished: Finished, tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(with_fields(finished.run.config, {"core": "own:Average"}), 2, tmp_path / "two seeds")
    rows = [replace(read_row(sweep, trial), status="failed", reason="") for trial in sweep.trials]
    report = write_seeds(sweep, rows).read_text()
    for command in commands("\n".join([report, *pictures.closing_lines(sweep, rows)])):
        assert modules(command) == ["worlds", "own"], command


def test_the_commands_of_a_sweep_trust_the_modules_of_all_its_trials(tmp_path: Path) -> None:
    grid = {"core": ["gru", "own:Average"], "algorithm": ["ppo", "own:Plain"]}
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": {"task": "worlds:Small"}, "grid": grid}))
    (command,) = commands(sweep.resume_command)
    assert modules(command) == ["worlds", "own"]
