"""Condensation and rank over training: when do neurons gather in few directions, and when do maps lose rank?

The measures of ``interp.weights.condensation`` and ``interp.weights.rank`` at every snapshot of one run: from small
initial weights W_Q condenses before the answers are right, and eigenvalues of the embedding's covariance grow one after
the other until the training set is fitted (Zhang et al. 2024, arXiv 2405.05409, figures 5, 12 and 13).

Ranks are relative: divided by that of Gaussian entries of the same shape, so that 1 is a random matrix and matrices of
different shapes can be drawn together. Condensation is given beside that of random weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.result import Result
from interp.statistics import gaussian_like
from interp.subject import Subject, Trajectory, linear_maps
from interp.weights.condensation import HEADLINE, condensation
from interp.weights.projection import covariance_eigenvalues
from interp.weights.rank import effective_rank, singular_values, stable_rank, tokens_in_use
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_EIGENVALUES = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixDynamics(Result):
    """One matrix over the steps; the fields of ``MatrixCondensation``, and ranks relative to Gaussian entries."""

    directions: tuple[int, ...]
    condensed_share: tuple[float, ...]
    loose_directions: tuple[int, ...]
    loose_condensed_share: tuple[float, ...]
    mean_absolute_cosine: tuple[float, ...]
    relative_stable_rank: tuple[float, ...]
    relative_effective_rank: tuple[float, ...]
    control_condensed_share: float
    control_mean_absolute_cosine: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DynamicsResult(Result):
    """What ``analyze`` finds: every linear map at every step, and the largest eigenvalues of the covariance of the
    embeddings in use."""

    steps: tuple[int, ...]
    headline: str
    matrices: dict[str, MatrixDynamics]
    embedding_eigenvalues: Float[Tensor, "step rank"]


@ordinary_torch()
def analyze(trajectory: Trajectory, *, headline: str | None = None, control_seed: int = 0) -> DynamicsResult:
    """Condensation and rank of every linear map of a run, snapshot by snapshot.

    Args:
        trajectory: one run over its steps.
        headline: the matrix that the figures show alone; ``None``: W_Q of the first layer, else the first map.
        control_seed: of the Gaussian entries.

    Raises:
        UserError: a run without snapshots, or a headline that is no linear map of the model.
    """
    subjects = list(trajectory)
    if not subjects:
        raise UserError("expected at least one snapshot, the trajectory is empty")
    maps = [linear_maps(subject.params) for subject in subjects]
    names = list(maps[0])
    headline = headline or (HEADLINE if HEADLINE in names else names[0])
    if headline not in names:
        raise UserError(f"the model has no linear map {headline!r}: choose among {', '.join(names)}")
    return DynamicsResult(
        steps=tuple(0 if subject.step is None else subject.step for subject in subjects),
        headline=headline,
        matrices={name: _over_steps([at[name] for at in maps], name, control_seed) for name in names},
        embedding_eigenvalues=_eigenvalues(subjects),
    )


def figures(result: DynamicsResult) -> dict[str, "go.Figure"]:
    """``condensation``: the headline's condensed share; ``ranks``: relative stable rank of every map; ``embedding``:
    the leading eigenvalues of its covariance."""
    from interp import plots

    head = result.matrices[result.headline]
    at = [max(step, 1) for step in result.steps]  # step 0 has no place on a logarithmic axis
    steps = {"x": "step (0 is drawn at 1)", "log_x": True}
    made = {
        "condensation": plots.lines(
            at,
            {
                "cosine above 0.7": head.condensed_share,
                "cosine above 0.4": head.loose_condensed_share,
                "control, above 0.7": [head.control_condensed_share] * len(at),
            },
            title=f"Condensation of {result.headline}",
            y="share of neurons in groups of at least 5",
            caption="Groups are greedy, by cosine to the group's first neuron. Control: random weights of equal shape.",
            **steps,
        ),
        "ranks": plots.lines(
            at,
            {name: matrix.relative_stable_rank for name, matrix in result.matrices.items()},
            title="Stable rank of every linear map",
            y="stable rank / that of Gaussian entries",
            caption="1 is a random matrix of the same shape.",
            **steps,
        ),
    }
    if result.embedding_eigenvalues.shape[1]:
        made["embedding"] = plots.lines(
            at,
            {f"eigenvalue {i + 1}": column.tolist() for i, column in enumerate(result.embedding_eigenvalues.T)},
            title="Covariance of the embeddings in use",
            y="eigenvalue",
            caption=f"The {result.embedding_eigenvalues.shape[1]} largest eigenvalues of the covariance of W_E's rows.",
            log_y=True,
            **steps,
        )
    return made


def _over_steps(at_steps: Sequence[Tensor], name: str, control_seed: int) -> MatrixDynamics:
    found = [condensation(W) for W in at_steps]
    control = gaussian_like(at_steps[0], control_seed, name)
    beside, spectrum = condensation(control), singular_values(control)
    spectra = [singular_values(W) for W in at_steps]
    return MatrixDynamics(
        directions=tuple(c.directions for c in found),
        condensed_share=tuple(c.condensed_share for c in found),
        loose_directions=tuple(c.loose_directions for c in found),
        loose_condensed_share=tuple(c.loose_condensed_share for c in found),
        mean_absolute_cosine=tuple(c.mean_absolute_cosine for c in found),
        relative_stable_rank=tuple(stable_rank(s) / stable_rank(spectrum) for s in spectra),
        relative_effective_rank=tuple(effective_rank(s) / effective_rank(spectrum) for s in spectra),
        control_condensed_share=beside.condensed_share,
        control_mean_absolute_cosine=beside.mean_absolute_cosine,
    )


def _eigenvalues(subjects: Sequence[Subject]) -> Float[Tensor, "step rank"]:
    """Without a column where the model reads no tokens."""
    tokens = tokens_in_use(subjects[0].task)
    if "embed.W_E" not in subjects[0].params:
        return torch.zeros(len(subjects), 0, dtype=torch.float64)
    rows = [covariance_eigenvalues(subject.params["embed.W_E"][tokens]) for subject in subjects]
    return torch.stack(rows)[:, :N_EIGENVALUES]
