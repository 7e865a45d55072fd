"""Predictions for groups that were not fitted, and how good they are, with intervals over groups.

Runs of one cell of a sweep are alike. So a fold takes whole cells, and intervals resample cells.

Each fold's model has seen other labels: where many of a fold's runs hit, few of those it was fitted to did. A
prediction from noise then lies on the wrong side across folds, and its AUC below 1/2. Hence an AUC counts only pairs
that one model has ranked.

An interval takes the fitted models as they are: it does not know that other cells would have given others. From noise
it leaves out 1/2 in about 10 % of cases; where that matters permute the labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.statistics import Interval, percentiles, resamples

N_FOLDS = 5

Draws = Float[np.ndarray, "draw group"]


def folds(
    groups: Int[np.ndarray, " run"],
    hits: Bool[np.ndarray, " run"] | None = None,
    *,
    n_folds: int = N_FOLDS,
    seed: int = 0,
) -> Int[np.ndarray, " run"]:
    """The fold of each run: whole groups, at most one fold per group, and the hits spread as evenly as groups let."""
    from sklearn.model_selection import StratifiedGroupKFold

    target = np.zeros(len(groups), dtype=int) if hits is None else hits.astype(int)
    n = min(n_folds, len(set(groups.tolist())), int(np.bincount(target).min()))
    fold = np.zeros(len(groups), dtype=int)
    split = StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(target, target, groups)
    for number, (_, held_out) in enumerate(split):
        fold[held_out] = number
    return fold


def fitted(
    make: Callable[[], Any], X: Float[np.ndarray, "run feature"], y: np.ndarray, fold: Int[np.ndarray, " run"]
) -> list[Any]:
    """For each fold a model of scikit-learn's kind, fitted to all other runs; where these have one label alone, that
    label."""
    models = []
    for number in range(int(fold.max()) + 1):
        rest = y[fold != number]
        constant = len(set(rest.tolist())) == 1
        models.append(float(rest[0]) if constant else make().fit(X[fold != number], rest))
    return models


def predicted(
    models: Sequence[Any], X: Float[np.ndarray, "run feature"], fold: Int[np.ndarray, " run"]
) -> Float[np.ndarray, " run"]:
    """The prediction for each run by the model that has not seen it: the probability of a hit, or a number."""
    found = np.full(len(X), np.nan)
    for number, model in enumerate(models):
        rows = fold == number
        if isinstance(model, float) or not rows.any():
            found[rows] = model if isinstance(model, float) else np.nan
        elif hasattr(model, "predict_proba"):
            found[rows] = model.predict_proba(X[rows])[:, 1]
        else:
            found[rows] = model.predict(X[rows])
    return found


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a run that hits and one that does not, ranked by one model: how many there are, and in how many the hit
    has the larger score (equal scores count half), by the group of the hit and that of the other."""

    right: Float[np.ndarray, "group group"]
    number: Float[np.ndarray, "group group"]

    def auc(self, drawn: Draws, *, within: bool = False) -> Float[np.ndarray, " draw"]:
        """The share of pairs that are right in each resample; ``within``: of the pairs inside a group alone, where
        what is the same for a whole group gives 1/2."""
        if within:
            right, number = drawn @ self.right.diagonal(), drawn @ self.number.diagonal()
        else:
            right, number = (((drawn @ counts) * drawn).sum(1) for counts in (self.right, self.number))
        return np.divide(right, number, where=number > 0, out=np.full(len(drawn), np.nan))


def pairs(
    score: Float[np.ndarray, " run"],
    hits: Bool[np.ndarray, " run"],
    groups: Int[np.ndarray, " run"],
    fold: Int[np.ndarray, " run"],
) -> Pairs:
    """All such pairs; groups are numbered from 0."""
    up, down = np.nonzero(hits)[0], np.nonzero(~hits)[0]
    together = fold[up][:, None] == fold[down][None]
    won = np.where(score[up][:, None] > score[down][None], 1.0, 0.5 * (score[up][:, None] == score[down][None]))
    n = int(groups.max()) + 1
    of_up, of_down = np.eye(n)[groups[up]], np.eye(n)[groups[down]]
    return Pairs(right=of_up.T @ (won * together) @ of_down, number=of_up.T @ together @ of_down)


def auc(
    score: Float[np.ndarray, " run"],
    hits: Bool[np.ndarray, " run"],
    groups: Int[np.ndarray, " run"],
    fold: Int[np.ndarray, " run"] | None = None,
    *,
    within: bool = False,
    seed: int = 0,
) -> Interval:
    """The area under the ROC curve, the share of pairs in which the hit has the larger score, resampled by group."""
    found = pairs(score, hits, groups, np.zeros(len(score), dtype=int) if fold is None else fold)
    return auc_interval(found, resamples(len(found.right), seed), len(score), within=within)


def auc_interval(found: Pairs, drawn: Draws, n: int, *, within: bool = False) -> Interval:
    """The area of these pairs with its interval; ``n_units`` counts groups, ``within`` those that have pairs."""
    value = float(found.auc(np.ones((1, drawn.shape[1])), within=within)[0])
    n_units = int((found.number.diagonal() > 0).sum()) if within else drawn.shape[1]
    return percentiles(value, found.auc(drawn, within=within), n=n, n_units=n_units)


def summed(of: Callable[..., Any], drawn: Draws, groups: Int[np.ndarray, " run"], *values: np.ndarray) -> Interval:
    """A function of sums over runs with its interval: ``of(n, Σ v₁, Σ v₂, …)``, n the number of runs.

    Used for what is a ratio of sums, such as a mean or R².
    """
    per_group = [np.bincount(groups, v.astype(float), drawn.shape[1]) for v in (np.ones(len(groups)), *values)]
    once = [sums.sum(keepdims=True) for sums in per_group]
    with np.errstate(divide="ignore", invalid="ignore"):
        value, resampled = float(of(*once)[0]), of(*(drawn @ sums for sums in per_group))
    return percentiles(value, resampled, n=len(groups), n_units=drawn.shape[1])


def median(drawn: Draws, groups: Int[np.ndarray, " run"], values: Float[np.ndarray, " run"]) -> Interval:
    """The median of the values with its interval; of an even number the lower of the two in the middle."""
    order = np.argsort(values)

    def at_half(counts: np.ndarray) -> np.ndarray:
        below = np.cumsum(counts[:, groups[order]], axis=1)
        return values[order][np.argmax(below >= below[:, -1:] / 2, axis=1)]

    value = float(at_half(np.ones((1, drawn.shape[1])))[0])
    return percentiles(value, at_half(drawn), n=len(values), n_units=drawn.shape[1])
