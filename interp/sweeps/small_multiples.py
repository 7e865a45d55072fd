"""Small multiples of a sweep: the share of each class of run in every cell, and which way each axis pushes.

A sweep over weight decay, hidden width and training-set size is one panel per width and size with decay inside (Pearce
et al. 2023, the explorable "Do Machine Learning Models Memorize or Generalize?": 1,125 models of sparse parity in 125
cells). A class belongs to a run, by rules that ``interp.sweeps.regimes`` has as data; a cell has shares.

* In a cell the unit is the seed, one run each, and the interval is Wilson's: it is wide (nine of nine: [0.70, 1]).
  Seeds of one cell share their data, so it says what another seed would do on these, and nothing of other data.
* A trend along an axis is a rank correlation, its interval over seeds, its control a permutation of the axis' values
  (``interp.sweeps.boundary.trend``). A class in the middle of an axis has none; ``centres`` says where it lies.

``small_multiples.analyze(with_transitions(table(out), out))``
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from interp.statistics import Interval, mean, wilson
from interp.sweeps.boundary import Trend, trend
from interp.sweeps.cells import Axis, Scale, axis, trained
from interp.sweeps.regimes import PEARCE, Rules, labels
from interp.sweeps.small_multiples_record import STAGE, STAGES, CellShares, SmallMultiplesResult, Value, axes_of
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made


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
        table: one row per run, as ``tasks.sweep.table`` gives, with ``interp.sweeps.regimes.with_transitions``.
        axes: names of the axes, that inside a panel first; ``None``: those that vary, as the table has them.
        rules: name the classes; ``interp.sweeps.regimes.pearce`` takes other thresholds.
        stages: classes in the order whose trend is asked for; classes of other names have no stage.
        scales: of an axis, where the guess is wrong; see ``interp.sweeps.cells.axis``.
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
    from interp.sweeps import small_multiples_figures as drawn

    return {"classes": drawn.class_panels(result), "trends": drawn.trend_points(result)}


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
