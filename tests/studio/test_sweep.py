from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console
from sweeping import TINY, write_result

from modelnative.studio.sweep import (
    LOG_SECONDS,
    SweepView,
    closing_lines,
    comparison_table,
    final_report,
    notes,
    plan_table,
    seeds_summary,
)
from modelnative.studio.sweep_plot import write_comparison
from modelnative.sweeps.events import (
    SweepFinished,
    SweepInterrupted,
    SweepProgress,
    SweepStarted,
    SweepStopping,
    TrialCrashed,
    TrialFailed,
    TrialFinished,
    TrialProgress,
    TrialStarted,
)
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import Row, cells, read_row
from modelnative.sweeps.spec import parse_spec


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = Sweep.planned(tmp_path / "sweep", parse_spec({"seeds": 3, "base": TINY, "grid": {"policy.width": [8, 16]}}))
    for trial in made.trials[:5]:
        write_result(made.run(trial), share=1.0 if trial.config.policy.width == 8 else 0.5)
    return made


def rows(sweep: Sweep) -> list[Row]:
    return [read_row(sweep, trial, "it overflowed") for trial in sweep.trials]


def screen(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None, legacy_windows=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines(sweep: Sweep) -> None:
    console = screen(terminal=False)
    view = SweepView(console)
    first, second = sweep.trials[:2]
    view(SweepStarted(sweep, 4, 2, "in local processes"))
    view(TrialStarted(first, 0))
    view(TrialStarted(second, 8))
    view(TrialCrashed(second, "killed by SIGKILL", 1))
    view(SweepProgress(6, 4, 0, {first.name: TrialProgress(3, (0.5,))}, 83.0))
    view(TrialFinished(first, rows(sweep)[0]))
    view(TrialFailed(sweep.trials[5], rows(sweep)[5]))
    assert shown(console).splitlines() == [
        f"sweep: 6 trials, 4 of them finished already, 2 at a time, in local processes → {sweep.path}",
        f"start    {first.name}",
        f"start    {second.name}, from update 8",
        f"crashed  {second.name}: killed by SIGKILL; it is retried (1 retry left after that)",
        f"finished {first.name}: T0=1.000 T1=1.000, solved, 2.0 s  [5 of 6, about 1:23 left]",
        f"failed   {sweep.trials[5].name}: it overflowed  [6 of 6]",
    ]


def test_a_terminal_shows_what_runs(sweep: Sweep) -> None:
    console = screen(terminal=True)
    with SweepView(console) as view:
        view(SweepStarted(sweep, 0, 2, "in local processes"))
        view(SweepProgress(6, 1, 1, {f"trial {i}": TrialProgress(i, (0.25, None)) for i in range(9)}, None))
        view(SweepProgress(6, 2, 1, {"trial 0": TrialProgress(5, (0.75,), "writing its report")}, 12.0))
        view(SweepProgress(6, 5, 1, {}, 0.0))
        view(SweepFinished(sweep, tuple(rows(sweep))))
        assert view.live is None
    text = shown(console)
    for part in (
        "trial 0 starting",
        "trial 7 update 7, success 0.250 –",
        "trial 0 update 5, success 0.750, writing its report",
        "all trials have ended; writing the table and the report of the sweep",
        "… and 1 more",
        "2/6",
        "time left: known after the first",
    ):
        assert part in " ".join(text.split())
    assert "2 finished · 1 running · 1 failed · about 12.0 s left" in text


def test_the_message_after_an_interruption(sweep: Sweep) -> None:
    view = SweepView(screen(terminal=False))
    assert view.interrupt_message() == "interrupted before the first trial; nothing is lost"
    view(SweepStarted(sweep, 0, 2, "nowhere"))
    again = f"continue with: modelnative sweep --resume {sweep.path} --trust worlds"
    assert view.interrupt_message() == f"killed; each trial keeps its newest checkpoint; {again}"
    view(SweepStopping(signal.SIGTERM))
    view(SweepInterrupted(sweep, signal.SIGTERM, 2))
    assert view.signal == signal.SIGTERM
    assert view.interrupt_message() == f"stopped with 2 of 6 trials unfinished; {again}"


def test_plain_progress_lines_are_rare(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    console = screen(terminal=False)
    view = SweepView(console)
    view(SweepStarted(sweep, 0, 2, "nowhere"))
    for _ in range(4):
        view(SweepProgress(6, 0, 0, {"a": TrialProgress(3, (0.5, None)), "b": TrialProgress()}, None))
        now += LOG_SECONDS / 2
    assert shown(console).splitlines()[1:] == ["running  a update 3, success 0.500 –; b starting"]


def test_all_seeds_are_counted(tmp_path: Path) -> None:
    made = Sweep.planned(tmp_path / "seeds", parse_spec({"seeds": 4, "base": TINY}))
    for trial, share, seconds in zip(made.trials, (1.0, 0.5, 1.0), (2.0, 9.0, 4.0), strict=False):
        write_result(made.run(trial), share, seconds)
    found = rows(made)
    summary = "2 of 4 seeds solved every problem, 1 failed; median 3 updates, 4.0 s"
    assert seeds_summary(found) == summary
    console = screen(terminal=False)
    for part in final_report(made, found):
        console.print(part)
    lines = [" ".join(line.split()) for line in shown(console).splitlines()]
    assert "1 not solved 3 9.0 0.500 0.500" in lines
    assert "3 failed: it overflowed – – – –" in lines
    assert summary in lines
    assert f"To retry them: modelnative resume {made.path}" in shown(console).replace("\n", " ")


def test_the_plan(sweep: Sweep) -> None:
    checkpoints = sweep.run(sweep.trials[5]).path / "checkpoints"
    checkpoints.mkdir(parents=True)
    console = screen(terminal=False)
    console.print(plan_table(sweep))
    assert shown(console).count("finished") == 5
    assert shown(console).count("starts") == 1
    (checkpoints / "000040.safetensors").touch()
    console.print(plan_table(sweep))
    assert "continues from update 40" in shown(console)
    for trial in sweep.trials:
        assert trial.name.rpartition("-")[2] in shown(console)


def test_the_comparison(sweep: Sweep) -> None:
    grouped = cells(rows(sweep))
    console = screen(terminal=False)
    console.print(comparison_table(grouped))
    lines = [" ".join(line.split()) for line in shown(console).splitlines()]
    assert "8 3 of 3 0.44 to 1.00 1.000 2.0 – 2.0 to 2.0" in lines
    assert "16 0 of 3 0.00 to 0.56 0.500 ≥ 2.0 – 2.0 to 2.0 1 failed" in lines
    lines = notes(grouped)
    assert any(line.startswith("≥: ") for line in lines)
    assert "3 seeds in the smallest group: too few for a claim; use seeds = 10." in lines
    assert not any("too few" in line for line in notes([]))
    text = "\n".join(closing_lines(sweep, rows(sweep)))
    assert "1 of 6 trials failed" in text
    assert f"To retry them: modelnative sweep --resume {sweep.path}" in text


def test_the_plot(sweep: Sweep) -> None:
    write_comparison(sweep.path, "a $title", cells(rows(sweep)))
    svg, png = (sweep.path / f"comparison.{kind}" for kind in ("svg", "png"))
    assert png.read_bytes().startswith(b"\x89PNG")
    drawing = svg.read_text()
    assert drawing.count("<!-- policy.width=") == 2, "a line for each combination"
    assert "<!-- a $title – 3 seeds in the smallest group, too few for a claim -->" in drawing
    assert "<!-- 3 of 3 -->" in drawing
    write_comparison(sweep.path, "a $title", cells(rows(sweep)))
    assert svg.read_text() == drawing, "the same again"


def test_the_plot_of_trials_that_all_failed(sweep: Sweep) -> None:
    failed = [row for row in rows(sweep) if row.status == "failed"]
    write_comparison(sweep.path, "x", cells(failed))
    assert (sweep.path / "comparison.svg").exists()
