"""Known faults of reinforcement-learning recipes, planted one by one: does an audit see each, and how early?

Every case trains two twins, alike but for one fault. Cases and their reports are from public issue trackers and papers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import choose, require, require_number
from modelnative.evidence.evaluate import evaluate
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import Problems
from modelnative.training.audit import CHECKS, Alarm
from modelnative.training.auditor import audit_update
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Rollout
from modelnative.training.trainer import Trainer
from modelnative.training.update_state import UpdateState

MOST_SEEDS = 100_000
UPDATES, CURVES = 2, 120  # audited updates of every twin, and updates of a learning curve
NOISE, TEMPERATURE, STALE, OTHER_TOKENS = 0.05, 1.3, 4, 0.01

Spoil = Callable[[Trainer], None]


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        name: what `modelnative clinic` calls it.
        fault: what is wrong.
        reports: where it was met.
        checks: the readings of which one at least must raise an alarm.
        spoil: plants it in a trainer.
        algorithm: of both twins.
    """

    name: str
    fault: str
    reports: str
    checks: tuple[str, ...]
    spoil: Spoil
    algorithm: str = "ppo"


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


# The faults


def _after_play(change: Callable[[Rollout], dict[str, Tensor]]) -> Spoil:
    """Change columns of every rollout."""

    def spoil(trainer: Trainer) -> None:
        play = trainer.play

        def changed(*arguments: Any) -> Rollout:
            rollout = play(*arguments)
            columns: dict[str, Any] = dict(change(rollout))
            return replace(rollout, **columns)

        trainer.play = changed  # type: ignore[method-assign,assignment]

    return spoil


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)


def _shifted(by: int) -> Callable[[Rollout], dict[str, Tensor]]:
    def change(rollout: Rollout) -> dict[str, Tensor]:
        moved = rollout.loss_mask.roll(by, 0)
        moved[0 if by > 0 else -1] = False
        return {"loss_mask": moved}

    return change


def _other_tokens(rollout: Rollout) -> dict[str, Tensor]:
    changed = torch.rand(rollout.action.shape, generator=torch.Generator().manual_seed(0)) < OTHER_TOKENS
    return {"action": torch.where(changed.to(rollout.action.device), rollout.action ^ 1, rollout.action)}


def _stale(trainer: Trainer) -> None:
    """Play with the weights of some updates ago."""
    play, kept = trainer.play, list[dict[str, Tensor]]()

    def played(*arguments: Any) -> Rollout:
        kept.append(copy.deepcopy(trainer.policy.state_dict()))
        trainer.policy.load_state_dict(kept[-1 - min(STALE, len(kept) - 1)])
        rollout = play(*arguments)
        trainer.policy.load_state_dict(kept[-1])
        del kept[: -STALE - 1]
        return rollout

    trainer.play = played  # type: ignore[method-assign,assignment]


def _with_advantages(change: Callable[[Trainer, Rollout, Tensor], Tensor]) -> Spoil:
    def spoil(trainer: Trainer) -> None:
        advantages = trainer.algorithm.advantages

        def changed(rollout: Rollout) -> tuple[Tensor, Tensor]:
            advantage, target = advantages(rollout)
            return change(trainer, rollout, advantage), target

        trainer.algorithm.advantages = changed  # type: ignore[method-assign]

    return spoil


def _strided(trainer: Trainer, rollout: Rollout, advantage: Tensor) -> Tensor:
    """Relative to the mean of every so manyth episode, instead of those side by side."""
    returns = (rollout.reward * rollout.loss_mask).sum(0)
    groups = returns.view(trainer.algorithm.num_generations, -1)
    return (groups - groups.mean(0)).flatten().expand_as(advantage)


def _by_length(trainer: Trainer, rollout: Rollout, advantage: Tensor) -> Tensor:
    length = rollout.loss_mask.sum(0).clamp_min(1)
    return advantage * length.float().mean() / length


def _at_the_start(change: Callable[[Tensor, Tensor | None], Tensor]) -> Spoil:
    """Change the core's state before the first token; the second argument is its last state of an earlier call."""

    def spoil(trainer: Trainer) -> None:
        policy: Any = trainer.policy
        begin, forward, last = policy.initial_state, policy.forward, list[Tensor]()

        def initial_state(problems: Problems) -> Any:
            state = begin(problems)
            return replace(state, core=change(state.core, last[-1] if last else None))

        def followed(*arguments: Any) -> Any:
            output = forward(*arguments)
            last[:] = [output.state.core.detach()]
            return output

        policy.initial_state, policy.forward = initial_state, followed

    return spoil


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "engine mismatch",
            "the engine that samples rounds otherwise than the one that learns",
            "verl #2953, AReaL #1290, open-instruct #1473",
            ("log_prob_gap_mean",),
            _after_play(lambda r: {"behavior_log_prob": r.behavior_log_prob + NOISE * _noise(r.behavior_log_prob)}),
        ),
        Case(
            "stale weights",
            "the sampler plays with the weights of four updates ago",
            "verl #7495, TRL #5312",
            ("log_prob_gap_mean", "effective_sample_size"),
            _stale,
        ),
        Case(
            "mask late",
            "the loss mask is shifted by one to the right",
            "prime-rl #1525, slime #1418, trlx #508",
            ("log_prob_gap_mean", "tokens_after_the_end"),
            _after_play(_shifted(1)),
        ),
        Case(
            "mask early",
            "the loss mask is shifted by one to the left",
            "trlx #509",
            ("last_actions_left_out", "log_prob_gap_mean"),
            _after_play(_shifted(-1)),
        ),
        Case(
            "mask inverted",
            "what was given is trained on, and what was chosen is not",
            "RAGEN #71, unsloth #5673, slime #1370",
            ("last_actions_left_out", "log_prob_gap_mean"),
            _after_play(lambda r: {"loss_mask": r.running & ~r.loss_mask}),
        ),
        Case(
            "wrong groups",
            "a group has episodes of different problems",
            "Search-R1 #88",
            ("group_mean",),
            _with_advantages(_strided),
            "grpo",
        ),
        Case(
            "length bias",
            "the tokens of long episodes weigh less than those of short ones",
            "Dr. GRPO (arXiv 2503.20783), TRL #3256",
            ("weight_by_length",),
            _with_advantages(_by_length),
            "grpo",
        ),
        Case(
            "temperature",
            "stored log-probabilities are those of another temperature",
            "TRL #3029, NeMo-RL #935, prime-rl #697",
            ("log_prob_gap_mean",),
            _after_play(lambda r: {"behavior_log_prob": r.behavior_log_prob / TEMPERATURE}),
        ),
        Case(
            "batch leak",
            "what the network reads is averaged over the batch",
            "NeMo-Aligner #68, OpenRLHF #217, TRL #469; the tutorial's encoder",
            ("row_alone",),
            _at_the_start(lambda core, last: core + core.mean(0)),
        ),
        Case(
            "state carried over",
            "the state of an earlier episode is added at the start of the next",
            "Mava #1006, RLlib #21392, torchrl #3711",
            ("row_alone", "log_prob_gap_mean"),
            _at_the_start(lambda core, last: core if last is None else core + last.mean(0)),
        ),
        Case(
            "other tokens",
            "one token in a hundred is recorded as another, as by tokenizing text again",
            "rllm #272, prime-rl #1334, verl #6719",
            ("replayed_differently",),
            _after_play(_other_tokens),
        ),
        Case(
            "wrong sign",
            "the advantages are negated",
            "ToolRL #52, OpenRLHF #1309",
            ("verdict_correlation",),
            _with_advantages(lambda trainer, rollout, advantage: -advantage),
        ),
    )
}
