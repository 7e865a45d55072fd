"""The waves over the numbers mod p: their real Fourier basis, and what a table over all pairs holds of them.

Conventions:

* k and p − k give the same cosine; frequencies are 1 … ⌊p/2⌋, (p−1)/2 included. An array over frequencies has k in
  place k − 1.
* ``fourier_basis`` orders const, cos 1, sin 1, cos 2, …, orthonormal rows. Other code bases put the sine first: never
  exchange indices with them.
* Tables over inputs have p² rows in the order a·p + b. All transforms are float64.
* A model that adds on circles needs no mix of two frequencies: ``frequency_blocks`` has the nine products of each, at a
  fraction of the cost of ``spectrum_2d``, and every measure of one frequency can be read off them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tasks.base import UserError

_ROWS = 1024  # few enough to stay in the processor's cache


def fourier_basis(p: int) -> Float[Tensor, "p p"]:
    """The real Fourier basis of functions on 0 … p − 1, one orthonormal function per row.

    F[0] = 1/√p, F[2k−1] = √(2/p) cos ω_k x, F[2k] = √(2/p) sin ω_k x for k = 1 … ⌊(p−1)/2⌋; for even p the last row is
    cos πx/√p, without a sine. Coefficients of W [p, d] (rows are inputs) are F @ W, of W [d, p] (columns are outputs)
    W @ F.T.

    Raises:
        UserError: p < 2.
    """
    if p < 2:
        raise UserError(f"expected a modulus p of at least 2, got {p}")
    x = torch.arange(p, dtype=torch.float64)
    k = torch.arange(1, p // 2 + 1, dtype=torch.float64)
    angle = 2 * torch.pi / p * (torch.outer(k, x) % p)  # products stay integers, so the angle is exact to rounding
    waves = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)[: p - 1]
    rows = torch.cat([torch.ones(1, p, dtype=torch.float64), waves])
    return rows / rows.norm(dim=1, keepdim=True)


def frequency_waves(p: int) -> Float[Tensor, "frequency 2 p"]:
    """F_{2k−1} and F_{2k}, the unit cosine and sine, of every frequency; the sine is 0 for k = p/2."""
    F = fourier_basis(p)[1:]
    return torch.cat([F, torch.zeros(1 - p % 2, p, dtype=torch.float64)]).unflatten(0, (p // 2, 2))


def spectrum_2d(T: Float[Tensor, "pairs ..."], p: int) -> Float[Tensor, "p p ..."]:
    """Two-dimensional Fourier coefficients of a table over all pairs: Ť[f,g,…] = Σ_{a,b} F[f,a] F[g,b] T[a·p+b,…].

    Sums of squares are kept. Index 0 is the constant, 2k−1 the cosine and 2k the sine of frequency k, along both axes.

    Raises:
        UserError: T does not have p² rows.
    """
    check_table(T, p)
    F = fourier_basis(p)
    rows = F @ T.double().reshape(p, -1)
    return torch.matmul(F, rows.reshape(p, p, -1)).reshape(p, p, *T.shape[1:])


class FrequencyBlocks(NamedTuple):
    """Of each column of a table over all pairs the products of one frequency's waves; see ``frequency_blocks``.

    ``coefficients`` [k − 1, f, g]: f of a and g of b, each 0 constant, 1 cosine, 2 sine. ``variation``: Σ over pairs of
    the squared entry around its mean.
    """

    p: int
    coefficients: Float[Tensor, "frequency 3 3 d"]
    variation: Float[Tensor, " d"]

    @property
    def constant(self) -> Bool[Tensor, " d"]:
        """Columns without variation but what rounding leaves."""
        return self.variation <= 1e-20 * (self.variation + self.coefficients[0, 0, 0].pow(2))

    @property
    def trig(self) -> Float[Tensor, "frequency 2 d"]:
        """Components along cos ω_k(a+b) and sin ω_k(a+b): ``trig_directions(p) @ T``."""
        B = self.coefficients
        found = torch.stack([B[:, 1, 1] - B[:, 2, 2], B[:, 2, 1] + B[:, 1, 2]], dim=1) / 2**0.5
        if self.p % 2 == 0:  # the square of cos πx is a constant, and there is no sine
            found[-1, 0] = B[-1, 1, 1]
        return found


def frequency_blocks(T: Float[Tensor, "pairs d"], p: int) -> FrequencyBlocks:
    """Σ_{a,b} f(a) g(b) T[a·p+b] for f and g among the constant, cos and sin of the same frequency, for each frequency.

    The entries of ``spectrum_2d`` that mix no two frequencies, from a p-th of the second product; 0 where k = p/2 has
    no sine.

    Raises:
        UserError: T does not have p² rows.
    """
    check_table(T, p)
    T, waves = T.double(), frequency_waves(p)
    constant = torch.full((p // 2, 1, p), p**-0.5, dtype=torch.float64)
    of_b = torch.cat([constant, waves], dim=1)
    table = T.reshape(p, -1)
    by_a = (waves.flatten(0, 1) @ table).unflatten(0, (p // 2, 2)).unflatten(2, (p, -1))
    mixed = torch.matmul(of_b.unsqueeze(1), by_a)
    alone = torch.matmul(of_b, (constant[0] @ table).unflatten(1, (p, -1)))
    mean = T.mean(0)
    variation = torch.stack([(rows - mean).pow(2).sum(0) for rows in T.split(_ROWS)]).sum(0)
    return FrequencyBlocks(p, torch.cat([alone.unsqueeze(1), mixed], dim=1), variation)


def trig_directions(p: int) -> Float[Tensor, "frequency 2 pairs"]:
    """Unit vectors c_k ∝ cos ω_k(a+b) and s_k ∝ sin ω_k(a+b) over all pairs, for k = 1 … ⌊p/2⌋.

    c_k = (F_{2k−1}⊗F_{2k−1} − F_{2k}⊗F_{2k})/√2, s_k = (F_{2k}⊗F_{2k−1} + F_{2k−1}⊗F_{2k})/√2; for even p and k = p/2,
    c_k = F_{p−1}⊗F_{p−1} and s_k = 0. Takes p³ numbers: where only coefficients are wanted use ``frequency_blocks``.
    """
    F = fourier_basis(p)
    out = torch.zeros(p // 2, 2, p, p, dtype=torch.float64)
    for k in range(1, p // 2 + 1):
        cos = F[2 * k - 1]
        if 2 * k == p:
            out[k - 1, 0] = torch.outer(cos, cos)
            continue
        sin = F[2 * k]
        out[k - 1, 0] = (torch.outer(cos, cos) - torch.outer(sin, sin)) / 2**0.5
        out[k - 1, 1] = (torch.outer(sin, cos) + torch.outer(cos, sin)) / 2**0.5
    return out.flatten(2)


def fold(power: Float[Tensor, "p ..."]) -> Float[Tensor, "frequency_and_constant ..."]:
    """Cosine and sine power of each frequency added; the constant stays in place 0."""
    p = power.shape[0]
    frequency = (torch.arange(p) + 1) // 2
    return torch.zeros(p // 2 + 1, *power.shape[1:], dtype=power.dtype).index_add_(0, frequency, power)


def check_table(T: Tensor, p: int) -> None:
    """Refuse a table of anything but all pairs.

    Raises:
        UserError: T does not have p² rows.
    """
    if T.shape[0] != p * p:
        raise UserError(f"expected all p² = {p * p} inputs, got {T.shape[0]}: pass task.all_inputs()")


def power_spectrum(W: Float[Tensor, "p d"]) -> Float[Tensor, " frequency"]:
    """Share of each frequency in the variation of the rows of W: e_k = ‖F_{2k−1}W‖² + ‖F_{2k}W‖², divided by Σ_k e_k.

    Rows are inputs 0 … p − 1: pass ``W_E[:p]``, without the row of "=". The constant is left out, so the shares sum to
    1 (NaN where all rows are equal). Flat, 2/(p−1) each, for random rows. A frequency in W_E need not be used: compare
    ``logit_variance``.

    Raises:
        UserError: W is no matrix with at least two rows.
    """
    if W.ndim != 2 or W.shape[0] < 2:
        raise UserError(f"expected a matrix [p, d] with one row per number, got shape {tuple(W.shape)}: pass W_E[:p]")
    power = (fourier_basis(W.shape[0]) @ W.double()).pow(2).sum(1)
    folded = fold(power)[1:]
    return folded / folded.sum()
