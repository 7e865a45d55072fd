"""Real irreducible characters of a finite group, from its multiplication table alone, and what they project on.

No character table is stored. Sums over g and g⁻¹'s classes span a commutative algebra; the symmetric matrix by which a
random element of it multiplies has one eigenvector per real irreducible representation, and the part of the identity
along it is a central idempotent, a multiple of the character (Burnside, Dixon). Characters that miss the orthogonality
relations are not returned.

A real irreducible character ψ is χ (real type), χ + χ̄ (complex type) or 2χ (quaternionic type); ⟨ψ,ψ⟩ = 1, 2 or 4.
Its matrix entries span ψ(1)²/⟨ψ,ψ⟩ functions on the group: d² for real type, 2 for a rotation of a cyclic group.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.base import UserError, generator
from tasks.finite_groups import Group

TOLERANCE = 1e-8
_DRAWS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Characters:
    """The real irreducible characters of ``group``, the trivial one first.

    ``values`` [representation, element] are ψ(g), ``norms`` [representation] ⟨ψ,ψ⟩ = (1/n) Σ ψ(g)². ``names`` are the
    usual ones where the group's family has them, such as *standard* or a partition for S_n, *frequency k* for rotations
    of C_n and D_n; otherwise the dimension.
    """

    group: Group
    names: tuple[str, ...]
    values: Float[Tensor, "representation element"]
    norms: Int[Tensor, " representation"]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def degrees(self) -> Int[Tensor, " representation"]:
        """ψ(1), the dimension of the real representation."""
        return self.values[:, self.group.identity].round().long()

    @property
    def ranks(self) -> Int[Tensor, " representation"]:
        """ψ(1)²/⟨ψ,ψ⟩, the number of independent matrix entries; they sum to the order of the group."""
        return self.degrees**2 // self.norms

    @cached_property
    def quotients(self) -> Int[Tensor, "element element"]:
        """x·y⁻¹ in row x and column y."""
        return torch.from_numpy(self.group.table[:, self.group.inverses])

    def over(self, table: Float[Tensor, "element element"]) -> Float[Tensor, " representation"]:
        """⟨T, ψ(x y⁻¹)⟩ = Σ_{x,y} T[x,y] ψ(x y⁻¹) for every character."""
        by_quotient = torch.zeros(self.group.order, dtype=torch.float64)
        return self.values @ by_quotient.index_add_(0, self.quotients.flatten(), table.double().flatten())

    def spread(self, coefficients: Float[Tensor, " representation"]) -> Float[Tensor, "element element"]:
        """Σ_ρ coefficient_ρ · ψ_ρ(x y⁻¹) in row x and column y."""
        return (coefficients.double() @ self.values)[self.quotients]

    def projector(self, chosen: Iterable[int]) -> Float[Tensor, "element element"]:
        """The orthogonal projector of functions on the group to the matrix entries of the chosen representations.

        (P w)(x) = Σ_y P[x,y] w(y), P[x,y] = Σ_ρ ψ_ρ(1)/(n ⟨ψ_ρ,ψ_ρ⟩) ψ_ρ(x y⁻¹): symmetric, of rank Σ ``ranks``.
        """
        mask = torch.zeros(len(self), dtype=torch.float64)
        mask[list(chosen)] = 1.0
        return self.spread(mask * self._scale)

    def power(self, W: Float[Tensor, "element d"]) -> Float[Tensor, " representation"]:
        """‖P_ρ W‖² for every representation, rows of W being group elements; they sum to ‖W‖²."""
        return (self._scale * self.over(W.double() @ W.double().T)).clamp(min=0)  # rounding leaves less than 0

    @property
    def _scale(self) -> Float[Tensor, " representation"]:
        return self.degrees.double() / (self.group.order * self.norms)


@lru_cache
def characters(group: Group) -> Characters:
    """The real irreducible characters of a group.

    Raises:
        UserError: no random element tells the representations apart in float64, which has not been seen up to order
            720.
    """
    for draw in range(_DRAWS):
        values, norms = _idempotents(group, generator(draw, "class algebra"))
        if orthogonality_error(group, values, norms) < TOLERANCE:
            return _in_order(group, values, norms)
    raise UserError(f"expected characters of {group.name} that are orthogonal to {TOLERANCE}, found none: report it")


def orthogonality_error(
    group: Group, values: Float[np.ndarray, "representation element"], norms: Int[np.ndarray, " representation"]
) -> float:
    """The largest deviation from the orthogonality relations of real irreducible characters, in rows and columns.

    Rows: (1/n) Σ_g ψ_i(g) ψ_j(g) = ⟨ψ_i,ψ_i⟩ δ_ij. Columns: Σ_ψ ψ(g) ψ(h)/⟨ψ,ψ⟩ = |C(g)|, the order of g's
    centraliser, where h is a conjugate of g and of g⁻¹, half of it where h is a conjugate of one of them, else 0;
    compared after division by |C(g)|. Infinite where the degrees are no whole numbers with the right sum.
    """
    n = group.order
    degrees = values[:, group.identity]
    if (norms < 1).any() or abs((degrees**2 / norms).sum() - n) > TOLERANCE * n or (degrees < 0.5).any():
        return float("inf")
    rows = values @ values.T / n - np.diag(norms)
    first = np.unique(group.classes, return_index=True)[1]
    centralizers = n / np.bincount(group.classes)
    same = np.eye(len(first))
    expected = (same + same[group.classes[group.inverses[first]]]) / 2
    columns = values[:, first].T @ (values[:, first] / norms[:, None]) / centralizers[:, None] - expected
    return float(max(abs(rows).max(), abs(columns).max(), abs(degrees - degrees.round()).max()))


def _idempotents(group: Group, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Characters and their norms, from the eigenvectors of one random element of the class algebra."""
    n, inverses = group.order, group.inverses
    merged = np.unique(np.minimum(group.classes, group.classes[inverses]), return_inverse=True)[1]
    first, sizes = np.unique(merged, return_index=True)[1], np.bincount(merged)
    weights = rng.standard_normal(len(first))
    members = np.eye(len(first))[merged]
    # the coefficient of first[k] in (random element) · (sum over class j), in the orthonormal basis of class sums
    matrix = weights[merged[group.table[first][:, inverses]]] @ members * np.sqrt(sizes[:, None] / sizes)
    vectors = np.linalg.eigh((matrix + matrix.T) / 2)[1].T
    idempotents = n * vectors[:, merged[[group.identity]]] * (vectors / np.sqrt(sizes))[:, merged]
    ranks = idempotents[:, group.identity]
    indicator = idempotents[:, np.diag(group.table)].mean(1) / np.sqrt(ranks)  # Frobenius and Schur's: 1, 0 or −1
    norms = np.select([indicator > 0.5, indicator > -0.5], [1, 2], 4)
    values = idempotents * np.sqrt(norms / ranks)[:, None]
    whole = values.round()
    return np.where(abs(values - whole) < TOLERANCE, whole, values), norms


def _in_order(group: Group, values: np.ndarray, norms: np.ndarray) -> Characters:
    """The characters with their names, in the family's order."""
    keys = [_NAMES[group.kind](group, psi) for psi in values]
    order = sorted(range(len(values)), key=lambda i: (*keys[i], *(-values[i].round(6))))
    names = [keys[i][1] for i in order]
    count, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        if count[name] > 1:
            seen[name] += 1
            names[place] = f"{name} {chr(ord('a') + seen[name] - 1) if count[name] <= 26 else seen[name]}"
    return Characters(
        group=group,
        names=tuple(names),
        values=torch.from_numpy(values[order]),
        norms=torch.from_numpy(norms[order]).long(),
    )


def _by_dimension(group: Group, psi: np.ndarray) -> tuple[tuple, str]:
    degree = round(psi[group.identity])
    trivial = bool((psi > 1 - TOLERANCE).all()) and degree == 1
    return (degree - trivial,), "trivial" if trivial else f"{degree}-dimensional"


def _of_rotations(group: Group, psi: np.ndarray) -> tuple[tuple, str]:
    """ψ(r)/ψ(1) = cos 2πk/n; the sign tells reflections of D_n apart from its rotations."""
    dihedral = group.kind == "dihedral"
    n = group.order // 2 if dihedral else group.order
    k = round(np.arccos(np.clip(psi[1 % n] / psi[0], -1, 1)) * n / (2 * np.pi))
    if not dihedral or psi[0] > 1.5:
        return (1, k) if k else (0, 0), f"frequency {k}" if k else "trivial"
    name = {(0, 1): "trivial", (0, -1): "sign", (1, 1): "sign of r", (1, -1): "sign of r and s"}
    return (0, bool(k), psi[n] < 0), name[bool(k), round(psi[n])]


def _of_permutations(group: Group, psi: np.ndarray) -> tuple[tuple, str]:
    """S_n: the partition λ of the representation is the first, from (n) down, whose permutation character on the
    arrangements of the points in rows of lengths λ contains it (Young's rule)."""
    assert group.permutations is not None
    n = group.permutations.shape[1]
    cycles = [_cycles(tuple(images)) for images in group.permutations.tolist()]
    partitions = list(_partitions(n, n))
    place = next(i for i, rows in enumerate(partitions) if psi @ [_arranged(c, rows) for c in cycles] > group.order / 2)
    rows = partitions[place]
    known = {(2, *(1,) * (n - 2)): "standard × sign", (n - 1, 1): "standard", (1,) * n: "sign", (n,): "trivial"}
    return (place,), known.get(rows, f"({','.join(map(str, rows))})")


def _of_even_permutations(group: Group, psi: np.ndarray) -> tuple[tuple, str]:
    assert group.permutations is not None
    n = group.permutations.shape[1]
    fixed = (group.permutations == np.arange(n)).sum(1)
    key, name = _by_dimension(group, psi)
    return key, "standard" if n > 3 and abs(psi - (fixed - 1)).max() < TOLERANCE else name


def _of_products(group: Group, psi: np.ndarray) -> tuple[tuple, str]:
    """On each factor the representation is a multiple of one of the factor's."""
    places, names = [], []
    grid = psi.reshape([factor.order for factor in group.factors])
    for position, factor in enumerate(group.factors):
        at = tuple(slice(None) if i == position else other.identity for i, other in enumerate(group.factors))
        of_factor = characters(factor)
        places.append(int((of_factor.values.numpy() @ grid[at]).argmax()))
        names.append(of_factor.names[places[-1]])
    return tuple(places), "trivial" if not any(places) else " ⊗ ".join(names)


_NAMES: dict[str, Callable[[Group, np.ndarray], tuple[tuple, str]]] = {
    "cyclic": _of_rotations,
    "dihedral": _of_rotations,
    "symmetric": _of_permutations,
    "alternating": _of_even_permutations,
    "product": _of_products,
    "other": _by_dimension,
}


@lru_cache(maxsize=1024)
def _cycles(images: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths of a permutation's cycles."""
    left, lengths = set(range(len(images))), []
    while left:
        point, length = min(left), 0
        while point in left:
            left.remove(point)
            point, length = images[point], length + 1
        lengths.append(length)
    return tuple(sorted(lengths))


@lru_cache(maxsize=4096)
def _arranged(cycles: tuple[int, ...], rows: tuple[int, ...]) -> int:
    """In how many ways whole cycles fill rows of these lengths: how many arrangements the permutation leaves alone."""
    if not cycles:
        return 1
    options = (i for i, length in enumerate(rows) if length >= cycles[-1])
    return sum(_arranged(cycles[:-1], (*rows[:i], rows[i] - cycles[-1], *rows[i + 1 :])) for i in options)


def _partitions(n: int, largest: int) -> Iterable[tuple[int, ...]]:
    """The partitions of n into parts of at most ``largest``, from the largest first part down."""
    if n == 0:
        yield ()
    for first in range(min(n, largest), 0, -1):
        yield from ((first, *rest) for rest in _partitions(n - first, first))
