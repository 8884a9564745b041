"""Is what can be decoded also used? The probed subspace is removed from the hidden state, or moved to another label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.evidence.carriers import LEAST, hidden_rows, with_hidden_rows
from modelnative.evidence.interventions import Moment, Playback, playback
from modelnative.evidence.probes import Cell, Recorded, labels_of
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import Share, share
from modelnative.tasks.contract.task import AnyTask, Problems

DRAWS = 5  # random subspaces and directions
TINY = 1e-6  # variances below this share of the largest are none


@dataclass(frozen=True)
class Use(Record):
    """What removing and moving a label in the hidden state does; all but `fitted` on other problems than it.

    Attributes:
        key, target, label: as of the `Cell`.
        rank: dimensions of the subspace.
        whole, removed: success as it is, and with the subspace removed once, after action `key`.
        random: success with a random subspace of equal rank removed (as in Elazar et al., 2021), `DRAWS` times.
        random_in_span: the same, with the variance of the removed one; where the hidden state has few dimensions, these
            are most of them.
        kept: the action `target` is the same as before; of those that get there, with the subspace removed.
        kept_random: the same for the random subspaces.
        steered: moved by the difference of class means, the action `target` is of another, chosen label.
        steered_random: moved as far in a random direction.
    """

    key: int
    target: int
    label: str
    rank: int
    whole: Share
    removed: Share
    random: tuple[Share, ...]
    random_in_span: tuple[Share, ...]
    kept: Share
    kept_random: tuple[Share, ...]
    steered: Share
    steered_random: Share

    @property
    def cost(self) -> float:
        """How much less success than the median of the random removals."""
        return median_rate(self.random) - (self.removed.rate or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**super().as_dict(), "cost": round(self.cost, 6)}


def median_rate(shares: tuple[Share, ...]) -> float:
    """The median of the rates; 0 without any."""
    rates = sorted(part.rate for part in shares if part.rate is not None)
    return rates[len(rates) // 2] if rates else 0.0


@dataclass(frozen=True)
class Eraser:
    """Removes what is linearly related to a label, and as little else as possible (LEACE, Belrose et al., 2023).

    Attributes:
        mean: float64 [d].
        whiten, color: float64 [d, d], to unit variances and back.
        basis: float64 [d, rank], of the whitened subspace.
    """

    mean: Tensor
    whiten: Tensor
    color: Tensor
    basis: Tensor

    @classmethod
    def of(cls, rows: Tensor, labels: Tensor, classes: int) -> Eraser:
        """Fitted to float [n, d] and their labels, int64 [n]."""
        x = rows.double()
        mean = x.mean(0)
        x = x - mean
        variance, axes = torch.linalg.eigh(x.T @ x / len(x))
        there = variance > TINY * variance.max()
        scale = torch.where(there, variance, 1.0).sqrt()
        whiten = (axes * torch.where(there, 1 / scale, 0.0)) @ axes.T
        color = (axes * torch.where(there, scale, 0.0)) @ axes.T
        one_hot = torch.nn.functional.one_hot(labels, classes).double()
        related = whiten @ (x.T @ (one_hot - one_hot.mean(0)) / len(x))
        u, s, _ = torch.linalg.svd(related, full_matrices=False)
        return cls(mean, whiten, color, u[:, s > 1e-3 * s.max().clamp_min(1e-12)])

    def randomized(self, generator: torch.Generator, *, in_span: bool) -> Eraser:
        """A random subspace of equal rank: of all dimensions, or of those that vary, by their variance."""
        drawn = torch.randn(self.basis.shape, generator=generator, dtype=torch.float64).to(self.basis.device)
        if in_span:
            return Eraser(self.mean, self.whiten, self.color, torch.linalg.qr(self.whiten @ self.color @ drawn)[0])
        same = torch.eye(len(drawn), dtype=torch.float64, device=drawn.device)
        return Eraser(self.mean, same, same, torch.linalg.qr(drawn)[0])

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float [n, d] without the subspace."""
        x = rows.double()
        inside = ((x - self.mean) @ self.whiten) @ self.basis @ self.basis.T @ self.color
        return (x - inside).to(rows.dtype)


def measure_use(
    policy: nn.Module, task: AnyTask, cell: Cell, recorded: Recorded, problems: Problems, played: Playback
) -> Use:
    """Remove and move the label of a cell.

    Args:
        policy: the policy.
        task: the task.
        cell: what was decoded from which hidden state.
        recorded: episodes to fit the subspace and the class means to.
        problems: others, on which is measured.
        played: their undisturbed episodes.
    """
    t, m = cell.key - 1, cell.target - 1
    classes = len(task.spec.vocabulary) + 1
    rows, labels = recorded.hidden[t], labels_of(task, recorded.played)[cell.label][m]
    eraser = Eraser.of(rows, labels, classes)
    undisturbed = _label(task, played, cell, len(problems))

    def play(edit: Eraser | None, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Success, and the labels of the action `target`."""

        def hook(now_t: int, now: Moment) -> Moment:
            if now_t != t + 1:
                return now
            hidden = hidden_rows(policy, now.memory)
            hidden = edit(hidden) if edit is not None else hidden
            hidden = hidden + shift.to(hidden.dtype) if shift is not None else hidden
            return with_hidden_rows(policy, now, hidden)

        after = playback(policy, task, problems, hook)
        return after.success, _label(task, after, cell, len(problems))

    everything = torch.ones_like(played.success)
    removed, label = play(eraser)
    generators = [torch.Generator().manual_seed(20 + draw) for draw in range(DRAWS)]
    random = [play(eraser.randomized(generator, in_span=False)) for generator in generators]
    spanned = [play(eraser.randomized(generator, in_span=True)) for generator in generators]
    target, shift = _shifts(rows, labels, undisturbed, classes)
    reached = target >= 0
    direction = torch.randn(shift.shape, generator=torch.Generator().manual_seed(30), dtype=torch.float64).to(shift)
    direction = direction * (shift.norm(dim=1) / direction.norm(dim=1))[:, None]
    return Use(
        cell.key,
        cell.target,
        cell.label,
        eraser.basis.shape[1],
        share(played.success, everything),
        share(removed, everything),
        tuple(share(success, everything) for success, _ in random),
        tuple(share(success, everything) for success, _ in spanned),
        share(label == undisturbed, everything),
        tuple(share(other == undisturbed, everything) for _, other in random),
        share(play(None, shift)[1] == target, reached),
        share(play(None, direction)[1] == target, reached),
    )


def _label(task: AnyTask, played: Playback, cell: Cell, n: int) -> Tensor:
    """The label of the action `target` of n episodes; that of the end where they are shorter."""
    if cell.target > len(played.action):
        return torch.full((n,), len(task.spec.vocabulary), device=played.success.device)
    return labels_of(task, played)[cell.label][cell.target - 1]


def _shifts(rows: Tensor, labels: Tensor, own: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """For each episode another label to reach, −1 for none, and the difference of the class means: float64 [n, d]."""
    counts = labels.bincount(minlength=classes)
    usable = (counts >= min(LEAST, int(counts.max()))).nonzero()[:, 0]
    means = torch.stack([rows[labels == c].double().mean(0) for c in usable.tolist()])
    place = torch.full((classes,), -1, device=labels.device)
    place[usable] = torch.arange(len(usable), device=labels.device)
    here = place[own]
    step = torch.randint(1, max(2, len(usable)), own.shape, generator=torch.Generator().manual_seed(6)).to(own.device)
    there = (here + step) % len(usable)
    valid = (here >= 0) & (there != here)
    shift = torch.where(valid[:, None], means[there] - means[here.clamp_min(0)], 0.0)
    return torch.where(valid, usable[there], -1), shift
