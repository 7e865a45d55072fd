"""Initial condensation: on how many lines through 0 do the input weights of neurons lie, early in training?

From small initial weights the neurons of a two-layer network turn, long before anything is learned, towards few
directions. To leading order neuron j with input weight w and output weight a feels only the first non-zero derivative
of its activation at 0, of order p: w moves along a Σ_i y_i (w·x_i)^(p−1) x_i. For p = 1 that is one fixed line, taken
in either direction by the sign of a. Zhou et al. 2022 (arXiv 2105.11686) prove for inputs of one coordinate, and
report for more, that there are at most 2p directions: p lines through 0. With five coordinates and Adam, p = 1 gives
one line whatever the sample; for p = 2 and 3 the number depends on the sample and can exceed p.

* A neuron is a column of W in ``x @ W``, its bias included where a constant is part of the input. A line is a group of
  neurons with absolute cosine above 0.9 to a pivot, of at least 5 neurons; a direction is an end of a line that some
  neuron of the group points to.
* 0.9 lets what a neuron began with be almost half as long as what training added along the line; unrelated neurons in
  6 dimensions share a line only by accident (in 1 of 100 random matrices 6 × 50 there is one). In two or three
  dimensions any neurons do: read the control.
* Neurons shorter than a tenth of the longest are dropped: they have not moved yet, and, with an output weight that is
  as small, they carry a hundredth of the longest one's part of the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.result import Result
from interp.spread import finite
from interp.statistics import gaussian_like
from interp.subject import Trajectory, linear_maps
from interp.weights.condensation import cosines
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

LINE = 0.9
SMALLEST_LINE = 5
SHORT = 0.1
N_CONTROLS = 100


def long_enough(W: Float[Tensor, "d_in neuron"]) -> Bool[Tensor, " neuron"]:
    """Which columns are at least a tenth as long as the longest."""
    norms = W.double().norm(dim=0)
    return norms >= SHORT * norms.max()


def leading_order(cosine: Float[Tensor, "neuron neuron"]) -> list[int]:
    """The neurons by their entry in the leading eigenvector of the cosine matrix, largest first.

    Neurons on one line become blocks at both ends, those on others lie between.
    """
    vector = torch.linalg.eigh(finite(cosine).double()).eigenvectors[:, -1]
    return vector.argsort(descending=True).tolist()


def lines(cosine: Float[Tensor, "neuron neuron"]) -> list[tuple[int, ...]]:
    """Groups of at least 5 neurons on one line through 0, the largest first.

    The neuron with the most others on its line (absolute cosine above 0.9) is a pivot and takes them all; repeat
    with those left. Each group begins with its pivot; the order of neurons decides only between equals.
    """
    near = cosine.abs() > LINE
    near.fill_diagonal_(True)
    left = torch.ones(len(cosine), dtype=torch.bool)
    groups: list[tuple[int, ...]] = []
    while int(left.sum()) >= SMALLEST_LINE:
        counts = torch.where(left, (near & left).sum(1), 0)
        pivot = int(counts.argmax())
        if counts[pivot] < SMALLEST_LINE:
            break
        taken = near[pivot] & left
        left &= ~taken
        groups.append((pivot, *(neuron for neuron in torch.nonzero(taken).flatten().tolist() if neuron != pivot)))
    return groups


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions(Result):
    """On what the neurons of one matrix lie.

    ``lines`` counts groups of at least 5 neurons on a line through 0, ``directions`` the ends of those lines that are
    taken: between once and twice as many. ``share`` is the share of the ``n_kept`` neurons that lie on them. Only
    where it is near 1 does the number of lines describe the layer.
    """

    n_neurons: int
    n_kept: int
    lines: int
    directions: int
    share: float


def directions(W: Float[Tensor, "d_in neuron"]) -> Directions:
    """Number of lines and directions of the columns of a matrix, those shorter than a tenth of the longest left out.

    Raises:
        UserError: W is no matrix.
    """
    cosine = cosines(W)
    kept = long_enough(W)
    cosine = cosine[kept][:, kept]
    groups = lines(cosine)
    return Directions(
        n_neurons=W.shape[1],
        n_kept=len(cosine),
        lines=len(groups),
        directions=sum(1 + bool((cosine[group[0], list(group)] < 0).any()) for group in groups),
        share=sum(map(len, groups)) / len(cosine),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionsResult(Result):
    """What ``analyze`` finds in one matrix: lines, directions and the share of neurons on them at every step, beside
    the training loss there; the mean number of lines and the mean share of random weights of equal shape (control);
    for figures, the cosines of the kept neurons in leading order at the first and the last step."""

    matrix: str
    steps: tuple[int, ...]
    lines: tuple[int, ...]
    directions: tuple[int, ...]
    share: tuple[float, ...]
    n_kept: tuple[int, ...]
    train_loss: tuple[float, ...]
    control_lines: float
    control_share: float
    first_cosines: Float[Tensor, "kept_first kept_first"]
    last_cosines: Float[Tensor, "kept_last kept_last"]


@ordinary_torch()
def analyze(trajectory: Trajectory, *, matrix: str | None = None, control_seed: int = 0) -> DirectionsResult:
    """Lines and directions of one matrix's neurons, snapshot by snapshot.

    Args:
        trajectory: one run over its steps; theory speaks of those at which the loss is still near its first value.
        matrix: any of ``linear_maps(subject.params)``; ``None``: the first W_in.
        control_seed: of the random weights.

    Raises:
        UserError: no snapshots, or a name that is no linear map of the model.
    """
    subjects = list(trajectory)
    if not subjects:
        raise UserError("expected at least one snapshot, the trajectory is empty")
    maps = [linear_maps(subject.params) for subject in subjects]
    name = matrix or next((name for name in maps[0] if name.endswith(".W_in")), "")
    if name not in maps[0]:
        raise UserError(f"the model has no linear map {name!r}: choose among {', '.join(maps[0])}")
    found = [directions(at[name]) for at in maps]
    control = [directions(gaussian_like(maps[0][name], control_seed + i, name)) for i in range(N_CONTROLS)]
    return DirectionsResult(
        matrix=name,
        steps=tuple(subject.step or 0 for subject in subjects),
        lines=tuple(at.lines for at in found),
        directions=tuple(at.directions for at in found),
        share=tuple(at.share for at in found),
        n_kept=tuple(at.n_kept for at in found),
        train_loss=tuple(subject.performance["train_loss"] for subject in subjects),
        control_lines=sum(at.lines for at in control) / N_CONTROLS,
        control_share=sum(at.share for at in control) / N_CONTROLS,
        first_cosines=_ordered(maps[0][name]),
        last_cosines=_ordered(maps[-1][name]),
    )


def figures(result: DirectionsResult) -> dict[str, "go.Figure"]:
    """``cosines``: the cosine matrices at the first and at the last step, side by side, each in its leading order."""
    from interp import plots

    first, last = result.steps[0], result.steps[-1]
    caption = (
        f"Neurons in the order of the leading eigenvector, those shorter than a tenth of the longest left out. At step "
        f"{last:,}, {result.share[-1]:.0%} of them lie on {_counted(result.lines[-1], 'line')} through 0 in "
        f"{_counted(result.directions[-1], 'direction')}; at step {first:,}, {result.share[0]:.0%} do, of random "
        f"weights {result.control_share:.1%}. By then the training loss is "
        f"{result.train_loss[-1] / result.train_loss[0]:.0%} of its first value."
    )
    left, right = (
        plots.heatmap(
            cosine.round(decimals=3).tolist(),
            title=f"Cosines of neurons, {result.matrix}",
            x=f"neuron at step {step:,}",
            y=f"neuron at step {step:,}",
            colour="cosine",
            caption=caption,
            limit=1.0,
        )
        for step, cosine in ((first, result.first_cosines), (last, result.last_cosines))
    )
    left.add_trace(right.data[0].update(xaxis="x2", yaxis="y2", showscale=False))
    left.update_layout(width=1080, height=600, xaxis_domain=[0, 0.44], xaxis2=right.layout.xaxis.to_plotly_json())
    left.update_layout(xaxis2={"domain": [0.56, 1], "anchor": "y2"}, yaxis2=right.layout.yaxis.to_plotly_json())
    left.update_layout(yaxis2={"anchor": "x2", "scaleanchor": "x2"})
    return {"cosines": left}


def _ordered(W: Float[Tensor, "d_in neuron"]) -> Float[Tensor, "kept kept"]:
    cosine = cosines(W[:, long_enough(W)])
    order: Sequence[int] = leading_order(cosine)
    return cosine[order][:, order]


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
