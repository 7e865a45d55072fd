"""How much of logits, weights and activations of a model of a group is made of which representations.

* ρ runs over the real irreducible representations of ``interp.group.characters``, the trivial one first; an array over
  representations is in that order.
* Tables over inputs have n² rows in the order a·n + b. Where the task computes another answer than ab (xyx⁻¹, a − b),
  that answer takes the place of ab.
* The *cube* of ρ is X_ρ[a,b,c] = ψ_ρ(ab c⁻¹). Cubes are orthogonal, ‖X_ρ‖² = n³⟨ψ_ρ,ψ_ρ⟩, and never built: inner
  products only need sums over ab c⁻¹ = h. L′ is the logits minus their mean over answers.

Definitions: Chughtai et al. 2023 (arXiv 2302.03025), with projections on whole representations instead of single matrix
entries, which are linearly dependent for rotations.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.group.characters import Characters
from interp.spread import centred
from tasks.base import UserError, generator
from tasks.training.objective import cross_entropy

KEY_SIMILARITY = 0.005
_ROWS = 1024  # few enough to stay in the processor's cache


class CubeFit(NamedTuple):
    """How much of the logits is ψ_ρ(ab c⁻¹); see ``cube_fit``."""

    similarity: Float[Tensor, " representation"]
    coefficient: Float[Tensor, " representation"]

    @property
    def explained(self) -> float:
        """Share of the logits' variance over answers that all cubes together explain: Σ_ρ sim_ρ²."""
        return float(self.similarity.pow(2).sum())


def cube_fit(
    logits: Float[Tensor, "pairs element"], chars: Characters, answers: Int[Tensor, " pairs"] | None = None
) -> CubeFit:
    """Similarity and coefficient of the logits to the cube of every representation.

    sim_ρ = ⟨L′,X_ρ⟩/(‖L′‖‖X_ρ‖) between −1 and 1, α_ρ = ⟨L′,X_ρ⟩/‖X_ρ‖²; Σ_ρ α_ρ X_ρ is the best approximation of that
    form. The trivial cube is constant and gets 0. On a cyclic group these are the similarity and, halved for
    frequencies other than n/2, the coefficient of ``fourier.cosine_fit``: ψ is 2 cos. NaN for logits that do not vary
    over answers.

    Args:
        logits: of all pairs, in the order a·n + b.
        chars: characters of the group.
        answers: of all pairs; ``None``: the product ab.

    Raises:
        UserError: not all pairs, or not one logit per element.
    """
    n = chars.group.order
    _check_pairs(logits, n)
    if logits.shape[1] != n:
        raise UserError(f"expected {n} logits, one per element of {chars.group.name}, got {logits.shape[1]}")
    answers = _products(chars) if answers is None else answers
    L = centred(logits)
    inner = chars.over(by_answer(L, answers, n))
    inner[0] = 0.0  # a sum of zeros, up to rounding
    norms = (n**3 * chars.norms).double().sqrt()
    return CubeFit(similarity=inner / (L.norm() * norms), coefficient=inner / norms**2)


def key_representations(similarity: Float[Tensor, " representation"]) -> tuple[int, ...]:
    """The places of the representations with sim_ρ > 0.005, from ``cube_fit``.

    Random logits have similarities of about n^(−3/2), which pass in groups of less than 35 elements. Misleads on a
    lookup table: right answers alone put √(f·rank_ρ/(n−1)) into *every* representation, f being the share
    of the table that is answered, so a key set that holds nearly all of them speaks against representations.
    """
    return tuple(torch.nonzero(similarity > KEY_SIMILARITY).flatten().tolist())


class CubeLosses(NamedTuple):
    """Mean cross entropy of what the cubes give, and of what is left without them; see ``cube_losses``."""

    restricted: float
    excluded: float


def cube_losses(
    logits: Float[Tensor, "pairs element"],
    chars: Characters,
    chosen: Sequence[int],
    train_mask: Bool[Tensor, " pairs"],
    answers: Int[Tensor, " pairs"] | None = None,
) -> CubeLosses:
    """Loss on all pairs of Σ α_ρ X_ρ over the chosen representations, and on the training pairs of L′ minus it.

    Restricted: low where the chosen cubes are enough; ln n without any, and for all pairs the same. Excluded: high
    where the model needs them.

    Raises:
        UserError: as ``cube_fit``.
    """
    answers = _products(chars) if answers is None else answers
    fit = cube_fit(logits, chars, answers)
    return losses_of_fit(fit, chars, chosen, by_quotient(centred(logits)[train_mask], chars, answers[train_mask]))


def by_quotient(
    logits: Float[Tensor, "example element"], chars: Characters, answers: Int[Tensor, " example"]
) -> Float[Tensor, "example element"]:
    """Each row with the logit of c in the place of ab c⁻¹: the right answer's is at the identity, and a cube's part of
    every row is ψ itself."""
    group = chars.group
    place = torch.from_numpy(group.table[group.inverses])  # of h and ab the c = h⁻¹ ab
    return logits.gather(1, place.T[answers])


def losses_of_fit(
    fit: CubeFit, chars: Characters, chosen: Sequence[int], trained: Float[Tensor, "train element"]
) -> CubeLosses:
    """``cube_losses`` from the fit and L′ on the training pairs ``by_quotient``."""
    kept = torch.zeros_like(fit.coefficient)
    kept[list(chosen)] = fit.coefficient[list(chosen)]
    cubes = (kept @ chars.values).unsqueeze(0)  # what they give to the answer c where ab c⁻¹ is the column
    identity = torch.tensor([chars.group.identity])
    return CubeLosses(
        restricted=float(cross_entropy(cubes, identity)),
        excluded=float(cross_entropy(trained - cubes, identity.expand(len(trained))).mean()),
    )


def explained(W: Float[Tensor, "element d"], chars: Characters) -> Float[Tensor, " representation"]:
    """Share of ‖W‖² in the matrix entries of each representation; the shares sum to 1.

    Rows are group elements: pass W_E[:n], or W_out W_U transposed. Not centred: the trivial representation is the mean.
    Of random rows, rank_ρ/n. On a cyclic group, ``fourier.power_spectrum`` but for the constant.
    """
    power = chars.power(W)
    return power / power.sum()


def renamed_fits(
    logits: Float[Tensor, "pairs element"], chars: Characters, answers: Int[Tensor, " pairs"], *, n: int, seed: int
) -> list[float]:
    """The control of ``CubeFit.explained``: its value for n random renamings of the answers.

    A renaming keeps every logit and breaks what ties answers to inputs.
    """
    L = centred(logits)
    table, norms = by_answer(L, answers, chars.group.order), chars.group.order**3 * chars.norms[1:] * L.pow(2).sum()
    rng = generator(seed, "renamed answers")
    renamed = (table[:, torch.from_numpy(rng.permutation(chars.group.order))] for _ in range(n))
    return [float((chars.over(each)[1:].pow(2) / norms).sum()) for each in renamed]


class HiddenShares(NamedTuple):
    """Shares of hidden activations' variance in the matrix entries of ρ(a), ρ(b) and ρ(ab); see ``hidden_shares``."""

    a: Float[Tensor, " representation"]
    b: Float[Tensor, " representation"]
    product: Float[Tensor, " representation"]


def hidden_shares(
    activations: Float[Tensor, "pairs d_hidden"], chars: Characters, answers: Int[Tensor, " pairs"] | None = None
) -> HiddenShares:
    """Share of the activations' variance over all pairs that is a function of a, of b, of ab in the space of each
    representation.

    The three spaces are orthogonal where every pair of two of a, b and ab occurs once, as for the product; the sum of
    all shares is then at most 1, and the rest depends on a and b jointly in other ways. The trivial one is 0. NaN for
    constant activations.

    Raises:
        UserError: not all pairs.
    """
    n = chars.group.order
    _check_pairs(activations, n)
    A, mean = activations.double(), activations.double().mean(0)
    total = torch.stack([(rows - mean).pow(2).sum() for rows in A.split(_ROWS)]).sum()
    grid = A.unflatten(0, (n, n))
    means = (grid.mean(1), grid.mean(0), by_answer(A, _products(chars) if answers is None else answers, n) / n)
    return HiddenShares(*(n * chars.power(of - mean) / total for of in means))


def hidden_losses(
    activations: Float[Tensor, "pairs d_hidden"],
    readout: Float[Tensor, "d_hidden element"],
    chars: Characters,
    chosen: Sequence[int],
    train_mask: Bool[Tensor, " pairs"],
    answers: Int[Tensor, " pairs"] | None = None,
) -> CubeLosses:
    """Loss of what the hidden layer gives through ρ(ab) of the chosen representations, and without it.

    Activations, not centred, are projected on the matrix entries of ρ(ab) and read out, without skip and bias:
    restricted on all pairs; excluded, the activations minus the projection, on the training pairs.

    Args:
        activations: of the last hidden layer, on all pairs.
        readout: from there to the logits, W_out W_U.
        chars, chosen, train_mask, answers: as in ``cube_losses``.
    """
    n, W = chars.group.order, readout.double()
    answers = _products(chars) if answers is None else answers
    projected = chars.projector(chosen) @ (by_answer(activations, answers, n) / n @ W)
    return losses_of_projection(projected, activations[train_mask].double() @ W, answers[train_mask])


def losses_of_projection(
    projected: Float[Tensor, "product element"],
    trained: Float[Tensor, "train element"],
    answers: Int[Tensor, " train"],
) -> CubeLosses:
    """``hidden_losses`` from the logits of the projection for each ab, and those of the activations on the training
    pairs."""
    return CubeLosses(
        restricted=float(cross_entropy(projected, torch.arange(len(projected))).mean()),
        excluded=float(cross_entropy(trained - projected[answers], answers).mean()),
    )


def by_answer(table: Float[Tensor, "pairs d"], answers: Int[Tensor, " pairs"], n: int) -> Float[Tensor, "element d"]:
    """Sums of the rows of equal answer, in float64."""
    return torch.zeros(n, table.shape[1], dtype=torch.float64).index_add_(0, answers, table.double())


def _products(chars: Characters) -> Int[Tensor, " pairs"]:
    return torch.from_numpy(chars.group.table).flatten()


def _check_pairs(table: Tensor, n: int) -> None:
    if len(table) != n * n:
        raise UserError(f"expected all n² = {n * n} pairs, got {len(table)}: pass task.all_inputs()")
