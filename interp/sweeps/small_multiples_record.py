"""Shares of each class in every cell of a sweep; ``interp.sweeps.small_multiples`` makes them of a sweep's table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.result import Result
from interp.statistics import Interval
from interp.sweeps.boundary import Trend
from interp.sweeps.cells import AXES, Axis, axis, varying
from tasks.base import UserError

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

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
