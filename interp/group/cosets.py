"""Subgroups and cosets: is a function on a group, or a neuron, constant on the cosets of some subgroup?

A network can compose elements coset by coset: what it computes from a depends on aK alone, what it computes from b on
Kb, and aK·Kb is one double coset's worth of answers (Stander et al. 2023, arXiv 2312.06581). The left coset aK is the
set of all ak; functions that are constant on left cosets are unchanged by a ↦ ak.

Small subgroups have many cosets and explain a part of any function: (n/|K| − 1)/(n − 1) of its variance on average.
What is *beyond chance* is (share − this)/(1 − this): 0 on average for a random function, 1 for one that is constant on
cosets. In an abelian group a function is constant on cosets of K where its Fourier frequencies are multiples of |K|.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.result import Result
from tasks.base import UserError
from tasks.finite_groups import Group, closure

LARGEST_ORDER = 250
"""Of a group whose subgroups are listed: the list of S_6's takes a minute."""
ON_COSETS = 0.85
"""Beyond chance, of the variance of a neuron that counts as one on cosets; a convention of this toolkit."""
_SILENT = 1e-20  # of a squared length: what rounding leaves


@lru_cache
def subgroups(group: Group) -> Bool[np.ndarray, "subgroup element"]:
    """Every subgroup of a group, the largest first, the group itself and the trivial one included.

    Raises:
        UserError: a group of order above ``LARGEST_ORDER``.
    """
    if group.order > LARGEST_ORDER:
        raise UserError(f"expected a group of order up to {LARGEST_ORDER}, got {group.name} of order {group.order}")
    trivial = closure(group.table, (group.identity,))
    found = {trivial.tobytes(): trivial}
    ahead = [trivial]
    while ahead:
        subgroup = ahead.pop()
        members, tried = subgroup.nonzero()[0], subgroup.copy()
        while not tried.all():  # ⟨K, g⟩ is the same for all g of a coset Kg
            g = tried.argmin()
            tried[group.table[members, g]] = True
            larger = closure(group.table, np.append(members, g))
            if found.setdefault(larger.tobytes(), larger) is larger:
                ahead.append(larger)
    listed = np.stack(list(found.values()))
    return listed[np.lexsort((*~listed.T[::-1], -listed.sum(1)))]


def cosets(
    group: Group, subgroup: Bool[np.ndarray, " element"], side: Literal["left", "right"]
) -> Int[Tensor, " element"]:
    """The number of each element's coset: of xK on the left side, of Kx on the right."""
    table = group.table[:, subgroup] if side == "left" else group.table[subgroup].T
    return torch.from_numpy(np.unique(table.min(1), return_inverse=True)[1])


def between(W: Float[Tensor, "element d"], labels: Int[Tensor, " element"]) -> Float[Tensor, " d"]:
    """Squared length of each column's means over the sets of equal label, around the column's mean."""
    X = W.double() - W.double().mean(0)
    sums = torch.zeros(int(labels.max()) + 1, X.shape[1], dtype=torch.float64).index_add_(0, labels, X)
    return (sums.pow(2) / labels.bincount().unsqueeze(1)).sum(0)


def coset_share(
    W: Float[Tensor, "element d"],
    group: Group,
    subgroup: Bool[np.ndarray, " element"],
    side: Literal["left", "right"] = "left",
) -> Float[Tensor, " d"]:
    """Share of each column's variance over the group that its means over cosets explain, between 0 and 1.

    1: constant on cosets. NaN for a constant column.
    """
    X = W.double() - W.double().mean(0)
    return between(W, cosets(group, subgroup, side)) / X.pow(2).sum(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronCosets(Result):
    """For each neuron the subgroup whose cosets explain most beyond chance; see ``neuron_cosets``.

    ``share``: of the neuron's variance over all pairs that functions of aK plus functions of Kb explain.
    ``beyond_chance``: of the part of it that is a function of a plus one of b, above what cosets of that size explain
    of any. ``subgroup_order``: |K|, 0 for a silent neuron.
    """

    share: Float[Tensor, " d_mlp"]
    beyond_chance: Float[Tensor, " d_mlp"]
    subgroup_order: Int[Tensor, " d_mlp"]

    @property
    def on_cosets(self) -> Bool[Tensor, " d_mlp"]:
        """Neurons with over 0.85 beyond chance."""
        return self.beyond_chance > ON_COSETS


def neuron_cosets(activations: Float[Tensor, "pairs d_mlp"], group: Group) -> NeuronCosets | None:
    """How far each neuron sees a and b by their cosets aK and Kb of one subgroup K; pass pre-activations.

    f(a) is the mean over b, g(b) the mean over a; of an MLP's first layer, f + g is all there is. For each subgroup
    other than the whole and the trivial one, the means of f over aK and of g over Kb explain a share of f + g; the
    subgroup with the largest share beyond chance is taken, the largest of equal ones.

    ``None`` for a group of prime order, which has no such subgroup. Misleads by taking the best of many: S_5 has 154 of
    them, so compare with random weights, where it is not 0 on average.

    Raises:
        UserError: not all pairs; a group of order above 250.
    """
    n = group.order
    if len(activations) != n * n:
        raise UserError(f"expected all n² = {n * n} pairs, got {len(activations)}: pass task.all_inputs()")
    proper = [K for K in subgroups(group) if 1 < K.sum() < n]
    if not proper:
        return None
    A = activations.double().unflatten(0, (n, n))
    f, g = A.mean(1), A.mean(0)
    everything = torch.arange(n)
    additive = between(f, everything) + between(g, everything)
    explained = torch.stack(
        [between(f, cosets(group, K, "left")) + between(g, cosets(group, K, "right")) for K in proper]
    )
    sizes = torch.tensor([int(K.sum()) for K in proper])
    chance = ((n / sizes.double() - 1) / (n - 1)).unsqueeze(1)
    silent = additive <= _SILENT * A.pow(2).sum((0, 1))
    beyond = (explained / additive - chance) / (1 - chance)
    best = (beyond >= beyond.amax(0) - 1e-9).int().argmax(0)  # subgroups come the largest first
    total = (A - A.mean((0, 1))).pow(2).sum((0, 1))
    return NeuronCosets(
        share=torch.where(silent, torch.nan, n * explained.gather(0, best[None])[0] / total),
        beyond_chance=torch.where(silent, torch.nan, beyond.gather(0, best[None])[0]),
        subgroup_order=torch.where(silent, 0, sizes[best]),
    )
