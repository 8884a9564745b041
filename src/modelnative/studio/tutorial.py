"""Tables of `modelnative tutorial`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from modelnative.evidence.tutorial_comparison import DECLARED_TARGETS, PUBLISHED_RESULT, TutorialComparison
from modelnative.studio.tables import table


def page(comparison: TutorialComparison) -> Iterator[RenderableType]:
    """Both recipes, the best fixed programs, and what the numbers mean."""
    best, name = comparison.by_score[0], comparison.stages[0]
    yield Text(f"Published 'accuracy' {best.score:.2f} means {best.success:.0%} correct answers ({name})", "bold")
    recipes = comparison.recipes
    numbers = [f"{recipe.name}: {kind}" for recipe in recipes for kind in ("score", "success")]
    shown = table("stage", *numbers, "declared target", right=tuple(numbers))
    for s, stage in enumerate(comparison.stages):
        cells = [f"{x:.3f}" for recipe in recipes for x in (recipe.score[s], recipe.success[s])]
        shown.add_row(Text(stage, "bold"), *cells, DECLARED_TARGETS[s])
    yield shown
    fixed = table("stage", "best fixed program", "score", "success", right=("score", "success"))
    for s, stage in enumerate(comparison.stages):
        for kind, program in (("by score", comparison.by_score[s]), ("by success", comparison.by_success[s])):
            row = (f"{kind}: {program.program}", f"{program.score:.3f}", f"{program.success:.3f}")
            fixed.add_row(Text(stage, "bold"), *row)
    yield fixed
    for recipe in recipes:
        config = recipe.config
        yield (
            f"{recipe.name}: {config.updates} updates of {config.episodes} episodes, learning rate "
            f"{config.optimizer.learning_rate:g}, entropy weight {config.loss.entropy_weight:g}, {recipe.seconds:.1f} s"
        )
    yield ""
    yield (
        f"Both recipes were tested greedily on {comparison.problems:,} problems of each stage, seed {comparison.seed}; "
        f"the fixed programs on all 100,000. The published result is {PUBLISHED_RESULT} by the published score. This "
        "score pays in full for a value one step before the declared target (a*b at T0, a*b + c at T1, a*b + c - d at "
        "T2) and adds credit for other sub-results. So it exceeds 1, and the agent with the best score gives the "
        "declared answer to few problems. Success is the declared target alone. The tools know their operands, so a "
        "constant program does as well as reading the problem. At T2 the best constant program reaches the declared "
        f"target on {comparison.by_success[-1].success:.1%} of the problems. Our network corrects the published faults "
        "(each problem is read by itself, and tokens after ANS are excluded from the loss), so the published recipe "
        "can reach other results than the published ones. The corrected recipe samples all stages from the start, "
        "with a larger batch and learning rate, until the score is learned. To train on a task on which success can "
        "be learned: modelnative train."
    )
