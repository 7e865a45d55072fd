"""The look of every figure: one plotly template and the colours that carry meaning.

* Signed values: RdBu with white at 0. Magnitudes: viridis. Categories: the eight colours of Okabe and Ito (2008), which
  stay apart for colour-blind readers; black comes last, since it reads as an axis.
* The same seed has the same colour everywhere; train is solid, test dashed.
* A control is grey: it stands beside the thing, and is not one of the things.
"""

from collections.abc import Sequence
from functools import cache

import plotly.graph_objects as go

SIGNED = "RdBu"
MAGNITUDE = "Viridis"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
CONTROL = "#9A9A9A"
DASHES = {"train": "solid", "test": "dash"}
PATTERNS = ("", "/", "x")  # of bars in the same grey
FURTHER_DASHES = ("solid", "dot", "dashdot")  # where there are more series than colours
FONT = "Inter, Helvetica, Arial, sans-serif"
INK = "#222222"
SOFT_INK = "#5A5A5A"
GRID = "#E6E6E6"


def seed_colour(seed: int) -> str:
    """The colour of a seed, or of the category with this number."""
    return CATEGORIES[seed % len(CATEGORIES)]


def colour(name: str, index: int) -> str:
    """The colour of a series: grey for a control, else that of its number."""
    return CONTROL if name == "random weights" or name.startswith("control") else seed_colour(index)


def pattern(name: str, names: Sequence[str]) -> str:
    """What tells the bars of several controls apart: their pattern, as all of them are grey."""
    controls = [other for other in names if colour(other, 0) == CONTROL]
    return PATTERNS[controls.index(name) % len(PATTERNS)] if name in controls else ""


def dash(name: str, index: int) -> str:
    """The dash of a series: by the last word of its name for train and test, else solid until the colours run out."""
    further = FURTHER_DASHES[index // len(CATEGORIES) % len(FURTHER_DASHES)]
    return DASHES.get(name.split()[-1], further)


@cache
def template() -> go.layout.Template:
    """The plotly template: fonts, white paper, thin grid, room above for title and caption."""
    axis = {
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": INK,
        "ticks": "outside",
        "automargin": True,
        "exponentformat": "power",
        "title": {"standoff": 10, "font": {"size": 14}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 16, "l": 20},
                "font": {"size": 17},
                "subtitle": {"font": {"size": 12, "color": SOFT_INK}},
            },
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "colorway": list(CATEGORIES),
            "xaxis": axis,
            "yaxis": axis,
            "width": 760,
            "height": 480,
            "margin": {"l": 70, "r": 30, "t": 110, "b": 60},
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"},
            "hoverlabel": {"font": {"family": FONT}},
        }
    )
