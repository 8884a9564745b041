from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console
from worlds import Small

from modelnative.evidence.evaluate import Count, Evaluation
from modelnative.runs.events import Interrupted, Verified
from modelnative.runs.run import Run
from modelnative.studio.live import LOG_UPDATES, LiveView, clock
from modelnative.training.config import with_fields
from modelnative.training.events import Event, Searched, Started, Updated
from modelnative.training.metrics import Metrics, Timing
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

RUN = Run(Path("somewhere/run"), recipe())
UNSOLVED = Evaluation((Count("T0", "train", 3, 4),), greedy=True)


def updated(update: int) -> Updated:
    timing = Timing(seconds=0.5, steps_per_second=12_345.0, rollout_share=0.5, update_share=0.5)
    metrics = Metrics(
        update=update,
        episodes=update,
        steps=update,
        success=[0.75, 0.5, None],
        greedy=None,
        stages=["", "7/8 free", "3/12 free"],
        mean_return=0.0,
        entropy=0.0,
        approximate_kl=0.0,
        clip_fraction=0.0,
        explained_variance=0.0,
        gradient_norm=0.0,
        invalid=0.0,
        excess=None,
        policy_loss=0.0,
        value_loss=0.0,
        learning_rate=0.0,
        timing=timing,
    )
    return Updated(metrics, elapsed=update / 2)


def events() -> list[Event]:
    started = Started(RUN, 0, ("T0", "T1", "T2"), 46_379)
    return [started, *(updated(u) for u in range(1, 2 * LOG_UPDATES + 1)), Verified(2 * LOG_UPDATES, UNSOLVED, 10.0)]


def watch(*, terminal: bool) -> tuple[str, LiveView]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=60, _environ={"TERM": "xterm"})
    with LiveView(console) as view:
        for event in events():
            view(event)
    return console.file.getvalue(), view  # type: ignore[attr-defined]


def test_plain_lines_where_there_is_no_terminal() -> None:
    shown, _ = watch(terminal=False)
    lines = shown.splitlines()
    assert len(lines) == 1 + 2 + 1
    assert "46,379 parameters" in lines[0]
    assert "somewhere/run" in lines[0]
    assert lines[1] == (
        "update   10  T0 0.750  T1 0.500 (hint: 1 of 8 tokens)  T2   –   (hint: 9 of 12 tokens)  12,345 steps/s  5.0 s"
    )
    assert lines[-1] == "update   20  greedy check: T0=0.750 (3/4 problems)  10.0 s"
    assert "\x1b" not in shown


def test_a_search_says_what_it_found_or_that_it_found_nothing_within_its_budget() -> None:
    console = Console(file=io.StringIO(), width=300)
    with LiveView(console) as view:
        view(Searched("T0", ("{a} ADD ANS",), 1.0, 1_000, found=True, ended=True))
        view(Searched("T1", ("{a} ANS", "{b} ANS"), 0.4125, 2_000, found=False, ended=True))
        view(Searched("T2", (), 0.0, 3_000, found=False, ended=True))
    found, some, then, nothing, _ = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert found == "search found T0: {a} ADD ANS  (1,000 actions)"
    budget = "search found no procedure for {} within its budget ({} actions, curricula.search_budget); "
    best = "the best found solves 0.412 of the problems: {a} ANS and 1 more"
    assert some == budget.format("T1", "2,000") + best
    assert then == "T1 and the stages after it, if any, are trained without hints"
    assert nothing == budget.format("T2", "3,000") + "nothing found solves a problem"


def test_a_picture_on_a_terminal() -> None:
    shown, view = watch(terminal=True)
    for part in ("T0", "hint: 1 of 8 tokens", "12,345 steps/s", "/2000", "greedy check"):
        assert part in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is restored"
    assert view.live is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_message_after_an_interruption(number: int) -> None:
    _, view = watch(terminal=False)
    view(Interrupted(RUN, 20, number))
    assert view.signal == number
    assert view.interrupt_message() == "stopped at update 20; continue with: modelnative resume somewhere/run"


@pytest.mark.parametrize(("solved", "printed"), [(True, True), (False, False)])
def test_a_greedy_check_without_failures_is_not_called_the_end(solved: bool, printed: bool) -> None:
    console = Console(file=io.StringIO(), width=60)
    view = LiveView(console)
    view(events()[0])
    view(Verified(LOG_UPDATES, Evaluation((Count("T0", "train", 4 if solved else 3, 4),), greedy=True), 5.0))
    assert "final evaluation" not in console.file.getvalue()  # type: ignore[attr-defined]
    for update in (LOG_UPDATES + 1, LOG_UPDATES + 2):
        view(updated(update))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("sampled success has not reached 0.994 in every stage yet; training continues") == int(printed)
    view(Verified(RUN.config.updates, UNSOLVED, 5.0))
    assert "final evaluation: the best weights play" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_training_without_a_run_folder() -> None:
    console = Console(file=io.StringIO(), width=100)
    config = with_fields(recipe("worlds:Small"), {"updates": LOG_UPDATES, "episodes": 16, "policy": {"width": 8}})
    with LiveView(console) as view:
        for _ in Trainer(Small(), config, callbacks=[view]):
            pass
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].endswith("seed 0")
    assert lines[-1].startswith(f"update   {LOG_UPDATES}  T0 ")


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.94, 60, 3599, 3600)] == ["0.0 s", "59.9 s", "1:00", "59:59", "1:00:00"]
