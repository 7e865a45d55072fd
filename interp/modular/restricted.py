"""Restricted and excluded loss: what the key frequencies alone can do, and what remains without them.

A model that adds mod p on circles computes cos ω_k(a+b) and sin ω_k(a+b) of its key frequencies k
(``interp.modular.fourier``). The *restricted* loss keeps nothing else of its logits, the *excluded* loss takes exactly
this away (Nanda et al. 2023, section 5). While a model only memorises, restricted loss is high and excluded loss low;
as the circuit forms the first falls and the second rises, long before test loss moves.

* Logits L are tables [p², p] over all pairs, rows a·p + b. P_K L = Σ_{k∈K} (c_k c_kᵀ + s_k s_kᵀ) L with the unit
  vectors of ``waves.trig_directions`` acts on the inputs, and always on the *full* grid; a split only chooses the
  pairs over which a loss is averaged.
* P_K has rank 2·|K| and is never built.
* Restricted loss alone misleads: right answers learnt by heart on a share f of the table put f of the rule's own waves
  into every frequency, and the restricted loss of *any* few may then be below test loss. ``placebo_keys`` shows it.
* Two other definitions are in use and give other numbers (Chughtai et al. 2023): they fit cubes cos ω_k(a+b−c), which
  tie the answer to the inputs. Here they are called ``cosine_…``.
* Every loss is a mean cross entropy in float64, natural log; that of a uniform answer is ln p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.modular.addition import AdditionTable
from interp.modular.fourier import cosine_fit, sum_variance
from interp.result import Result
from interp.waves import check_table, trig_directions
from tasks.base import UserError, generator
from tasks.training.objective import cross_entropy


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitLoss(Result):
    """Mean cross entropy over the trained pairs, the others, and all; NaN over none."""

    train: float
    test: float
    all: float


def split_loss(
    logits: Float[Tensor, "pairs p"], targets: Int[Tensor, " pairs"], train: Bool[Tensor, " pairs"]
) -> SplitLoss:
    """Mean cross entropy of the logits on each split."""
    losses = cross_entropy(logits, targets)
    return SplitLoss(train=float(losses[train].mean()), test=float(losses[~train].mean()), all=float(losses.mean()))


def key_directions(p: int, keys: Sequence[int]) -> Float[Tensor, "directions pairs"]:
    """The unit vectors c_k, s_k of these frequencies in turn, 2·|K| rows; s_k = 0 for k = p/2.

    Raises:
        UserError: a frequency outside 1 … ⌊p/2⌋, or one that is named twice.
    """
    if len(set(keys)) < len(keys):
        raise UserError(f"expected each frequency once, got {', '.join(map(str, keys))}: it would count twice")
    if outside := [k for k in keys if not 1 <= k <= p // 2]:
        raise UserError(f"expected frequencies from 1 to {p // 2}, got {outside[0]}: k and p − k are the same")
    return _all_directions(p)[torch.tensor(keys, dtype=torch.int64) - 1].flatten(0, 1)


def trig_part(T: Float[Tensor, "pairs d"], p: int, keys: Sequence[int]) -> Float[Tensor, "pairs d"]:
    """P_K T: the part of a table over all pairs that lies along cos ω_k(a+b) and sin ω_k(a+b) of these frequencies.

    Raises:
        UserError: T does not have p² rows.
    """
    check_table(T, p)
    D = key_directions(p, keys)
    return D.T @ (D @ T.double())


def trig_share(T: Float[Tensor, "pairs d"], p: int, keys: Sequence[int]) -> float:
    """Share of a table's centred variance that lies along the trig directions: ‖P_K T̃‖²/‖T̃‖², T̃ = T − mean over pairs.

    Of logits it is Σ_{k∈K} τ_k. Of neurons before and after the nonlinearity it shows where products of a and b arise:
    before, they only hold functions of a and of b. Between 0 and 1; 2|K|/(p²−1) on average for a random table; NaN for
    a constant one.
    """
    check_table(T, p)
    T = T.double()
    power, mean_power = torch.linalg.vector_norm(T) ** 2, T.mean(0).pow(2).sum() * len(T)
    total = power - mean_power
    if total <= 1e-13 * power:  # what rounding leaves of a constant is no variation
        return math.nan
    return float((key_directions(p, keys) @ T).pow(2).sum() / total)


def restricted_logits(
    logits: Float[Tensor, "pairs p"], keys: Sequence[int], *, with_mean: bool = True
) -> Float[Tensor, "pairs p"]:
    """P_K L + mean over all pairs of L; without the mean the "uncorrected" variant.

    The mean is one bias per answer. It belongs to no frequency, but the trig part is fitted around it, and
    without it the loss may be higher or lower.
    """
    part = trig_part(logits, logits.shape[1], keys)
    return part + logits.double().mean(0) if with_mean else part


def excluded_logits(logits: Float[Tensor, "pairs p"], keys: Sequence[int]) -> Float[Tensor, "pairs p"]:
    """L − P_K L. The published measure averages its loss over the *train* pairs."""
    return logits.double() - trig_part(logits, logits.shape[1], keys)


def restricted_and_excluded(
    logits: Float[Tensor, "pairs p"], keys: Sequence[int], *, of: Float[Tensor, "pairs p"] | None = None
) -> tuple[Float[Tensor, "pairs p"], Float[Tensor, "pairs p"]]:
    """Both at once; or logits with nothing but the waves and the mean of one of their summands, and without its waves.

    P_K S + mean over all pairs of S + (L − S), and L − P_K S, for a summand S of L. With S = L, unless ``of`` names
    another: restricted and excluded logits; with S = A W_L: frequencies kept and ablated at the neurons.
    """
    logits = logits.double()
    summand = logits if of is None else of.double()
    part = trig_part(summand, logits.shape[1], keys)
    kept = part + summand.mean(0)
    return kept if of is None else kept + (logits - summand), logits - part


def cosine_logits(p: int, coefficients: dict[int, float]) -> Float[Tensor, "pairs p"]:
    """Σ_k α_k cos ω_k(a+b−c), for α_k by frequency, as from ``fourier.cosine_fit``."""
    number = torch.arange(p)
    return _by_sum(p, coefficients)[(number.unsqueeze(1) + number).flatten() % p]


def cosine_restricted_loss(p: int, coefficients: dict[int, float]) -> float:
    """Loss of Σ_k α_k cos ω_k(a+b−c), which is the same on every pair: −log softmax at a+b−c = 0.

    "Restricted loss" of Chughtai et al. 2023, and the loss of the cosine approximation of Nanda et al. 2023. Lower than
    ``restricted_logits``' where the model's own waves are uneven.
    """
    return float(cross_entropy(_waves(p, coefficients)[None], torch.zeros(1, dtype=torch.int64)))


def cosine_excluded_logits(
    logits: Float[Tensor, "pairs p"], coefficients: dict[int, float]
) -> Float[Tensor, "pairs p"]:
    """L − Σ_k α_k cos ω_k(a+b−c): "excluded loss" of Chughtai et al. 2023 is its loss on the train pairs."""
    return logits.double() - cosine_logits(logits.shape[1], coefficients)


def placebo_keys(p: int, keys: Sequence[int], seed: int) -> tuple[int, ...]:
    """As many random frequencies, none of them a key: the control of everything that is said of a key set.

    All others where there are fewer; a key set that large speaks against a Fourier algorithm anyway.
    """
    others = [k for k in range(1, p // 2 + 1) if k not in keys]
    size = min(len(keys), len(others))
    return tuple(sorted(generator(seed, "placebo frequencies").permutation(others)[:size].tolist()))


@dataclass(frozen=True, kw_only=True, eq=False)
class FrequencyLosses(Result):
    """Losses of a model's logits split by a key set K; see the module.

    ``restricted``: P_K L and the mean over pairs; ``uncorrected``: P_K L alone; ``excluded``: L − P_K L;
    ``excluded_per_key``: one key at a time, on train. ``cosine_restricted`` is the loss of Σ_K α_k cos ω_k(a+b−c),
    equal on every pair; ``cosine_excluded``: L without it; ``…_per_key``: one key alone, and (on train) without
    one. ``trig_share`` is the share of the logits' variance over pairs in P_K L, ``cosine_share`` that of their
    variance over answers in the cosines.
    """

    full: SplitLoss
    restricted: SplitLoss
    uncorrected: SplitLoss
    excluded: SplitLoss
    excluded_per_key: tuple[float, ...]
    cosine_restricted: float
    cosine_excluded: SplitLoss
    cosine_restricted_per_key: tuple[float, ...]
    cosine_excluded_per_key: tuple[float, ...]
    trig_share: float
    cosine_share: float


def frequency_losses(table: AdditionTable, keys: Sequence[int]) -> FrequencyLosses:
    """The losses of a table split by these frequencies."""
    L, p, sums, train = table.logits, table.p, table.targets, table.train
    trained, taught = L[train], sums[train]
    fit = cosine_fit(L, p)
    alpha = {k: float(fit.coefficient[k - 1]) for k in keys}
    D, at = key_directions(p, keys), torch.tensor(keys, dtype=torch.int64) - 1
    coefficient = table.logit_blocks.trig[at]
    part = D.T @ coefficient.flatten(0, 1)

    def losses(logits: Tensor) -> SplitLoss:
        return split_loss(logits, sums, train)

    def trained_loss(without: Tensor) -> float:
        return float(cross_entropy(trained - without, taught).mean())

    per_key = [waves[:, train].T @ of_key for waves, of_key in zip(D.unflatten(0, (-1, 2)), coefficient, strict=True)]
    return FrequencyLosses(
        full=losses(L),
        restricted=losses(part + L.mean(0)),
        uncorrected=losses(part),
        excluded=losses(L - part),
        excluded_per_key=tuple(trained_loss(wave) for wave in per_key),
        cosine_restricted=cosine_restricted_loss(p, alpha),
        cosine_excluded=losses(L - _by_sum(p, alpha)[sums]),
        cosine_restricted_per_key=tuple(cosine_restricted_loss(p, {k: alpha[k]}) for k in keys),
        cosine_excluded_per_key=tuple(trained_loss(_by_sum(p, {k: alpha[k]})[taught]) for k in keys),
        trig_share=float(sum_variance(table.logit_blocks)[at].sum()),
        cosine_share=fit.explained(tuple(keys)),
    )


def _by_sum(p: int, coefficients: dict[int, float]) -> Float[Tensor, "sum p"]:
    """Σ_k α_k cos ω_k(s−c) for every sum s and answer c."""
    number = torch.arange(p)
    return _waves(p, coefficients)[(number.unsqueeze(1) - number) % p]


def _waves(p: int, coefficients: dict[int, float]) -> Float[Tensor, " p"]:
    """Σ_k α_k cos ω_k d for d = 0 … p − 1."""
    d = torch.arange(p)
    waves = [alpha * torch.cos(2 * torch.pi / p * (k * d % p).double()) for k, alpha in coefficients.items()]
    return sum(waves, torch.zeros(p, dtype=torch.float64))


_all_directions = lru_cache(maxsize=1)(trig_directions)
"""p³ numbers that every measure of every checkpoint needs."""
