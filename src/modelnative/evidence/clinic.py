"""Known faults of reinforcement-learning recipes, planted one by one: does an audit see each, and how early?

Every case trains two twins, alike but for one fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelnative.errors import choose, require, require_number
from modelnative.evidence.evaluate import evaluate
from modelnative.evidence.faults import CASES, Case
from modelnative.tasks import make_task
from modelnative.training.audit import CHECKS, Alarm
from modelnative.training.auditor import audit_update
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer
from modelnative.training.update_state import UpdateState

MOST_SEEDS = 100_000
UPDATES, CURVES = 2, 120  # audited updates of every twin, and updates of a learning curve


@dataclass(frozen=True)
class Diagnosis:
    """What the audits of two twins said.

    Attributes:
        case: its name.
        seed: of both twins.
        update: the first update at which an expected alarm rose in the sick twin; None: it was missed.
        check: the reading that rose first, and its values: the sick twin's, and the worst of the healthy one.
        sick, healthy: these values.
        false_alarms: of the healthy twin.
        curves: greedy success of each stage at the end, of the healthy and of the sick twin; empty without curves.
    """

    case: str
    seed: int
    update: int | None
    check: str
    sick: float
    healthy: float
    false_alarms: tuple[str, ...]
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Seen in the sick twin, and silence in the healthy one."""
        return self.update is not None and not self.false_alarms


def clinic(
    cases: Sequence[str] | None = None,
    *,
    seeds: int = 1,
    curves: bool = False,
    config: TrainConfig | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Diagnosis]:
    """Train a healthy and a sick twin for every case, and audit every update.

    Args:
        cases: names; all by default.
        seeds: of every case, from 0 on.
        curves: also train both for 120 updates, and say what they reach.
        config: changes to it apply to all twins; by default the recipe of `arithmetic`, with the case's algorithm.
        progress: is called with a line before everything that takes time.

    Raises:
        UserError: there is no such case, no seed, or the core is not the GRU.

    Example:
        >>> import modelnative as mn
        >>> small = mn.TrainConfig(episodes=64, policy=mn.PolicyConfig(width=16))
        >>> mn.clinic(["temperature"], config=small)[0].update
        1
    """
    require_number("seeds", seeds, 1, MOST_SEEDS, f"from 1 to {MOST_SEEDS:,}")
    core = config.core if config else "gru"
    require(core == "gru", "config.core", core, "gru, in whose state some of the faults are planted")
    chosen = [CASES[choose("case", name, CASES)] for name in cases or CASES]
    return [diagnose(case, seed, curves, config, progress) for case in chosen for seed in range(seeds)]


def diagnose(
    case: Case,
    seed: int = 0,
    curves: bool = False,
    config: TrainConfig | None = None,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    """One case with one seed; as `clinic`."""
    if progress is not None:
        progress(f"{case.name}, seed {seed}")
    updates = CURVES if curves else UPDATES
    healthy, sick = _twin(case, seed, updates, config), _twin(case, seed, updates, config)
    case.spoil(sick)
    silent, alarmed = list(_audits(healthy)), list(_audits(sick))
    false_alarms = tuple(
        f"{a.check} {a.value:.3g} at update {u}" for u, (alarms, _) in enumerate(silent, 1) for a in alarms
    )
    update, check, value = None, case.checks[0], float("nan")
    for number, (alarms, _) in enumerate(alarmed, 1):
        expected = [alarm for alarm in alarms if alarm.check in case.checks]
        if expected:
            update, check, value = number, expected[0].check, expected[0].value
            break
    worst = min if CHECKS[check].least else max
    seen = [readings[check][0] for _, readings in silent if check in readings]
    reached = {"healthy": _success(healthy), "sick": _success(sick)} if curves else {}
    return Diagnosis(case.name, seed, update, check, value, worst(seen, default=float("nan")), false_alarms, reached)


def _twin(case: Case, seed: int, updates: int, config: TrainConfig | None) -> Trainer:
    fields: dict[str, Any] = {"seed": seed, "updates": updates, "alarms": "off", "evaluate_every": updates}
    base = config or recipe(algorithm=case.algorithm)
    if config is not None and case.algorithm != "ppo":
        fields |= {"algorithm": case.algorithm}
    twin = with_fields(base, fields)
    return Trainer(make_task(twin.task, **twin.options), twin)


def _audits(trainer: Trainer) -> Iterator[tuple[list[Alarm], dict[str, tuple[float, int]]]]:
    """The alarms and the readings of the first updates; the training goes on to its end."""
    found: list[tuple[list[Alarm], dict[str, tuple[float, int]]]] = []
    prepare = trainer.prepare

    def audited(*arguments: Any) -> UpdateState:
        state = prepare(*arguments)
        if len(found) < UPDATES:
            audit = audit_update(trainer, state)
            found.append((audit.alarms, audit.readings))
        return state

    trainer.prepare = audited  # type: ignore[method-assign,assignment]
    for _ in trainer:
        pass
    return iter(found)


def _success(trainer: Trainer) -> list[float]:
    return [count.rate or 0.0 for count in evaluate(trainer.policy, trainer.task, split="train").counts]
