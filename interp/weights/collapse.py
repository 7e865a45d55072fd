"""Numerical collapse of the softmax: are the logits so large that the loss and its gradient round to zero?

In Σ_c exp(x_c − max x) the largest term is 1. Where the others are too small to change it the sum is 1 *exactly*, the
loss of a right answer is 0, and its gradient at the right logit vanishes: training stops there, whatever is left to
learn (Prieto et al. 2025, arXiv 2501.04697). Networks get there by *naive loss minimisation*: once the training set is
fitted a longer w has a smaller loss, and without weight decay −∇L points along w.

* The sum is taken as if rounded once: it is 1 where the other terms sum to ε/2 at most (half way between two numbers
  the even one is taken, which is 1), ε the distance from 1 to the next number. A sum that rounds at every addition
  depends on its order; it also loses terms that matter together, and so collapses at these inputs and a few more.
* This toolkit trains on a float64 softmax. Collapse in float32 then says what a float32 softmax would have done to this
  model, not what held it back; float64 collapses at margins above 36.7.
* Logits and gradient are of a forward pass in float64; logits are rounded to the precision before its softmax, which
  matters in bfloat16, where a logit of 20 is known to ±1/16.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.result import Result
from interp.subject import Subject, in_chunks, weight_vector
from tasks.base import UserError
from tasks.registry import model_family
from tasks.surroundings import ordinary_torch
from tasks.training.objective import margins

if TYPE_CHECKING:
    import plotly.graph_objects as go

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
N_BINS = 60
_CHUNK = 1024


class Rounded(NamedTuple):
    """Whether each example's sum of exponentials is 1 exactly, and whether its loss is 0 exactly."""

    sum_is_one: Bool[Tensor, " example"]
    loss_is_zero: Bool[Tensor, " example"]


def collapsed(
    logits: Float[Tensor, "example d_vocab_out"], targets: Int[Tensor, " example"], precision: torch.dtype
) -> Rounded:
    """Whether Σ_c exp(x_c − max x) is 1, and ln Σ_c exp(x_c − max x) − (x_target − max x) is 0, with logits and
    exponentials in this precision.

    The loss is 0 where the sum has collapsed on the right answer; on a wrong one it is the margin, and has a gradient.

    >>> collapsed(torch.tensor([[200.0, 0.0], [16.0, 0.0]]), torch.tensor([0, 0]), torch.float32).sum_is_one.tolist()
    [True, False]
    """
    x = logits.to(precision)
    top, at = x.max(-1, keepdim=True)
    others = (x - top).exp().double().scatter(-1, at, 0.0).sum(-1)
    sum_is_one = others <= torch.finfo(precision).eps / 2
    return Rounded(sum_is_one, sum_is_one & (at.squeeze(-1) == targets))


def collapse_margins(precision: torch.dtype, n_logits: int) -> tuple[float, float]:
    """The margins of the largest logit over the second below which no sum of ``n_logits`` exponentials is 1, and from
    which every one is: ln(2/ε) and ln(2(n − 1)/ε).

    One other term e^−m alone is at most ε/2 from m = ln(2/ε) on; n − 1 of them together from ln(n − 1) later on. In
    between the other logits decide. ε/2 is 2^−8 in bfloat16, 2^−24 in float32, 2^−53 in float64.

    >>> [round(margin, 2) for margin in collapse_margins(torch.float32, 113)]
    [16.64, 21.35]
    """
    lowest = math.log(2 / torch.finfo(precision).eps)
    return lowest, lowest + math.log(n_logits - 1)


def cosine(u: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> float:
    """u·v/(‖u‖‖v‖) over all entries, in float64; NaN where one of them is zero."""
    u, v = u.double().flatten(), v.double().flatten()
    norm = float(u.norm() * v.norm())
    return float(u @ v) / norm if norm else math.nan


class Descent(NamedTuple):
    """Logits on the training set, and −∇L of the mean loss for each parameter."""

    logits: Float[Tensor, "example d_vocab_out"]
    direction: dict[str, Float[Tensor, "..."]]


def descent(subject: Subject, dtype: torch.dtype = torch.float64) -> Descent:
    """The direction −∇L of steepest descent of the mean cross entropy on the training set.

    The gradient of the loss at the right logit, p_right − 1, is taken as −Σ of the other probabilities: the direction
    is right where float64 itself has collapsed.

    Args:
        subject: a model that is asked for one of several answers.
        dtype: of forward and backward pass; the float32 softmax is never used.

    Raises:
        UserError: targets are numbers, or one logit stands for two answers.
    """
    examples = subject.task.train_set()
    targets = examples.targets
    if targets.is_floating_point():
        raise UserError("expected a model that chooses among answers, this one predicts numbers: it has no softmax")
    params = {name: value.detach().to(dtype).requires_grad_() for name, value in subject.params.items()}
    prepared = model_family(subject.config).prepare(examples.inputs)

    def descend(inputs: Tensor, answers: Tensor) -> Tensor:
        logits = subject.forward(inputs, params=params, prepared=prepared)
        if logits.shape[-1] == 1:
            raise UserError("expected one logit per answer, got one for both: its loss is no softmax's")
        exact = logits.detach().double()
        others = exact.softmax(-1).scatter(-1, answers.unsqueeze(-1), 0.0)
        slope = others.scatter(-1, answers.unsqueeze(-1), -others.sum(-1, keepdim=True))
        # each part adds to the gradients that the parts before it left in the parameters
        logits.backward((slope / len(targets)).to(dtype))
        return exact

    logits = in_chunks(descend, examples.inputs, targets, size=_CHUNK)
    direction = {name: torch.zeros_like(value) if value.grad is None else -value.grad for name, value in params.items()}
    return Descent(logits, direction)


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionCollapse(Result):
    """Share of train inputs whose sum has collapsed in one precision, and whose loss is exactly 0.

    ``lowest_margin``, ``highest_margin``: see ``collapse_margins``.
    """

    collapse_fraction: float
    zero_loss_fraction: float
    control_collapse_fraction: float
    control_zero_loss_fraction: float
    lowest_margin: float
    highest_margin: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AlongWeights(Result):
    """cos(−∇L, w) of one tensor, or of all, and of random weights; ``random_direction`` is the root mean square cosine
    of w with a random direction, 1/√n for n weights. NaN for a tensor of zeros."""

    n_weights: int
    cosine: float
    control_cosine: float
    random_direction: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CollapseResult(Result):
    """What ``analyze`` finds; every ``control_…`` is the same for random weights of the same shapes.

    ``collapse_fraction`` and ``zero_loss_fraction`` are those in float32; ``precisions`` has them for each. ``cosine``
    is cos(−∇L, w) over all parameters, ``tensors`` of each. ``median_margin`` and ``margins`` are of the right answer
    over the runner-up. Random weights of a large scale collapse as well, but on wrong answers, whose loss is not 0.
    """

    n_train: int
    n_logits: int
    collapse_fraction: float
    control_collapse_fraction: float
    zero_loss_fraction: float
    control_zero_loss_fraction: float
    cosine: float
    control_cosine: float
    random_direction: float
    median_margin: float
    control_median_margin: float
    precisions: dict[str, PrecisionCollapse]
    tensors: dict[str, AlongWeights]
    margins: Float[Tensor, " example"]
    control_margins: Float[Tensor, " example"]


@ordinary_torch()
def analyze(subject: Subject, *, control_seed: int = 0) -> CollapseResult:
    """How near a model's softmax is to collapse, and how far its loss falls by scaling the weights alone.

    What to expect of cos(−∇L, w): 1/√n in size for a random direction of n weights; a little below 0 for random
    weights, which are wrong the louder the larger they are. Under a float32 softmax without decay it rises to .9 while
    the collapse fraction goes to 1 (Prieto et al. 2025). Misleads with weight decay: where loss and decay balance, −∇L
    points along w as well, above .99 in a model that has grokked.

    The loss is the cross entropy of a softmax over all logits, whatever loss the model was trained with.

    Args:
        subject: a model that is asked for one of several answers.
        control_seed: of the random weights, whose pass is in float32.

    Raises:
        UserError: targets are numbers, or one logit stands for two answers.
    """
    control, targets = subject.randomized(control_seed), subject.task.train_set().targets
    found, beside = descent(subject), descent(control, torch.float32)
    n_logits = found.logits.shape[-1]
    precisions = {}
    for name, precision in PRECISIONS.items():
        rounded, control_rounded = (collapsed(each.logits, targets, precision) for each in (found, beside))
        lowest, highest = collapse_margins(precision, n_logits)
        precisions[name] = PrecisionCollapse(
            collapse_fraction=_share(rounded.sum_is_one),
            zero_loss_fraction=_share(rounded.loss_is_zero),
            control_collapse_fraction=_share(control_rounded.sum_is_one),
            control_zero_loss_fraction=_share(control_rounded.loss_is_zero),
            lowest_margin=lowest,
            highest_margin=highest,
        )
    tensors = {
        name: AlongWeights(
            n_weights=value.numel(),
            cosine=cosine(found.direction[name], value),
            control_cosine=cosine(beside.direction[name], control.params[name]),
            random_direction=1 / math.sqrt(value.numel()),
        )
        for name, value in subject.params.items()
    }
    of_right, control_of_right = margins(found.logits, targets), margins(beside.logits, targets)
    return CollapseResult(
        n_train=len(targets),
        n_logits=n_logits,
        collapse_fraction=precisions["float32"].collapse_fraction,
        control_collapse_fraction=precisions["float32"].control_collapse_fraction,
        zero_loss_fraction=precisions["float32"].zero_loss_fraction,
        control_zero_loss_fraction=precisions["float32"].control_zero_loss_fraction,
        cosine=cosine(weight_vector(found.direction), weight_vector(subject.params)),
        control_cosine=cosine(weight_vector(beside.direction), weight_vector(control.params)),
        random_direction=1 / math.sqrt(sum(at.n_weights for at in tensors.values())),
        median_margin=float(of_right.median()),
        control_median_margin=float(control_of_right.median()),
        precisions=precisions,
        tensors=tensors,
        margins=of_right,
        control_margins=control_of_right,
    )


def _share(hits: Bool[Tensor, " example"]) -> float:
    return float(hits.double().mean())


def figures(result: CollapseResult) -> dict[str, "go.Figure"]:
    """``cosines``: of −∇L and w in every tensor; ``margins``: their distribution, and where each precision
    collapses."""
    from interp import plots

    whole = (result.cosine, result.control_cosine, result.random_direction)
    parts = [whole, *((at.cosine, at.control_cosine, at.random_direction) for at in result.tensors.values())]
    model, control, chance = map(list, zip(*parts, strict=True))
    return {
        "cosines": plots.bars(
            ["all weights", *result.tensors],
            {"model": model, "random weights": control, "control: random direction": chance},
            title="Descent along the weights",
            x="parameter",
            y="cos(−∇L, w)",
            caption="1: the loss falls by scaling the weights alone. Large without weight decay: naive loss "
            "minimisation; with decay also where loss and decay balance. Left grey: random weights; right grey: a "
            "random direction (root mean square, 1/√n).",
        ),
        "margins": _margin_figure(result),
    }


def _margin_figure(result: CollapseResult) -> "go.Figure":
    """Histogram of both models' margins in bins of equal width, with one band per precision."""
    from interp import plots, theme

    both = torch.cat([result.margins, result.control_margins])
    edges = torch.linspace(math.floor(both.min()), math.floor(both.max()) + 1, N_BINS + 1, dtype=torch.float64)
    figure = plots.lines(
        ((edges[:-1] + edges[1:]) / 2).tolist(),
        {
            "model": torch.histogram(result.margins, edges).hist.tolist(),
            "random weights": torch.histogram(result.control_margins, edges).hist.tolist(),
        },
        title="Margins on the training set",
        x="logit of the right answer minus the runner-up",
        y="train inputs",
        caption=f"Left of a band no softmax of {result.n_logits} logits has collapsed in that precision, right of it "
        "every one; within it the other logits decide. In float32 "
        f"{result.collapse_fraction:.1%} have (random weights {result.control_collapse_fraction:.1%}).",
    )
    figure.update_traces(line_shape="hvh")
    for (name, at), colour in zip(result.precisions.items(), theme.CATEGORIES[1:], strict=False):
        figure.add_vrect(
            x0=at.lowest_margin,
            x1=at.highest_margin,
            fillcolor=colour,
            opacity=0.2,
            line_width=0,
            layer="below",
            annotation_text=name,
            annotation_position="top",
        )
    return figure
