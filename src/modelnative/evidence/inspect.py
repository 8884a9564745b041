"""What is inside an agent: who carries what, from interventions on the policy, what it observes, and its tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modelnative.errors import require_number
from modelnative.evidence.carriers import LEAST, problems_of, record
from modelnative.evidence.decoding import Decoding, decode
from modelnative.evidence.donors import Exchange, StageTransfer, exchange_all, transfer_stage
from modelnative.evidence.interventions import Answers
from modelnative.evidence.notebook import html_table
from modelnative.evidence.removals import Removal, remove_all
from modelnative.evidence.sensitivity import Sensitivity, sensitivity
from modelnative.evidence.sharing import StageUnits, sharing
from modelnative.evidence.verdicts import Verdict, in_words, verdicts
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.task import AnyTask, Problems

PAIRS = 500
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class StageInspection:
    """What was found in one stage.

    Attributes:
        stage: its name.
        keys: the numbers of the actions before which was intervened, from 1.
        sensitivity: does the agent read the problem?
        exchanges: of every carrier before every action.
        transfers: parts of the policy's state from an earlier stage; empty for the first.
        removals: success without something; the first is of the whole agent.
        decoding: what is known in advance; None without probes.
        verdicts: one for each carrier.
        words: sentences.
    """

    stage: str
    keys: tuple[int, ...]
    sensitivity: Sensitivity
    exchanges: tuple[Exchange, ...]
    transfers: tuple[StageTransfer, ...]
    removals: tuple[Removal, ...]
    decoding: Decoding | None
    verdicts: tuple[Verdict, ...]
    words: tuple[str, ...]

    def verdict(self, carrier: str) -> Verdict:
        """The verdict of a carrier by its name."""
        return next(verdict for verdict in self.verdicts if verdict.carrier == carrier)

    def exchange(self, carrier: str, key: int) -> Exchange:
        """The exchange of a carrier before an action, counted from 1."""
        return next(e for e in self.exchanges if e.carrier.name == carrier and e.key == key)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "stage": self.stage,
            "words": list(self.words),
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "keys": list(self.keys),
            "sensitivity": self.sensitivity.as_dict(),
            "exchanges": [_exchange(exchange) for exchange in self.exchanges],
            "transfers": [transfer.as_dict() for transfer in self.transfers],
            "decoding": None if self.decoding is None else self.decoding.as_dict(),
            "removals": [removal.as_dict() for removal in self.removals],
        }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    names = ("answer", "next_token", "program", "same_procedure")
    outcomes = {name: getattr(exchange, name) for name in names}
    shown = {name: None if outcome is None else outcome.as_dict() for name, outcome in outcomes.items()}
    return {"carrier": exchange.carrier.name, "kind": exchange.carrier.kind, "key": exchange.key, **shown}


@dataclass(frozen=True)
class Inspection:
    """The result of `modelnative inspect`.

    Attributes:
        task: its name.
        options: of the task.
        pairs: of problems in each stage.
        stages: what was found.
        sharing: the units that each of the stages needs, if that was asked for.
    """

    task: str
    options: dict[str, Any]
    pairs: int
    stages: tuple[StageInspection, ...]
    sharing: tuple[StageUnits, ...] = ()

    def stage(self, name: str) -> StageInspection:
        """One stage by its name."""
        return next(stage for stage in self.stages if stage.stage == name)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the same for the same agent and machine."""
        stages = [stage.as_dict() for stage in self.stages]
        found = {"task": self.task, "options": self.options, "pairs": self.pairs, "stages": stages}
        return {**found, "sharing": [units.as_dict() for units in self.sharing]}

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.stages))


def _html(stage: StageInspection) -> str:
    """Carriers by keys: the share of comparable pairs that followed an exchange, and the verdicts."""
    followed = {
        (e.carrier.name, e.key): max(outcome.followed for outcome in e.outcomes) for e in stage.exchanges if e.outcomes
    }
    rows = []
    for verdict in stage.verdicts:
        shares = [followed.get((verdict.carrier, key)) for key in stage.keys]
        rows.append([verdict.carrier, *("·" if share is None else f"{share:.2f}" for share in shares), verdict.word])
    head = ["exchanged before action", *map(str, stage.keys), "verdict"]
    return html_table(f"{stage.stage}: share of pairs that follow an exchange", head, rows, stage.words)


@standard_settings()
@torch.no_grad()
def inspect(
    policy: nn.Module,
    task: AnyTask,
    *,
    stages: Sequence[str] | None = None,
    pairs: int = PAIRS,
    probes: bool = True,
    units: bool = False,
    untrained: nn.Module | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inspection:
    """Look inside an agent.

    Args:
        policy: fulfills the contract of `modelnative.Policy`.
        task: the task that it plays.
        stages: names; all by default.
        pairs: of problems in each stage.
        probes: also ask what is known in advance; with four times as many problems.
        units: also ask which units of the hidden state each stage needs, and whether the other stages need them.
        untrained: the same network with random weights, for a control; by default the weights are put in random places.
        progress: is called with a line before each stage.

    Raises:
        UserError: an unknown stage, a number of pairs out of range, or a stage with too few problems.
    """
    require_number("pairs", pairs, LEAST, MOST_PAIRS, f"{LEAST} to {MOST_PAIRS:,}")
    names = list(task.spec.stages if stages is None else stages)
    indices = [task.spec.stage_index(name) for name in names]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums on every machine; batches are too small for a second thread
    training = policy.training
    policy.eval()
    try:
        found = []
        for index in indices:
            if progress is not None:
                progress(f"{task.spec.stages[index]}: {pairs} pairs")
            found.append(_stage(policy, task, index, pairs, probes, untrained))
        if units and progress is not None:
            progress("units that stages share")
        shared = sharing(policy, task, names, pairs) if units else ()
    finally:
        torch.set_num_threads(threads)
        policy.train(training)
    return Inspection(task.spec.name, task.options(), pairs, tuple(found), shared)


def _stage(
    policy: nn.Module, task: AnyTask, index: int, pairs: int, probes: bool, untrained: nn.Module | None
) -> StageInspection:
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))

    def drawn(stage: int) -> Problems:
        return problems_of(task, stage, pairs).to(device)

    problems, answers = drawn(index), Answers(task)
    episodes = record(policy, task, problems)
    exchanges = exchange_all(policy, task, episodes, answers)
    transfers = []
    if index:
        transfers = transfer_stage(policy, task, episodes, record(policy, task, drawn(index // 2)))
    read = sensitivity(policy, task, problems, episodes.played, answers)
    removals = remove_all(policy, task, problems)
    decoding = None
    if probes:
        decoding = decode(policy, task, index, 4 * pairs, problems, episodes.played, untrained)
    keys, found = [t + 1 for t in episodes.keys], verdicts(exchanges)
    return StageInspection(
        task.spec.stages[index],
        tuple(keys),
        read,
        tuple(exchanges),
        tuple(transfers),
        tuple(removals),
        decoding,
        tuple(found),
        (*in_words(found, keys, read, removals, transfers), *(decoding.in_words() if decoding else ())),
    )
