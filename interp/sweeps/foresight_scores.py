"""What one step's measures tell of which runs will generalise, and when: scores with intervals, gains and controls.

All predictions are for cells that were not fitted, see ``interp.sweeps.grouped_scores``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.result import Result
from interp.statistics import Interval, percentiles, resamples
from interp.sweeps.grouped_scores import (
    Draws,
    Pairs,
    auc_interval,
    fitted,
    folds,
    median,
    pairs,
    predicted,
    summed,
)
from tasks.base import generator

Model = Literal["linear", "boosting"]
MODELS: tuple[Model, ...] = ("linear", "boosting")
"""Logistic (for numbers of steps, ridge) regression on standardised features; boosted trees."""
_N_REPEATS = 5
_TREES: dict[str, Any] = {"max_iter": 60, "max_leaf_nodes": 6, "min_samples_leaf": 5, "early_stopping": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Score(Result):
    """How well one model tells from one set of features which runs will generalise.

    ``auc``: over pairs of runs ranked by one fold's model; ``auc_within``: over the pairs inside a cell alone.
    ``balanced_accuracy``: mean of the shares of both kinds told right, where a run is called by whether its probability
    is above the share of runs that generalise among those fitted. ``brier``: mean squared error of the probability.
    """

    features: str
    model: Model
    auc: Interval
    auc_within: Interval
    balanced_accuracy: Interval
    brier: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain(Result):
    """AUC of the features ``of`` less that of the features ``over``, resampled together."""

    of: str
    over: str
    model: Model
    auc: Interval
    auc_within: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Permuted(Result):
    """The control: mean AUC of ``features`` over permutations of the labels, made before anything is fitted.

    ``within``: among the runs of each cell, which leaves what the cell alone tells; otherwise among all. A p-value is
    the share of permutations, the true labels counted in, that reach the area of the true ones. With ``within`` that of
    ``auc_within`` asks whether the measures tell more than the cell.
    """

    features: str
    model: Model
    within: bool
    auc: float
    auc_within: float
    p_value: float
    p_value_within: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Timing(Result):
    """How well the number of steps left is told, of runs that do generalise.

    ``r2``: of its log10, below 0 where the mean of these runs would do better; ``factor``: the median of
    10^|error|, by how much a prediction is wrong, 1 where it is exact.
    """

    features: str
    model: Model
    r2: Interval
    factor: Interval
    steps_left: Float[np.ndarray, " run"]
    predicted_steps_left: Float[np.ndarray, " run"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What ``tell`` finds; ``importances``: model → feature → AUC lost where it is permuted among held-out runs."""

    scores: tuple[Score, ...] = ()
    gains: tuple[Gain, ...] = ()
    permuted: tuple[Permuted, ...] = ()
    importances: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)


def tell(
    X: Mapping[str, Float[np.ndarray, " run"]],
    later: Bool[np.ndarray, " run"],
    groups: Int[np.ndarray, " run"],
    sets: Mapping[str, Sequence[str]],
    *,
    compared: Sequence[tuple[str, str]],
    control: str,
    models: Sequence[Model] = MODELS,
    n_permutations: int = 20,
    seed: int = 0,
) -> Told:
    """Which runs will generalise, from each set of features.

    Args:
        X: the features by name. ``later``: whether each run generalises.
        groups: the number of its cell, from 0.
        sets: name → features; importances are of the last.
        compared: pairs of sets whose difference is wanted.
        control: the set for which labels are permuted, ``n_permutations`` times.
        models, seed: see ``interp.sweeps.foresight.analyze``.
    """
    fold, drawn, n = folds(groups, later, seed=seed), resamples(int(groups.max()) + 1, seed), len(later)
    share = np.array([later[fold != number].mean() for number in range(int(fold.max()) + 1)])[fold]
    scores, gains, permuted, importances = [], [], [], {}
    for model in models:
        make, found = partial(_classifier, model, seed), dict[str, Pairs]()
        for name, features in sets.items():
            values = _matrix(X, features)
            told = predicted(fitted(make, values, later, fold), values, fold)
            found[name] = pairs(told, later, groups, fold)
            called = told > share
            scores.append(
                Score(
                    features=name,
                    model=model,
                    auc=auc_interval(found[name], drawn, n),
                    auc_within=auc_interval(found[name], drawn, n, within=True),
                    balanced_accuracy=summed(_balanced, drawn, groups, later & called, later, ~later & ~called, ~later),
                    brier=summed(_mean, drawn, groups, (told - later) ** 2),
                )
            )
        for of, over in compared:
            if of in found and over in found:
                two = (_gain(found[of], found[over], drawn, n, within=within) for within in (False, True))
                gains.append(Gain(of=of, over=over, model=model, **dict(zip(("auc", "auc_within"), two, strict=True))))
        values = _matrix(X, sets[control])
        for within in (False, True) if n_permutations else ():
            among = groups if within else np.zeros_like(groups)
            orders = [_shuffled(among, seed, number) for number in range(n_permutations)]
            areas = np.array([_areas(make, values, later[order], groups, fold) for order in orders])
            true = _areas(make, values, later, groups, fold)
            reach = (1 + (areas >= true).sum(0)) / (1 + n_permutations)
            permuted.append(
                Permuted(
                    features=control,
                    model=model,
                    within=within,
                    auc=float(areas[:, 0].mean()),
                    auc_within=float(areas[:, 1].mean()),
                    p_value=float(reach[0]),
                    p_value_within=float(reach[1]),
                )
            )
        importances[model] = _importances(make, X, sets[[*sets][-1]], later, groups, fold, drawn, seed)
    return Told(scores=tuple(scores), gains=tuple(gains), permuted=tuple(permuted), importances=importances)


def time_left(
    X: Mapping[str, Float[np.ndarray, " run"]],
    steps_left: Float[np.ndarray, " run"],
    groups: Int[np.ndarray, " run"],
    sets: Mapping[str, Sequence[str]],
    *,
    models: Sequence[Model] = MODELS,
    seed: int = 0,
) -> tuple[Timing, ...]:
    """How many steps are left until each run generalises, from each set of features, by regression of the log10."""
    y, fold, drawn = np.log10(steps_left), folds(groups, seed=seed), resamples(int(groups.max()) + 1, seed)
    found = []
    for model in models:
        for name, features in sets.items():
            values = _matrix(X, features)
            told = predicted(fitted(partial(_regressor, model, seed), values, y, fold), values, fold)
            off = median(drawn, groups, np.abs(told - y))
            found.append(
                Timing(
                    features=name,
                    model=model,
                    r2=summed(_r2, drawn, groups, (told - y) ** 2, y, y**2),
                    factor=replace(off, value=10**off.value, low=10**off.low, high=10**off.high),
                    steps_left=steps_left,
                    predicted_steps_left=10**told,
                )
            )
    return tuple(found)


def _classifier(model: Model, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    if model == "boosting":
        return HistGradientBoostingClassifier(**_TREES, random_state=seed)
    return _standardised(LogisticRegression(max_iter=2_000))


def _regressor(model: Model, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    if model == "boosting":
        return HistGradientBoostingRegressor(**_TREES, random_state=seed)
    return _standardised(Ridge())


def _standardised(regression: Any) -> Any:
    """The regression on features of mean 0 and variance 1; one without a value counts as its median."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), regression)


def _matrix(X: Mapping[str, np.ndarray], features: Sequence[str]) -> np.ndarray:
    return np.stack([X[name] for name in features], axis=1)


def _areas(
    make: Callable[[], Any], values: np.ndarray, later: np.ndarray, groups: np.ndarray, fold: np.ndarray
) -> tuple[float, float]:
    """The AUC over all pairs, and over those inside cells: 1/2 where a cell has runs of one kind alone."""
    told = predicted(fitted(make, values, later, fold), values, fold)
    found = pairs(told, later, groups, fold)
    once = np.ones((1, len(found.right)))
    inside = float(found.auc(once, within=True)[0])
    return float(found.auc(once)[0]), 0.5 if np.isnan(inside) else inside


def _gain(first: Pairs, second: Pairs, drawn: Draws, n: int, *, within: bool) -> Interval:
    once = np.ones((1, drawn.shape[1]))
    value = first.auc(once, within=within) - second.auc(once, within=within)
    resampled = first.auc(drawn, within=within) - second.auc(drawn, within=within)
    return percentiles(float(value[0]), resampled, n=n, n_units=drawn.shape[1])


def _importances(
    make: Callable[[], Any],
    X: Mapping[str, np.ndarray],
    features: Sequence[str],
    later: np.ndarray,
    groups: np.ndarray,
    fold: np.ndarray,
    drawn: Draws,
    seed: int,
) -> dict[str, Interval]:
    """By how much the AUC falls where one feature is shuffled among the runs that a fold holds out, mean of some
    shuffles."""
    values = _matrix(X, features)
    models = fitted(make, values, later, fold)
    whole = pairs(predicted(models, values, fold), later, groups, fold)
    drops = {}
    for column, name in enumerate(features):
        shuffles = np.stack([values] * _N_REPEATS)
        for repeat, shuffled in enumerate(shuffles):
            shuffled[:, column] = values[_shuffled(fold, seed, repeat), column]
        told = predicted(models, shuffles.reshape(-1, len(features)), np.tile(fold, _N_REPEATS))
        found = [pairs(once, later, groups, fold).right for once in told.reshape(_N_REPEATS, -1)]
        without = Pairs(right=np.mean(found, axis=0), number=whole.number)
        drops[name] = _gain(whole, without, drawn, len(later), within=False)
    return drops


def _shuffled(among: np.ndarray, seed: int, number: int) -> np.ndarray:
    """An order of all runs in which each takes the place of one with the same value of ``among``."""
    order = np.lexsort((generator(seed, "shuffle", number).random(len(among)), among))
    place = np.empty_like(order)
    place[np.argsort(among, kind="stable")] = order
    return place


def _mean(n: np.ndarray, total: np.ndarray) -> np.ndarray:
    return total / n


def _balanced(_: np.ndarray, hit: np.ndarray, hits: np.ndarray, passed: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (hit / hits + passed / others) / 2


def _r2(n: np.ndarray, squared_errors: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return 1 - squared_errors / (squares - total**2 / n)
