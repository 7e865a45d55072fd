"""Intervals, permutations and random weights: what stands beside a number so that it can be believed.

* An interval resamples the unit that varies (a key and its position, a seed), never single sequences: sequences of one
  unit are copies of one observation, and counting them as independent makes every interval too narrow.
* Where all units agree the bootstrap sees no spread and returns a point. A share then gets Wilson's interval on the
  number of units, which stays honest at 0 and 1; a mean of anything else gets NaN.
* All randomness is numpy's Philox, keyed by a seed and a purpose.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tasks.base import UserError, generator
from tasks.models.initialization import PARTS

N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval (or that of another level).

    ``n`` values fell into ``n_units`` units that were resampled. ``method`` says where the ends come from:
    ``bootstrap`` (percentiles over resampled units), ``wilson`` (a share on which all units agree), ``student`` (few
    units, their spread taken as normal), or ``none`` (ends NaN: one unit, or no spread).
    """

    value: float
    low: float
    high: float
    n: int
    n_units: int
    method: Literal["bootstrap", "wilson", "student", "none"]

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high; the estimate twice where nothing varied and there is no interval."""
        return (self.value, self.value) if self.method == "none" else (self.low, self.high)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean(
    values: Float[Tensor, " n"], units: Int[Tensor, " n"] | None = None, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of the values with a percentile bootstrap interval that resamples whole units.

    Each resample draws as many units as there are, with replacement, and takes (sum of their values)/(number of their
    values), so that a unit with more values weighs more, as it does in the mean itself.

    Args:
        values: what was measured.
        units: which unit each value belongs to; ``None``: every value is a unit of its own.
        level: coverage of the interval.
        seed: of the resampling.

    Misleads with few units: below about ten the interval is too narrow.

    Raises:
        UserError: no values, or another number of units than of values.
    """
    sums, counts = _per_unit(values, units)
    value, n_units = float(sums.sum() / counts.sum()), len(sums)
    means = sums / counts
    if n_units == 1 or means.max() == means.min():
        return Interval(value=value, low=math.nan, high=math.nan, n=len(values), n_units=n_units, method="none")
    # units with equal sums and counts are alike: draw how many of each kind, not each unit
    kinds, sizes = np.unique(np.stack([sums, counts]), axis=1, return_counts=True)
    draws = resamples(n_units, seed, sizes)
    resampled = (draws @ kinds[0]) / (draws @ kinds[1])
    ends = ((1 - level) / 2, (1 + level) / 2)
    return percentiles(value, resampled, n=len(values), n_units=n_units, ends=ends)


def resamples(
    n_units: int, seed: int = 0, sizes: Int[np.ndarray, " kind"] | None = None
) -> Float[np.ndarray, "resample kind"]:
    """How often each unit is drawn in each of 2,000 resamples of all units with replacement.

    Args:
        n_units: how many there are.
        seed: of the draws.
        sizes: of kinds of units that are alike, which are then counted together; ``None``: each unit is its own kind.
    """
    shares = [1 / n_units] * n_units if sizes is None else sizes / n_units
    return generator(seed, "bootstrap").multinomial(n_units, shares, size=N_RESAMPLES).astype(float)


def percentiles(
    value: float,
    resampled: Float[np.ndarray, " resample"],
    *,
    n: int,
    n_units: int,
    ends: tuple[float, float] = (0.025, 0.975),
    rounding: float = 0.0,
) -> Interval:
    """The estimate with the percentile interval of what the resamples give; those without a value are left out.

    ``ends`` are the quantiles that bound the interval. Resamples that differ by no more than ``rounding`` have no
    spread, and give no interval.
    """
    there = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or not len(there) or np.ptp(there) <= rounding:
        return Interval(value=value, low=math.nan, high=math.nan, n=n, n_units=n_units, method="none")
    low, high = np.quantile(there, ends)
    return Interval(value=value, low=float(low), high=float(high), n=n, n_units=n_units, method="bootstrap")


def share(
    hits: Bool[Tensor, " n"], units: Int[Tensor, " n"] | None = None, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """The share of hits with an interval that resamples whole units; see ``mean``.

    Where every unit has the same share, most often 0 or 1, the interval is Wilson's with the number of units as sample
    size: 40 units that all hit give [0.912, 1].
    """
    interval = mean(hits.double(), units, level=level, seed=seed)
    if interval.method == "bootstrap":
        return interval
    low, high = wilson(interval.value, interval.n_units, level)
    return Interval(value=interval.value, low=low, high=high, n=interval.n, n_units=interval.n_units, method="wilson")


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Ends of Wilson's score interval (1927) of a share seen in n independent trials.

    >>> [round(end, 3) for end in wilson(1.0, 40)]
    [0.912, 1.0]
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def student(values: Float[Tensor, " n"], *, level: float = 0.95) -> Interval:
    """The mean of a few values, such as one per seed, with Student's interval: mean ± t s/√n, n − 1 degrees of freedom.

    Made for the three to ten seeds at which ``mean`` is too narrow; it takes the values as normal.

    >>> print(student(torch.tensor([1.0, 2.0, 3.0])))
    2.000 [-0.484, 4.484]
    """
    n = len(values)
    if n < 2 or values.max() == values.min():
        return mean(values, level=level)
    centre, spread = values.double().mean().item(), values.double().std().item()
    return _around(centre, spread / math.sqrt(n), n - 1.0, n, level)


def difference(first: Float[Tensor, " n"], second: Float[Tensor, " m"], *, level: float = 0.95) -> Interval:
    """mean(first) − mean(second) of two small samples with Welch's interval, which lets their spreads differ.

    The standard error is √(s₁²/n + s₂²/m), the degrees of freedom are Satterthwaite's. ``n`` counts both samples.
    """
    n, m = len(first), len(second)
    value = first.double().mean().item() - second.double().mean().item()
    if min(n, m) < 2:
        return Interval(value=value, low=math.nan, high=math.nan, n=n + m, n_units=n + m, method="none")
    a, b = first.double().var().item() / n, second.double().var().item() / m
    freedom = (a + b) ** 2 / (a * a / (n - 1) + b * b / (m - 1)) if a + b else 1.0
    return _around(value, math.sqrt(a + b), freedom, n + m, level)


def permutation_p_value(
    statistic: Callable[[Tensor], float], rows: Float[Tensor, "row ..."], *, n_permutations: int = 999, seed: int = 0
) -> float:
    """Share of orders of the rows, the given one included, in which the statistic is at least as large as in the given
    one.

    (1 + number of shuffles with statistic ≥ observed)/(1 + n_permutations): small where the order of the rows carries
    the statistic. Never below 1/(1 + n_permutations).
    """
    observed = statistic(rows)
    rng = generator(seed, "permutation")
    shuffled = (statistic(rows[torch.from_numpy(rng.permutation(len(rows)))]) for _ in range(n_permutations))
    return (1 + sum(value >= observed for value in shuffled)) / (1 + n_permutations)


def gaussian_like(W: Float[Tensor, "..."], seed: int, name: str) -> Float[Tensor, "..."]:
    """Independent Gaussian entries with W's shape, dtype and standard deviation, and mean 0."""
    drawn = torch.from_numpy(generator(seed, "random weights", name).standard_normal(tuple(W.shape)))
    return (drawn * W.double().std(correction=0)).to(W.dtype)


def random_weights(params: Mapping[str, Float[Tensor, "..."]], seed: int) -> dict[str, Float[Tensor, "..."]]:
    """The parameters with every weight matrix replaced by ``gaussian_like``; biases and LayerNorms are kept.

    The control for any number read off weights: what remains of it here comes from shapes and scales, not from
    learning.
    """
    return {
        name: gaussian_like(value, seed, name) if name.rsplit(".", 1)[-1] in PARTS else value
        for name, value in params.items()
    }


def _around(value: float, error: float, freedom: float, n: int, level: float) -> Interval:
    """value ± t · error; no ends where there was no spread."""
    from scipy.stats import t

    if not error:
        return Interval(value=value, low=math.nan, high=math.nan, n=n, n_units=n, method="none")
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    return Interval(value=value, low=value - half, high=value + half, n=n, n_units=n, method="student")


def _per_unit(values: Tensor, units: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each unit."""
    if not len(values):
        raise UserError("expected at least one value to average, got none")
    if units is None:
        return values.double().numpy(), np.ones(len(values))
    if len(units) != len(values):
        raise UserError(f"expected one unit per value, got {len(units)} units for {len(values)} values")
    _, index = np.unique(units.numpy(), return_inverse=True)
    return np.bincount(index, values.double().numpy()), np.bincount(index).astype(float)
