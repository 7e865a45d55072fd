"""A task that is the whole table of a binary operation: every pair of elements is an input, part of the table is shown
in training, the rest is the test.

Inputs are all pairs (a, b) in the order a·n + b. In the *equation* form an input is [a, b, =] with token n for "=" and
the answer is read at "="; in the *pair* form it is [a, b] and the answer is read at b (Zhong et al. 2023).
"""

import random
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int

from tasks.base import Examples, Fields, Tensor, UserError, as_tensor, generator

Form = Literal["equation", "pair"]
Split = Literal["random", "python_shuffle", "torch_randperm", "mask"]


@dataclass(frozen=True, kw_only=True)
class PairTable(Fields):
    """What the tables have in common; a subclass says how many elements there are and what a pair's answer is.

    Args:
        train_fraction: int(train_fraction · number of pairs) pairs are trained on.
        split: how they are chosen: ``random`` (numpy's Philox, keyed by data_seed), ``python_shuffle`` (Nanda et al.
            2023: ``random.seed``, shuffle, take the first), ``torch_randperm`` (Chughtai et al. 2023:
            ``torch.randperm``), or a boolean mask [pairs] of one's own, True for train.
        form: ``equation`` [a, b, =] or ``pair`` [a, b].
        data_seed: seed of the split.

    Raises:
        UserError: an unknown choice, a fraction outside (0, 1], a mask of the wrong shape, no training pair.
    """

    train_fraction: float = 0.3
    split: Split | Bool[Tensor, " pairs"] = "random"
    form: Form = "equation"
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise UserError(f"expected a form among {', '.join(get_args(Form))}, got {self.form!r}")
        if isinstance(self.split, str) and self.split not in get_args(Split):
            raise UserError(f"expected a split among {', '.join(get_args(Split))}, got {self.split!r}")
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
    @abstractmethod
    def n_elements(self) -> int:
        """Number of elements, which is the number of answers."""

    @abstractmethod
    def answers(self, pairs: Int[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """The operation's value for each pair."""

    @property
    def n_pairs(self) -> int:
        """Number of pairs in the table."""
        return self.n_elements**2

    @property
    def d_vocab(self) -> int:
        """The elements, and one token for "=" in the equation form."""
        return self.n_elements + (self.form == "equation")

    @property
    def d_vocab_out(self) -> int:
        """The elements."""
        return self.n_elements

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
        """Every pair (a, b), in the order a·n + b."""
        n = self.n_elements
        return as_tensor(np.stack(np.divmod(np.arange(n * n), n), axis=1))

    @cached_property
    def ordered(self) -> "PairTable":
        """The task with every ordered pair: itself."""
        return self

    def all_inputs(self) -> Int[Tensor, "pairs pos"]:
        """Every input of the table, in the order of ``pairs``."""
        if self.form == "pair":
            return self.pairs
        return as_tensor(np.pad(self.pairs.numpy(), ((0, 0), (0, 1)), constant_values=self.n_elements))

    def all_targets(self) -> Int[Tensor, " pairs"]:
        """The answer to every input."""
        return self.answers(self.pairs)

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
        return super().to_dict() | {"split": self.split if isinstance(self.split, str) else "mask"}
