"""What can be decoded from the hidden state, beyond what the agent could know without it?

A linear probe predicts a later action of the agent from its hidden state. The same probe gets what the agent observes,
now or so far, what a network with random weights makes of the same episodes, and so on: the controls. Only the margin
over the best control says something about what was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelnative.evidence.carriers import LEAST, chosen_keys, hidden_rows
from modelnative.evidence.interventions import ENDED, Moment, Playback, playback, replay
from modelnative.evidence.problem_set import drawn_problems
from modelnative.evidence.ridge import Design, majority, margins, one_hot_columns
from modelnative.policies.contract import PolicyOutput
from modelnative.tasks.contract.task import AnyTask, Problems

PROBLEMS = 2000  # drawn for probes; each different one is used once
KEYS = 5  # actions after which is probed
LEADS = (1, 2, 3, 5)  # how many actions ahead; and the last action
HISTORY = 8  # actions that the control of the history sees
MOST_FEATURES = 1024  # a larger hidden state, such as a cache, is probed by what the heads read, and not edited
CONTROLS = ("observation now", "history", "random weights", "shuffled labels", "stage and time", "history and actions")
Wanted = tuple[int, str, Tensor]  # the action that is predicted, the kind of label, and the labels: int64 [n]
SETTLED = 0.95  # share of the most frequent action from which there is nothing to decode


@dataclass(frozen=True)
class Cell:
    """One probe: the action `target` from the hidden state after action `key`, both counted from 1.

    Attributes:
        label: `token`, or `kind`, in which all numbers are one.
        hidden: the share of problems that the probe is right on, out of fold.
        controls: the same for each control.
        margin, low, high: over the best control, and the 95% bootstrap interval over problems.
    """

    key: int
    target: int
    label: str
    problems: int
    hidden: float
    controls: dict[str, float]
    margin: float
    low: float
    high: float

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        controls = {name: round(value, 4) for name, value in self.controls.items()}
        numbers = {name: round(getattr(self, name), 4) for name in ("hidden", "margin", "low", "high")}
        return {**vars(self), **numbers, "controls": controls}


@dataclass(frozen=True)
class Recorded:
    """Episodes of different problems, with the hidden states after some actions.

    Attributes:
        problems: n different ones.
        played: their episodes.
        hidden: float [n, d] after each of some actions, by its number from 0.
        editable: whether these are the numbers of the policy's state.
    """

    problems: Problems
    played: Playback
    hidden: dict[int, Tensor]
    editable: bool


def different_problems(task: AnyTask, stage: int, n: int) -> Problems:
    """Up to n different problems of a stage, of the train split if it has enough."""
    problems = drawn_problems(task, stage, n, "train", 4)
    _, place = problems.key.unique(return_inverse=True)
    first = torch.full((int(place.max()) + 1,), n).scatter_reduce_(0, place, torch.arange(n), "amin")
    return problems[first.sort().values]


def record_hidden(policy: nn.Module, task: AnyTask, problems: Problems) -> Recorded:
    """Play greedily and keep the hidden states."""
    kept: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}

    def watch(t: int, _: Moment, output: PolicyOutput) -> None:
        rows = hidden_rows(policy, output.state)
        if rows.shape[1] <= MOST_FEATURES:
            kept[t] = rows.clone()
        if output.hidden is not None:
            read[t] = output.hidden[0].clone()

    played = playback(policy, task, problems, watch=watch)
    length = len(played.action)
    editable = len(kept) == length and all(rows.shape[1] > 0 for rows in kept.values())
    features = kept if editable else read
    return Recorded(problems, played, {t: features[t] for t in _probed(length) if t in features}, editable)


def _probed(length: int) -> list[int]:
    """After which actions is probed; there is none to predict after the last."""
    known = [t for t in chosen_keys(length) if t < length - 1]
    if len(known) <= KEYS:
        return known
    return [known[round(i * (len(known) - 1) / (KEYS - 1))] for i in range(KEYS)]


def follow(policy: nn.Module, recorded: Recorded, keys: Sequence[int]) -> dict[int, Tensor]:
    """The hidden states of another network that is given the same episodes."""
    found: dict[int, Tensor] = {}
    memory = policy.initial_state(recorded.problems)  # type: ignore[operator]
    for t in range(max(keys) + 1):
        output: PolicyOutput = policy(recorded.played.token[t][None], recorded.played.feedback[t][None], memory)
        memory = output.state
        if t in keys:
            rows = hidden_rows(policy, memory) if recorded.editable or output.hidden is None else output.hidden[0]
            found[t] = rows.clone()
    return found


def labels_of(task: AnyTask, played: Playback) -> dict[str, Tensor]:
    """The actions as labels, int64 [T, n] each: `token`; and `kind`, where that is another label."""
    size = len(task.spec.vocabulary)
    token = torch.where(played.action == ENDED, size, played.action)
    kinds = torch.arange(size + 1)
    numbers = [i for i, name in enumerate(task.spec.vocabulary) if name.isdecimal()]
    if len(numbers) < 2:
        return {"token": token}
    kinds[numbers] = numbers[0]
    return {"token": token, "kind": kinds.to(token.device)[token]}


def probe(task: AnyTask, recorded: Recorded, untrained: nn.Module | None) -> list[Cell]:
    """Probe the hidden states for later actions.

    Args:
        task: the task.
        recorded: episodes of the agent.
        untrained: the same network with random weights; None if there is none, as for one without weights.
    """
    n, played, keys = len(recorded.problems), recorded.played, sorted(recorded.hidden)
    if n < LEAST or not keys:
        return []
    random = follow(untrained, recorded, keys) if untrained is not None else {}
    classes, length = len(task.spec.vocabulary) + 1, len(played.action)
    found: list[Cell] = []
    for t in keys:
        targets = sorted({*(t + lead for lead in LEADS if t + lead < length), length - 1})
        columns = labels_of(task, played)
        wanted = [
            (m, name, column[m])
            for name, column in columns.items()
            for m in targets
            if float(column[m].bincount(minlength=classes).max()) <= SETTLED * n
            and (name == "token" or not torch.equal(column[m], columns["token"][m]))
        ]
        if wanted:
            found += _cells(task, recorded, t, wanted, random.get(t), classes)
    return found


def _cells(
    task: AnyTask,
    recorded: Recorded,
    t: int,
    wanted: Sequence[Wanted],
    random: Tensor | None,
    classes: int,
) -> list[Cell]:
    labels = torch.stack([column for _, _, column in wanted], 1)
    n = len(labels)
    shuffled = labels[torch.randperm(n, generator=torch.Generator().manual_seed(5)).to(labels.device)]
    hidden = Design.of(recorded.hidden[t])
    right = hidden.correct(torch.cat([labels, shuffled], 1), classes).split(len(wanted), 1)
    observed, now, before, own = _observations(task, recorded, t, max(m for m, _, _ in wanted))
    controls = {
        "observation now": observed.columns(now).correct(labels, classes),
        "history": observed.columns(before).correct(labels, classes),
        "shuffled labels": right[1],
        "stage and time": majority(labels, classes),
        "history and actions": _with_actions(observed, before, own, t, wanted, classes),
    }
    if random is not None:
        controls["random weights"] = Design.of(random).correct(labels, classes)
    margin, low, high = (x.tolist() for x in margins(right[0], torch.stack(list(controls.values()))))
    share = {name: column.double().mean(0).tolist() for name, column in {"": right[0], **controls}.items()}
    return [
        Cell(
            t + 1,
            m + 1,
            name,
            n,
            share[""][i],
            {control: share[control][i] for control in CONTROLS if control in share},
            margin[i],
            low[i],
            high[i],
        )
        for i, (m, name, _) in enumerate(wanted)
    ]


def _with_actions(
    observed: Design,
    before: Tensor,
    own: dict[int, Tensor],
    t: int,
    wanted: Sequence[Wanted],
    classes: int,
) -> Tensor:
    """The history, and the agent's own actions from this one to that before the target."""
    found = torch.zeros(len(observed.x), len(wanted), dtype=torch.bool, device=observed.x.device)
    for m in sorted({m for m, _, _ in wanted}):
        places = [i for i, (target, _, _) in enumerate(wanted) if target == m]
        columns = torch.cat([before, *(own[u] for u in range(t, m) if u in own)])
        labels = torch.stack([wanted[i][2] for i in places], 1)
        found[:, places] = observed.columns(columns).correct(labels, classes)
    return found


def _observations(
    task: AnyTask, recorded: Recorded, t: int, last: int
) -> tuple[Design, Tensor, Tensor, dict[int, Tensor]]:
    """All that is observed, as columns of 0 and 1 that vary; which are known now, which so far, and the own actions."""
    size, played = len(task.spec.vocabulary), recorded.played
    parts = [("now", one_hot_columns(recorded.problems.context, size))]
    for u in range(max(0, t - HISTORY + 1), t + 1):
        seen = torch.cat([played.token[u][:, None], played.feedback[u]], 1)
        parts.append(("now" if u == t else "before", one_hot_columns(seen, size)))
    actions = torch.where(played.action == ENDED, size, played.action)
    parts += [(str(u), one_hot_columns(actions[u][:, None], size + 1)) for u in range(t, min(last, t + HISTORY))]
    columns = torch.cat([part for _, part in parts], 1)
    owner = [name for name, part in parts for _ in range(part.shape[1])]
    varies = (columns.std(0, correction=0) > 0).nonzero()[:, 0]
    owner = [owner[i] for i in varies.tolist()]

    def of(*names: str) -> Tensor:
        return torch.tensor([i for i, name in enumerate(owner) if name in names], dtype=torch.int64)

    own = {u: of(str(u)) for u in range(t, min(last, t + HISTORY))}
    return Design.of(columns[:, varies]), of("now"), of("now", "before"), own


def has_one_skeleton(task: AnyTask, problems: Problems) -> bool | None:
    """Whether each action of the oracle is the same for all problems, or always copied from the same place.

    A place is one of the context, or of the feedback before this action or an earlier one. None without an oracle.
    """
    if not task.has_oracle:
        return None
    program = task.oracle(problems)
    state = task.begin(problems)
    seen = [problems.context]
    for action in program.T:
        ended = state.done
        seen.append(task.feedback(state))
        places = torch.cat(seen, 1)
        if bool(ended.all()):
            break
        copies = ((places == action[:, None]) | ended[:, None]).all(0).any() if places.shape[1] else False
        same = bool((action == action[:1]).all())
        if not same and not (bool(copies) and not bool(ended.any())):
            return False
        state = replay(task, state, action[None])[0]
    return True
