"""The figures of a phase diagram: maps with a boundary and hatching, and curves with error bars.

Cells of a map are drawn at 0, 1, 2, … along both axes, whatever the scale of the values, which stand at the ticks; the
boundary is placed between them on the axis' own scale. plotly's heat maps know no hatching: lines are drawn across the
cells, white under black, so that they show on every colour.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import plots, theme
from interp.sweeps.cells import Axis
from interp.sweeps.phase_record import MIXED, GridPoint, PhaseDiagram, is_share
from interp.sweeps.regimes import SEEN

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STRIPES = np.arange(-0.75, 1.0, 0.25)
_CELL, _AROUND = 56, 250
_INTERVAL = "95 % interval over seeds (two or three seeds: their range; where all agree on a share, Wilson's)"


def order_map(result: PhaseDiagram, value: str) -> "go.Figure":
    """Mean over seeds of an order parameter, viridis, from 0 to 1 for shares; the boundary with its interval, and
    hatching where seen data are not fitted."""
    found = result.boundary
    parts = [f"Mean over {_seeds(result)} {_when(value)}{_best(result)}; blank: no run"]
    if found is not None:
        parts.append(f"line: {spoken(found.of)} passes 1/2, bars: interval over seeds and grid")
    if result.seen is not None:
        parts.append(f"hatched: {spoken(result.seen)} below {SEEN}")
    figure = plots.heatmap(
        result.grid(value).tolist(),
        title=spoken(value).capitalize(),
        x=result.x.name,
        y=_y_name(result),
        colour=spoken(value),
        caption="; ".join(parts) + ".",
        signed=False,
        limit=1.0 if is_share(value) else None,
    )
    _arrange(figure, result, value)
    xs, ys = hatching(unfitted(result), len(result.x.values))
    for colour, width in (("white", 3.5), (theme.INK, 1.2)):
        line = {"color": colour, "width": width}
        figure.add_scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False, name="hatching")
    if found is not None:
        _draw_boundary(figure, result)
    return figure


def phase_map(result: PhaseDiagram) -> "go.Figure":
    """The label of each grid point, one colour each; the number in a cell says how many of its runs have it."""
    shown = [phase for phase in result.phases if any(point.label == phase for point in result.points)]
    numbers = [math.nan if point.label is None else shown.index(point.label) for point in result.points]
    colours = [theme.CONTROL if phase == MIXED else theme.seed_colour(result.phases.index(phase)) for phase in shown]
    width = len(result.x.values)
    figure = plots.heatmap(
        _rows(numbers, width),
        title="Phases",
        x=result.x.name,
        y=_y_name(result),
        colour="phase",
        caption="The label that more than half of a cell's runs have, and how many have it; mixed: none has so many; "
        f"blank: no run. By {result.rules}.",
        signed=False,
    )
    cells = [
        f"{point.labels.get(point.label, max(point.labels.values()))}/{point.n_runs}" if point.label else ""
        for point in result.points
    ]
    figure.data[0].update(
        colorscale=[[edge / len(shown), colour] for i, colour in enumerate(colours) for edge in (i, i + 1)],
        zmin=-0.5,
        zmax=len(shown) - 0.5,
        showscale=False,
        text=_rows(cells, width),
        texttemplate="%{text}",
        xgap=1,
        ygap=1,
    )
    _arrange(figure, result, result.values[0])
    for phase, colour in zip(shown, colours, strict=True):
        marker = {"symbol": "square", "size": 11, "color": colour}
        figure.add_scatter(name=phase, x=[None], y=[None], mode="markers", marker=marker)
    figure.update_layout(showlegend=True)
    return figure


def curves(result: PhaseDiagram, value: str) -> "go.Figure":
    """Mean over seeds of an order parameter along x, one line per value of y, with intervals as error bars; over one
    axis also its largest value over training, and the boundary."""
    at = list(range(len(result.x.values))) if result.x.scale == "category" else _spread(result.x)
    lines = {_row_name(result, points[0]): points for points in _rows(result.points, len(result.x.values))}
    series = {name: [point.values[value] for point in points] for name, points in lines.items()}
    if result.y is None and all(value in point.maxima for point in result.points):
        series["largest over training"] = [point.maxima[value] for point in result.points]
    half = result.boundary if result.y is None else None
    crossings = [c for c in half.crossings if c.where == "crosses"] if half and half.of == value else []
    edge = " Dashed: where it passes 1/2; grey: its interval over seeds and grid." if crossings else ""
    figure = plots.lines(
        at,
        {name: [interval.value for interval in found] for name, found in series.items()},
        title=f"{spoken(value).capitalize()} along {result.x.name}",
        x=result.x.name,
        y=spoken(value),
        caption=f"Mean over {_seeds(result)} {_when(value)}{_best(result)}. Bars: {_INTERVAL}.{edge}",
        log_x=result.x.scale == "log",
        dashes={"largest over training": "dot"},
    )
    traces: Any = figure.data
    for trace, found in zip(traces, series.values(), strict=True):
        trace.update(mode="lines+markers", error_y=plots.error_bars(found, thickness=1.2, width=4), connectgaps=False)
    for trace, points in zip(traces, lines.values(), strict=False):
        _attach(trace, result, value, [points])
    figure.update_xaxes(tickvals=at, ticktext=[_label(v) for v in result.x.values])
    if is_share(value):
        figure.update_yaxes(range=[-0.03, 1.03])
    for crossing in crossings:
        where = crossing.location
        at_half, low, high = (_place(result.x, end) for end in (where.value, where.low, where.high))
        figure.add_vrect(low, high, fillcolor=theme.CONTROL, opacity=0.2, line_width=0)
        figure.add_vline(x=at_half, line_color=theme.INK, line_dash="dash", line_width=1)
    return figure


def unfitted(result: PhaseDiagram) -> list[int]:
    """Numbers of the grid points at which accuracy on seen data is below 0.9."""
    if result.seen is None:
        return []
    return [i for i, point in enumerate(result.points) if point.values[result.seen].value < SEEN]


def hatching(cells: Sequence[int], width: int) -> tuple[list[float | None], list[float | None]]:
    """x and y of lines at 45° across these cells of a grid so many cells wide, numbered row by row and centred at whole
    numbers; ``None`` ends a line."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for cell in cells:
        row, column = divmod(cell, width)
        for shift in _STRIPES.tolist():
            xs += [column - 0.5 + max(0.0, -shift), column - 0.5 + min(1.0, 1 - shift), None]
            ys += [row - 0.5 + max(0.0, shift), row - 0.5 + min(1.0, 1 + shift), None]
    return xs, ys


def spoken(name: str) -> str:
    """A column's name in words."""
    return name.replace("_", " ").replace("held out", "held-out").replace(".", ": ")


def _draw_boundary(figure: "go.Figure", result: PhaseDiagram) -> None:
    """A line along the crossings, broken where a row has none, and each row's interval as a bar."""
    assert result.boundary is not None
    xs: list[float | None] = []
    ys: list[float | None] = []
    places, rows, intervals = [], [], []
    y_values = (None,) if result.y is None else result.y.values
    for crossing in result.boundary.crossings:
        row = y_values.index(crossing.y)
        if crossing.where != "crosses":
            xs, ys = [*xs, None], [*ys, None]
            continue
        place = result.x.position(crossing.location.value)
        xs, ys = [*xs, place, place], [*ys, row - 0.5, row + 0.5]
        low, high = (result.x.position(end) for end in (crossing.location.low, crossing.location.high))
        places.append(place)
        rows.append(row)
        intervals.append((low, high))
    for colour, width in (("white", 7), (theme.CATEGORIES[3], 3.5)):
        figure.add_scatter(
            x=xs, y=ys, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip", showlegend=False
        )
        error = {
            "array": [high - place for place, (_, high) in zip(places, intervals, strict=True)],
            "arrayminus": [place - low for place, (low, _) in zip(places, intervals, strict=True)],
            "color": colour,
            "thickness": width - 1.5,
            "width": width + 2,
        }
        marker = {"color": colour, "size": width + 4}
        figure.add_scatter(
            x=places,
            y=rows,
            mode="markers",
            marker=marker,
            error_x=error,
            hoverinfo="skip",
            showlegend=False,
            name="boundary",
        )


def _arrange(figure: "go.Figure", result: PhaseDiagram, value: str) -> None:
    """Ticks at the axes' values, the first row below, a height that fits the rows, and each cell's runs."""
    y_values = ("",) if result.y is None else result.y.values
    for update, values in ((figure.update_xaxes, result.x.values), (figure.update_yaxes, y_values)):
        ticks = {"tickvals": list(range(len(values))), "ticktext": [_label(v) for v in values]}
        update(**ticks, range=[-0.5, len(values) - 0.5], autorange=None, scaleanchor=None)
    figure.update_layout(width=760, height=_AROUND + _CELL * max(3, len(y_values)), plot_bgcolor=theme.GRID)
    _attach(figure.data[0], result, value, _rows(result.points, len(result.x.values)))


def _attach(trace: Any, result: PhaseDiagram, value: str, rows: Sequence[Sequence[GridPoint]]) -> None:
    """The numbers and run folders of each point as its hover text, the folders also as ``customdata``."""
    most = max(len(point.paths[value]) for row in rows for point in row)
    texts = [[_hover(result, value, point) for point in row] for row in rows]
    paths = [[[*point.paths[value], *[""] * (most - len(point.paths[value]))] for point in row] for row in rows]
    flat = trace.type != "heatmap"
    trace.update(
        hovertext=texts[0] if flat else texts,
        customdata=paths[0] if flat else paths,
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(result: PhaseDiagram, value: str, point: GridPoint) -> str:
    """What a cell is, its numbers, and the folders of its runs."""
    lines = [f"{result.x.name} {_label(point.x)}"]
    if result.y is not None:
        lines[0] += f", {result.y.name} {_label(point.y)}"
    lines += [f"{spoken(name)} {interval}" for name, interval in point.values.items() if interval.n]
    if value in point.maxima and point.maxima[value].n:
        lines.append(f"largest over training {point.maxima[value]}")
    if point.labels:
        lines.append(", ".join(f"{n} {label}" for label, n in point.labels.items()))
    lines.append(f"{point.n_seeds} seeds, {point.n_runs} runs, {point.n_failed} failed")
    return "<br>".join([*lines, *point.paths[value]])


def _spread(x: Axis) -> list[float]:
    """The values as a plotly axis of their scale can draw them: a zero has a place on a logarithmic one, too."""
    return [float(10**at if x.scale == "log" else at) for at in x.coordinates]


def _place(x: Axis, value: float) -> float:
    """Where a value stands on the axis that ``_spread`` draws."""
    return _spread(x)[0] if x.scale == "log" and value <= 0 else value


def _rows(cells: Sequence[Any], width: int) -> list[list[Any]]:
    return [list(cells[start : start + width]) for start in range(0, len(cells), width)]


def _row_name(result: PhaseDiagram, point: GridPoint) -> str:
    return "final" if result.y is None else f"{result.y.name} {_label(point.y)}"


def _y_name(result: PhaseDiagram) -> str:
    return " " if result.y is None else result.y.name


def _when(value: str) -> str:
    return "of the largest value over training" if value.startswith("max_") else "at the end of training"


def _seeds(result: PhaseDiagram) -> str:
    return f"{result.n_seeds} seed{'' if result.n_seeds == 1 else 's'}"


def _best(result: PhaseDiagram) -> str:
    return f", of each seed the largest over {' and '.join(result.over)}" if result.over else ""


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
