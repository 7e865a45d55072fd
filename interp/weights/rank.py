"""Ranks of weight matrices: over how many directions does each linear map spread, and how much less than a random one?

All measures read the singular values σ_1 ≥ σ_2 ≥ … of a matrix in the orientation of ``x @ W``. On a matrix of rank r
with equal singular values all of them give r; otherwise they differ in how much the tail counts: stable rank ≤
participation ratio ≤ effective rank ≤ rank.

Small initialisation and weight decay lower them (Zhang et al. 2024, arXiv 2405.05409, fig. 13). They depend on the
shape, so every number comes with that of a Gaussian matrix of the same shape.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.result import Result
from interp.spread import finite
from interp.subject import Subject, linear_maps
from interp.weights.projection import covariance_eigenvalues
from tasks.base import Task, UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go


def singular_values(W: Float[Tensor, "d_in d_out"]) -> Float[Tensor, " rank"]:
    """The singular values of W in float64, largest first.

    Raises:
        UserError: W is no matrix, or has entries that are no numbers.
    """
    if W.ndim != 2:
        raise UserError(f"expected a matrix [d_in, d_out], got shape {tuple(W.shape)}: pass one of linear_maps(params)")
    return torch.linalg.svdvals(finite(W).double())


def stable_rank(singular: Float[Tensor, " rank"]) -> float:
    """Σσ²/σ_1², between 1 and the rank. Sees only how far the first direction leads; 0 for a matrix of zeros.

    >>> stable_rank(torch.tensor([2.0, 2.0, 1.0]))
    2.25
    """
    squared = singular.double().pow(2)
    return float(squared.sum() / squared.max()) if squared.any() else 0.0


def effective_rank(singular: Float[Tensor, " rank"]) -> float:
    """exp(−Σ q ln q) with q = σ/Σσ, between 1 and the rank (Roy and Vetterli 2007). A long flat tail counts much here;
    0 for a matrix of zeros."""
    if not singular.any():
        return 0.0
    q = singular.double() / singular.double().sum()
    return math.exp(float(torch.special.entr(q).sum()))


def participation_ratio(singular: Float[Tensor, " rank"]) -> float:
    """(Σσ²)²/Σσ⁴, between 1 and the rank: the number of directions that share the squared norm; 0 for a matrix of
    zeros.

    >>> participation_ratio(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    3.0
    """
    squared = singular.double().pow(2)
    return float(squared.sum() ** 2 / squared.pow(2).sum()) if squared.any() else 0.0


def numerical_rank(singular: Float[Tensor, " rank"], tolerance: float) -> int:
    """Number of singular values above tolerance · σ_1. For weights stored in a floating-point type the usual tolerance
    is max(d_in, d_out) times its ε: what lies below is rounding."""
    return int((singular > tolerance * singular.max()).sum())


def tokens_in_use(task: Task) -> Int[Tensor, " token"]:
    """The input tokens whose embeddings carry the task: anchors and keys, or the numbers (with ``diff_vocab``
    those of a and those of b); all tokens of any other task."""
    if isinstance(task, AnchorComposition):
        return torch.cat([torch.arange(1, task.n_anchors + 1), torch.arange(task.key_low, task.key_high + 1)])
    return torch.arange(task.p * (1 + task.diff_vocab) if isinstance(task, ModularArithmetic) else task.d_vocab)


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixRank(Result):
    """The ranks of one matrix [d_in, d_out]."""

    d_in: int
    d_out: int
    stable_rank: float
    effective_rank: float
    participation_ratio: float
    numerical_rank: int
    singular_values: Float[Tensor, " rank"]


def matrix_rank(W: Float[Tensor, "d_in d_out"]) -> MatrixRank:
    """All ranks of a matrix, from one decomposition; the numerical rank with the tolerance of W's own type."""
    singular = singular_values(W)
    return MatrixRank(
        d_in=W.shape[0],
        d_out=W.shape[1],
        stable_rank=stable_rank(singular),
        effective_rank=effective_rank(singular),
        participation_ratio=participation_ratio(singular),
        numerical_rank=numerical_rank(singular, max(W.shape) * torch.finfo(W.dtype).eps),
        singular_values=singular,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RankResult(Result):
    """What ``analyze`` finds: the ranks of every linear map, and of Gaussian matrices of the same shapes (``control``).

    ``mean_relative_stable_rank`` is the mean over maps of stable rank / control's stable rank: 1 for random weights,
    small where the maps have collapsed on few directions; its control is that of a second draw of random weights,
    measured against the first. ``embedding_explained`` holds the shares of the first two
    principal components of the embeddings in use, ``embedding_participation_ratio`` (Σλ)²/Σλ² of the covariance
    eigenvalues λ.
    """

    mean_relative_stable_rank: float
    control_mean_relative_stable_rank: float
    matrices: dict[str, MatrixRank]
    control: dict[str, MatrixRank]
    embedding_explained: tuple[float, ...]
    embedding_participation_ratio: float
    control_embedding_explained: tuple[float, ...]
    control_embedding_participation_ratio: float
    embedding_eigenvalues: Float[Tensor, " rank"]
    control_embedding_eigenvalues: Float[Tensor, " rank"]


@ordinary_torch()
def analyze(subject: Subject, *, all_tokens: bool = False, control_seed: int = 0) -> RankResult:
    """Ranks of every linear map of the model and the spread of its embeddings, beside those of random weights.

    Args:
        subject: any model; where it has no table of embeddings, the rows of its first matrix are what inputs become.
        all_tokens: take the covariance over all embedding rows, not only over ``tokens_in_use``.
        control_seed: of the random weights; the seed after it is that of the second draw.
    """
    random = subject.randomized(control_seed)
    matrices = {name: matrix_rank(W) for name, W in linear_maps(subject.params).items()}
    control = {name: matrix_rank(W) for name, W in linear_maps(random.params).items()}
    second = {name: matrix_rank(W) for name, W in linear_maps(subject.randomized(control_seed + 1).params).items()}
    table = next((name for name in ("embed.W_E", "embed.0.W_E") if name in subject.params), None)
    rows = slice(None) if all_tokens or table is None else tokens_in_use(subject.task)
    name = table or next(iter(matrices))
    eigenvalues, control_eigenvalues = (
        covariance_eigenvalues(params[name][rows]) for params in (subject.params, random.params)
    )
    return RankResult(
        mean_relative_stable_rank=_mean_relative(matrices, control),
        control_mean_relative_stable_rank=_mean_relative(second, control),
        matrices=matrices,
        control=control,
        embedding_explained=_leading(eigenvalues),
        embedding_participation_ratio=participation_ratio(eigenvalues.sqrt()),
        control_embedding_explained=_leading(control_eigenvalues),
        control_embedding_participation_ratio=participation_ratio(control_eigenvalues.sqrt()),
        embedding_eigenvalues=eigenvalues,
        control_embedding_eigenvalues=control_eigenvalues,
    )


def _mean_relative(matrices: Mapping[str, MatrixRank], control: Mapping[str, MatrixRank]) -> float:
    """The mean over maps of stable rank / the control's; NaN where no control has a rank."""
    relative = [
        matrices[name].stable_rank / control[name].stable_rank for name in matrices if control[name].stable_rank
    ]
    return sum(relative) / len(relative) if relative else math.nan


def figures(result: RankResult) -> dict[str, "go.Figure"]:
    """``spectra``: normalised singular values of every map; ``ranks``: stable rank of every map; ``embedding``:
    covariance eigenvalues of the embeddings. The last two beside random weights."""
    from interp import plots

    names = list(result.matrices)
    spectra = {name: (m.singular_values / m.singular_values.max()).tolist() for name, m in result.matrices.items()}
    eigenvalues = {"model": result.embedding_eigenvalues, "random weights": result.control_embedding_eigenvalues}
    return {
        "spectra": plots.lines(
            list(range(1, max(map(len, spectra.values())) + 1)),
            spectra,
            title="Singular values of the weights",
            x="index",
            y="σ / σ₁",
            caption="Singular values of every linear map, divided by its largest. A steep fall is a map of low rank.",
            log_y=True,
        ),
        "ranks": plots.bars(
            names,
            {
                "model": [result.matrices[name].stable_rank for name in names],
                "random weights": [result.control[name].stable_rank for name in names],
            },
            title="Stable rank of the weights",
            x="linear map",
            y="stable rank Σσ²/σ₁²",
            caption="Stable rank of every linear map beside a Gaussian matrix of its shape.",
        ),
        "embedding": plots.lines(
            list(range(1, len(result.embedding_eigenvalues) + 1)),
            {name: (values / values.sum()).tolist() for name, values in eigenvalues.items()},
            title="Spread of the embeddings",
            x="principal component",
            y="share of variance",
            caption="Covariance eigenvalues of the embeddings of the tokens in use, as shares of their sum.",
            log_y=True,
        ),
    }


def _leading(eigenvalues: Float[Tensor, " rank"]) -> tuple[float, ...]:
    """Shares of the first two eigenvalues in their sum."""
    return tuple((eigenvalues[:2] / eigenvalues.sum()).tolist())
