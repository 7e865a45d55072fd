"""Two sweeps of one grid beside each other: how many runs of each class, and in how many cells the same class leads.

For a published sweep of which classes are known, and one's own: ``agreement.compare(classed(table), published)``. The
control for the cells is chance: how many would agree if the cells' leading classes were exchanged among the cells.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.result import Result
from interp.statistics import Interval, student
from interp.sweeps.cells import AXES, trained
from interp.sweeps.regimes import PEARCE, Rules, labels
from tasks.base import UserError, generator

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

N_EXCHANGES = 1_000


@dataclass(frozen=True, kw_only=True, eq=False)
class OtherCell(Result):
    """A cell in which another class leads: where it lies, and the runs of each class on either side."""

    at: dict[str, float | int | str]
    counts: dict[str, int]
    other_counts: dict[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement(Result):
    """What ``compare`` finds.

    Attributes:
        counts, other_counts: class → runs of the first and of the second sweep; the interval is of the number of runs,
            Student's over seeds, each of which is one run per cell.
        same, n_cells: cells in which the same class has most runs, of all cells. Cells in which two classes have
            equally many have no leading class, and count as not the same.
        same_runs: runs, matched by cell and seed, that are of the same class.
        control_same: cells that agree where the second sweep's leading classes are exchanged among the cells, mean and
            largest of ``N_EXCHANGES`` draws.
        others: cells in which another class leads.
    """

    counts: dict[str, Interval]
    other_counts: dict[str, Interval]
    same: int
    n_cells: int
    same_runs: int
    control_same: float
    control_same_largest: int
    others: tuple[OtherCell, ...]


def classed(table: DataFrame, rules: Rules = PEARCE) -> DataFrame:
    """Axes, seed and class of every run of a sweep that ended well, by rules of ``interp.sweeps.regimes``."""
    ended = trained(table)
    columns = [name for name in ended if name.startswith(AXES)]
    return ended[[*columns, "seed"]].assign(**{"class": labels(ended, rules)})


def compare(ours: DataFrame, other: DataFrame, *, seed: int = 0) -> Agreement:
    """How two sweeps over the same cells agree.

    Args:
        ours, other: a row per run: the axes under their dotted names, ``seed`` and ``class``, as ``classed`` gives.
        seed: of the exchanges.

    Raises:
        UserError: other axes, other cells, or no class.
    """
    axes = sorted(name for name in ours if name.startswith(AXES))
    if axes != sorted(name for name in other if name.startswith(AXES)):
        raise UserError(f"expected the same axes on both sides, got {', '.join(axes)} and others")
    for frame in (ours, other):
        if "class" not in frame:
            raise UserError("expected a column class on both sides: use agreement.classed(table)")
    first, second = _by_cell(ours, axes), _by_cell(other, axes)
    if set(first) != set(second):
        raise UserError(f"expected the same cells on both sides, {len(set(first) ^ set(second))} are in one only")
    leading = [_leading(first[cell]) for cell in first]
    other_leading = [_leading(second[cell]) for cell in first]
    same = _agreeing(leading, other_leading)
    rng = generator(seed, "agreement")
    exchanged = [
        sum(_agreeing(leading, [other_leading[i] for i in rng.permutation(len(leading))])) for _ in range(N_EXCHANGES)
    ]
    others = tuple(
        OtherCell(at=dict(zip(axes, cell, strict=True)), counts=dict(first[cell]), other_counts=dict(second[cell]))
        for cell, equal in zip(first, same, strict=True)
        if not equal
    )
    return Agreement(
        counts=_per_seed(ours),
        other_counts=_per_seed(other),
        same=sum(same),
        n_cells=len(same),
        same_runs=_same_runs(ours, other, axes),
        control_same=float(np.mean(exchanged)),
        control_same_largest=max(exchanged),
        others=others,
    )


def _by_cell(frame: DataFrame, axes: Sequence[str]) -> dict[tuple[Any, ...], Counter[str]]:
    """Cell → class → runs."""
    cells: dict[tuple[Any, ...], Counter[str]] = {}
    for row in frame.to_dict("records"):
        cells.setdefault(tuple(row[name] for name in axes), Counter())[row["class"]] += 1
    return cells


def _leading(counts: Mapping[str, int]) -> str | None:
    """The class with most runs; None where two have equally many."""
    most = max(counts.values())
    leaders = [label for label, runs in counts.items() if runs == most]
    return leaders[0] if len(leaders) == 1 else None


def _agreeing(ours: Sequence[str | None], other: Sequence[str | None]) -> list[bool]:
    return [a is not None and a == b for a, b in zip(ours, other, strict=True)]


def _per_seed(frame: DataFrame) -> dict[str, Interval]:
    """Class → its number of runs, with Student's interval over the numbers that each seed has."""
    runs = Counter((row["class"], row["seed"]) for row in frame.to_dict("records"))
    seeds = sorted({seed for _, seed in runs})
    numbers = {}
    for label in sorted({label for label, _ in runs}):
        each = student(torch.tensor([float(runs[label, seed]) for seed in seeds]))
        # the whole is a sum over seeds, that many times their mean
        whole = {end: getattr(each, end) * len(seeds) for end in ("value", "low", "high")}
        numbers[label] = replace(each, **whole)
    return numbers


def _same_runs(ours: DataFrame, other: DataFrame, axes: Sequence[str]) -> int:
    """Runs of the same cell and seed that are of the same class."""
    first, second = (
        {tuple(row[name] for name in (*axes, "seed")): row["class"] for row in frame.to_dict("records")}
        for frame in (ours, other)
    )
    return sum(second.get(run) == label for run, label in first.items())
