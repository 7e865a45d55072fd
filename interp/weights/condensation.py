"""Condensation: do neurons point in few shared directions, or each in its own?

From small initial weights, the input weights of a layer's neurons gather in a few directions before anything is
learned; from large ones they stay apart (Zhang et al. 2024, arXiv 2405.05409, figs. 5 and 10; Luo et al. 2021).

* A neuron is a column of W in ``x @ W``; its direction is that column. Only cosines matter: scaling a neuron changes
  nothing.
* Sign: a group holds neurons with cosine *above* θ. Neurons with opposite directions are two groups, and the share of
  pairs with cosine below −θ is given beside them.
* θ is 0.7, with 0.4 (``loose``) beside it; a condensed direction is a group of at least 5 neurons. In d dimensions
  unrelated directions have cosines of about 1/√d, so in narrow layers (d below 20) even random neurons pass 0.4: read
  the control.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.result import Result
from interp.subject import Subject, linear_maps
from tasks.base import Task, UserError
from tasks.families.modular import ModularArithmetic
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

THRESHOLD = 0.7
LOOSE_THRESHOLD = 0.4
SMALLEST_GROUP = 5
HEADLINE = "blocks.0.attn.W_Q"


def cosines(W: Float[Tensor, "d_in neuron"]) -> Float[Tensor, "neuron neuron"]:
    """Cosine similarity of every pair of columns of W, between −1 and 1, float64.

    A column of zeros has no direction; its cosines are 0, with itself too.

    Raises:
        UserError: W is no matrix.
    """
    if W.ndim != 2:
        raise UserError(
            f"expected a matrix [d_in, neuron], got shape {tuple(W.shape)}: pass one of linear_maps(params)"
        )
    columns = W.double()
    norms = columns.norm(dim=0)
    unit = columns / torch.where(norms > 0, norms, 1.0)
    return (unit.T @ unit).clamp(-1, 1)


def greedy_groups(cosine: Float[Tensor, "neuron neuron"], threshold: float = THRESHOLD) -> list[tuple[int, ...]]:
    """Groups of neurons that point the same way: the first neuron left is a pivot and takes every neuron left whose
    cosine with it is above the threshold, in index order; repeat.

    Each neuron is in exactly one group, its pivot first. Which neurons group depends a little on their order.
    """
    near = cosine > threshold
    left = torch.ones(len(cosine), dtype=torch.bool)
    groups: list[tuple[int, ...]] = []
    for pivot in range(len(cosine)):
        if not left[pivot]:
            continue
        left[pivot] = False
        taken = torch.nonzero(near[pivot] & left).flatten().tolist()
        left[taken] = False
        groups.append((pivot, *taken))
    return groups


def greedy_order(groups: Sequence[Sequence[int]]) -> list[int]:
    """The neurons group by group, for drawing the cosine matrix with groups as blocks on the diagonal."""
    return [neuron for group in groups for neuron in group]


def hierarchical_order(cosine: Float[Tensor, "neuron neuron"]) -> list[int]:
    """The neurons in the order of the leaves of an average-linkage tree on the distance 1 − cosine.

    Unlike ``greedy_order`` it needs no threshold and puts related groups side by side.
    """
    if len(cosine) < 2:
        return list(range(len(cosine)))
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = (1 - cosine).clamp(min=0)
    distance = ((distance + distance.T) / 2).fill_diagonal_(0)
    return leaves_list(linkage(squareform(distance.numpy(), checks=False), method="average")).tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixCondensation(Result):
    """How condensed the neurons of one matrix are.

    ``groups`` counts the groups at threshold 0.7, those of a lone neuron too: as many as neurons where none shares its
    direction. ``directions`` counts those of at least 5 neurons, ``condensed_share`` is the share of neurons in these;
    ``loose_…`` is the same at 0.4. ``opposite_share`` is the share of pairs with cosine below −0.7.
    ``mean_absolute_cosine`` and ``max_absolute_cosine`` are of absolute values off the diagonal.
    """

    n_neurons: int
    d_in: int
    groups: int
    directions: int
    condensed_share: float
    loose_directions: int
    loose_condensed_share: float
    opposite_share: float
    mean_absolute_cosine: float
    max_absolute_cosine: float


def condensation(W: Float[Tensor, "d_in neuron"]) -> MatrixCondensation:
    """All condensation measures of the columns of a matrix; NaN for those on pairs where there is one neuron."""
    cosine = cosines(W)
    n = len(cosine)
    groups = greedy_groups(cosine, THRESHOLD)
    directions, share = _large(groups, n)
    loose_directions, loose_share = _large(greedy_groups(cosine, LOOSE_THRESHOLD), n)
    pairs = cosine[tuple(torch.triu_indices(n, n, offset=1))]
    some = len(pairs) > 0
    return MatrixCondensation(
        n_neurons=n,
        d_in=W.shape[0],
        groups=len(groups),
        directions=directions,
        condensed_share=share,
        loose_directions=loose_directions,
        loose_condensed_share=loose_share,
        opposite_share=float((pairs < -THRESHOLD).double().mean()) if some else math.nan,
        mean_absolute_cosine=float(pairs.abs().mean()) if some else math.nan,
        max_absolute_cosine=float(pairs.abs().max()) if some else math.nan,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CondensationResult(Result):
    """What ``analyze`` finds: each matrix's condensation, that of random weights of equal shape (``control``), and of
    the headline matrix the main numbers again and, for figures, its weights and the control's."""

    headline: str
    groups: int
    directions: int
    condensed_share: float
    opposite_share: float
    mean_absolute_cosine: float
    control_groups: int
    control_directions: int
    control_condensed_share: float
    control_opposite_share: float
    control_mean_absolute_cosine: float
    matrices: dict[str, MatrixCondensation]
    control: dict[str, MatrixCondensation]
    cosines: Float[Tensor, "neuron neuron"]
    control_cosines: Float[Tensor, "neuron neuron"]


@ordinary_torch()
def analyze(subject: Subject, *, matrices: Sequence[str] | None = None, control_seed: int = 0) -> CondensationResult:
    """Condensation of W_Q of the first layer (the headline, all heads side by side) and of every layer's W_in, which is
    all of a perceptron.

    In the equation form of modular arithmetic the last token alone asks, and it is always "=": weight decay leaves W_Q
    one direction whatever was learnt. There the first W_in is the headline.

    Args:
        subject: any model.
        matrices: other matrices, by parameter name, the headline first; any of ``linear_maps(subject.params)``.
        control_seed: of the random weights.

    Raises:
        UserError: a name that is no linear map of the model.
    """
    maps = linear_maps(subject.params)
    random = linear_maps(subject.randomized(control_seed).params)
    names = list(matrices) if matrices is not None else _usual(maps, subject.task)
    if unknown := [name for name in names if name not in maps]:
        raise UserError(f"the model has no linear map {unknown[0]!r}: choose among {', '.join(maps)}")
    found = {name: condensation(maps[name]) for name in names}
    control = {name: condensation(random[name]) for name in names}
    head, beside = found[names[0]], control[names[0]]
    return CondensationResult(
        headline=names[0],
        groups=head.groups,
        directions=head.directions,
        condensed_share=head.condensed_share,
        opposite_share=head.opposite_share,
        mean_absolute_cosine=head.mean_absolute_cosine,
        control_groups=beside.groups,
        control_directions=beside.directions,
        control_condensed_share=beside.condensed_share,
        control_opposite_share=beside.opposite_share,
        control_mean_absolute_cosine=beside.mean_absolute_cosine,
        matrices=found,
        control=control,
        cosines=cosines(maps[names[0]]),
        control_cosines=cosines(random[names[0]]),
    )


def figures(result: CondensationResult) -> dict[str, "go.Figure"]:
    """``greedy`` and ``hierarchical``: the headline's cosine matrix in either order; ``control``: random weights in
    greedy order; ``shares``: share of condensed neurons in every matrix."""
    from interp import plots

    def drawn(cosine: Tensor, order: list[int], which: str, caption: str) -> "go.Figure":
        return plots.heatmap(
            cosine[order][:, order].round(decimals=3).tolist(),  # enough to see, and a third of the report's bytes
            title=f"Cosines of neurons, {result.headline}",
            x=f"neuron ({which} order)",
            y=f"neuron ({which} order)",
            colour="cosine",
            caption=caption,
            limit=1.0,
        )

    names = list(result.matrices)
    groups = (
        f"{result.directions} directions of at least {SMALLEST_GROUP} neurons hold {result.condensed_share:.0%} of them"
    )
    return {
        "greedy": drawn(
            result.cosines,
            greedy_order(greedy_groups(result.cosines)),
            "greedy",
            f"Blocks on the diagonal are groups: {groups}.",
        ),
        "hierarchical": drawn(
            result.cosines,
            hierarchical_order(result.cosines),
            "tree",
            "The same neurons in the order of an average-linkage tree.",
        ),
        "control": drawn(
            result.control_cosines,
            greedy_order(greedy_groups(result.control_cosines)),
            "greedy",
            "Random weights of the same shape: what the greedy order alone makes visible.",
        ),
        "shares": plots.bars(
            names,
            {
                "model": [result.matrices[name].condensed_share for name in names],
                "random weights": [result.control[name].condensed_share for name in names],
            },
            title="Share of condensed neurons",
            x="matrix",
            y="share of neurons",
            caption=f"Share of neurons in groups of at least {SMALLEST_GROUP}, cosine to the pivot above {THRESHOLD}.",
        ),
    }


def _usual(maps: Mapping[str, Tensor], task: Task) -> list[str]:
    """The matrices looked at where none are named, the headline first."""
    inputs = [name for name in maps if name.endswith(".W_in")]
    if HEADLINE not in maps:  # a perceptron
        return inputs
    one_query = isinstance(task, ModularArithmetic) and task.form == "equation"
    return [*inputs, HEADLINE] if one_query and inputs else [HEADLINE, *inputs]


def _large(groups: Sequence[Sequence[int]], n: int) -> tuple[int, float]:
    """Number of groups of at least ``SMALLEST_GROUP`` neurons, and the share of the n neurons in them."""
    sizes = [len(group) for group in groups if len(group) >= SMALLEST_GROUP]
    return len(sizes), sum(sizes) / n
