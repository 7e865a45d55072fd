"""From neurons to logits: how the last MLP's neurons read out the sum of two numbers.

With A [p², d_mlp] the activations over all pairs and W_L = W_out W_U [d_mlp, p], the logits are A W_L plus what goes
past the MLP. If the model adds on circles, W_L has little but the 2·|K| output waves of the key frequencies k, the
neuron directions W_L Fᵀ carry cos ω_k(a+b) and sin ω_k(a+b), and a neuron is a polynomial of degree two in the waves of
one frequency (Nanda et al. 2023, sections 4.2 to 4.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.addition import AdditionTable
from interp.modular.fourier import EXPLAINED, strongest_frequencies, sum_variance
from interp.modular.restricted import key_directions, trig_share
from interp.result import Result
from interp.spread import finite, gini
from interp.waves import FrequencyBlocks, check_table, fourier_basis, frequency_waves
from tasks.training.objective import cross_entropy


def output_waves(p: int, keys: Sequence[int]) -> Float[Tensor, "directions p"]:
    """F_{2k−1} and F_{2k}, the unit cosine and sine over the answers, of these frequencies in turn; the sine is 0 for
    k = p/2."""
    return frequency_waves(p)[torch.tensor(keys, dtype=torch.int64) - 1].flatten(0, 1)


def readout_residual(W_L: Float[Tensor, "d_mlp p"], keys: Sequence[int]) -> float:
    """Share of W_L's squared norm outside the output waves of the keys: 1 − ‖W_L P‖²/‖W_L‖².

    The published "rank ≈ 10, residual below .55 %" is this squared share; the ratio of norms, its root, would be 7 %.
    About 1 − 2·|K|/p for random weights.
    """
    W = W_L.double()
    inside = W @ output_waves(W.shape[1], keys).T
    return float(1 - inside.pow(2).sum() / W.pow(2).sum())


def inverse_participation_ratio(rows: Float[Tensor, "row p"]) -> Float[Tensor, " row"]:
    """How few frequencies each row holds: Σ_k x_k⁴/(Σ_k x_k²)², x_k the amplitudes of its real FFT, k = 0 … ⌊p/2⌋.

    1 for one cosine, about 4/p for Gaussian rows (.04 at p = 97), at least 1/(⌊p/2⌋ + 1). A full FFT counts a cosine
    twice and gives .5. Doshi et al. 2023 (arXiv 2310.13061) average it over the rows of all weights; rows are neurons,
    columns the numbers. NaN for a row of zeros.

    >>> wave = torch.cos(2 * torch.pi * 3 * torch.arange(97) / 97)
    >>> round(float(inverse_participation_ratio(wave.unsqueeze(0))), 6)
    1.0
    """
    power = torch.fft.rfft(rows.double(), dim=1).abs().pow(2)
    return power.pow(2).sum(1) / power.sum(1).pow(2)


class WaveFits(NamedTuple):
    """Per key the share of variance of its two read-out directions that one wave explains; see ``wave_fits``."""

    cosine: Float[Tensor, " key"]
    sine: Float[Tensor, " key"]


def wave_fits(
    activations: Float[Tensor, "pairs d_mlp"], W_L: Float[Tensor, "d_mlp p"], keys: Sequence[int]
) -> WaveFits:
    """How well the neurons, along the directions that W_L reads for a key, compute cos and sin of ω_k(a+b).

    s = A W_L F_{2k−1}ᵀ for the cosine, A W_L F_{2k}ᵀ for the sine, centred over the pairs, is regressed on cos or
    sin ω_k(a+b) without intercept: FVE = 1 − ‖s − βt‖²/‖s‖². β depends on the normalisation of the basis and is not
    given. Between 0 and 1; about 1/p² for noise, more for random weights. NaN for the sine of k = p/2, which does not
    exist.
    """
    p = W_L.shape[1]
    s = activations.double() @ (W_L.double() @ output_waves(p, keys).T)
    s = s - s.mean(0)
    explained = (key_directions(p, keys) * s.T).sum(1).pow(2) / s.pow(2).sum(0)
    return WaveFits(cosine=explained[0::2], sine=explained[1::2])


def polynomial_part(
    activations: Float[Tensor, "pairs d_mlp"], p: int, frequency: Int[Tensor, " d_mlp"]
) -> Float[Tensor, "pairs d_mlp"]:
    """Each neuron's best polynomial of degree two in the waves of its own frequency.

    The projection on the nine products of {1, cos ω_k a, sin ω_k a} and {1, cos ω_k b, sin ω_k b}, of rank nine per
    frequency. A neuron with frequency 0 (``fourier.neuron_frequencies``: it is constant) is returned as it is.

    Raises:
        UserError: the activations do not have p² rows.
    """
    check_table(activations, p)
    out = activations.double().clone()
    constant = torch.full((1, p), p**-0.5, dtype=torch.float64)
    for k in frequency.unique().tolist():
        if k:
            waves = torch.cat([constant, output_waves(p, [k])])
            products = torch.einsum("fa,gb->fgab", waves, waves).reshape(9, p * p)
            neurons = frequency == k
            out[:, neurons] = products.T @ (products @ out[:, neurons])
    return out


def polynomial_logits(
    blocks: FrequencyBlocks, frequency: Int[Tensor, " d_mlp"], W_L: Float[Tensor, "d_mlp p"]
) -> Float[Tensor, "pairs p"]:
    """``polynomial_part(activations, p, frequency) @ W_L`` without a table of neurons, from the activations' blocks.

    Args:
        blocks: ``waves.frequency_blocks`` of the activations.
        frequency: of each neuron, 1 … ⌊p/2⌋.
        W_L: what each neuron writes to the logits.
    """
    p, neuron = blocks.p, torch.arange(len(frequency))
    own = blocks.coefficients[frequency - 1, :, :, neuron].flatten(1).unsqueeze(2)
    written = torch.zeros(p // 2, 9, p, dtype=torch.float64).index_add_(0, frequency - 1, own * W_L.unsqueeze(1))
    constant = torch.full((p // 2, 1, p), p**-0.5, dtype=torch.float64)
    waves = torch.cat([constant, frequency_waves(p)], dim=1)
    by_b = torch.matmul(waves.mT.unsqueeze(1), written.unflatten(1, (3, 3)))
    return (waves.flatten(0, 1).T @ by_b.flatten(0, 1).flatten(1)).reshape(p * p, p)


def readout_directions(W_L: Float[Tensor, "d_mlp p"], keys: Sequence[int]) -> Float[Tensor, "d_mlp rank"]:
    """An orthonormal basis of the 2·|K| neuron directions W_L Fᵀ of the keys."""
    directions = W_L.double() @ output_waves(W_L.shape[1], keys).T
    U, S, _ = torch.linalg.svd(finite(directions), full_matrices=False)
    return U[:, 1e-10 * S.max() < S] if len(S) else U  # p/2 has no sine: a direction of zeros


def along_readout(
    activations: Float[Tensor, "pairs d_mlp"], W_L: Float[Tensor, "d_mlp p"], keys: Sequence[int]
) -> Float[Tensor, "pairs d_mlp"]:
    """The activations projected on the span of the 2·|K| neuron directions W_L Fᵀ of the keys.

    What is taken away lies in the null space of the read-out of these keys; replacing the activations by it should
    destroy the answers.
    """
    Q = readout_directions(W_L, keys)
    return (activations.double() @ Q) @ Q.T


@dataclass(frozen=True, kw_only=True, eq=False)
class Readout(Result):
    """The neurons of the last MLP and their map W_L to the logits, for a key set K.

    ``pre_trig_share``, ``post_trig_share``: share of the neurons' variance in P_K before and after the nonlinearity.
    ``gini``: of the p norms of the columns of W_L Fᵀ. ``residual``: share of W_L's squared norm outside the 2·|K|
    output waves. ``cosine_fits``, ``sine_fits``: FVE per key.
    """

    pre_trig_share: float
    post_trig_share: float
    gini: float
    residual: float
    cosine_fits: tuple[float, ...]
    sine_fits: tuple[float, ...]
    singular_values: Float[Tensor, " rank"]


def read_out(table: AdditionTable, keys: Sequence[int]) -> Readout | None:
    """The read-out of a table for these frequencies; ``None`` without ``W_L``."""
    if table.pre is None or table.post is None or table.W_L is None or table.neuron_blocks is None:
        return None
    at = torch.tensor(keys, dtype=torch.int64) - 1
    fits = wave_fits(table.post, table.W_L, keys)
    return Readout(
        pre_trig_share=trig_share(table.pre, table.p, keys),
        post_trig_share=float(sum_variance(table.neuron_blocks)[at].sum()),
        gini=gini((table.W_L @ fourier_basis(table.p).T).norm(dim=0)),
        residual=readout_residual(table.W_L, keys),
        cosine_fits=tuple(fits.cosine.tolist()),
        sine_fits=tuple(fits.sine.tolist()),
        singular_values=torch.linalg.svdvals(finite(table.W_L)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronLosses(Result):
    """Loss over all pairs with neurons replaced by what is understood of them.

    ``polynomial``: every neuron of which one frequency explains .85 by its polynomial of degree two in that frequency;
    ``along_readout``: the neurons projected on the directions that W_L reads for the keys; ``off_readout``: on the
    rest, which should know nothing.
    """

    polynomial: float
    along_readout: float
    off_readout: float


def neuron_losses(table: AdditionTable, keys: Sequence[int]) -> NeuronLosses | None:
    """The losses of a table with its neurons replaced; ``None`` without ``W_L``."""
    A, W_L, M, blocks = table.post, table.W_L, table.neuron_logits, table.neuron_blocks
    if A is None or W_L is None or M is None or blocks is None:
        return None
    neurons = strongest_frequencies(blocks)
    clear = neurons.explained > EXPLAINED
    those = FrequencyBlocks(table.p, blocks.coefficients[..., clear], blocks.variation[clear])
    polynomial = polynomial_logits(those, neurons.frequency[clear], W_L[clear])
    others = A @ torch.where(clear.unsqueeze(1), 0.0, W_L)
    Q, past = readout_directions(W_L, keys), table.logits - M
    along = (A @ Q) @ (Q.T @ W_L)

    def loss(logits: Tensor) -> float:
        return float(cross_entropy(logits, table.targets).mean())

    return NeuronLosses(
        polynomial=loss(past + others + polynomial),
        along_readout=loss(past + along),
        off_readout=loss(past + M - along),
    )
