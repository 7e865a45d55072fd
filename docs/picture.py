"""The README's picture: writes ``solutions.svg`` beside this file from the nine small anchor models that are shipped.

``python -P docs/picture.py`` (kaleido draws it, through an installed Chromium).
"""

from pathlib import Path

import plotly.graph_objects as go

from interp import Subject, counterfactual, theme
from interp.anchor.counterfactual import CounterfactualResult

HERE = Path(__file__).parent
FOLDERS = {
    "small initial weights (γ = 2.1)": "anchor-small-init",
    "large (γ = 0.8)": "anchor-large-init",
    "very large (γ = 0.2)": "anchor-very-large-init",
}
SERIES = {"inferential": "by the rule", "symmetric": "as the mirror pair"}


def main() -> None:
    """Measure the models and draw them."""
    measured: list[tuple[str, str, CounterfactualResult]] = []
    for scale, folder in FOLDERS.items():
        for run in sorted((HERE.parent / "checkpoints" / folder).iterdir()):
            measured.append((scale, run.name.replace("-", " "), counterfactual.analyze(Subject.load(run))))
    labels = [[scale for scale, _, _ in measured], [seed for _, seed, _ in measured]]
    figure = go.Figure(layout={"template": theme.template()})
    for index, (key, name) in enumerate(SERIES.items()):
        intervals = [getattr(found.intervals, key) for *_, found in measured]
        shares = [100 * each.value for each in intervals]
        upper = [100 * each.ends[1] - share for each, share in zip(intervals, shares, strict=True)]
        lower = [share - 100 * each.ends[0] for each, share in zip(intervals, shares, strict=True)]
        error = {"type": "data", "array": upper, "arrayminus": lower, "thickness": 1, "width": 3}
        figure.add_bar(x=labels, y=shares, name=name, marker_color=theme.CATEGORIES[index], error_y=error)
    controls = [100 * max(found.control_inferential, found.control_symmetric) for *_, found in measured]
    marker = {"color": theme.CONTROL, "symbol": "line-ew-open", "size": 22}
    figure.add_scatter(x=labels, y=controls, name="random weights, the larger", mode="markers", marker=marker)
    caption = (
        "Answers to the pair (4,3), which no training sequence contains. Seeds were chosen among 23: three of each<br>"
        "scale's own solution. Bars: 95 % intervals over keys and positions."
    )
    figure.update_layout(
        title={"text": "Three ways to fit the same data", "subtitle": {"text": caption}},
        xaxis_title="nine models",
        yaxis_title="answers (%)",
        yaxis_range=[0, 105],
        width=1000,
        height=470,
        margin={"t": 110},
    )
    figure.write_image(HERE / "solutions.svg")


if __name__ == "__main__":
    main()
