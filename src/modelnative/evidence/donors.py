"""Exchanges between pairs of problems: who carries what the agent does next?

Two episodes of one stage are stopped before the same action. One thing, such as the hidden state, is taken from the
other episode, the donor, and the episode goes on. Then the outcome is the donor's, the agent's own, or what a symbolic
run predicts: the donor's remaining actions on the agent's own registers where a part of the agent was exchanged, and
its own remaining actions on the exchanged registers where registers were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modelnative.evidence.carriers import (
    HIDDEN,
    LEAST,
    MODE,
    WHOLE_POLICY,
    WHOLE_TOOLS,
    Carrier,
    Episodes,
    carriers,
    donors_of,
    hidden_rows,
    noisy,
    register_groups,
    with_hidden_rows,
)
from modelnative.evidence.interventions import ENDED, Answers, Moment, get_field, playback, replay
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import Share, share, wilson
from modelnative.tasks.contract.task import AnyTask


@dataclass(frozen=True)
class Outcome(Record):
    """What became of the comparable pairs: those whose donor's outcome differs from the own one.

    Attributes:
        comparable: of all pairs.
        donor, own: of the comparable ones, those with the donor's outcome, and with the own one.
        predicted: of the pairs whose predicted outcome differs from the own one, those with the predicted one.
        noise: of the comparable ones, where noise of the same size kept the own outcome; None if there was no noise.
        noise_donor: where it led to the donor's, by chance.
    """

    comparable: Share
    donor: Share
    own: Share
    predicted: Share
    noise: Share | None = None
    noise_donor: Share | None = None

    @property
    def tested(self) -> bool:
        """Whether there were enough pairs."""
        return bool(self._shares)

    @property
    def followed(self) -> float:
        """The share that followed what was exchanged."""
        return max(part.hits / part.trials for part in self._shares)

    @property
    def surely_followed(self) -> float:
        """The lower end of its interval."""
        return max(wilson(part.hits, part.trials)[0] for part in self._shares)

    @property
    def _shares(self) -> list[Share]:
        return [part for part in (self.donor, self.predicted) if part.trials >= LEAST]


@dataclass(frozen=True)
class Exchange:
    """One carrier, exchanged before one action.

    Attributes:
        carrier: which.
        key: the number of the action, from 1.
        answer: the outcome in answers.
        next_token: in the next action; None for registers, which act on later ones.
        program: in all remaining actions; None for registers.
        same_procedure: in answers, of pairs whose remaining actions are the same but for tokens of the context (see
            `same_procedure`), so that only operands differ; None for registers.
    """

    carrier: Carrier
    key: int
    answer: Outcome
    next_token: Outcome | None
    program: Outcome | None
    same_procedure: Outcome | None

    @property
    def outcomes(self) -> list[Outcome]:
        """Those that had enough pairs, of answers and next actions."""
        return [outcome for outcome in (self.answer, self.next_token) if outcome is not None and outcome.tested]


class _End(NamedTuple):
    """What became of n episodes: the actions from one on, int64 [T, n], and the answers, int64 [n]."""

    tail: Tensor
    answer: Tensor


@dataclass
class _Pairs:
    """The pairs before one action, what their own and their donors' episodes came to, and which are comparable."""

    own: Moment
    donor: Moment
    own_end: _End
    donor_end: _End
    equal: Tensor
    alike: Tensor


def exchange_all(policy: nn.Module, task: AnyTask, episodes: Episodes, answers: Answers) -> list[Exchange]:
    """Exchange every carrier before every action of `episodes.keys`."""
    problems, order = episodes.problems, donors_of(episodes.problems)
    generator = torch.Generator().manual_seed(2)
    found = []
    own_answer = answers.of(problems, episodes.played.final)
    mode = register_groups(task, episodes.changing).get(MODE, ())
    for t in episodes.keys:
        own = episodes.moments[t]
        donor = own.rows(order)
        equal = ~own.state.done & ~donor.state.done & (problems.key != problems.key[order])
        for path in mode:
            values = get_field(own.state, path)
            equal = equal & (values == values[order])
        tail = episodes.played.action[t:]
        alike = same_procedure(problems.context, problems.context[order], tail, tail[:, order])
        ends = _End(tail, own_answer), _End(tail[:, order], own_answer[order])
        pairs = _Pairs(own, donor, *ends, equal, alike)
        for carrier in _worth(carriers(policy, task, episodes.changing), own, donor):
            found.append(_exchange(policy, task, episodes, answers, carrier, t, pairs, generator))
    return found


def _worth(found: list[Carrier], own: Moment, donor: Moment) -> list[Carrier]:
    """The carriers that differ, without those whose one part that differs is a carrier of its own."""
    different = [carrier for carrier in found if carrier.differs(own, donor)]
    single = {carrier.fields for carrier in different if carrier.name not in (WHOLE_POLICY, WHOLE_TOOLS)}

    def is_whole(carrier: Carrier) -> bool:
        parts = [fields for fields in single if set(fields) <= set(carrier.fields)]
        return len(parts) > 1 or carrier.fields in single

    return [carrier for carrier in different if carrier.name not in (WHOLE_POLICY, WHOLE_TOOLS) or is_whole(carrier)]


def _exchange(
    policy: nn.Module,
    task: AnyTask,
    episodes: Episodes,
    answers: Answers,
    carrier: Carrier,
    t: int,
    pairs: _Pairs,
    generator: torch.Generator,
) -> Exchange:
    problems = episodes.problems

    def played(start: Moment) -> _End:
        after = playback(policy, task, problems, start=start, first=t)
        return _End(_same_length(after.action, pairs.own_end.tail), answers.of(problems, after.final))

    start = carrier.exchange(pairs.own, pairs.donor)
    got, tail = played(start), (pairs.own_end if carrier.kind == "tools" else pairs.donor_end).tail
    predicted = _End(tail, answers.of(problems, replay(task, start.state, tail)[0]))
    noise = None
    if carrier.name == HIDDEN:
        rows = noisy(hidden_rows(policy, pairs.own.memory), hidden_rows(policy, pairs.donor.memory), generator)
        noise = played(with_hidden_rows(policy, pairs.own, rows))

    def outcome(part: Callable[[_End], Tensor], equal: Tensor = pairs.equal) -> Outcome:
        """Of a part of the ends: int64 [k, n]."""

        def same(a: _End, b: _End) -> Tensor:
            return (part(a) == part(b)).all(0)

        own, donor = pairs.own_end, pairs.donor_end
        among = equal & ~same(own, donor)
        return Outcome(
            share(among, torch.ones_like(among)),
            share(same(got, donor), among),
            share(same(got, own), among),
            share(same(got, predicted), equal & ~same(own, predicted)),
            None if noise is None else share(same(noise, own), among),
            None if noise is None else share(same(noise, donor), among),
        )

    answered = outcome(lambda end: end.answer[None])
    if carrier.kind == "tools":
        return Exchange(carrier, t + 1, answered, None, None, None)
    next_token, program = outcome(lambda end: end.tail[:1]), outcome(lambda end: end.tail)
    alike = outcome(lambda end: end.answer[None], pairs.equal & pairs.alike)
    return Exchange(carrier, t + 1, answered, next_token, program, alike)


def same_procedure(context: Tensor, other_context: Tensor, actions: Tensor, other_actions: Tensor) -> Tensor:
    """Whether two episodes do the same with different operands: bool [n].

    Each action is the same token in both, or the token at the same place of the context in both.

    Args:
        context, other_context: int64 [n, C].
        actions, other_actions: int64 [T, n].
    """
    copied = (context == actions[:, :, None]) & (other_context == other_actions[:, :, None])
    return ((actions == other_actions) | copied.any(-1)).all(0)


def _same_length(actions: Tensor, like: Tensor) -> Tensor:
    """Actions int64 [T, n] as long as others, cut or padded; the last row says whether more was cut off."""
    missing = len(like) - len(actions)
    if missing >= 0:
        return torch.cat([actions, actions.new_full((missing, actions.shape[1]), ENDED)])
    longer = (actions[len(like) :] != ENDED).any(0)
    cut = actions[: len(like)].clone()
    cut[-1] = torch.where(longer, ENDED - 1, cut[-1])  # no episode's action: a longer tail is not the same
    return cut


@dataclass(frozen=True)
class StageTransfer(Record):
    """A part of the policy's state before the first action is that of another stage's problem.

    Attributes:
        carrier: which.
        donor_stage: the name of that stage.
        donor, own: episodes that are as long as the donor's, and as the agent's own; of those where these differ.
    """

    carrier: str
    donor_stage: str
    donor: Share
    own: Share


def transfer_stage(policy: nn.Module, task: AnyTask, episodes: Episodes, other: Episodes) -> list[StageTransfer]:
    """Exchange each part of the policy's state between stages, before the first action."""
    own, donor = episodes.moments[0], other.moments[0]
    own_length, donor_length = episodes.played.length, other.played.length
    among = own_length != donor_length
    name = task.spec.stages[int(other.problems.stage[0])]
    found = []
    for carrier in carriers(policy, task, episodes.changing):
        if carrier.kind == "policy":
            length = playback(policy, task, episodes.problems, start=carrier.exchange(own, donor)).length
            as_donor, as_own = share(length == donor_length, among), share(length == own_length, among)
            found.append(StageTransfer(carrier.name, name, as_donor, as_own))
    return found
