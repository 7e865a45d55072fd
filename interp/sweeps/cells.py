"""A sweep's table as arrays: axes with their scale, the best over an axis, one array [seed, y, x] per value.

The table has one row per cell, a trained run: ``path``, ``seed``, a column per axis under its dotted name
(``init.gamma``), the metrics of the last evaluation, their largest value over training (``max_…``), and ``error``.

A cell that failed counts as missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from interp.result import Result
from tasks.base import UserError
from tasks.sweep.grid import rank

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

Scale = Literal["linear", "log", "category"]
AXES = ("task.", "model.", "init.", "training.")
"""How the name of an axis begins. Other dotted columns hold numbers of analyses."""
_DECADE = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis(Result):
    """The values that a sweep gave to one field, ascending, and the scale on which they are compared and drawn."""

    name: str
    values: tuple[int | float | str | bool, ...]
    scale: Scale

    @property
    def coordinates(self) -> Float[np.ndarray, " value"]:
        """The values on their scale: themselves, their log10, or their number where they are names.

        On a log scale 0 (no weight decay) stands one mean step below the smallest positive value.
        """
        if self.scale == "category":
            return np.arange(len(self.values), dtype=float)
        numbers = np.array(self.values, dtype=float)
        if self.scale == "linear":
            return numbers
        positive = np.log10(numbers[numbers > 0])
        step = np.diff(positive).mean() if len(positive) > 1 else 1.0
        return np.concatenate([[positive[0] - step] * (len(numbers) - len(positive)), positive])

    def value_at(self, coordinate: float) -> float:
        """The value with this coordinate; at or beyond an end of the axis, the value there."""
        at = self.coordinates
        if coordinate <= at[0] or coordinate >= at[-1]:
            return float(self.values[0 if coordinate <= at[0] else -1])
        return float(10**coordinate if self.scale == "log" else coordinate)

    def position(self, value: int | float) -> float:
        """Where a value lies when the axis' own values are drawn at 0, 1, 2, …"""
        at = self.coordinates
        coordinate = value if self.scale == "linear" else np.log10(value) if value > 0 else at[0]
        return float(np.interp(coordinate, at, np.arange(len(at))))


def axis(table: DataFrame, name: str, scale: Scale | None = None) -> Axis:
    """The axis of this name. Without ``scale``: names are categories; numbers are logarithmic where they span a decade
    and lie more evenly on a log scale than on a linear one, a zero left out.

    Text that is JSON, as a sweep writes lists and ``None``, is ordered by what it says: 64 before 512 before null.

    Raises:
        UserError: no such column, or a row without a value in it.
    """
    if name not in table:
        known = [column for column in table if column.startswith(AXES)]
        raise UserError(f"expected an axis of the sweep, got {name!r}: it has {', '.join(known) or 'none'}")
    if missing := sum(table[name].isna().tolist()):
        raise UserError(f"expected a value of {name} in every row, {missing} rows have none: choose the others")
    values = {value.item() if isinstance(value, np.generic) else value for value in table[name]}
    if any(isinstance(value, str | bool) for value in values):
        return Axis(name=name, values=tuple(sorted(values, key=rank)), scale="category")
    found = tuple(sorted(values))
    if scale == "log" and (found[0] < 0 or found[-1] <= 0):
        raise UserError(f"expected values above 0 on a log scale, {name} has {found[0]:g}: call it linear")
    return Axis(name=name, values=found, scale=scale or _guessed(np.array(found, dtype=float)))


def _guessed(values: np.ndarray) -> Scale:
    positive = values[values > 0]
    if values[0] < 0 or len(positive) < 2 or positive[-1] < _DECADE * positive[0]:
        return "linear"
    log_gaps, gaps = np.diff(np.log10(positive)), np.diff(positive)
    return "log" if log_gaps.std() / log_gaps.mean() <= gaps.std() / gaps.mean() else "linear"


def succeeded(table: DataFrame) -> list[bool]:
    """Whether each row's run ended without an error."""
    errors: Any = table.get("error")
    return [True] * len(table) if errors is None else errors.isna().tolist()


def trained(table: DataFrame) -> DataFrame:
    """The rows whose run ended without an error."""
    rows: Any = table
    return rows[succeeded(table)]


def varying(table: DataFrame, fixed: Sequence[str]) -> list[str]:
    """Axes of the sweep that still vary where those in ``fixed`` have one value; an axis that walks together with one
    of them does not."""

    def n_settings(names: Sequence[str]) -> int:
        return len(set(zip(*(map(str, table[name]) for name in names), strict=True)))

    others = [name for name in table if name.startswith(AXES) and name not in fixed]
    return [name for name in others if n_settings([*fixed, name]) > n_settings(fixed)]


def best_over(table: DataFrame, over: Sequence[str], values: Sequence[str]) -> DataFrame:
    """One row per seed and setting of the remaining axes: of each value its maximum over the axes in ``over``.

    Each value is maximised on its own, as Zhang et al. 2024 (arXiv 2405.05409, fig. 2) do: *the best accuracy per
    mapping over nine learning rates*. Two values of one row may thus come from two runs; ``path of <value>`` names the
    run. Not for losses. Failed cells are left out.

    A maximum over k runs is biased upwards, by more the more they scatter: compare only maxima over equally many.
    """
    groups = [*(name for name in table if name.startswith(AXES) and name not in over), "seed"]
    rows: Any = trained(table)
    parts = []
    for value in values:
        ascending = rows.sort_values([value, "path"], na_position="first")
        best = ascending.groupby(groups, dropna=False)[[value, "path"]].last()
        parts.append(best.rename(columns={"path": f"path of {value}"}))
    return parts[0].join(parts[1:]).reset_index()


def by_seed(
    table: DataFrame, value: str, x: Axis, y: Axis | None = None
) -> tuple[Float[np.ndarray, "seed y x"], Shaped[np.ndarray, "seed y x"]]:
    """A value per seed and grid point, NaN where there is no run, and the path of the run, "" where there is none.

    Raises:
        UserError: the table lacks the value, or has two rows of one seed at one point.
    """
    if value not in table:
        raise UserError(f"expected a column {value!r} in the table: it has {', '.join(table.columns)}")
    rows = trained(table)
    seeds = {seed: index for index, seed in enumerate(sorted(set(rows["seed"])))}
    columns = {at: index for index, at in enumerate(x.values)}
    lines = {None: 0} if y is None else {at: index for index, at in enumerate(y.values)}
    shape = (len(seeds), len(lines), len(columns))
    values, paths = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    names = rows[f"path of {value}"] if f"path of {value}" in rows else rows["path"]
    line_of = [None] * len(rows) if y is None else rows[y.name]
    for seed, line, column, number, path in zip(rows["seed"], line_of, rows[x.name], rows[value], names, strict=True):
        at = seeds[seed], lines[line], columns[column]
        if paths[at]:
            raise UserError(
                f"expected one run per seed and grid point, {paths[at]} and {path} share theirs: choose among the "
                "other axes, or take the best over them"
            )
        values[at], paths[at] = number, path
    return values, paths
