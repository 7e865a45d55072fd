"""Two ensembles beside each other: the same numbers of every run, their means over seeds, and the difference.

A number is named by its analysis and the way to it in the result: ``rank.mean_relative_stable_rank``,
``geometry.model.embedding.order``. The unit is the run: an interval says what another seed would do, and nothing about
one model's keys. With three seeds a side it is wide, and ought to be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from interp.registry import analysis, analysis_modules
from interp.result import Result
from interp.statistics import Interval, difference, student
from interp.subject import Ensemble, Subject
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

ANCHOR_NUMBERS = {
    "condensation.groups": "groups of query neurons, lone ones too",
    "condensation.directions": "directions among the query neurons",
    "condensation.condensed_share": "share of query neurons in groups",
    "condensation.mean_absolute_cosine": "mean |cosine| of query neurons",
    "rank.mean_relative_stable_rank": "stable rank / that of random weights",
    "rank.embedding_participation_ratio": "participation ratio of the embeddings",
    "geometry.model.embedding.order": "order of the embeddings",
}
"""What initial scale is said to change in models of anchor composition (Zhang et al. 2024), with names for figures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast(Result):
    """One number of both ensembles: every run's value, the means, and first − second.

    ``apart``: whether the interval of the difference leaves out 0.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    first_mean: Interval
    second_mean: Interval
    difference: Interval

    @property
    def apart(self) -> bool:
        """Whether 0 lies outside the interval of the difference; false where there is none."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastResult(Result):
    """The names of the two ensembles, and a ``Contrast`` per number."""

    first: str
    second: str
    numbers: dict[str, Contrast]


@ordinary_torch()
def analyze(
    first: Ensemble,
    second: Ensemble,
    *,
    names: tuple[str, str] = ("first", "second"),
    numbers: Sequence[str] = tuple(ANCHOR_NUMBERS),
) -> ContrastResult:
    """The numbers of two ensembles and how far they differ, with intervals over runs.

    Args:
        first, second: runs that are equal but for the seed, on each side.
        names: of the ensembles, for figures.
        numbers: dotted names; the part before the first dot is a module of ``interp``.

    Raises:
        UserError: a name that leads to no number, or to an analysis of something else than a subject.
    """
    found = [[_numbers(subject, numbers) for subject in ensemble] for ensemble in (first, second)]
    contrasts = {}
    for index, number in enumerate(numbers):
        a, b = (torch.tensor([row[index] for row in rows], dtype=torch.float64) for rows in found)
        contrasts[number] = Contrast(
            first=tuple(a.tolist()),
            second=tuple(b.tolist()),
            first_mean=student(a),
            second_mean=student(b),
            difference=difference(a, b),
        )
    return ContrastResult(first=names[0], second=names[1], numbers=contrasts)


def figures(result: ContrastResult) -> dict[str, "go.Figure"]:
    """One figure per number: every run as a point, and each ensemble's mean with its interval."""
    from interp import plots, theme

    drawn = {}
    for number, contrast in result.numbers.items():
        name = ANCHOR_NUMBERS.get(number, number)
        traces: list[dict[str, Any]] = []
        for index, (side, values, mean) in enumerate(
            (
                (result.first, contrast.first, contrast.first_mean),
                (result.second, contrast.second, contrast.second_mean),
            )
        ):
            colour = theme.colour(side, index)
            traces += [
                {"name": f"{side}, runs", "x": [side] * len(values), "y": list(values), "marker": {"color": colour}},
                {
                    "name": f"{side}, mean",
                    "x": [side],
                    "y": [mean.value],
                    "error_y": plots.error_bars([mean]),
                    "marker": {"color": colour, "symbol": "line-ew-open", "size": 24},
                },
            ]
        drawn[number] = plots.scatter(
            traces,
            title=name[0].upper() + name[1:],
            x="ensemble",
            y=name,
            caption=f"{result.first} − {result.second}: {contrast.difference}, {_said(contrast)}. "
            "Bars: 95 % intervals of the mean over runs (Student).",
        )
    return drawn


def _said(contrast: Contrast) -> str:
    """What the difference amounts to."""
    if math.isnan(contrast.difference.low):
        return "no interval"
    return "apart from 0" if contrast.apart else "not told from 0"


def _numbers(subject: Subject, names: Sequence[str]) -> list[float]:
    """The values of these names for one run; every analysis is made once."""
    results: dict[str, Any] = {}
    values = []
    for name in names:
        analysis, _, path = name.partition(".")
        if analysis not in results:
            results[analysis] = _module(name).analyze(subject)
        value = results[analysis]
        for part in path.split("."):
            value = getattr(value, part, None)
        if not isinstance(value, int | float):
            raise UserError(f"expected the way to a number in the result of {analysis}, got {name!r}")
        values.append(float(value))
    return values


def _module(name: str) -> ModuleType:
    """The analysis that a number's name begins with."""
    first = name.partition(".")[0]
    try:
        module = import_module(analysis(first).module)
    except UserError:
        raise UserError(f"expected a number such as rank.mean_relative_stable_rank, got {name!r}") from None
    return analysis_modules([module], "any")[module.__name__.rpartition(".")[2]]
