"""What a program calls."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import toolbox
import torch
from worlds import SMALL

import modelnative as mn
from modelnative.api import speed
from modelnative.errors import UserError
from modelnative.sweeps.events import SweepEvent, SweepFinished, SweepStarted
from modelnative.training.recipes import recipe

FIELDS: dict[str, Any] = {"updates": 3, "episodes": 16, "policy": {"width": 8}, "threads": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> mn.Finished:
    return mn.train("worlds:Small", out=tmp_path_factory.mktemp("api") / "run", **FIELDS)


def test_every_public_name_is_there() -> None:
    for name in mn.__all__:
        assert getattr(mn, name) is not None
        assert name in dir(mn)
        assert not isinstance(getattr(mn, name), ModuleType), "once imported, a room hides a function of its name"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mn.trian  # noqa: B018  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names() -> None:
    """The imports that they read and the table that Python reads say the same."""
    names: dict[str, object] = {}
    exec("from modelnative import *", names)  # noqa: S102
    assert set(mn.__all__) <= set(names)
    lines = re.findall(r"^    from (\S+) import (\w+) as (\w+)$", Path(mn.__file__).read_text(), re.MULTILINE)
    assert {name: module for module, name, _ in lines} == mn._HOMES
    assert all(name == known for _, name, known in lines)


def test_training_reports_every_event_and_writes_a_report(tmp_path: Path) -> None:
    events: list[mn.Event] = []
    end = mn.train("worlds:Small", algorithm="grpo", seed=3, out=tmp_path / "run", callbacks=[events.append], **FIELDS)
    assert isinstance(events[0], mn.Started)
    assert events[-1] is end
    assert sum(isinstance(event, mn.Updated) for event in events) == 3
    assert (end.run.config.algorithm, end.run.config.seed) == ("grpo", 3)
    assert end.run.config.loss == recipe(algorithm="grpo").loss
    assert (tmp_path / "run" / "report.html").is_file()


def test_time_to_solution_is_that_of_a_training() -> None:
    one = speed._solve(mn.with_fields(recipe("worlds:Small"), {**FIELDS, "seed": 4}))
    assert (one.seed, one.updates, one.solved) == (4, 3, False)
    assert one.seconds > 0
    assert "problems" in one.line


def test_loading_gives_the_verified_policy(finished: mn.Finished) -> None:
    agent = mn.load(finished.run.path)
    assert agent.run == finished.run
    assert not agent.policy.training
    assert mn.evaluate(agent) == finished.evaluation == mn.evaluate(str(finished.run.path))


def test_evaluating_some_stages_into_a_file(finished: mn.Finished, tmp_path: Path) -> None:
    reported: list[str] = []
    file = tmp_path / "new" / "episodes.jsonl"
    run = finished.run.path
    evaluation = mn.evaluate(run, stages=["T1"], split="heldout", episodes_file=file, progress=reported.append)
    assert evaluation.total().problems == SMALL
    assert reported == [f"T1, heldout: {SMALL} problems"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == SMALL
    assert {line["stage"] for line in lines} == {"T1"}
    assert sum(line["success"] for line in lines) == evaluation.total().successes


def test_a_file_of_episodes_may_be_a_device(finished: mn.Finished) -> None:
    mn.evaluate(finished.run.path, stages=["T0"], episodes_file=os.devnull)
    assert not Path(os.devnull).is_file(), "it is written to, not replaced"


def test_evaluating_with_other_options(finished: mn.Finished) -> None:
    agent = mn.load(finished.run.path, {"horizon": 20})
    assert agent.task.spec.horizon == 20
    assert mn.evaluate(finished.run.path, stages=["T2"], options={"horizon": 20}) == mn.evaluate(agent, stages=["T2"])
    with pytest.raises(
        mn.UserError, match=r"options: 'feedback=none' is not allowed; expected options that keep the task's f"
    ):
        mn.evaluate(finished.run.path, options={"feedback": "none"})
    with pytest.raises(mn.UserError, match=r"options: .* expected none for an agent that is loaded already"):
        mn.evaluate(agent, options={"horizon": 20})


def test_sampling_is_from_the_runs_seed(finished: mn.Finished) -> None:
    torch.manual_seed(99)
    assert mn.evaluate(finished.run.path, sampled=True) == finished.sampled


def test_explaining(finished: mn.Finished) -> None:
    explanation = mn.explain(finished.run.path, stage="T2", problem="3 7 2 4 5")
    assert explanation.record["operands"] == [3, 7, 2, 4, 5]
    assert " ".join(explanation.oracle) == "4 MUL 5 STO 3 MUL 7 ADD 2 SUB RCL ANS"


def test_training_on_a_task_that_stands_in_a_file(tmp_path: Path) -> None:
    finished = mn.train(toolbox.TASK, out=tmp_path / "run", **FIELDS)
    assert finished.run.config.task == "toolbox:TASK"
    assert mn.evaluate(tmp_path / "run") == finished.evaluation
    explanation = mn.explain(tmp_path / "run", stage="T0", problem="x=7")
    assert " ".join(explanation.oracle) == "double x double R1 ANS R2"
    counted = mn.train("toolbox:make", out=tmp_path / "counted", options={"count": 20}, **FIELDS)
    assert counted.evaluation.total().problems == mn.evaluate(tmp_path / "counted").total().problems == 20


def test_a_task_that_nobody_finds_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        mn.UserError, match=r"this ToolTask cannot be found again by name.*such as `task = ...` in mytools"
    ):
        mn.train(toolbox.make(), out=tmp_path / "run", **FIELDS)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
import modelnative as mn

@mn.tool
def double(x: int) -> int:
    return 2 * x

task = mn.ToolTask([double], {"x": range(30)}, lambda problem: 2 * problem["x"])

def main():
    finished = mn.train(task, out="run", updates=1, episodes=16, policy={"width": 8}, threads=1)
    print(finished.run.config.task, finished.evaluation.total().problems)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_trains_on_its_own_task(tmp_path: Path, guarded: bool) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT + ("if __name__ == '__main__':\n    main()\n" if guarded else "main()\n"))
    path = os.pathsep.join([str(Path(mn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "mine.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if guarded:
        assert done.stdout == "mine:task 30\n", done.stderr
    else:
        assert "the module that is imported to find mine:task starts a training; put that" in done.stderr
        assert not (tmp_path / "run").exists()


def test_an_interruption_is_a_keyboard_interrupt_that_can_be_resumed(tmp_path: Path) -> None:
    events: list[mn.Event] = []

    def stop(event: mn.Event) -> None:
        events.append(event)
        if isinstance(event, mn.Updated):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="modelnative resume"):
        mn.train("worlds:Small", out=tmp_path / "run", callbacks=[stop], **FIELDS)
    assert isinstance(events[-1], mn.Interrupted)
    end = mn.resume(tmp_path / "run")
    assert end.updates == 3
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: mn.train(core="grru", out=path), "core: unknown value 'grru'; did you mean 'gru'"),
        (lambda path: mn.train(sed=3, out=path), "config: unknown field 'sed'; did you mean 'seed'"),
        (lambda path: mn.train(policy={"widht": 3}, out=path), "did you mean 'width'"),
        (lambda path: mn.train("arithmetik", out=path), "did you mean 'arithmetic'"),
        (lambda path: mn.train(options={"horizon": 5}, out=path), "horizon: 5 is not allowed"),
        (lambda path: mn.load(path), "is not a run folder"),
        (lambda path: mn.resume(path), "is not a run folder"),
        (lambda path: mn.evaluate(path), "is not a run folder"),
        (lambda path: mn.explain(path, stage="T0", problem="1 2 3"), "is not a run folder"),
    ],
)
def test_bad_input_is_a_user_error(tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(mn.UserError, match=message):
        call(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": "12"}, "horizon: '12' is not allowed; expected int"),
        ({"horizon": 12.0}, "horizon: 12.0 is not allowed; expected int"),
        ({"horizon": True}, "horizon: True is not allowed; expected int"),
        ({"gamma": "high"}, "gamma: 'high' is not allowed; expected float"),
        ({"feedback": 3}, "feedback: unknown value 3"),
    ],
)
def test_options_of_the_wrong_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(mn.UserError, match=message):
        mn.make("arithmetic", **options)


def test_whole_numbers_are_floats() -> None:
    assert mn.make("arithmetic", gamma=1).options()["gamma"] == 1


# Several seeds


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[mn.SweepResult, list[SweepEvent]]:
    """Two seeds, and the events of their training."""
    events: list[SweepEvent] = []
    out = tmp_path_factory.mktemp("seeds") / "two"
    return mn.train("worlds:Small", out=out, seeds=2, seed=3, callbacks=[events.append], **FIELDS), events


def test_seeds_are_a_sweep_of_ordinary_runs(seeds: tuple[mn.SweepResult, list[SweepEvent]], tmp_path: Path) -> None:
    result, events = seeds
    assert isinstance(events[0], SweepStarted)
    assert events[-1] == SweepFinished(result.sweep, result.rows)
    assert [(row.seed, row.status, row.costs["updates"]) for row in result.rows] == [
        (3, "finished", 3),
        (4, "finished", 3),
    ]
    assert ([cell.trials for cell in result.cells], result.failed) == ([2], [])
    alone = mn.train("worlds:Small", out=tmp_path / "alone", seed=4, **FIELDS)
    run = mn.load(result.sweep.path / "trials" / "seed-4").run
    assert run.weights_path.read_bytes() == alone.run.weights_path.read_bytes()
    assert (result.sweep.path / "report.html").is_file()


def test_resuming_finished_seeds_trains_nothing(seeds: tuple[mn.SweepResult, list[SweepEvent]]) -> None:
    events: list[SweepEvent] = []
    again = mn.resume(seeds[0].sweep.path, callbacks=[events.append])
    assert again == seeds[0]
    assert isinstance(events[0], SweepStarted)
    assert (events[0].finished, events[0].place) == (2, "in local processes")
    assert isinstance(events[-1], SweepFinished)


def test_reports_that_a_kill_prevented_are_written_when_the_folder_is_resumed(
    seeds: tuple[mn.SweepResult, list[SweepEvent]],
) -> None:
    folder = seeds[0].sweep.path
    reports = [folder / "report.html", folder / "trials" / "seed-3" / "report.html"]
    for path in reports:
        path.unlink()
    mn.resume(folder)
    assert all(path.is_file() for path in reports)


def test_a_report_that_cannot_be_written_fails_no_sweep(
    seeds: tuple[mn.SweepResult, list[SweepEvent]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: SweepEvent) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("modelnative.api.sweeps.write_sweep_report", fail)
    assert mn.resume(seeds[0].sweep.path) == seeds[0]
    assert "the sweep is finished, but a report could not be written (RuntimeError: no fonts" in caplog.text
    assert f"write it again with: modelnative resume {seeds[0].sweep.path}" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "seeds: 0 is not allowed; expected from 1 to 10,000"),
        ({"policy": torch.nn.Linear(1, 1)}, "policy: 'Linear' is not allowed; expected no object beside seeds"),
        ({"seed": 2**31 - 1}, "trial seed=2147483648: seed: 2147483648 is not allowed"),
    ],
)
def test_seeds_that_are_not_allowed(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(mn.UserError, match=message):
        mn.train("worlds:Small", out=tmp_path / "run", **{"seeds": 2, **fields})
    assert list(tmp_path.iterdir()) == []


# Configurations


def test_fields_change_a_given_configuration(tmp_path: Path) -> None:
    config = mn.with_fields(mn.recipe("worlds:Small", algorithm="grpo"), {**FIELDS, "loss": {"gamma": 0.9}})
    run = mn.train(config=config, loss={"epochs": 2}, seed=7, out=tmp_path / "run").run
    assert run.config == mn.with_fields(config, {"loss": {"epochs": 2}, "seed": 7})
    assert (run.config.algorithm, run.config.loss.gamma, run.config.policy.width) == ("grpo", 0.9, 8)


def test_another_task_for_a_configuration_drops_the_options_of_the_first(tmp_path: Path) -> None:
    config = mn.with_fields(mn.recipe(mn.make("arithmetic", horizon=14)), FIELDS)
    assert (config.task, config.options["horizon"]) == ("arithmetic", 14)
    run = mn.train("worlds:Small", config, out=tmp_path / "run").run
    assert (run.config.task, run.config.options) == ("worlds:Small", {})
    assert run.config.policy.width == 8


def test_a_callback_has_a_method_for_each_event(tmp_path: Path) -> None:
    called: list[str] = []

    class Recorder(mn.Callback):
        def on_start(self, event: mn.Started) -> None:
            called.append("start")

        def on_update(self, event: mn.Updated) -> None:
            called.append(f"update {event.metrics.update}")

        def on_verify(self, event: mn.Verified) -> None:
            called.append("verify")

        def on_checkpoint(self, event: mn.Checkpointed) -> None:
            called.append("checkpoint")

        def on_finish(self, event: mn.Finished) -> None:
            called.append("finish")

    mn.train("worlds:Small", out=tmp_path / "run", callbacks=[Recorder()], **FIELDS)
    assert called[0] == "start"
    assert [name for name in called if name.startswith("update")] == ["update 1", "update 2", "update 3"]
    assert {"verify", "checkpoint"} <= set(called)
    assert called[-1] == "finish"


@pytest.mark.parametrize("path", ["\0", "runs/a\0b", "\ud800", "x" * 5000, "runs/" + "y/" * 5000])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: mn.train(out=path, updates=1, episodes=8),
        lambda path: mn.train(out=path, seeds=2, updates=1, episodes=8),
        lambda path: mn.train(init=path, updates=1, episodes=8),
        lambda path: mn.sweep({"seeds": 1}, out=path),
        lambda path: mn.sweep(path),
        mn.resume,
        mn.load,
        mn.report,
        mn.evaluate,
        lambda path: mn.explain(path, stage="T0", problem="1 2 3"),
    ],
)
def test_a_path_that_no_file_can_have(call: Any, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []
