"""The figures of a perceptron's waves: weights by neuron, stars of angles, and logits of each frequency."""

import math
import textwrap
from typing import TYPE_CHECKING, Any, Literal

from interp import plots, theme
from interp.modular.neuron_wave_record import NeuronWavesResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_STARS = 6
"""Frequencies that have a star; a network that adds has three or four."""
_STARS_IN_ROW = 3
_SHORTER = 0.7  # so that a neuron may write at an angle that another reads at
_LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.03, "yanchor": "bottom"}


def waves(result: NeuronWavesResult, side: Literal["input", "output"]) -> "go.Figure":
    """Weights of every counted neuron over the numbers it reads, or the answers it writes to."""
    W = result.W_input if side == "input" else result.W_output
    share = result.input_share if side == "input" else result.output_share
    control = result.control_input_share if side == "input" else result.control_output_share
    angles = [math.degrees(float(angle)) for angle in result.input_angle]
    labels = [
        f"{i + 1}: k {int(k)}, {angle:.0f}°"
        for i, (k, angle) in enumerate(zip(result.neuron_frequency, angles, strict=True))
    ]
    figure = plots.heatmap(
        W.tolist(),
        title="What each neuron reads" if side == "input" else "What each neuron writes",
        x="number" if side == "input" else "answer",
        y="neuron: frequency k, input angle",
        colour="weight",
        caption=f"{'W_E W_in' if side == 'input' else 'W_out times the unembedding'} of the {result.n_counted} of "
        f"{result.n_neurons} neurons that count, by frequency and input angle. One wave holds {share:.1%} of a "
        f"neuron's variance, of random weights' {control:.1%}.",
        y_labels=labels,
    )
    figure.update_yaxes(scaleanchor=None, tickfont_size=10)
    figure.update_layout(width=860, height=230 + 16 * max(len(W), 12))
    return figure


def angles(result: NeuronWavesResult) -> "go.Figure":
    """A star per frequency: where each neuron reads, where it writes, and twice where it reads."""
    from plotly.subplots import make_subplots

    shown = result.frequencies[:MOST_STARS]
    columns = min(len(shown), _STARS_IN_ROW)
    rows = -(-len(shown) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        specs=[[{"type": "polar"}] * columns for _ in range(rows)],
        subplot_titles=[
            f"frequency {k}, {n} neuron{'s' if n > 1 else ''}"
            for k, n in zip(shown, result.neurons_per_frequency, strict=False)
        ],
        vertical_spacing=0.14,
        horizontal_spacing=0.12,
    )
    for place, k in enumerate(shown):
        of_k = result.neuron_frequency == k
        reads, writes = result.input_angle[of_k].rad2deg(), result.output_angle[of_k].rad2deg()
        far_in, far_out = (values[of_k] / values[of_k].max() for values in (result.amplitude, result.output_amplitude))
        far_out = _SHORTER * far_out
        stars = (("reads", reads, far_in, theme.CATEGORIES[0]), ("writes", writes, far_out, theme.CATEGORIES[1]))
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for name, angle, far, colour in stars:
            figure.add_scatterpolar(
                theta=[x for value in angle.tolist() for x in (value, value, None)],
                r=[x for value in far.tolist() for x in (0, value, None)],
                mode="lines",
                line={"color": colour, "width": 2.5},
                name=name,
                legendgroup=name,
                showlegend=not place,
                **at,
            )
        figure.add_scatterpolar(
            theta=(2 * reads).tolist(),
            r=far_out.tolist(),
            mode="markers",
            marker={"symbol": "circle-open", "color": theme.INK, "size": 9},
            name="twice where it reads",
            legendgroup="twice",
            showlegend=not place,
            **at,
        )
    d = result.doubling
    caption = (
        f"Angle of a neuron's input and (drawn shorter) output wave; length: amplitude over the largest. Neurons write "
        f"{d.deviation:.1f}° from twice the angle they read at (exchanged among neurons: {d.permuted_deviation:.0f}°)."
    )
    if len(result.frequencies) > MOST_STARS:
        caption += f" The {MOST_STARS} strongest of {len(result.frequencies)} frequencies."
    figure.update_polars(radialaxis={"visible": False, "range": [0, 1.08]}, angularaxis={"dtick": 45})
    figure.update_annotations(yshift=26)  # above the label of 90°
    _finish(figure, "Where neurons read and write", caption, height=170 + 330 * rows)
    figure.update_layout(width=max(720, 320 * columns), legend={**_LEGEND, "y": 1 + 0.2 / rows})
    return figure


def interference(result: NeuronWavesResult) -> "go.Figure":
    """Logits of each frequency over the answers for a few pairs, and their sum."""
    from plotly.subplots import make_subplots

    pairs, answers = result.example_pairs, list(range(result.p))
    figure = make_subplots(
        rows=len(pairs),
        shared_xaxes=True,
        vertical_spacing=0.07,
        subplot_titles=[f"{a} + {b} = {(a + b) % result.p} mod {result.p}" for a, b in pairs],
    )
    for row, ((a, b), parts) in enumerate(zip(pairs, result.examples, strict=True), start=1):
        series = [
            *(
                (f"k {k}", part, theme.seed_colour(i), 1.4)
                for i, (k, part) in enumerate(zip(result.frequencies, parts, strict=True))
            ),
            ("sum", parts.sum(0), theme.INK, 2.6),
        ]
        at: dict[str, Any] = {"row": row, "col": 1}
        for name, values, colour, width in series:
            figure.add_scatter(
                x=answers,
                y=(values - values.mean()).tolist(),
                mode="lines",
                line={"color": colour, "width": width},
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                **at,
            )
        figure.add_vline(x=(a + b) % result.p, line_dash="dot", line_color=theme.INK, line_width=1, **at)
    caption = (
        "Logits that the neurons of each frequency write, and their sum, around their means; dotted: the right answer, "
        "where the waves meet. They are weaker where a − b is near half a turn of a frequency."
    )
    _finish(figure, "Frequencies interfere at the right answer", caption, height=190 + 210 * len(pairs))
    figure.update_layout(width=960, legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"})
    figure.update_xaxes(title_text="answer c", row=len(pairs))
    figure.update_yaxes(title_text="logit")
    return figure


def frequencies(result: NeuronWavesResult) -> "go.Figure":
    """Accuracy with the strongest frequencies alone, beside random weights."""
    found, control = result.interference.accuracy, result.control_interference.accuracy
    figure = plots.lines(
        list(range(1, max(len(found), len(control)) + 1)),
        {"model": found, "random weights": control},
        title="What the strongest frequencies know",
        x="number of frequencies r",
        y="accuracy on all pairs",
        caption=f"Answers from the neurons of the r frequencies with the largest logits "
        f"({_listed(result.frequencies)}); the whole model: {result.accuracy:.1%}, random weights: "
        f"{result.control_accuracy:.1%}.",
    )
    figure.update_traces(mode="lines+markers")
    figure.update_xaxes(dtick=1 if max(len(found), len(control)) <= 20 else None)
    figure.update_yaxes(range=[-0.03, 1.03])
    return figure


def _listed(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (", …" if len(numbers) > 8 else "")


def _finish(figure: "go.Figure", title: str, caption: str, height: int) -> None:
    wrapped = textwrap.wrap(caption, plots.CAPTION_WIDTH)
    figure.update_layout(
        template=theme.template(),
        title={"text": title, "subtitle": {"text": "<br>".join(wrapped)}},
        margin_t=120 + 16 * len(wrapped),
        height=height,
    )
