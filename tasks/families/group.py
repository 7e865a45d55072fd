"""Composition in a finite group: the table of an operation on its elements.

Sources: Chughtai et al. 2023 (arXiv 2302.03025), Power et al. 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Int

from tasks.base import Tensor, UserError, as_tensor
from tasks.finite_groups import Group, named
from tasks.table import PairTable

Operation = Literal["xy", "xyx^-1", "xyx"]

_OPERATIONS: dict[str, Callable[[Group, np.ndarray, np.ndarray], np.ndarray]] = {
    "xy": lambda G, x, y: G.table[x, y],
    "xyx^-1": lambda G, x, y: G.table[G.table[x, y], G.inverses[x]],
    "xyx": lambda G, x, y: G.table[G.table[x, y], x],
}


@dataclass(frozen=True, kw_only=True)
class GroupComposition(PairTable):
    """The table of an operation in a finite group, split into train and test (Chughtai et al. 2023, Power et al. 2022).

    Args:
        group: its name; see ``tasks.finite_groups.named``.
        operation: the product xy, the conjugate xyx⁻¹, or xyx.
        train_fraction, split, form, data_seed: see ``PairTable``; the published models were split by
            ``torch_randperm``.

    Raises:
        UserError: an unknown group or operation; what ``PairTable`` raises.
    """

    family: ClassVar[str] = "group"

    group: str = "S_5"
    operation: Operation = "xy"
    train_fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.operation not in get_args(Operation):
            raise UserError(f"expected an operation among {', '.join(get_args(Operation))}, got {self.operation!r}")
        super().__post_init__()

    @property
    def structure(self) -> Group:
        """The group itself."""
        return named(self.group)

    @property
    def n_elements(self) -> int:
        """The order of the group."""
        return self.structure.order

    def answers(self, pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """The operation's value for each pair (x, y)."""
        x, y = pairs.numpy().T
        return as_tensor(_OPERATIONS[self.operation](self.structure, x, y))
