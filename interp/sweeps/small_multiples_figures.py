"""The figures of small multiples: class shares and loss curves, a panel per cell or line of cells of a sweep."""

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import plots, theme
from interp.sweeps.cells import Axis, axis, trained
from interp.sweeps.regimes import LOSS_FLOOR, PEARCE, Rules, labels
from interp.sweeps.small_multiples_record import STAGE, SmallMultiplesResult, Value, axes_of
from tasks.base import UserError
from tasks.training.run import read_metrics

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

_WIDTH, _HEIGHT = 200, 130
_BELOW = 70

Facet = tuple[tuple[str, Value], ...]
"""What a row or a column of panels has in common: an axis with its value, or nothing."""


def class_panels(result: SmallMultiplesResult) -> "go.Figure":
    """Bars with intervals: the share of every class in every cell; the first axis inside a panel, the second down, the
    third across.

    Raises:
        UserError: more than three axes.
    """
    x, *others = list(result.axes)
    if len(others) > 2:
        raise UserError(f"expected at most 3 axes to draw, got {len(others) + 1}: fix more of them in the table")
    down, across = (_facets(at) for at in [*others, None, None][:2])
    figure = _panels(
        down,
        across,
        title="Classes of runs over the sweep",
        x=x.name,
        y="share of seeds",
        caption=f"Shares of {result.n_seeds} seeds in each cell, with Wilson's 95 % interval. The {result.rules}.",
    )
    cells = {tuple(cell.at.items()): cell for cell in result.cells}
    for (row, below), (column, beside) in itertools.product(enumerate(down, 1), enumerate(across, 1)):
        here = [cells[((x.name, value), *below, *beside)] for value in x.values]
        for number, label in enumerate(result.classes):
            shares = [cell.shares.get(label) for cell in here]
            figure.add_bar(
                name=label,
                x=[_label(value) for value in x.values],
                y=[math.nan if share is None else share.value for share in shares],
                error_y=plots.error_bars(shares, thickness=1, width=0, color=theme.CONTROL),
                marker_color=theme.seed_colour(number),
                customdata=["<br>".join(cell.paths) for cell in here],
                hovertemplate="%{x}: %{y:.2f}<br>%{customdata}",
                legendgroup=label,
                showlegend=row == column == 1,
                row=row,
                col=column,
            )
    figure.update_layout(barmode="group", bargap=0.15, bargroupgap=0)
    figure.update_xaxes(type="category", ticks="")
    figure.update_yaxes(range=[0, 1.02], tickvals=[0, 0.5, 1])
    return figure


def trend_points(result: SmallMultiplesResult) -> "go.Figure":
    """The rank correlation of every class' share, and of the stage, with every axis of numbers."""
    names = list(dict.fromkeys(trend.axis for trend in result.trends))
    shown = list(dict.fromkeys(trend.value for trend in result.trends))
    traces = []
    for number, of in enumerate(shown):
        found = [trend for trend in result.trends if trend.value == of]
        shape = "diamond" if of == STAGE else "circle"
        traces.append(
            {
                "name": "stage of the class" if of == STAGE else of,
                "x": [names.index(trend.axis) + 0.12 * (number - (len(shown) - 1) / 2) for trend in found],
                "y": [trend.correlation.value for trend in found],
                "error_y": plots.error_bars([trend.correlation for trend in found]),
                "hovertext": [f"{of}: {trend.correlation}, permutation p {trend.p_value:.3f}" for trend in found],
                "marker": {
                    "size": 10,
                    "color": theme.INK if of == STAGE else theme.seed_colour(result.classes.index(of)),
                    "symbol": [shape + ("" if trend.p_value < 0.05 else "-open") for trend in found],
                },
            }
        )
    stages = f" Stage: the place of a run's class in {', '.join(result.stages)}." if STAGE in shown else ""
    figure = plots.scatter(
        traces,
        title="Which way each axis pushes",
        x="axis of the sweep",
        y="rank correlation with the axis",
        caption=f"Spearman's over single runs, mean over {result.n_seeds} seeds, with its 95 % interval over seeds."
        f"{stages} Filled: p < 0.05 where the axis' values are permuted.",
    )
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.5, len(names) - 0.5])
    figure.update_layout(width=960)
    return figure.add_hline(y=0, line_width=1, line_color=theme.SOFT_INK)


def loss_curves(
    table: DataFrame,
    out: str | Path,
    *,
    where: Mapping[str, Value] | None = None,
    axes: Sequence[str] | None = None,
    rules: Rules = PEARCE,
) -> "go.Figure":
    """Train and test loss of every seed over the steps, a panel per cell of a slice, with its most frequent class.

    Args:
        table: of a sweep, with ``interp.sweeps.regimes.with_transitions``.
        out: the sweep's folder.
        where: the slice: axis → the value to show, such as ``{"task.n_train": 1250}``.
        axes: down and across; ``None``: those that vary in the slice.
        rules: name the classes.

    Raises:
        UserError: no such axis, no run in the slice, more than two axes that vary in it.
    """
    rows: Any = trained(table)
    for name, value in (where or {}).items():
        axis(table, name)
        rows = rows[rows[name] == value]
    if not len(rows):
        raise UserError(f"expected runs in the slice {dict(where or {})}, the table has none there")
    names = axes_of(rows, axes)
    if len(names) > 2:
        raise UserError(f"expected two axes that vary in the slice, got {', '.join(names)}: fix more of them by where")
    down, across = (_facets(at) for at in [*(axis(rows, name) for name in names), None][:2])
    chosen = ", ".join(f"{name} {_label(value)}" for name, value in (where or {}).items())
    figure = _panels(
        down,
        across,
        title=f"Loss of every seed{f' at {chosen}' if chosen else ''}",
        x="step",
        y="loss",
        caption="Solid: train, dashed: test, one colour per seed, 2⁻²³ added to every loss. Above a panel: the class "
        "of most of its runs, and how many have it. Steps are logarithmic; step 0 is drawn at half of the next.",
    )
    classes = labels(rows, rules)
    columns = [rows[name].tolist() for name in (*names, "seed", "path")]
    runs = [(place, seed, path) for *place, seed, path in zip(*columns, strict=True)]
    legend = set()
    for (row, below), (column, beside) in itertools.product(enumerate(down, 1), enumerate(across, 1)):
        here = [value for _, value in (*below, *beside)]
        found = Counter(label for (place, _, _), label in zip(runs, classes, strict=True) if place == here)
        for place, seed, path in runs:
            if place == here:
                _draw_losses(figure, Path(out) / path, seed, seed not in legend, row, column)
                legend.add(seed)
        if found:
            label, n = found.most_common(1)[0]
            figure.add_annotation(
                text=f"{label} {n}/{found.total()}",
                x=0.5,
                y=1,
                xref="x domain",
                yref="y domain",
                yanchor="bottom",
                showarrow=False,
                font={"size": 10},
                row=row,
                col=column,
            )
    figure.update_xaxes(type="log", dtick=1, tickfont_size=11)
    figure.update_yaxes(type="log", dtick=2, tickfont_size=11)
    return figure


def _draw_losses(figure: "go.Figure", path: Path, seed: int, named: bool, row: int, column: int) -> None:
    metrics = read_metrics(path)
    steps = [line["step"] for line in metrics]
    first = next((step for step in steps if step), 1)
    for part in ("train", "test"):
        losses = [line.get(f"{part}_loss") for line in metrics]
        figure.add_scatter(
            name=f"seed {seed}",
            x=[step or first / 2 for step in steps],
            y=[None if loss is None else loss + LOSS_FLOOR for loss in losses],
            mode="lines",
            line={"color": theme.seed_colour(seed), "dash": theme.DASHES[part], "width": 1},
            hovertext=f"{path.name}, {part}",
            legendgroup=f"seed {seed}",
            showlegend=named and part == "train",
            row=row,
            col=column,
        )


def _facets(at: Axis | None) -> list[Facet]:
    return [()] if at is None else [((at.name, value),) for value in at.values]


def _panels(down: Sequence[Facet], across: Sequence[Facet], *, title: str, x: str, y: str, caption: str) -> "go.Figure":
    """Empty panels that share their axes, each row and column titled by what it has in common."""
    from plotly.subplots import make_subplots

    shared: Any = {"shared_xaxes": "all", "shared_yaxes": "all"}  # their type knows of bool alone
    width = max(_WIDTH * len(across), 500) + 320
    figure = make_subplots(
        rows=len(down),
        cols=len(across),
        **shared,
        row_titles=[_spoken(facet) for facet in down],
        column_titles=[_spoken(facet) for facet in across],
        horizontal_spacing=0.12 / len(across),
        vertical_spacing=0.2 / len(down),
        x_title=x,
        y_title=y,
    )
    wrapped = textwrap.wrap(caption, int(width / 7))
    above = 90 + 16 * len(wrapped)
    figure.update_annotations(font_size=12)
    figure.for_each_annotation(lambda title: title.update(yshift=14), {"y": 1.0, "yanchor": "bottom"})
    figure.update_layout(
        template=theme.template(),
        title={"text": title, "subtitle": {"text": "<br>".join(wrapped)}},
        width=width,
        height=_HEIGHT * len(down) + above + _BELOW,
        margin={"t": above, "l": 80, "r": 240, "b": _BELOW},
        legend={"orientation": "v", "x": 1, "xanchor": "right", "xref": "container", "y": 1, "yanchor": "top"},
    )
    return figure


def _spoken(facet: Facet) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {_label(value)}" for name, value in facet)


def _label(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
