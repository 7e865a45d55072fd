"""Sparse parity: the parity of a few bits among many, from a finite sample.

The answer is 1 where an odd number of the relevant bits is 1; all other bits are distractors. Every order-k subset of
bits fits a small enough sample; which of them is the rule only more examples tell.

Sources: Barak et al. 2022 (arXiv 2207.08799), Merrill et al. 2023 (arXiv 2303.11873), Pearce et al. 2023 (the
explorable "Do Machine Learning Models Memorize or Generalize?": the first 3 of 30 bits).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from tasks.base import Tensor, UserError, as_tensor
from tasks.sample import Sampled


@dataclass(frozen=True, kw_only=True)
class SparseParity(Sampled):
    """Parity of the first ``k`` of ``n_bits`` fair bits.

    Args:
        n_bits: length of an input.
        k: number of relevant bits.
        n_train, n_test, data_seed: see ``Sampled``.

    Raises:
        UserError: sizes below 1, or k above n_bits.
    """

    family: ClassVar[str] = "parity"

    n_bits: int = 30
    k: int = 3
    n_test: int = 5_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_below_one("n_bits", "k")
        if self.k > self.n_bits:
            raise UserError(f"expected k of at most n_bits = {self.n_bits}, got {self.k}")

    @property
    def d_vocab(self) -> int:
        """Two tokens, 0 and 1."""
        return 2

    @property
    def d_vocab_out(self) -> int:
        """Two answers: even and odd."""
        return 2

    @property
    def n_ctx(self) -> int:
        """The number of bits."""
        return self.n_bits

    @property
    def answer_position(self) -> int:
        """The last position, for models that have one per token."""
        return self.n_bits - 1

    def draw(self, size: int, rng: np.random.Generator) -> Int[Tensor, "example pos"]:
        """Fair bits."""
        return as_tensor(rng.integers(0, 2, (size, self.n_bits)))

    def answers(self, inputs: Int[Tensor, "example pos"]) -> Int[Tensor, " example"]:
        """The parity of the relevant bits."""
        return inputs[:, : self.k].sum(1) % 2
