"""The few figures that all analyses share: a heat map, bars, lines, and points.

Each builder asks for a title, the names of both axes and a caption, so that no figure goes without; the caption is the
figure's subtitle and stays with it when it is saved.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from interp import theme
from interp.statistics import Interval

Number = float | int

CAPTION_WIDTH = 105  # characters of a caption's line at the template's width and font
LINES_IN_LEGEND = 6
FEW_POINTS = 40
SHORT_NAME = 10  # characters that fit on top of a colour bar


def heatmap(
    values: Sequence[Sequence[Number]],
    *,
    title: str,
    x: str,
    y: str,
    colour: str,
    caption: str,
    signed: bool = True,
    limit: float | None = None,
    x_labels: Sequence[str | int] | None = None,
    y_labels: Sequence[str | int] | None = None,
    show_values: bool = False,
) -> go.Figure:
    """A matrix of values, row 0 on top.

    Args:
        values: one sequence per row.
        title, x, y, colour, caption: of the figure, its axes and its colour bar.
        signed: RdBu centred on 0, otherwise viridis.
        limit: the scale ends at ±limit, or 0 and limit where it is not signed; ``None``: at the largest absolute value,
            or at the smallest and largest value.
        x_labels, y_labels: of columns and rows; ``None``: their indices.
        show_values: print each number in its cell.
    """
    if signed and limit is None:
        limit = max((abs(v) for row in values for v in row if math.isfinite(v)), default=0.0) or 1.0
    if signed and limit is not None:
        scale = {"colorscale": theme.SIGNED, "zmin": -limit, "zmax": limit}
    else:
        scale = {"colorscale": theme.MAGNITUDE, "zmin": None if limit is None else 0, "zmax": limit}
    trace = go.Heatmap(
        z=[list(row) for row in values],
        x=None if x_labels is None else [str(label) for label in x_labels],
        y=None if y_labels is None else [str(label) for label in y_labels],
        colorbar={
            "title": {"text": colour, "side": "top" if len(colour) <= SHORT_NAME else "right"},
            "thickness": 14,
        },
        texttemplate="%{z:.2f}" if show_values else None,
        hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>{colour} %{{z:.3g}}<extra></extra>",
        **scale,
    )
    figure = _finished(go.Figure(trace), title=title, x=x, y=y, caption=caption)
    figure.update_layout(width=640, height=640)
    figure.update_xaxes(showgrid=False, constrain="domain", type=None if x_labels is None else "category")
    figure.update_yaxes(
        showgrid=False,
        autorange="reversed",
        constrain="domain",
        type=None if y_labels is None else "category",
        scaleanchor="x",
    )
    return figure


def bars(
    categories: Sequence[str | int],
    series: Mapping[str, Sequence[Number]],
    *,
    title: str,
    x: str,
    y: str,
    caption: str,
    threshold: float | None = None,
    log_y: bool = False,
) -> go.Figure:
    """Grouped bars: one group per category, one bar per series; a dotted line at the threshold, if there is one."""
    figure = go.Figure(
        [
            go.Bar(
                name=name,
                x=list(categories),
                y=list(heights),
                marker={"color": theme.colour(name, index), "pattern": {"shape": theme.pattern(name, list(series))}},
            )
            for index, (name, heights) in enumerate(series.items())
        ]
    )
    figure.update_layout(barmode="group", bargap=0.25)
    if any(isinstance(category, str) for category in categories):
        figure.update_xaxes(type="category")  # "+4" is a name here, not a number on a scale
    figure.update_yaxes(rangemode="tozero")
    return _finished(figure, title=title, x=x, y=y, caption=caption, threshold=threshold, log_y=log_y)


def lines(
    at: Sequence[Number],
    series: Mapping[str, Sequence[Number]],
    *,
    title: str,
    x: str,
    y: str,
    caption: str,
    threshold: float | None = None,
    log_x: bool = False,
    log_y: bool = False,
    colours: Mapping[str, str] | None = None,
    dashes: Mapping[str, str] | None = None,
) -> go.Figure:
    """One line per series; a series shorter than ``at`` ends early.

    Args:
        at: the x coordinates, shared by all series; training steps go with ``log_x=True``.
        series: y values by name.
        title, x, y, caption: of the figure and its axes.
        threshold: draw a dotted line at this y.
        log_x, log_y: logarithmic axes.
        colours, dashes: by name of the series; otherwise by number, and solid (train) or dashed (test) by the name's
        end.
    """
    traces = []
    mode = "lines+markers" if len(at) <= FEW_POINTS else "lines"  # where little was measured, it shows where
    for index, (name, values) in enumerate(series.items()):
        line = {
            "color": (colours or {}).get(name, theme.colour(name, index)),
            "dash": (dashes or {}).get(name, theme.dash(name, index)),
        }
        traces.append(go.Scatter(name=name, x=list(at)[: len(values)], y=list(values), mode=mode, line=line))
    figure = _finished(go.Figure(traces), title=title, x=x, y=y, caption=caption, threshold=threshold, log_y=log_y)
    figure.update_xaxes(type="log") if log_x else figure.update_xaxes(tickformat=",")  # 14,000, not 1.4 × 10⁴
    return figure


def scatter(traces: Sequence[Mapping[str, Any]], *, title: str, x: str, y: str, caption: str) -> go.Figure:
    """Points in a plane, one series per trace, each given by the arguments of plotly's ``Scatter``."""
    figure = go.Figure([go.Scatter(mode="markers", **trace) for trace in traces])
    figure = _finished(figure, title=title, x=x, y=y, caption=caption)
    figure.update_layout(
        height=560, width=760, legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
    )
    return figure


def error_bars(intervals: Sequence[Interval | None], **style: Any) -> dict[str, Any]:
    """Between the ends of each interval, as plotly wants them; none where there is no interval."""
    up, down = [], []
    for interval in intervals:
        value = 0.0 if interval is None else interval.value
        low, high = (value, value) if interval is None else interval.ends
        up.append(high - value)
        down.append(value - low)
    return {"type": "data", "array": up, "arrayminus": down, **style}


def _finished(
    figure: go.Figure, *, title: str, x: str, y: str, caption: str, threshold: float | None = None, log_y: bool = False
) -> go.Figure:
    """The figure with theme, names and caption."""
    n_traces = sum(1 for _ in figure.select_traces())
    wrapped = textwrap.wrap(caption, CAPTION_WIDTH)
    figure.update_layout(
        template=theme.template(),
        title={"text": title, "subtitle": {"text": "<br>".join(wrapped)}},
        margin_t=84 + 16 * len(wrapped),
        showlegend=n_traces > 1,
    )
    if n_traces > LINES_IN_LEGEND:  # a long legend on top would run into the caption
        figure.update_layout(
            legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}, width=960
        )
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, type="log" if log_y else None)
    if threshold is not None:
        figure.add_hline(y=threshold, line_dash="dot", line_color=theme.INK, line_width=1)
    return figure
