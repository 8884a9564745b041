"""Linear probes: ridge classifiers in closed form, all folds and labels at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 5
PENALTIES = (1e-3, 3e-2, 1.0)  # times the number of rows; of standardized features


@dataclass(frozen=True)
class Design:
    """Standardized features, and for each fold the products that the normal equations need.

    Attributes:
        x: float64 [n, d + 1], the last column is 1.
        fold: int64 [n], which rows are predicted together.
        grams: float64 [FOLDS, d + 1, d + 1], of the rows of each fold.
    """

    x: Tensor
    fold: Tensor
    grams: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Design:
        """Of float [n, d]. Columns that do not vary are kept as 0. Row i belongs to fold i modulo `FOLDS`."""
        x = features.double()
        x = (x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-9)
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        fold = torch.arange(len(x), device=x.device) % FOLDS
        grams = torch.stack([part.T @ part for part in (x[fold == f] for f in range(FOLDS))])
        return cls(x, fold, grams)

    def columns(self, chosen: Tensor) -> Design:
        """Some of the columns, int64 [c]; the column of 1 is always kept."""
        chosen = torch.cat([chosen, chosen.new_tensor([self.x.shape[1] - 1])])
        return Design(self.x[:, chosen], self.fold, self.grams[:, chosen][:, :, chosen])

    def correct(self, labels: Tensor, classes: int) -> Tensor:
        """Whether each row's labels are predicted by a classifier of the other folds.

        Args:
            labels: int64 [n, L], below `classes`; L labels of each row.
            classes: their number.

        Returns:
            bool [n, L]; for each label with the penalty that does best.
        """
        n, count = labels.shape
        used, labels = labels.unique(return_inverse=True)  # fewer columns
        classes = min(classes, len(used))
        y = torch.nn.functional.one_hot(labels, classes).double().flatten(1)
        products = torch.stack([self.x[self.fold == f].T @ y[self.fold == f] for f in range(FOLDS)])
        gram, product = self.grams.sum(0), products.sum(0)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        eye[-1, -1] = 1e-9
        right, x = [], self.x.float()
        for penalty in PENALTIES:
            found = torch.zeros_like(labels, dtype=torch.bool)
            for f in range(FOLDS):
                rows = self.fold == f
                factor = torch.linalg.cholesky(gram - self.grams[f] + penalty * n * eye)
                weights = torch.cholesky_solve(product - products[f], factor)
                scores = (x[rows] @ weights.float()).view(-1, count, classes)
                found[rows] = scores.argmax(2) == labels[rows]
            right.append(found)
        stacked = torch.stack(right)
        best = stacked.double().mean(1).argmax(0)
        return stacked.gather(0, best.expand(1, n, count))[0]


def majority(labels: Tensor, classes: int) -> Tensor:
    """As `Design.correct`, of the most frequent label of the other folds: int64 [n, L] -> bool [n, L]."""
    fold = torch.arange(len(labels), device=labels.device) % FOLDS
    found = torch.zeros_like(labels, dtype=torch.bool)
    for f in range(FOLDS):
        counts = torch.nn.functional.one_hot(labels[fold != f], classes).sum(0)
        found[fold == f] = labels[fold == f] == counts.argmax(1)
    return found


def one_hot_columns(tokens: Tensor, classes: int) -> Tensor:
    """Tokens int64 [n, places] -> float [n, places * classes]."""
    return torch.nn.functional.one_hot(tokens, classes).flatten(1).float()


def margins(correct: Tensor, controls: Tensor, resamples: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    """How much more is right than by the best control, with the 95% bootstrap interval over problems.

    Args:
        correct: bool [n, L].
        controls: bool [C, n, L].
        resamples: of the n problems.

    Returns:
        The margin, its lower and its upper end: float64 [L] each. The best control is chosen in each resample.
    """
    n = len(correct)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    weights = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double()) / n
    every = torch.cat([correct[None], controls]).double().cpu()
    rates = torch.einsum("bn,cnl->bcl", weights, every)
    spread = rates[:, 0] - rates[:, 1:].amax(1)
    low, high = (spread.quantile(q, 0) for q in (0.025, 0.975))
    mean = every.mean(1)
    return mean[0] - mean[1:].amax(0), low, high
