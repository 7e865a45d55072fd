"""Arithmetic modulo p: the table of an operation on the numbers 0 … p − 1.

Sources: Power et al. 2022 (operations), Nanda et al. 2023 (equation form, split ``python_shuffle``), Chughtai et al.
2023 (split ``torch_randperm``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from tasks.base import Tensor, UserError, as_tensor, is_prime
from tasks.table import PairTable

Operation = Literal[
    "add",
    "subtract",
    "multiply",
    "divide",
    "x2+y2",
    "x2+xy+y2",
    "x2+xy+y2+x",
    "x3+xy",
    "x3+xy2+y",
    "divide_or_subtract",
]

_OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "add": lambda x, y, p: x + y,
    "subtract": lambda x, y, p: x - y,
    "multiply": lambda x, y, p: x * y,
    "divide": lambda x, y, p: x * _inverse(y, p),
    "x2+y2": lambda x, y, p: x * x + y * y,
    "x2+xy+y2": lambda x, y, p: x * x + x * y + y * y,
    "x2+xy+y2+x": lambda x, y, p: x * x + x * y + y * y + x,
    "x3+xy": lambda x, y, p: x**3 + x * y,
    "x3+xy2+y": lambda x, y, p: x**3 + x * y * y + y,
    "divide_or_subtract": lambda x, y, p: np.where(y % 2 == 1, x * _inverse(y, p), x - y),
}
_NEEDS_PRIME = ("divide", "divide_or_subtract")
_COMMUTATIVE = ("add", "multiply", "x2+y2", "x2+xy+y2")


def _inverse(y: np.ndarray, p: int) -> np.ndarray:
    """y⁻¹ mod the prime p, 0 for y = 0."""
    table = np.array([pow(v, -1, p) if v else 0 for v in range(p)])
    return table[y]


@dataclass(frozen=True, kw_only=True)
class ModularArithmetic(PairTable):
    """The table of an operation mod p, split into train and test.

    Args:
        p: modulus. Division needs a prime.
        operation: ``add`` is a + b mod p, and so on; division leaves out b = 0.
        diff_vocab: b has tokens of its own, p … 2p−1, and "=" is token 2p (Zhong et al. 2023).
        unordered: the table holds the pairs a ≤ b alone (Pearce et al. 2023); for commutative operations.
        train_fraction, split, form, data_seed: see ``PairTable``.

    Raises:
        UserError: p < 2, p not prime for a division, an unknown operation, ``unordered`` with one that does not
            commute; what ``PairTable`` raises.
    """

    family: ClassVar[str] = "modular"

    p: int = 113
    operation: Operation = "add"
    diff_vocab: bool = False
    unordered: bool = False

    def __post_init__(self) -> None:
        if self.p < 2:
            raise UserError(f"expected a modulus p of at least 2, got {self.p}")
        if self.operation not in _OPERATIONS:
            raise UserError(f"expected an operation among {', '.join(_OPERATIONS)}, got {self.operation!r}")
        if self.operation in _NEEDS_PRIME and not is_prime(self.p):
            raise UserError(f"expected a prime p for {self.operation}, got {self.p}: not every element has an inverse")
        if self.unordered and self.operation not in _COMMUTATIVE:
            commutative = ", ".join(_COMMUTATIVE)
            raise UserError(f"expected a commutative operation ({commutative}) with unordered, got {self.operation}")
        super().__post_init__()

    @property
    def n_elements(self) -> int:
        """p."""
        return self.p

    @property
    def n_pairs(self) -> int:
        """Number of pairs in the table: p², p(p−1) where b = 0 is left out, p(p+1)/2 where pairs are unordered."""
        if self.unordered:
            return self.p * (self.p + 1) // 2
        return self.p * (self.p - 1) if self.operation == "divide" else self.p * self.p

    @property
    def d_vocab(self) -> int:
        """p numbers, or twice p with ``diff_vocab``, and one token for "=" in the equation form."""
        return self.p * (1 + self.diff_vocab) + (self.form == "equation")

    @cached_property
    def pairs(self) -> Int[Tensor, "pairs 2"]:
        """Every pair (a, b), in the order a·p + b."""
        grid = np.stack(np.meshgrid(np.arange(self.p), np.arange(self.p), indexing="ij"), axis=-1).reshape(-1, 2)
        if self.unordered:
            return as_tensor(grid[grid[:, 0] <= grid[:, 1]])
        return as_tensor(grid[grid[:, 1] != 0] if self.operation == "divide" else grid)

    @cached_property
    def ordered(self) -> "ModularArithmetic":
        """The same task with every ordered pair, (b, a) in the part of the table that has (a, b); itself where it has
        them all.

        Analyses over all (a, b) use it. A model that is not symmetric in its inputs was never asked (b, a).
        """
        if not self.unordered:
            return self
        train = np.zeros((self.p, self.p), dtype=np.bool_)
        a, b = self.pairs.numpy()[self.train_mask.numpy()].T
        train[a, b] = train[b, a] = True
        return replace(self, unordered=False, split=as_tensor(train.flatten()))

    def all_inputs(self) -> Int[Tensor, "pairs pos"]:
        """Every input of the table, in the order of ``pairs``."""
        tokens = self.pairs.numpy() + np.array([0, self.p * self.diff_vocab])
        if self.form == "equation":
            tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=self.d_vocab - 1)
        return as_tensor(tokens)

    def answers(self, pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """The operation's value for each pair."""
        x, y = pairs.numpy().T
        return as_tensor(_OPERATIONS[self.operation](x, y, self.p) % self.p)
