"""Boxes of equal targets, and what varies at a place: how the vectors of keys and anchors lie to each other."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.result import Result
from interp.statistics import Interval, percentiles, resamples

_ROUNDING = 1e-5  # of a float32 vector's length; what is shorter is no direction


def directions(
    vectors: Float[Tensor, "draw kind key d"], *, centred: bool = False
) -> Float[Tensor, "kind key feature"]:
    """Rows whose inner products are the vectors' cosines, averaged over draws; float64.

    Each draw's vectors are scaled to length 1 and laid side by side. A vector of zeros has no direction; its cosines
    are 0.

    Args:
        vectors: what is compared.
        centred: first subtract the mean over all kinds and keys of a draw. Cosines then depend on what is compared.
    """
    X = vectors.double()
    least = _ROUNDING * X.norm(dim=-1).amax()
    if centred:
        X = X - X.mean((1, 2), keepdim=True)
    norms = X.norm(dim=-1, keepdim=True)
    unit = torch.where(norms > least, X / norms.clamp(min=torch.finfo(X.dtype).tiny), 0.0)
    return unit.permute(1, 2, 0, 3).flatten(2) / math.sqrt(len(X))


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxContrast(Result):
    """Mean cosine ``inside`` boxes of equal targets and ``outside``, and what the boxes add.

    ``contrast`` is inside − outside; ``sided`` is boxes − the same kinds at the same distance of keys on the other
    side. Between −2 and 2; 0: equal targets are no closer than others. Intervals resample keys, a comparison counting
    as often as both its keys are drawn; NaN where nothing is compared or nothing varies.
    """

    inside: float
    outside: float
    contrast: Interval
    sided: Interval


def box_contrast(
    directions: Float[Tensor, "kind key feature"],
    targets: Int[Tensor, "kind key"],
    compared: Bool[Tensor, "kind kind"] | None = None,
    *,
    seed: int = 0,
) -> BoxContrast:
    """How much closer vectors with equal targets are than others, over all ordered pairs of kinds.

    A key is not compared with itself: there (a, b) and (b, a) agree in any model. Cosines outside weigh, in every pair
    of kinds, as much as those inside, so that kinds that are alike whatever the key give no contrast.

    Args:
        directions: see ``directions``; keys are consecutive numbers.
        targets: what kind and key amount to.
        compared: which kinds are compared; ``None``: all.
        seed: of the resampling.
    """
    n_kinds, n_keys, _ = directions.shape
    key = torch.arange(n_keys)
    across = 2 * key.unsqueeze(1) - key  # x′ as far from x as x″, on the other side
    exists = ((across >= 0) & (across < n_keys)).unsqueeze(1)
    across = across.clamp(0, n_keys - 1).unsqueeze(1).expand(-1, n_kinds, -1)
    apart = (key.unsqueeze(1) != key).unsqueeze(1)
    tables = torch.zeros(4, 2, n_keys, n_keys, dtype=torch.float64)  # sums of cosines and of weights, by both keys
    for kind in range(n_kinds):
        cosine = torch.einsum("xf,kyf->xky", directions[kind], directions)
        allowed = apart if compared is None else apart & compared[kind].unsqueeze(1)
        equal = targets[kind].unsqueeze(1).unsqueeze(2) == targets
        inside, outside = equal & allowed, ~equal & allowed
        balance = inside.sum((0, 2)).double() / outside.sum((0, 2)).clamp(min=1)
        facing = inside.gather(2, across) & exists & ~inside
        faced = facing.gather(2, across) & exists
        for table, weight in zip(tables, (inside, outside * balance.unsqueeze(1), faced, facing), strict=True):
            table[0] += (cosine * weight).sum(1)
            table[1] += weight.sum(1)
    return BoxContrast(
        inside=float(tables[0, 0].sum() / tables[0, 1].sum()),
        outside=float(tables[1, 0].sum() / tables[1, 1].sum()),
        contrast=_difference(tables[0], tables[1], seed),
        sided=_difference(tables[2], tables[3], seed),
    )


def _difference(first: Float[Tensor, "2 key key"], second: Float[Tensor, "2 key key"], seed: int) -> Interval:
    """Difference of two weighted means of comparisons, given sums and weights by both keys, with its interval."""
    n = first.shape[-1]

    def difference(drawn: Tensor) -> Tensor:
        totals = [((drawn @ table) * drawn).sum(1) for table in (*first, *second)]
        return totals[0] / totals[1] - totals[2] / totals[3]

    value = float(difference(torch.ones(1, n, dtype=torch.float64)))
    resampled = difference(torch.from_numpy(resamples(n, seed)))
    return percentiles(value, resampled.numpy(), n=int(first[1].sum()), n_units=n, rounding=_ROUNDING)


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents(Result):
    """What varies at a place over pairs and keys, the noise held fixed.

    ``pair``, ``order``, ``key``: shares of the variance explained by the unordered pair, by the order of its anchors
    beyond that, and by the key; the rest is their interaction. ``overlap``: mean distance of (a, b) to (b, a) over that
    of different unordered pairs, keys alike. Near 0 the order is lost, as it is in a plain average: read it with
    ``pair``. NaN where nothing varies.
    """

    pair: float
    order: float
    key: float
    overlap: float


def contents(stream: Float[Tensor, "draw first second key d"]) -> Contents:
    """What varies at a place, given the vectors of every ordered pair of anchors and every key; see ``Contents``."""
    X = stream.double() - stream.double().mean((1, 2, 3), keepdim=True)
    n_draws, n, _, n_keys, _ = X.shape
    total = X.pow(2).sum()
    if total <= _ROUNDING**2 * stream.double().pow(2).sum():
        return Contents(pair=math.nan, order=math.nan, key=math.nan, overlap=math.nan)
    ordered = X.mean(3)
    unordered = (ordered + ordered.transpose(1, 2)) / 2
    points = X.permute(0, 3, 1, 2, 4).reshape(n_draws * n_keys, n * n, -1)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").mean(0)
    a, b = torch.arange(n * n) // n, torch.arange(n * n) % n
    swapped = (a.unsqueeze(1) == b) & (b.unsqueeze(1) == a)
    different = ~swapped & ~torch.eye(n * n, dtype=torch.bool)
    return Contents(
        pair=float(unordered.pow(2).sum() * n_keys / total),
        order=float((ordered - unordered).pow(2).sum() * n_keys / total),
        key=float(X.mean((1, 2)).pow(2).sum() * n * n / total),
        overlap=float(distance[swapped & (a != b)].mean() / distance[different].mean()),
    )
