"""Phase diagrams: what a sweep's runs became, over one or two of its axes.

From the table of a sweep to order parameters per grid point (mean over seeds, with intervals), phase labels by stated
rules, the boundary along x and the direction of every axis' effect.

* The best over further axes, such as learning rates, is taken per value, before the mean over seeds (``best_over``);
  largest over training and final stand side by side.
* An interval resamples seeds. With two or three it is their range and nothing more: the range of n seeds holds the
  median of all seeds with probability 1 − 2^(1−n), so 50 % for two, 75 % for three, 94 % for five. Where all seeds
  agree on a share it is Wilson's on the number of seeds; three that all say 1 give [0.44, 1].
* A label belongs to a run. A grid point has the label that more than half of its runs have, else ``mixed``.

``phases.analyze(table, x="init.gamma", y="model.n_layers", over=["training.learning_rate"])``
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from interp.statistics import Interval, mean, wilson
from interp.sweeps.boundary import Boundary, Trend, boundary, canonical, trend
from interp.sweeps.cells import Axis, Scale, axis, best_over, by_seed, trained, varying
from interp.sweeps.columns import with_analyses
from interp.sweeps.phase_record import MIXED, GridPoint, PhaseDiagram, Value, is_share
from interp.sweeps.regimes import ANCHOR, COMPLEXITY, LIU, PEARCE, Rule, Rules, labels, rules_for, with_transitions
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

__all__ = [
    "ANCHOR",
    "COMPLEXITY",
    "LIU",
    "PEARCE",
    "GridPoint",
    "PhaseDiagram",
    "Rule",
    "Rules",
    "analyze",
    "best_over",
    "boundary",
    "figures",
    "labels",
    "trend",
    "with_analyses",
    "with_transitions",
]

_ANCHOR_VALUES = ("held_out_inferential", "held_out_symmetric")


@ordinary_torch()
def analyze(
    table: DataFrame,
    *,
    x: str,
    y: str | None = None,
    over: Sequence[str] = (),
    values: Sequence[str] | None = None,
    rules: Rules | None = None,
    boundary_of: str | None = None,
    scales: Mapping[str, Scale] | None = None,
    seed: int = 0,
) -> PhaseDiagram:
    """The phase diagram of a sweep over one or two of its axes.

    Args:
        table: one row per run, as ``tasks.sweep.table`` gives; with ``with_transitions`` and ``with_analyses`` it has
            more to show.
        x, y: names of the axes, such as ``init.gamma``.
        over: further axes, over which every order parameter is maximised on its own.
        values: the order parameters, columns of the table; ``None``: the held-out pair's inferential and symmetric
            share; accuracy on the unseen pairs where no exception is taught; test accuracy where no pair is held out.
        rules: name the phases; ``None``: those whose columns the table has, of ``ANCHOR`` and ``LIU``.
        boundary_of: the share whose passage through 1/2 along x is the boundary; ``None``: the first of ``values``,
            where it is one.
        scales: of an axis, where the guess is wrong; see ``interp.sweeps.cells.axis``.
        seed: of all resampling.

    Raises:
        UserError: no such axis or column, one axis twice, an order parameter that is no number; an axis that varies and
            is neither x, y nor in ``over``; two runs of one seed at one point; no run that ended well.
    """
    at_x = axis(table, x, (scales or {}).get(x))
    at_y = None if y is None else axis(table, y, (scales or {}).get(y))
    for name in over:
        axis(table, name)
    grid = [x] if y is None else [x, y]
    if x == y:
        raise UserError(f"expected two axes, got {x} as x and as y: leave out y")
    if left := [name for name in varying(table, grid) if name not in over]:
        raise UserError(f"{left[0]} varies too: choose rows with one value of it, or name it in over")
    if not len(trained(table)):
        raise UserError("expected a run that ended well, every row of the table has an error")
    names = tuple(values) if values else _usual(table)
    seen = "test_accuracy" if any(name.startswith(("held_out", "unseen_pairs")) for name in names) else "train_accuracy"
    seen = seen if seen in table else None
    drawn = list(dict.fromkeys((*names, *filter(None, (seen, boundary_of)))))
    largest = {name: f"max_{name}" for name in drawn if f"max_{name}" in table}
    if absent := [name for name in drawn if name not in table]:
        raise UserError(f"expected columns of the table, it has no {absent[0]!r}: it has {', '.join(table.columns)}")
    best = best_over(table, over, [*drawn, *largest.values()]) if over else table
    if words := [name for name in drawn if any(isinstance(value, str) for value in table[name])]:
        raise UserError(f"expected columns of numbers as order parameters, {words[0]!r} holds words")
    arrays = {name: by_seed(best, name, at_x, at_y) for name in (*drawn, *largest.values())}
    rules = rules or rules_for(table)
    named = _named(table, x, y, rules)
    points = []
    for row, y_value in enumerate((None,) if at_y is None else at_y.values):
        for column, x_value in enumerate(at_x.values):
            counts = named.get((x_value, y_value), Counter())
            runs = {name: arrays[name][1][:, row, column] for name in drawn}
            labelled = {label: n for label, n in counts.most_common() if label is not None}
            n_runs = sum(labelled.values())
            points.append(
                GridPoint(
                    x=x_value,
                    y=y_value,
                    n_seeds=max(sum(map(bool, paths)) for paths in runs.values()),
                    n_runs=n_runs,
                    n_failed=counts[None],
                    values={name: _interval(name, arrays[name][0][:, row, column], seed) for name in drawn},
                    maxima={k: _interval(k, arrays[v][0][:, row, column], seed) for k, v in largest.items()},
                    label=_majority(labelled) if rules else None,
                    labels=labelled if rules else {},
                    paths={name: tuple(sorted(filter(None, paths))) for name, paths in runs.items()},
                )
            )
    return PhaseDiagram(
        x=at_x,
        y=at_y,
        over=tuple(over),
        values=names,
        seen=seen,
        rules=None if rules is None else f"{rules.name} ({rules.source}). {rules}",
        phases=() if rules is None else (*rules.labels, MIXED),
        points=tuple(points),
        boundary=_boundary(arrays, boundary_of, names[0], at_x, at_y, seed),
        trends=_trends({name: arrays[name][0] for name in names}, at_x, at_y, seed),
        n_seeds=len(arrays[names[0]][0]),
        n_runs=len(trained(table)),
        n_failed=len(table) - len(trained(table)),
    )


def figures(result: PhaseDiagram) -> dict[str, "go.Figure"]:
    """Of every order parameter a heat map with boundary and hatching, under its name, and its curves along x with error
    bars; ``phases``: the labels.

    A cell's hover text names its runs' folders, in a notebook and in a saved page alike. Where ``anywidget`` is
    installed, a click can do something with the folders, which are the cell's ``customdata``::

        widget = go.FigureWidget(phases.figures(result)["held_out_inferential"])
        widget.data[0].on_click(lambda trace, points, state: print(trace.customdata[*points.point_inds[0]]))
    """
    from interp.sweeps import phase_figures

    made: dict[str, go.Figure] = {}
    for value in result.values:
        if result.y is not None:
            made[value] = phase_figures.order_map(result, value)
        made[f"{value} along x"] = phase_figures.curves(result, value)
    if result.rules is not None:
        made["phases"] = phase_figures.phase_map(result)
    return made


def _usual(table: DataFrame) -> tuple[str, ...]:
    found = tuple(name for name in _ANCHOR_VALUES if name in table)
    return found or ("unseen_pairs_accuracy" if "unseen_pairs_accuracy" in table else "test_accuracy",)


def _named(
    table: DataFrame, x: str, y: str | None, rules: Rules | None
) -> dict[tuple[Value, Value | None], Counter[str | None]]:
    """How many runs at each grid point have each label; ``None`` counts those that failed."""
    given = labels(table, rules or Rules(name="none", source="", rules=(), otherwise=""))
    named: dict[tuple[Value, Value | None], Counter[str | None]] = {}
    for at_x, at_y, label in zip(table[x], [None] * len(table) if y is None else table[y], given, strict=True):
        named.setdefault((at_x, at_y), Counter())[label] += 1
    return named


def _majority(counts: Mapping[str, int]) -> str | None:
    """The label of more than half, ``mixed`` where there is none, and nothing where there are no runs."""
    if not counts:
        return None
    label, most = max(counts.items(), key=lambda item: item[1])
    return label if 2 * most > sum(counts.values()) else MIXED


def _interval(name: str, values: np.ndarray, seed: int) -> Interval:
    """The mean over seeds, NaN left out."""
    there = canonical(values[np.isfinite(values)][:, None])[:, 0]
    if not len(there):
        return Interval(value=math.nan, low=math.nan, high=math.nan, n=0, n_units=0, method="none")
    interval = mean(torch.from_numpy(there), seed=seed)
    if interval.method == "bootstrap" or not is_share(name):
        return interval
    low, high = wilson(min(max(interval.value, 0.0), 1.0), len(there))
    return replace(interval, low=low, high=high, method="wilson")


def _boundary(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]], of: str | None, first: str, x: Axis, y: Axis | None, seed: int
) -> Boundary | None:
    """Of the share asked for; without one asked for, of the first where that is possible."""
    name = of or first
    if of is None and (x.scale == "category" or len(x.values) < 2 or not is_share(name)):
        return None
    return boundary(arrays[name][0], x, y, of=name, seed=seed)


def _trends(arrays: Mapping[str, np.ndarray], x: Axis, y: Axis | None, seed: int) -> tuple[Trend, ...]:
    """Of every order parameter with every axis of at least two numbers."""
    along: tuple[tuple[Literal["x", "y"], Axis | None], ...] = (("x", x), ("y", y))
    return tuple(
        trend(values, at, value=name, along=which, seed=seed)
        for which, at in along
        if at is not None and at.scale != "category" and len(at.values) > 1
        for name, values in arrays.items()
    )
