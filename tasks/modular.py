"""Arithmetic modulo p: every pair (a, b) is an input, part of the table is shown in training, the rest is the test.

Inputs are all pairs in the order a·p + b. In the *equation* form an input is [a, b, =] with token p for "=" and the
answer is read at "="; in the *pair* form it is [a, b] and the answer is read at b (Zhong et al. 2023).

Sources: Power et al. 2022 (operations), Nanda et al. 2023 (equation form, split ``python_shuffle``), Chughtai et al.
2023 (split ``torch_randperm``).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int

from tasks.base import Examples, Fields, Tensor, UserError, as_tensor, generator, is_prime

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
Form = Literal["equation", "pair"]
Split = Literal["random", "python_shuffle", "torch_randperm", "mask"]

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


def _inverse(y: np.ndarray, p: int) -> np.ndarray:
    """y⁻¹ mod the prime p, 0 for y = 0."""
    table = np.array([pow(v, -1, p) if v else 0 for v in range(p)])
    return table[y]


@dataclass(frozen=True, kw_only=True)
class ModularArithmetic(Fields):
    """The table of an operation mod p, split into train and test.

    Args:
        p: modulus. Division needs a prime.
        operation: ``add`` is a + b mod p, and so on; division leaves out b = 0.
        train_fraction: int(train_fraction · number of pairs) pairs are trained on.
        split: how they are chosen: ``random`` (numpy's Philox, keyed by data_seed), ``python_shuffle`` (Nanda et al.:
            ``random.seed``, shuffle, take the first), ``torch_randperm`` (Chughtai et al.: ``torch.randperm``), or a
            boolean mask [pairs] of one's own, True for train.
        form: ``equation`` [a, b, =] or ``pair`` [a, b].
        data_seed: seed of the split.

    Raises:
        UserError: p < 2, p not prime for a division, an unknown choice, a fraction outside (0, 1], a mask of the wrong
            shape, no training pair.
    """

    family: ClassVar[str] = "modular"

    p: int = 113
    operation: Operation = "add"
    train_fraction: float = 0.3
    split: Split | Bool[Tensor, " pairs"] = "random"
    form: Form = "equation"
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.p < 2:
            raise UserError(f"expected a modulus p of at least 2, got {self.p}")
        if self.operation not in _OPERATIONS:
            raise UserError(f"expected an operation among {', '.join(_OPERATIONS)}, got {self.operation!r}")
        if self.form not in get_args(Form):
            raise UserError(f"expected a form among {', '.join(get_args(Form))}, got {self.form!r}")
        if isinstance(self.split, str) and self.split not in get_args(Split):
            raise UserError(f"expected a split among {', '.join(get_args(Split))}, got {self.split!r}")
        if self.operation in _NEEDS_PRIME and not is_prime(self.p):
            raise UserError(f"expected a prime p for {self.operation}, got {self.p}: not every element has an inverse")
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"expected a train_fraction in (0, 1], got {self.train_fraction}")
        if self.split == "mask":
            raise UserError("split='mask' needs the mask itself: pass split=tensor, True for a training pair")
        if not isinstance(self.split, str) and self.split.shape != (self.n_pairs,):
            raise UserError(f"expected a mask of shape ({self.n_pairs},), one per pair, got {tuple(self.split.shape)}")
        n_train = int(self.train_fraction * self.n_pairs) if isinstance(self.split, str) else int(self.split.sum())
        if not n_train:
            raise UserError(f"expected at least one training pair, got none of {self.n_pairs}: train on more")

    @property
    def n_pairs(self) -> int:
        """Number of pairs in the table: p², or p(p−1) where b = 0 is left out."""
        return self.p * (self.p - 1) if self.operation == "divide" else self.p * self.p

    @property
    def d_vocab(self) -> int:
        """p numbers, and one token for "=" in the equation form."""
        return self.p + (self.form == "equation")

    @property
    def d_vocab_out(self) -> int:
        """p."""
        return self.p

    @property
    def n_ctx(self) -> int:
        """3 in the equation form, 2 in the pair form."""
        return 3 if self.form == "equation" else 2

    @property
    def answer_position(self) -> int:
        """The last position."""
        return self.n_ctx - 1

    @cached_property
    def pairs(self) -> Int[Tensor, "pairs 2"]:
        """Every pair (a, b), in the order a·p + b."""
        grid = np.stack(np.meshgrid(np.arange(self.p), np.arange(self.p), indexing="ij"), axis=-1).reshape(-1, 2)
        return as_tensor(grid[grid[:, 1] != 0] if self.operation == "divide" else grid)

    def all_inputs(self) -> Int[Tensor, "pairs pos"]:
        """Every input of the table, in the order of ``pairs``."""
        if self.form == "pair":
            return self.pairs
        return as_tensor(np.pad(self.pairs.numpy(), ((0, 0), (0, 1)), constant_values=self.p))

    def all_targets(self) -> Int[Tensor, " pairs"]:
        """The answer to every input."""
        return self.answers(self.pairs)

    def answers(self, pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """The operation's value for each pair."""
        x, y = pairs.numpy().T
        return as_tensor(_OPERATIONS[self.operation](x, y, self.p) % self.p)

    @cached_property
    def train_mask(self) -> Bool[Tensor, " pairs"]:
        """True for the pairs that are trained on."""
        if not isinstance(self.split, str):
            return as_tensor(np.asarray(self.split, dtype=np.bool_))
        if self.split == "python_shuffle":
            order = list(range(self.n_pairs))
            random.Random(self.data_seed).shuffle(order)
        elif self.split == "torch_randperm":
            import torch

            order = torch.randperm(self.n_pairs, generator=torch.Generator().manual_seed(self.data_seed)).numpy()
        else:
            order = generator(self.data_seed, "split").permutation(self.n_pairs)
        mask = np.zeros(self.n_pairs, dtype=np.bool_)
        mask[order[: int(self.train_fraction * self.n_pairs)]] = True
        return as_tensor(mask)

    def _part(self, mask: Bool[Tensor, " pairs"]) -> Examples:
        return Examples(inputs=self.all_inputs()[mask], targets=self.all_targets()[mask])

    def train_set(self) -> Examples:
        """The trained part of the table."""
        return self._part(self.train_mask)

    def evaluation_sets(self) -> dict[str, Examples]:
        """``train`` and ``test``: the two parts of the table."""
        return {"train": self.train_set(), "test": self._part(~self.train_mask)}

    def split_tensors(self) -> dict[str, Tensor]:
        """The training mask and the seed."""
        return {"train_mask": self.train_mask, "data_seed": as_tensor(np.array([self.data_seed]))}

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; a mask of one's own is named ``mask`` and stands in the run's split file."""
        values = {name: getattr(self, name) for name in ("p", "operation", "train_fraction", "form", "data_seed")}
        return values | {"split": self.split if isinstance(self.split, str) else "mask"}
