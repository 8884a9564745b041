"""One episode with something removed or exchanged, beside the same episode undisturbed.

`inspect` measures what carries what over hundreds of pairs of problems; here a person tries it on one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from modelnative.errors import UserError, choose, require
from modelnative.evidence.carriers import (
    HIDDEN,
    MODE,
    Carrier,
    carriers,
    changing_fields,
    hidden_rows,
    problems_of,
    register_groups,
    with_hidden_rows,
    zeroed,
)
from modelnative.evidence.explain import Explanation, explain
from modelnative.evidence.interventions import Hook, Moment, begin, get_field, moments, playback, replay
from modelnative.evidence.notebook import html_table
from modelnative.evidence.record import Record
from modelnative.policies.contract import Policy
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.task import AnyTask, Problems

ZERO, MEAN, DONOR, BLANK, START = "zero", "mean", "donor", "blank", "start"
AVERAGED = 256  # problems of which the mean is taken
EVERY = 0  # in place of the number of an action: before all of them


@dataclass(frozen=True)
class Switch:
    """What is replaced in an episode.

    Attributes:
        carrier: the name of what is replaced, see `choices`.
        source: by what: `zero`; `mean`, over problems of the stage; `donor`, what another problem's episode has there;
            `blank`, nothing observed; `start`, what the registers hold before the first action.
        key: before which action, from 1; `EVERY` for all.
    """

    carrier: str
    source: str
    key: int


@dataclass(frozen=True)
class SwitchedEpisode(Record):
    """An episode with a switch on.

    Attributes:
        switch: what was replaced.
        own: the episode undisturbed.
        changed: the episode with the switch on.
        donor: the other problem's episode, undisturbed; None without a donor.
        predicted: the answer to expect where the agent follows what was exchanged: of the donor's remaining actions on
            its own registers, or of its own on the exchanged ones; None without a donor or a single action.
        departure: the index of the first token that is not that of `own`; None if all are.
    """

    switch: Switch
    own: Explanation
    changed: Explanation
    donor: Explanation | None
    predicted: str | None
    departure: int | None

    def words(self) -> str:
        """What became of the episode, in two or three sentences."""
        changed = _answer(self.changed) != _answer(self.own)
        answers = [f"Undisturbed it answers {_answer(self.own)}, now {_answer(self.changed)}."]
        if self.donor is not None:
            answers.append(f"The donor answers {_answer(self.donor)}.")
        if self.departure is None:
            same = "It writes the same tokens: here it does not look at what was replaced"
            tools = ", and the answer differs because the tools hold something else" if changed else ""
            return " ".join([*answers, f"{same}{tools}."])
        answers.append(f"Token {self.departure + 1} is the first that differs.")
        if self.donor is not None and self.switch.key:
            tail = slice(self.switch.key - 1, None)
            if [row.token for row in self.changed.rows[tail]] == [row.token for row in self.donor.rows[tail]]:
                answers.append("From the exchange on it writes what the donor writes.")
            elif self.predicted is not None and self.predicted == _answer(self.changed) != _answer(self.own):
                answers.append("That is the answer to expect if it follows what was exchanged.")
        return " ".join(answers)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the episodes as `Explanation.as_dict`."""
        return {**super().as_dict(), "words": self.words()}

    def _repr_html_(self) -> str:
        names = ["undisturbed", "changed", *(["donor"] if self.donor else [])]
        episodes = [self.own, self.changed, *([self.donor] if self.donor else [])]
        length = max(len(episode.rows) for episode in episodes)
        rows = []
        for name, episode in zip(names, episodes, strict=True):
            tokens = [row.token for row in episode.rows]
            rows.append([name, *tokens, *[""] * (length - len(tokens)), _answer(episode)])
        keys = [f"⇄ {t}" if self.switch.key in (EVERY, t) else str(t) for t in range(1, length + 1)]
        before = "every action" if self.switch.key == EVERY else f"action {self.switch.key}"
        title = f"{self.own.stage}: {self.own.problem}; {self.switch.carrier} before {before}: {self.switch.source}"
        return html_table(title, ["", *keys, "answer"], rows, [self.words()])


def choices(policy: Policy, task: AnyTask, problems: Problems) -> list[tuple[str, tuple[str, ...]]]:
    """The carriers of an agent on one problem, each with the sources that it can be replaced from."""
    return [(carrier.name, _sources(policy, carrier)) for carrier in _carriers(policy, task, problems)]


@standard_settings()
@torch.no_grad()
def switched(
    policy: Policy, task: AnyTask, problems: Problems, switch: Switch, donor: Problems | None = None
) -> SwitchedEpisode:
    """Play one problem greedily, undisturbed and with a switch on.

    Args:
        policy: the policy that plays.
        task: the task that it plays.
        problems: a batch of one problem.
        switch: what is replaced.
        donor: a batch of one problem of the same stage; needed by the source `donor` alone.

    Raises:
        UserError: the policy and the task have no such carrier, or it no such source; the action is not one of both
            episodes; or the registers of the two are not to be compared there, such as a filled one and an empty one.
    """
    known = {carrier.name: carrier for carrier in _carriers(policy, task, problems)}
    carrier = known[choose("carrier", switch.carrier, list(known))]
    choose("source", switch.source, _sources(policy, carrier))
    require(switch.source != DONOR or donor is not None, "donor", None, "a problem of the same stage")
    own = explain(policy, task, problems)
    other = explain(policy, task, donor) if donor is not None and switch.source == DONOR else None
    lengths = [len(own.rows)] + ([len(other.rows)] if other is not None else [])
    require(0 <= switch.key <= min(lengths), "key", switch.key, f"0 to {min(lengths)}, the actions of the episodes")
    source = _Source(policy, task, problems, donor if other is not None else None, switch, carrier)
    changed = explain(policy, task, problems, hook=source.hook)
    if other is not None and "context" in carrier.fields:
        changed = dataclasses.replace(changed, context=_both(own.context, other.context))
    tokens = zip_longest(*([row.token for row in episode.rows] for episode in (own, changed)))
    departure = next((i for i, (before, now) in enumerate(tokens) if before != now), None)
    predicted = None
    if other is not None and switch.key:
        tail = own if carrier.kind == "tools" else other
        predicted = _predicted(task, problems, source.replaced, tail, switch.key)
    return SwitchedEpisode(switch, own, changed, other, predicted, departure)


class _Source:
    """Replaces a carrier, before one action or before all."""

    def __init__(
        self,
        policy: Policy,
        task: AnyTask,
        problems: Problems,
        donor: Problems | None,
        switch: Switch,
        carrier: Carrier,
    ) -> None:
        self.policy, self.task, self.switch, self.carrier = policy, task, switch, carrier
        self.replaced: Moment | None = None
        self.start = begin(policy, task, problems)
        self.others: Iterator[Moment] | None = None
        if donor is not None:
            self.others = moments(policy, task, donor)
        elif switch.source == MEAN:
            self.others = moments(policy, task, problems_of(task, int(problems.stage[0]), AVERAGED))

    @property
    def hook(self) -> Hook:
        def replace(t: int, now: Moment) -> Moment:
            other = None if self.others is None else next(self.others)
            if self.switch.key not in (EVERY, t + 1):
                return now
            self.replaced = self._made(now, other)
            return self.replaced

        return replace

    def _made(self, now: Moment, other: Moment | None) -> Moment:
        source, spec = self.switch.source, self.task.spec
        if source == ZERO:
            return zeroed(self.policy, now)
        if source == BLANK:
            if "token" in self.carrier.fields:
                return dataclasses.replace(now, token=torch.full_like(now.token, spec.start))
            return dataclasses.replace(now, feedback=torch.full_like(now.feedback, spec.end))
        if source == START:
            return self._exchanged(now, self.start)
        assert other is not None, "a donor, or many"
        if source == MEAN:
            rows = hidden_rows(self.policy, other.memory).mean(0, keepdim=True)
            return with_hidden_rows(self.policy, now, rows)
        return self._exchanged(now, other)

    def _exchanged(self, now: Moment, other: Moment) -> Moment:
        if self.carrier.kind == "tools":
            for path in register_groups(self.task, ()).get(MODE, ()):
                same = torch.equal(get_field(now.state, path), get_field(other.state, path))
                if not same and path not in self.carrier.fields:
                    raise UserError(
                        f"carrier: {self.carrier.name!r} cannot be exchanged there, because other registers are filled "
                        "in the other episode; exchange all registers, or before another action"
                    )
        return self.carrier.exchange(now, other.rows(torch.zeros(1, dtype=torch.int64, device=other.token.device)))


def _carriers(policy: Policy, task: AnyTask, problems: Problems) -> list[Carrier]:
    final = playback(policy, task, problems).final
    return carriers(policy, task, changing_fields(task, problems, final))


def _sources(policy: Policy, carrier: Carrier) -> tuple[str, ...]:
    if carrier.kind == "policy":
        return (DONOR, ZERO, MEAN) if carrier.name == HIDDEN else (DONOR,)
    return (DONOR, START) if carrier.kind == "tools" else (DONOR, BLANK)


def _predicted(task: AnyTask, problems: Problems, replaced: Moment | None, tail: Explanation, key: int) -> str | None:
    """The answer that the remaining actions of an episode give, from the state after the exchange."""
    if replaced is None:
        return None
    tokens = [task.spec.vocabulary.index(row.token) for row in tail.rows[key - 1 :]]
    final, _ = replay(task, replaced.state, torch.tensor(tokens, device=problems.stage.device)[:, None])
    answer = task.records(problems, final)[0].get("answer")
    return None if answer is None else str(answer)


def _both(own: tuple[tuple[str, str], ...], other: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The context of an episode that reads its own problem at first and another one later."""
    pairs = zip(own, other, strict=False)
    return tuple((name, token if token == new else f"{token} → {new}") for (name, token), (_, new) in pairs)


def _answer(explanation: Explanation) -> str:
    answer = explanation.record.get("answer")
    return "nothing" if answer is None else str(answer)
