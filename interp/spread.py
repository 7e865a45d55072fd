"""How numbers are spread: over few or over many, and around their mean; and whether they are numbers at all."""

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import UserError


def gini(x: Float[Tensor, " n"]) -> float:
    """Gini coefficient Σ_i (2i − n − 1) x_(i)/(n Σ x) of non-negative numbers, x_(i) ascending.

    0 where all are equal, (n−1)/n where one holds everything. Of Fourier norms: high means few frequencies. NaN if all
    are 0.

    >>> gini(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    0.75
    """
    ordered = x.double().sort().values
    n = len(ordered)
    rank = torch.arange(1, n + 1, dtype=torch.float64)
    return float(((2 * rank - n - 1) * ordered).sum() / (n * ordered.sum()))


def centred(logits: Float[Tensor, "pairs element"]) -> Float[Tensor, "pairs element"]:
    """L′: the logits minus their mean over answers, in float64."""
    return logits.double() - logits.double().mean(1, keepdim=True)


def finite(values: Tensor) -> Tensor:
    """The values as they are: asked before a decomposition, which fails on anything else.

    Raises:
        UserError: NaN or infinity among them.
    """
    if not values.isfinite().all():
        raise UserError("expected finite numbers, got NaN or infinity: has the training diverged?")
    return values
