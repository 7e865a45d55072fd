"""Angles around a circle: how evenly they stand, and whether some are twice the others."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.result import Result
from tasks.base import generator

_DRAWS = 999


def evenness(angles: Float[Tensor, " n"]) -> float:
    """How evenly angles stand around the circle: e^H/n, H the entropy of the gaps between neighbours as shares of 2π.

    1 for equal gaps, 1/n where all are the same angle, NaN below two. Random ones have about 0.7: see
    ``evenness_of_random``.
    """
    return float(_evenness(angles.unsqueeze(0))) if len(angles) > 1 else math.nan


@cache
def evenness_of_random(n: int, seed: int = 0) -> float:
    """Mean ``evenness`` of n independent uniform angles, over 999 draws."""
    draws = torch.from_numpy(generator(seed, "angles").uniform(0, 2 * math.pi, (_DRAWS, n)))
    return float(_evenness(draws).mean()) if n > 1 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Doubling(Result):
    """Whether neurons write at twice the angle that they read at.

    ``deviation`` is the mean of |ψ − 2φ|, each taken around the circle, in degrees: 0 where angles double, 90 for
    random ones. ``resultant`` is the mean resultant length |mean e^{i(ψ−2φ)}|: 1 where all are equal, about √(π/4n)
    for n random ones. ``permuted_…`` are their means over random
    exchanges of the output angles between the neurons, and ``p_value`` the share of exchanges with as small a
    deviation.
    """

    deviation: float
    resultant: float
    permuted_deviation: float
    permuted_resultant: float
    p_value: float


def doubling(
    input_angle: Float[Tensor, " neuron"], output_angle: Float[Tensor, " neuron"], *, seed: int = 0
) -> Doubling:
    """The deviation of the output angles from twice the input angles, beside exchanged output angles.

    Few exchanges differ where there are few neurons: with five, p is about 1/120 at least. NaN without a neuron.
    """
    n = len(input_angle)
    rng = generator(seed, "exchanged angles")
    orders = torch.from_numpy(np.stack([np.arange(n), *(rng.permutation(n) for _ in range(_DRAWS))]))
    off = torch.exp(1j * (output_angle[orders] - 2 * input_angle).double())
    deviation, length = off.angle().abs().mean(1).rad2deg(), off.mean(1).abs()
    as_small = deviation <= deviation[0] + 1e-6  # degrees: equal but for rounding
    return Doubling(
        deviation=float(deviation[0]),
        resultant=float(length[0]),
        permuted_deviation=float(deviation[1:].mean()),
        permuted_resultant=float(length[1:].mean()),
        p_value=float(as_small.double().mean()) if n else math.nan,
    )


def _evenness(angles: Float[Tensor, "draw n"]) -> Float[Tensor, " draw"]:
    ordered = (angles.double() % (2 * torch.pi)).sort(dim=1).values
    gaps = torch.cat([ordered.diff(dim=1), ordered[:, :1] + 2 * torch.pi - ordered[:, -1:]], dim=1) / (2 * torch.pi)
    return torch.special.entr(gaps).sum(1).exp() / angles.shape[1]
