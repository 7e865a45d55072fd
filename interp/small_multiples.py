"""Small multiples of a sweep: the share of each class of run in every cell, and which way each axis pushes.

A sweep over weight decay, hidden width and training-set size is one panel per width and size with decay inside (Pearce
et al. 2023, the explorable "Do Machine Learning Models Memorize or Generalize?": 1,125 models of sparse parity in 125
cells). A class belongs to a run, by rules that ``interp.regimes`` has as data; a cell has shares.

* In a cell the unit is the seed, one run each, and the interval is Wilson's: it is wide (nine of nine: [0.70, 1]).
  Seeds of one cell share their data, so it says what another seed would do on these, and nothing of other data.
* A trend along an axis is a rank correlation, its interval over seeds, its control a permutation of the axis' values
  (``interp.boundary.trend``). A class in the middle of an axis has none; ``centres`` says where it lies.

``small_multiples.analyze(with_transitions(table(out), out))``
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from interp.boundary import Trend, trend
from interp.cells import AXES, Axis, Scale, axis, trained, varying
from interp.regimes import PEARCE, Rules, labels
from interp.result import Result, Takes
from interp.statistics import Interval, mean, wilson
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

TAKES: Takes = "table"
STAGES = ("high test", "grokking", "train and test drop together", "high train")
"""The classes of Pearce et al. in the order in which growing weight decay is said to lead through them."""
STAGE = "stage"

Value = int | float | str | bool


@dataclass(frozen=True, kw_only=True, eq=False)
class CellShares(Result):
    """One cell: its place on each axis, how many runs of each class it has, and their shares over seeds.

    ``n_runs`` counts runs that ended well, ``n_failed`` the others; without a run there are no shares.
    """

    at: dict[str, Value]
    n_runs: int
    n_failed: int
    counts: dict[str, int]
    shares: dict[str, Interval]
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallMultiplesResult(Result):
    """What ``analyze`` finds.

    Attributes:
        axes: inside a panel, down and across.
        rules, classes: by what runs were classed, and every class there is.
        counts: runs of each class in the whole sweep.
        cells: the first axis running slowest.
        trends: of each class' share along each axis of numbers, and of the ``stage``, the place of a run's class in
            ``stages``. ``Trend.correlation`` is of single runs, 0 or 1, and so stays below 1 even where a class begins
            at one value in every panel.
        centres: axis → class → mean of the axis over the runs of the class, on the axis' scale (for a logarithmic one
            the geometric mean); interval over seeds. It depends on the values that were swept.
    """

    axes: tuple[Axis, ...]
    rules: str
    classes: tuple[str, ...]
    stages: tuple[str, ...]
    n_seeds: int
    n_runs: int
    n_failed: int
    counts: dict[str, int]
    cells: tuple[CellShares, ...]
    trends: tuple[Trend, ...]
    centres: dict[str, dict[str, Interval]]

    def cell(self, **at: Value) -> CellShares:
        """The cell at these values; the axes by the last part of their name: ``cell(weight_decay=0.1, n_train=750)``.

        Raises:
            UserError: no such cell, or several.
        """
        found = [c for c in self.cells if at.items() <= {n.rpartition(".")[2]: v for n, v in c.at.items()}.items()]
        if len(found) != 1:
            raise UserError(f"expected values of one cell, {len(found)} have {at}: give every axis of the sweep")
        return found[0]

    def trend(self, name: str, of: str) -> Trend:
        """The trend of a class, or of the ``stage``, along an axis.

        Raises:
            UserError: there is none.
        """
        for found in self.trends:
            if (found.axis, found.value) == (name, of):
                return found
        raise UserError(f"expected an axis and a class, got {name} and {of}: classes are {', '.join(self.classes)}")


@ordinary_torch()
def analyze(
    table: DataFrame,
    *,
    axes: Sequence[str] | None = None,
    rules: Rules = PEARCE,
    stages: Sequence[str] = STAGES,
    scales: Mapping[str, Scale] | None = None,
    seed: int = 0,
) -> SmallMultiplesResult:
    """The shares of each class of run in every cell of a sweep.

    Args:
        table: one row per run, as ``tasks.sweep.table`` gives, with ``interp.regimes.with_transitions``.
        axes: names of the axes, that inside a panel first; ``None``: those that vary, as the table has them.
        rules: name the classes; ``interp.regimes.pearce`` takes other thresholds.
        stages: classes in the order whose trend is asked for; classes of other names have no stage.
        scales: of an axis, where the guess is wrong; see ``interp.cells.axis``.
        seed: of all resampling.

    Raises:
        UserError: a column that the rules need, an axis that is not there or that varies and is not named, two runs of
            one seed in one cell, no run that ended well.
    """
    names = axes_of(table, axes)
    if not len(trained(table)):
        raise UserError("expected a run that ended well, every row of the table has an error")
    found = tuple(axis(table, name, (scales or {}).get(name)) for name in names)
    given = labels(table, rules)
    counts = Counter(label for label in given if label is not None)
    classes = tuple(label for label in rules.labels if label != rules.otherwise or counts[label])
    columns = [table[name].tolist() for name in (*names, "seed", "path")]
    by_place: dict[tuple[Any, ...], dict[Any, tuple[str | None, str]]] = {}
    for *place, run_seed, path, label in zip(*columns, given, strict=True):
        runs = by_place.setdefault(tuple(place), {})
        if run_seed in runs:
            raise UserError(f"expected one run per seed and cell, {runs[run_seed][1]} and {path} share theirs")
        runs[run_seed] = label, path
    numbers = _class_numbers(by_place, found, classes)
    ordered = tuple(stage for stage in stages if stage in classes)
    return SmallMultiplesResult(
        axes=found,
        rules=f"{rules.name} ({rules.source}). {rules}",
        classes=classes,
        stages=ordered,
        n_seeds=len(numbers),
        n_runs=sum(counts.values()),
        n_failed=given.count(None),
        counts={label: counts[label] for label in classes},
        cells=tuple(
            _cell(dict(zip(names, place, strict=True)), by_place.get(place, {}), classes)
            for place in itertools.product(*(at.values for at in found))
        ),
        trends=_trends(numbers, found, classes, ordered, seed),
        centres={
            at.name: {label: _centre(numbers == i, at, dim, seed) for i, label in enumerate(classes)}
            for dim, at in enumerate(found, start=1)
            if at.scale != "category"
        },
    )


def figures(result: SmallMultiplesResult) -> dict[str, "go.Figure"]:
    """``classes``: the shares of every cell as bars with intervals, a panel per value of the second and third axis;
    ``trends``: of every class along every axis. The losses behind them: ``small_multiples_figures.loss_curves``.

    Raises:
        UserError: more than three axes.
    """
    from interp import small_multiples_figures as drawn

    return {"classes": drawn.class_panels(result), "trends": drawn.trend_points(result)}


def axes_of(table: DataFrame, axes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names given, or else the axes that vary in the table, in its order.

    Raises:
        UserError: none varies; an axis twice, or none at all, was named; one that is not named varies, too.
    """
    names = [*axes] if axes is not None else [n for n in table if n.startswith(AXES) and len(set(table[n])) > 1]
    if not names or len(set(names)) < len(names):
        raise UserError(f"expected axes that differ, at least one, got {', '.join(names) or 'none'}")
    for name in names:
        axis(table, name)
    if left := varying(table, names):
        raise UserError(f"{left[0]} varies too: choose rows with one value of it, or name it in axes")
    return tuple(names)


def _cell(at: dict[str, Value], runs: Mapping[Any, tuple[str | None, str]], classes: Sequence[str]) -> CellShares:
    counts = Counter(label for label, _ in runs.values() if label is not None)
    n = counts.total()
    return CellShares(
        at=at,
        n_runs=n,
        n_failed=len(runs) - n,
        counts={label: counts[label] for label in classes} if n else {},
        shares={label: _share(counts[label], n) for label in classes} if n else {},
        paths=tuple(path for _, (_, path) in sorted(runs.items())),
    )


def _share(hits: int, n: int) -> Interval:
    low, high = wilson(hits / n, n)
    return Interval(value=hits / n, low=low, high=high, n=n, n_units=n, method="wilson")


def _class_numbers(
    by_place: Mapping[tuple[Any, ...], Mapping[Any, tuple[str | None, str]]],
    axes: Sequence[Axis],
    classes: Sequence[str],
) -> Float[np.ndarray, "seed *place"]:
    """The number of each run's class, NaN where there is no run; seeds without any are left out."""
    seeds = sorted({seed for runs in by_place.values() for seed, (label, _) in runs.items() if label is not None})
    numbers = np.full((len(seeds), *(len(at.values) for at in axes)), np.nan)
    for place, runs in by_place.items():
        where = tuple(at.values.index(value) for at, value in zip(axes, place, strict=True))
        for seed, (label, _) in runs.items():
            if label is not None:
                numbers[seeds.index(seed), *where] = classes.index(label)
    return numbers


def _trends(
    numbers: np.ndarray, axes: Sequence[Axis], classes: Sequence[str], stages: Sequence[str], seed: int
) -> tuple[Trend, ...]:
    """Of the stage and of every class, along every axis of at least two numbers."""
    missing = np.isnan(numbers)
    measured = {label: np.where(missing, np.nan, numbers == i) for i, label in enumerate(classes)}
    if len(stages) > 1:
        stage_of = np.array([stages.index(label) if label in stages else np.nan for label in classes])
        measured = {STAGE: np.where(missing, np.nan, stage_of[np.nan_to_num(numbers).astype(int)])} | measured
    found = []
    for dim, at in enumerate(axes, start=1):
        if at.scale != "category" and len(at.values) > 1:
            for name, values in measured.items():
                lines = np.moveaxis(values, dim, -1).reshape(len(values), -1, len(at.values))
                found.append(trend(lines, at, value=name, seed=seed))
    return tuple(found)


def _centre(hits: np.ndarray, at: Axis, dim: int, seed: int) -> Interval:
    """The mean of an axis over the runs that hit, on the axis' scale, resampled by seed."""
    where = np.nonzero(hits)
    if not len(where[0]):
        return Interval(value=math.nan, low=math.nan, high=math.nan, n=0, n_units=0, method="none")
    found = mean(torch.from_numpy(at.coordinates[where[dim]]), torch.from_numpy(where[0]), seed=seed)
    return replace(found, value=at.value_at(found.value), low=at.value_at(found.low), high=at.value_at(found.high))
