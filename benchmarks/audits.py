"""Do audits stay silent on healthy trainings, and what do they cost? All is read of every update of every training.

    python benchmarks/audits.py                  # all trainings; about ten minutes on two cores
    python benchmarks/audits.py --updates 20     # fewer updates of each

Results are appended to benchmarks/audits.jsonl, a line a training: the most extreme value of each reading, the alarms,
and the processor time of the audits beside that of the updates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from learning import processor
from torch import Tensor

import modelnative as mn
from modelnative.speed.machine import machine
from modelnative.training.audit import CHECKS, Audit
from modelnative.training.auditor import audit_due, audit_terms, audit_update, audited_whole
from modelnative.training.trainer import Trainer
from modelnative.training.update_state import UpdateState

RESULTS = Path(__file__).with_suffix(".jsonl")
ALGORITHMS = ("ppo", "a2c", "grpo", "rloo", "reinforce")
TRAININGS: dict[str, dict[str, Any]] = {
    **{f"arithmetic {name}": {"algorithm": name} for name in ALGORITHMS},
    **{
        f"arithmetic {core} {name}": {"core": core, "algorithm": name}
        for core in ("mingru", "transformer")
        for name in ("ppo", "grpo")
    },
    "arithmetic, milestones": {"options": {"reward": "milestone"}},
    "arithmetic, potential": {"options": {"reward": "potential"}},
    "arithmetic reader": {"changes": {"policy": {"reader": "gru"}}},
    "arithmetic uniform": {"curriculum": "uniform"},
    "hops": {"task": "hops"},
    "recall": {"task": "recall"},
    "three tasks": {"task": "arithmetic+recall+hops", "options": {"recall.longest": 10}},
    "dictionary": {"task": "dictionary", "core": "transformer"},
    "dictionary, store": {"task": "dictionary", "options": {"store": True}},
    "expressions, text": {"task": "expressions", "changes": {"policy": {"reader": "gru"}}},
    "expressions, paper": {"task": "expressions", "options": {"feedback": "paper"}},
    "countdown": {"task": "countdown"},
}


def measure(name: str, updates: int, seed: int) -> dict[str, Any]:
    """Train for some updates, auditing all of them."""
    names = dict(TRAININGS[name])
    options, changes = names.pop("options", {}), names.pop("changes", {})
    config = mn.with_fields(
        mn.recipe(**names), {"seed": seed, "updates": updates, "alarms": "off", "options": options, **changes}
    )
    trainer = Trainer(mn.make(config.task, **options), config)
    worst: dict[str, float] = {}
    alarms, spent, light = list[str](), 0.0, 0.0
    prepare, apply_gradients = trainer.prepare, trainer.apply_gradients

    def keep(found: Audit) -> None:
        alarms.extend(f"{alarm.check} {alarm.value:.3g} at update {trainer.updates + 1}" for alarm in found.alarms)
        for check, (value, _) in found.readings.items():
            extreme = min if CHECKS[check].least else max
            worst[check] = extreme(worst.get(check, value), value)

    def audited(*arguments: Any) -> UpdateState:
        nonlocal spent, light
        state = prepare(*arguments)
        # The light one first: after the other, what it needs would be in the processor's caches.
        start = time.process_time()
        audit_update(trainer, state, whole=False)
        light += time.process_time() - start
        start = time.process_time()
        found = audit_update(trainer, state, whole=True)
        spent += time.process_time() - start
        keep(found)
        return state

    def applied(state: UpdateState, gradients: list[Tensor], terms: Tensor) -> None:
        nonlocal light
        if not state.terms:
            start = time.process_time()
            found = audit_terms(trainer, terms)
            light += time.process_time() - start
            keep(found)
        apply_gradients(state, gradients, terms)

    trainer.prepare, trainer.apply_gradients = audited, applied  # type: ignore[method-assign]
    start = time.process_time()
    for _ in trainer:
        pass
    return {
        "training": name,
        "seed": seed,
        "updates": updates,
        "alarms": alarms,
        "audit_ms": 1000 * spent / updates,
        "light_audit_ms": 1000 * light / updates,
        "update_ms": 1000 * (time.process_time() - start - spent - light) / updates,
        "worst": worst,
        "machine": {**machine(), "processor": processor()},
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The newest line of each training and seed, as Markdown, with the share of the audits in a thousand updates."""
    newest = {(line["training"], line["seed"]): line for line in lines}.values()
    whole = sum(audited_whole(update) for update in range(1, 1001))
    few = sum(audit_due(update) for update in range(1, 1001)) - whole
    rows = [
        "| training | seed | updates | alarms | whole audit, other audit, update (processor ms) | share | largest gap |"
    ]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for line in newest:
        # Older lines have no light audit; a whole one instead is an upper bound.
        times = [line[name] for name in ("audit_ms", "light_audit_ms" if "light_audit_ms" in line else "audit_ms")]
        share = (whole * times[0] + few * times[1]) / line["update_ms"] / 1000
        times, gap = [*times, line["update_ms"]], line["worst"]["log_prob_gap_max"]
        rows.append(
            f"| {line['training']} | {line['seed']} | {line['updates']} | {len(line['alarms'])} |"
            f" {', '.join(f'{each:.1f}' for each in times)} | {share:.1%} | {gap:.1g} |"
        )
    total, alarms = sum(line["updates"] for line in newest), sum(len(line["alarms"]) for line in newest)
    return "\n".join([*rows, "", f"{alarms} alarms in {total:,} healthy updates."])


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainings", nargs="*", metavar="training", help="; ".join(TRAININGS))
    parser.add_argument("--updates", type=int, default=250, help="updates of each training (default 250)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N - 1 (default 1)")
    parser.add_argument("--table", action="store_true", help="print the table of all results so far, measure nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.trainings) - set(TRAININGS)
    if unknown:
        parser.error(f"unknown training {sorted(unknown)[0]!r}; choose from {'; '.join(TRAININGS)}")
    if not arguments.table:
        for name in arguments.trainings or TRAININGS:
            for seed in range(arguments.seeds):
                line = measure(name, arguments.updates, seed)
                with open(RESULTS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(name, seed, line["alarms"] or "no alarm", flush=True)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
