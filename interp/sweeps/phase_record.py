"""A phase diagram: its grid points, boundary and trends; ``interp.sweeps.phases`` makes it of a sweep's table."""

import html
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.result import Result
from interp.statistics import Interval
from interp.sweeps.boundary import Boundary, Trend
from interp.sweeps.cells import Axis
from tasks.base import UserError

MIXED = "mixed"
_SHARES = ("accuracy", "inferential", "symmetric", "other", "share")

Value = int | float | str | bool


@dataclass(frozen=True, kw_only=True, eq=False)
class GridPoint(Result):
    """One place in the diagram.

    ``values``: mean over seeds of every order parameter; ``maxima``: the same of its largest value over training, where
    the table has it. ``paths``: of each order parameter, the run folders its mean was taken over, one per seed.
    ``n_runs`` counts runs that ended well, ``n_failed`` the others; ``labels`` maps a label to how many runs have it.
    """

    x: Value
    y: Value | None
    n_seeds: int
    n_runs: int
    n_failed: int
    values: dict[str, Interval]
    maxima: dict[str, Interval]
    label: str | None
    labels: dict[str, int]
    paths: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseDiagram(Result):
    """What ``analyze`` finds; ``points`` row by row, x running fastest.

    ``over``: axes that every order parameter was maximised over. ``seen``: the accuracy below 0.9 of which a cell is
    hatched. ``rules``: by what the labels were given; ``phases``: all labels there are.
    """

    x: Axis
    y: Axis | None
    over: tuple[str, ...]
    values: tuple[str, ...]
    seen: str | None
    rules: str | None
    phases: tuple[str, ...]
    points: tuple[GridPoint, ...]
    boundary: Boundary | None
    trends: tuple[Trend, ...]
    n_seeds: int
    n_runs: int
    n_failed: int

    def at(self, x: Value, y: Value | None = None) -> GridPoint:
        """The grid point with these values of the axes.

        Raises:
            UserError: there is none.
        """
        for point in self.points:
            if (point.x, point.y) == (x, y):
                return point
        raise UserError(f"expected a point of the grid, got {self.x.name} {x}, y {y}: x has {self.x.values}")

    def grid(self, value: str) -> Float[np.ndarray, "y x"]:
        """The mean of an order parameter over the grid, NaN where there is no run."""
        means = [point.values[value].value for point in self.points]
        return np.array(means, dtype=float).reshape(-1, len(self.x.values))

    def _repr_html_(self) -> str:
        """The first order parameter and the labels as a table, and where the boundary lies, for a notebook."""
        name, width = self.values[0], len(self.x.values)
        head = "".join(f"<th>{html.escape(_shown(value))}</th>" for value in self.x.values)
        rows = []
        for start in range(0, len(self.points), width):
            points = self.points[start : start + width]
            cells = "".join(f"<td>{_number(p.values[name])}<br>{html.escape(p.label or '')}</td>" for p in points)
            rows.append(f"<tr><th>{'' if self.y is None else html.escape(_shown(points[0].y))}</th>{cells}</tr>")
        axes = self.x.name if self.y is None else f"{self.y.name} \\ {self.x.name}"
        found = "" if self.boundary is None else f"<p>{html.escape(_boundary_sentence(self.boundary))}</p>"
        return (
            f"<table><caption>{html.escape(name)}, mean over {self.n_seeds} seeds</caption>"
            f"<tr><th>{html.escape(axes)}</th>{head}</tr>{''.join(rows)}</table>{found}"
        )


def is_share(name: str) -> bool:
    """Whether a column holds shares, between 0 and 1."""
    return name.endswith(_SHARES)


def _shown(value: Value | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(interval: Interval) -> str:
    return "" if math.isnan(interval.value) else f"{interval.value:.2f}"


def _boundary_sentence(found: Boundary) -> str:
    """Where the boundary lies, row by row."""
    rows = [
        f"{'' if crossing.y is None else f'{_shown(crossing.y)}: '}"
        + (str(crossing.location) if crossing.where == "crosses" else f"{crossing.where} 1/2 throughout")
        for crossing in found.crossings
    ]
    return (
        f"{found.of} passes 1/2 along {found.x} at {'; '.join(rows)} ({found.direction}; {found.agreement:.0%} of grid "
        f"points lie on the fitted side, {found.control_agreement:.0%} where x is shuffled)."
    )
