"""Where one phase ends and the next begins, and which way an axis pushes: with intervals over seeds and controls.

* The boundary is where a share passes 1/2 along x, one crossing per row. The model is a logistic regression with one
  slope for the whole diagram and an intercept per row, fitted to the shares themselves (between 0 and 1, one per seed
  and grid point). It assumes that the share rises, or falls, along x: ``agreement`` says how often that is so.
* The unit is the seed: runs of one seed share their initial draws at every grid point, so seeds are resampled whole.
* The direction of an effect is Spearman's rank correlation, and its control a permutation of the axis' values.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.result import Result
from interp.statistics import Interval, mean, resamples
from interp.sweeps.cells import Axis
from tasks.base import UserError, generator

N_PERMUTATIONS = 999
_RIDGE, _ROW_RIDGE = 1e-3, 1e-6
"""On the slope and on the intercepts. Where a step separates the grid points, the likelihood has no maximum: the slope
grows without bound, and the least penalty puts the crossing midway between the two neighbours."""
_STEPS, _LONGEST, _STILL = 200, 2.0, 1e-10
_FLAT = 1e-6
"""A slope per standard deviation of x below which a share neither rises nor falls."""
_ROUNDING = 1e-12
_N_CONTROLS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossing(Result):
    """Where the share passes 1/2 in one row.

    ``where`` is ``crosses``, or ``above`` or ``below`` where the fitted share stays on one side; then ``location`` has
    no value. ``location`` is in units of the x axis. Its interval covers what resampled seeds give *and* the two grid
    values around it: a grid says no more about a step than between which of its values it lies. An end at the first or
    last value of the axis is open: the boundary may lie beyond. With one seed the interval is that of the grid alone.
    """

    y: int | float | str | bool | None
    where: Literal["crosses", "above", "below"]
    location: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Boundary(Result):
    """Crossings of ``of`` along ``x``, row by row.

    ``direction``: whether the share rises or falls along x; ``flat`` where it does neither. ``agreement`` is the share
    of grid points whose mean lies on the same side of 1/2 as the fit, ``control_agreement`` its mean where the x values
    of each row were shuffled before fitting: no better than that, and there is no boundary along x to speak of.
    """

    of: str
    x: str
    direction: Literal["rises", "falls", "flat"]
    crossings: tuple[Crossing, ...]
    agreement: float
    control_agreement: float
    n_seeds: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend(Result):
    """The direction of an axis' effect on a value.

    ``correlation`` is Spearman's over the grid points of a seed, averaged over seeds and resampled by seed; a seed
    whose value is the same everywhere counts as 0. ``p_value`` is the share of permutations with as large an absolute
    correlation: the axis' values are shuffled within each row of the other axis, for all seeds alike.
    """

    axis: str
    value: str
    correlation: Interval
    p_value: float


def logistic(
    design: Float[np.ndarray, "point feature"],
    shares: Float[np.ndarray, "fit point"],
    weights: Float[np.ndarray, "fit point"],
    ridge: Float[np.ndarray, " feature"],
) -> Float[np.ndarray, "fit feature"]:
    """Coefficients c that maximise Σ w (s log p + (1−s) log(1−p)) − Σ ridge c²/2, with p = 1/(1 + exp(−design·c)),
    for many fits at once.

    Shares may be fractions. Newton's method with steps of bounded length; the objective is strictly concave, so the
    maximum is one.
    """
    found = np.zeros((len(shares), design.shape[1]))
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(found @ design.T, -500, 500)))
        gradient = (weights * (shares - p)) @ design - ridge * found
        curvature = np.einsum("bp,pi,pj->bij", weights * p * (1 - p), design, design) + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        found += step * np.minimum(1, _LONGEST / np.maximum(longest, _STILL))
        if longest.max() < _STILL:
            break
    return found


def boundary(
    values: Float[np.ndarray, "seed y x"], x: Axis, y: Axis | None = None, *, of: str = "share", seed: int = 0
) -> Boundary:
    """Where the share passes 1/2 along x in each row, by logistic regression, with intervals over seeds.

    Args:
        values: shares between 0 and 1, NaN where a run is missing; a row without any run has no crossing.
        x, y: the axes; x must be numbers.
        of: name of the share.
        seed: of the resampling and of the control.

    Misleads where the share is not monotone along x, as in a band between two other phases: read ``agreement``, or fit
    only the rows of the table on one side. With few seeds see ``interp.sweeps.phases``.

    Raises:
        UserError: x holds names or a single value; values outside 0 … 1; no values.
    """
    _check(values, x)
    values, at = canonical(values), x.coordinates
    n_seeds, n_rows, _ = values.shape
    design = _design(at, n_rows)
    once = np.ones((1, n_seeds))
    fitted = _fit(design, *_pooled(values, once))
    sign = float(np.sign(fitted[0, 0])) if abs(fitted[0, 0]) > _FLAT else 0.0
    location = _locations(fitted, at, sign)[0]
    drawn, times = _resamples(n_seeds, seed)
    shares, weights = _pooled(values, drawn)
    resampled = np.clip(_locations(_fit(design, shares, weights), at, sign), at[0], at[-1])
    measured = weights.reshape(len(drawn), n_rows, -1).max(2) > 0
    crossings = []
    for row in range(n_rows):
        if not np.isfinite(values[:, row]).any():
            continue
        inside = sign != 0 and at[0] <= location[row] <= at[-1]
        low, high = at[0], at[-1]
        if n_seeds > 1 and sign:
            kept = measured[:, row]
            low, high = _quantiles(resampled[kept, row], times[kept])
        if inside:
            right = int(np.clip(np.searchsorted(at, location[row]), 1, len(at) - 1))
            around = at[right - 1], at[right]
            low, high = (min(low, around[0]), max(high, around[1])) if n_seeds > 1 else around
        interval = Interval(
            value=x.value_at(location[row]) if inside else math.nan,
            low=x.value_at(low),
            high=x.value_at(high),
            n=int(np.isfinite(values[:, row]).sum()),
            n_units=n_seeds,
            method="bootstrap" if n_seeds > 1 else "none",
        )
        side = "crosses" if inside else "above" if fitted[0, 1 + row] > 0 else "below"
        crossings.append(Crossing(y=None if y is None else y.values[row], where=side, location=interval))
    return Boundary(
        of=of,
        x=x.name,
        direction="rises" if sign > 0 else "falls" if sign < 0 else "flat",
        crossings=tuple(crossings),
        agreement=float(_agreements(design, *_pooled(values, once))[0]),
        control_agreement=_shuffled_agreement(design, values, seed),
        n_seeds=n_seeds,
    )


def trend(
    values: Float[np.ndarray, "seed y x"],
    x: Axis,
    *,
    value: str = "value",
    seed: int = 0,
    along: Literal["x", "y"] = "x",
) -> Trend:
    """The rank correlation of a value with an axis, with its interval over seeds and its permutation p-value.

    Args:
        values: one per seed and grid point, NaN where a run is missing.
        x: the axis: that of the columns, or with ``along="y"`` that of the rows.
        value: name of the value.
        seed: of the resampling and the permutations.

    The p-value cannot fall below what the grid allows: an axis of n values crossed with r others has n!^r orders.

    Raises:
        UserError: the axis holds names.
    """
    if x.scale == "category":
        raise UserError(f"expected an axis of numbers for a rank correlation, {x.name} holds names")
    values = canonical(values if along == "x" else values.swapaxes(1, 2))
    rng = generator(seed, "trend")
    orders = rng.random((N_PERMUTATIONS, *values.shape[1:])).argsort(-1)
    found = rank_correlations(values, np.arange(values.shape[2])[None, None])[:, 0]
    control = rank_correlations(values, orders).mean(0)
    observed = abs(found.mean()) - _ROUNDING
    p_value = float((1 + (np.abs(control) >= observed).sum()) / (1 + N_PERMUTATIONS))
    return Trend(axis=x.name, value=value, correlation=mean(torch.from_numpy(found), seed=seed), p_value=p_value)


def rank_correlations(
    values: Float[np.ndarray, "seed y x"], orders: Int[np.ndarray, "order #y x"]
) -> Float[np.ndarray, "seed order"]:
    """Spearman's rank correlation of each seed's values with the number of their column, the cells of every row being
    rearranged in each given order first.

    It is Pearson's of the ranks, equal ones sharing their mean rank, over the cells that are there; 0 where either does
    not vary.
    """
    from scipy.stats import rankdata

    found = []
    for cells in values:
        there = np.isfinite(cells)
        ranks = np.zeros_like(cells)
        ranks[there] = rankdata(cells[there]) - (there.sum() + 1) / 2
        orders_here = np.broadcast_to(orders, (len(orders), *cells.shape))
        in_column = np.take_along_axis(there[None], orders_here, axis=2).sum(1)
        column_rank = np.cumsum(in_column, axis=1) - (in_column - 1) / 2 - (there.sum() + 1) / 2
        product = (column_rank * np.take_along_axis(ranks[None], orders_here, axis=2).sum(1)).sum(1)
        norm = np.sqrt((in_column * column_rank**2).sum(1) * (ranks**2).sum())
        found.append(np.divide(product, norm, where=norm > 0, out=np.zeros_like(norm)))
    return np.stack(found)


def canonical(values: Float[np.ndarray, "seed *grid"]) -> Float[np.ndarray, "seed *grid"]:
    """The seeds in the order of what they measured, so that no resampling depends on their labels."""
    keys = [np.nan_to_num(seed, nan=-np.inf).ravel().tolist() for seed in values]
    return values[sorted(range(len(values)), key=keys.__getitem__)]


def _design(at: np.ndarray, n_rows: int) -> np.ndarray:
    """The features of every grid point: its standardised coordinate, and one indicator per row."""
    scaled = np.tile((at - at.mean()) / at.std(), n_rows)
    return np.concatenate([scaled[:, None], np.repeat(np.eye(n_rows), len(at), axis=0)], axis=1)


def _fit(design: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    ridge = np.full(design.shape[1], _ROW_RIDGE)
    ridge[0] = _RIDGE
    return logistic(design, shares, weights, ridge)


def _pooled(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean share and number of runs at each grid point, where each seed is drawn so many times, [draw, point]."""
    present = np.isfinite(values).reshape(len(values), -1)
    weights = counts @ present
    return (counts @ np.nan_to_num(values).reshape(len(values), -1)) / np.maximum(weights, 1), weights


def _locations(fitted: np.ndarray, at: np.ndarray, sign: float) -> np.ndarray:
    """The coordinate at which each row's logit is 0, [fit, row]; very far away where a fit is flat."""
    slope = np.where(np.abs(fitted[:, :1]) > _FLAT, fitted[:, :1], _FLAT * (sign or 1.0))
    return -fitted[:, 1:] / slope * at.std() + at.mean()


def _resamples(n_seeds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed is drawn in the distinct resamples, and how often each of these came up."""
    return np.unique(resamples(n_seeds, seed), axis=0, return_counts=True)


def _quantiles(values: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of values that came up so many times."""
    low, high = np.quantile(values, [0.025, 0.975], weights=times, method="inverted_cdf")
    return float(low), float(high)


def _agreements(design: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each fit, the share of grid points that lie on the fitted side of 1/2."""
    same = (_fit(design, shares, weights) @ design.T > 0) == (shares > 0.5)
    return (same & (weights > 0)).sum(1) / (weights > 0).sum(1)


def _shuffled_agreement(design: np.ndarray, values: np.ndarray, seed: int) -> float:
    """The mean agreement of fits to rows whose x values were shuffled, for all seeds alike."""
    shares, weights = (a.reshape(values.shape[1:]) for a in _pooled(values, np.ones((1, len(values)))))
    orders = np.argsort(generator(seed, "boundary control").random((_N_CONTROLS, *shares.shape)), axis=-1)
    shuffled = (np.take_along_axis(a[None], orders, axis=2).reshape(_N_CONTROLS, -1) for a in (shares, weights))
    return float(_agreements(design, *shuffled).mean())


def _check(values: np.ndarray, x: Axis) -> None:
    if x.scale == "category" or len(x.values) < 2:
        raise UserError(f"expected an axis of at least two numbers to find a boundary along, got {x.name}: {x.values}")
    there = values[np.isfinite(values)]
    if not len(there) or there.min() < 0 or there.max() > 1:
        raise UserError("expected shares between 0 and 1 to find a boundary in, got none or others")
