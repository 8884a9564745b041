"""Runs in groups, and what may be claimed of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from modelnative import cli
from modelnative.errors import UserError
from modelnative.evidence import comparison
from modelnative.evidence.evaluate import Count, Evaluation
from modelnative.runs.files import write_json
from modelnative.runs.run import Run
from modelnative.sweeps.comparison import compare_groups
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.groups import read_groups
from modelnative.training.config import TrainConfig, with_fields


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 500)


def give_result(run: Run, successes: int = 10, updates: int = 100, held_out: int = 5) -> Path:
    """A run that solved so many of 10 training problems and so many of 5 held-out ones, on two stages."""
    counts = [
        count
        for stage in ("A", "B")
        for count in (Count(stage, "train", successes, 10), Count(stage, "heldout", held_out, 5))
    ]
    greedy, sampled = Evaluation(tuple(counts), True), Evaluation(tuple(counts), False)
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_config()
    costs = {"updates": updates, "episodes": 0, "steps": 0, "seconds": 1.0}
    write_json(run.result_path, {"evaluation": greedy.as_dict(), "sampled": sampled.as_dict(), **costs})
    return run.path


def runs(folder: Path, name: str, rates: list[int], **fields: Any) -> list[Path]:
    made = [(seed, with_fields(TrainConfig(), {"seed": seed, **fields}), rate) for seed, rate in enumerate(rates)]
    return [give_result(Run(folder / f"{name}-{seed}", config), rate) for seed, config, rate in made]


def sweep(folder: Path, seeds: int, updates: list[int], **fields: Any) -> Path:
    planned = Sweep.of_seeds(with_fields(TrainConfig(), fields), seeds, folder)
    planned.write()
    for trial, cost in zip(planned.trials, updates, strict=False):
        give_result(planned.run(trial), updates=cost)
    return folder


def test_runs_are_grouped_by_what_differs_but_seed_and_task(tmp_path: Path) -> None:
    paths = runs(tmp_path, "a", [10] * 6) + runs(tmp_path, "b", [5] * 6, policy={"width": 32})
    paths += runs(tmp_path, "c", [10] * 6, task="recall", episodes=64)
    paths += runs(tmp_path, "d", [4] * 6, task="recall", episodes=64, policy={"width": 32})
    groups = read_groups(paths)
    assert [group.label for group in groups] == ["policy.width=64", "policy.width=32"]
    assert {task: len(scores) for task, scores in groups[0].scores.items()} == {"arithmetic": 6, "recall": 6}
    assert groups[0].scores["arithmetic"] == [1.0] * 6
    assert groups[1].scores["recall"] == pytest.approx([9 / 15] * 6)
    found = compare_groups(groups, "success")
    assert found.tasks == ("arithmetic", "recall")
    assert found.pairs[0].supported
    assert found.pairs[0].verdict == "worse than policy.width=64"


def test_folders_of_seeds_are_groups(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one", 10, list(range(100, 110)))
    two = sweep(tmp_path / "two", 10, list(range(50, 60)))
    found = compare_groups(read_groups([one, two], "updates"), "updates")
    assert [group.label for group in found.groups] == [str(one), str(two)]
    assert found.pairs[0].verdict == f"better than {one}"
    assert found.pairs[0].difference.value == -50
    assert found.profiles == ()
    assert found.notes == ()


def test_a_difference_that_the_seeds_do_not_support_is_refused(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one", 3, [100, 110, 120])
    two = sweep(tmp_path / "two", 3, [50, 60, 70])
    (pair,) = compare_groups(read_groups([one, two], "updates"), "updates").pairs
    assert not pair.supported
    assert pair.verdict == f"no difference from {one} that 3 and 3 trainings support"


def test_failures_and_unsolved_trainings_are_told(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one", 3, [100, 110])
    notes = compare_groups(read_groups([one], "updates"), "updates").notes
    assert any("1 trainings have no result" in note for note in notes)
    assert any("2 seeds in the smallest group" in note for note in notes)
    unsolved = runs(tmp_path, "a", [10, 9])
    (group,) = read_groups(unsolved, "updates")
    assert group.unsolved == 1
    assert any("ended unsolved" in note for note in compare_groups([group], "updates").notes)


def test_the_metric_and_the_stage_are_chosen(tmp_path: Path) -> None:
    path = give_result(Run(tmp_path / "a", TrainConfig()), successes=10, held_out=1)
    assert read_groups([path], "heldout")[0].scores == {"arithmetic": [0.2]}
    assert read_groups([path], "success", "B")[0].scores == {"arithmetic": [11 / 15]}
    assert read_groups([path], "seconds")[0].scores == {"arithmetic": [1.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "a"], "runs: seed 0 of arithmetic is twice in the group 'all runs'"),
        (["a", "--metric", "succes"], "metric: unknown value 'succes'; did you mean 'success'"),
        (["a", "--stage", "C"], "stage: unknown value 'C'"),
        (["a", "--metric", "updates", "--stage", "A"], "stage: 'A' is not allowed; expected none for updates"),
        (["nothing"], "run: 'nothing' is not a run folder"),
        (["a", "empty"], "at least one finished run in every group"),
        (["a", "other"], "no task is common to all groups"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    give_result(Run(Path("a"), TrainConfig()))
    give_result(Run(Path("other/trials/x"), with_fields(TrainConfig(), {"task": "recall"})))
    planned = Sweep.of_seeds(with_fields(TrainConfig(), {"task": "recall"}), 2, tmp_path / "tmp")
    planned.write()
    give_result(planned.run(planned.trials[0]))
    (tmp_path / "tmp").rename("other_sweep")
    Sweep.of_seeds(with_fields(TrainConfig(), {"seed": 5}), 2, Path("empty")).write()
    arguments = ["other_sweep" if word == "other" else word for word in arguments]
    with pytest.raises(UserError) as error:
        cli.run(["compare", *arguments])
    assert message in str(error.value)


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = sweep(Path("one"), 10, [100] * 10), sweep(Path("two"), 10, [100] * 10)
    assert cli.run(["compare", str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "1.000" in printed
    assert "[0.883, 1.000]" in printed
    assert "two: no difference from one that 10 and 10 trainings support" in printed
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert saved == json.loads(json.dumps(dataclasses.asdict(compare_groups(read_groups([one, two]), "success"))))
    assert (tmp_path / "out" / "comparison.svg").read_text().startswith("<?xml")
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
