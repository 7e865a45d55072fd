"""A task of two finite samples: one to train on, one to test on, drawn alike from all inputs."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from tasks.base import Examples, Fields, Tensor, UserError, as_tensor, generator


@dataclass(frozen=True, kw_only=True)
class Sampled(Fields):
    """What such tasks have in common; a subclass says how inputs are drawn and what their answers are.

    Args:
        n_train, n_test: sizes of the two samples, each drawn with replacement.
        data_seed: seed of both.

    Raises:
        UserError: a size below 1.
    """

    family: ClassVar[str]

    n_train: int = 1_000
    n_test: int = 1_000
    data_seed: int = 0

    def __post_init__(self) -> None:
        self.refuse_below_one("n_train", "n_test")

    def refuse_below_one(self, *names: str) -> None:
        """Nothing, if these fields are sizes.

        Raises:
            UserError: one is below 1.
        """
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"expected {name} of at least 1, got {getattr(self, name)}")

    @abstractmethod
    def draw(self, size: int, rng: np.random.Generator) -> Tensor:
        """Inputs of a sample of this size."""

    @abstractmethod
    def answers(self, inputs: Tensor) -> Tensor:
        """What is right for each input."""

    @cached_property
    def _samples(self) -> dict[str, Examples]:
        samples = {}
        for name, size in (("train", self.n_train), ("test", self.n_test)):
            inputs = self.draw(size, generator(self.data_seed, self.family, name))
            samples[name] = Examples(inputs=inputs, targets=self.answers(inputs))
        return samples

    def train_set(self) -> Examples:
        """The training sample."""
        return self._samples["train"]

    def evaluation_sets(self) -> dict[str, Examples]:
        """Both samples."""
        return dict(self._samples)

    def split_tensors(self) -> dict[str, Tensor]:
        """The seed, from which the samples are drawn again."""
        return {"data_seed": as_tensor(np.array([self.data_seed]))}
