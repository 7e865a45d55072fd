"""Points in few dimensions, apart by label or in order: principal components, t-SNE maps, silhouettes, and order among
embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.result import Result
from interp.spread import finite
from interp.statistics import permutation_p_value
from tasks.base import generator

N_PERMUTATIONS = 199
_ROUNDING = 1e-5  # of a float32 vector's length


class Components(NamedTuple):
    """``coordinates`` of rows along principal components, and the share of variance each explains."""

    coordinates: Float[Tensor, "row component"]
    explained: Float[Tensor, " component"]


def principal_components(rows: Float[Tensor, "row d"], n: int = 2) -> Components:
    """The first n principal components of the rows around their mean, the largest coordinate of each positive.

    Of m rows of d independent Gaussian entries the first explains about (1 + √(m/d))²/m: 0.043 for 40 rows of 400.
    NaN where all rows are equal.
    """
    X = rows.double() - rows.double().mean(0)
    U, S, _ = torch.linalg.svd(finite(X), full_matrices=False)
    S = torch.where(S / rows.double().norm() > _ROUNDING, S, 0.0)
    coordinates = (U * S)[:, :n]
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    return Components(coordinates * torch.where(largest < 0, -1.0, 1.0), S[:n].pow(2) / S.pow(2).sum())


def tsne(rows: Float[Tensor, "row d"], *, perplexity: float = 30.0, seed: int = 0) -> Float[Tensor, "row 2"]:
    """The rows in a t-SNE map (van der Maaten and Hinton 2008); the perplexity is at most a third of the rows.

    Neighbours stay neighbours; distances, sizes and gaps mean nothing. Read a number beside it.
    """
    from sklearn.manifold import TSNE

    perplexity = min(perplexity, (len(rows) - 1) / 3)
    return torch.from_numpy(TSNE(perplexity=perplexity, random_state=seed).fit_transform(rows.numpy())).double()


def covariance_eigenvalues(rows: Float[Tensor, "row d"]) -> Float[Tensor, " rank"]:
    """Eigenvalues of C = (1/n) Σ (e − ē)(e − ē)ᵀ over n rows, largest first; min(n, d) of them, the others are 0.

    Divided by their sum they are the explained-variance ratios of a principal component analysis.
    """
    centred = rows.double() - rows.double().mean(0)
    return torch.linalg.svdvals(finite(centred)).pow(2) / len(rows)


def order_score(
    coordinates: Float[Tensor, "row component"], values: Int[Tensor, " row"] | Float[Tensor, " row"]
) -> float:
    """The largest absolute rank correlation (Spearman) of a component with the values, between 0 and 1.

    1: along one component the rows stand in the order of their values. By chance about 0.13 for the better of two
    components of 80 rows. A curve that turns back, such as a circle, scores low although it is in order.
    """
    x, y = torch.stack([_ranks(component) for component in coordinates.T], dim=1), _ranks(values)
    norms = x.norm(dim=0) * y.norm()
    return float(((y @ x).abs() / torch.where(norms > 0, norms, 1.0)).max())


def _ranks(values: Tensor) -> Float[Tensor, " row"]:
    """Ranks around their mean, ties with the mean of their ranks; scipy's import would take seconds."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2).double()[place]
    return ranks - ranks.mean()


def silhouette(points: Float[Tensor, "row d"], labels: Sequence[int]) -> float:
    """Mean silhouette of labelled points, between −1 and 1: how much nearer a point is to its own label than to the
    next (Rousseeuw 1987).

    Misleads where something else moves the points more than the label does, as noise tokens do: it is then near 0 or
    negative however well labels separate at equal noise.
    """
    from sklearn.metrics import silhouette_score

    points = finite(points).double()
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return float(silhouette_score(distance.numpy(), list(labels), metric="precomputed"))


def step_scores(rows: Float[Tensor, "row d"], n_steps: int = 10) -> Float[Tensor, " step"]:
    """S_k = mean over x of cos(e_x, e_{x+k}) − mean over all pairs, for k = 1 … n_steps (fewer than there are rows).

    Between −2 and 2. Falls with k where near numbers are alike, peaks at k and its multiples for arithmetic sequences
    of step k, and is near 0 for random rows.
    """
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    cosine, n = unit @ unit.T, len(unit)
    everywhere = (cosine.sum() - cosine.diagonal().sum()) / (n * (n - 1))
    return torch.stack([cosine.diagonal(k).mean() for k in range(1, min(n_steps, n - 1) + 1)]) - everywhere


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingOrder(Result):
    """Order among the embedding rows of consecutive numbers.

    ``explained``: of the first two components; ``order``: the order score along them, ``order_p_value`` the share of
    token orders that reach it. ``shuffled_step_score``: 95th percentile of the largest S_k of shuffled tokens;
    ``arithmetic_steps``: every k above it and above both neighbours. ``period``: of W_E's strongest frequency along the
    value, and its share of the variation.
    """

    explained: tuple[float, ...]
    order: float
    order_p_value: float
    step_scores: tuple[float, ...]
    shuffled_step_score: float
    arithmetic_steps: tuple[int, ...]
    period: float
    period_share: float


def embedding_order(rows: Float[Tensor, "row d"], *, seed: int = 0) -> EmbeddingOrder:
    """Every measure of order among the embedding rows of consecutive numbers; see ``EmbeddingOrder``."""
    from interp.waves import power_spectrum

    values, rng = torch.arange(len(rows)), generator(seed, "shuffled tokens")
    found, steps, spectrum = principal_components(rows), step_scores(rows).tolist(), power_spectrum(rows)
    shuffles = [rows[torch.from_numpy(rng.permutation(len(rows)))] for _ in range(N_PERMUTATIONS)]
    shuffled = float(np.quantile([float(step_scores(shuffle).max()) for shuffle in shuffles], 0.95))
    return EmbeddingOrder(
        explained=tuple(found.explained.tolist()),
        order=order_score(found.coordinates, values),
        order_p_value=permutation_p_value(
            lambda at: order_score(at, values), found.coordinates, n_permutations=N_PERMUTATIONS, seed=seed
        ),
        step_scores=tuple(steps),
        shuffled_step_score=shuffled,
        arithmetic_steps=tuple(k for k in range(2, len(steps)) if steps[k - 1] > max(shuffled, steps[k - 2], steps[k])),
        period=len(rows) / (int(spectrum.argmax()) + 1),
        period_share=float(spectrum.max()),
    )
