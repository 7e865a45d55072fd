"""Regression on a sum of sines: numbers from a few real coordinates, the target of the initial-condensation
experiment.

y = Σ_k amplitude · sin(frequency · x_k + phase), x uniform in a cube. The defaults are those of Zhou et al. 2022 (arXiv
2105.11686): 80 samples of Σ 3.5 sin(5 x_k + 1) with five coordinates in [−4, 2]. A network fits it by mean squared
error; what is looked at is where its neurons point long before it does.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from tasks.base import Examples, Fields, Tensor, UserError, as_tensor, generator


@dataclass(frozen=True, kw_only=True)
class SineRegression(Fields):
    """A sum of one sine per coordinate, from a finite sample.

    Args:
        dimension: number of coordinates of an input.
        amplitude, frequency, phase: of every sine.
        low, high: ends of the interval that coordinates are drawn from.
        n_train, n_test: sizes of the two samples.
        data_seed: seed of both.

    Raises:
        UserError: a size below 1, or an empty interval.
    """

    family: ClassVar[str] = "regression"

    dimension: int = 5
    amplitude: float = 3.5
    frequency: float = 5.0
    phase: float = 1.0
    low: float = -4.0
    high: float = 2.0
    n_train: int = 80
    n_test: int = 1_000
    data_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dimension", "n_train", "n_test"):
            if getattr(self, name) < 1:
                raise UserError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not self.low < self.high:
            raise UserError(f"expected low below high, got {self.low} and {self.high}")

    @property
    def d_vocab(self) -> int:
        """No tokens: inputs are real vectors."""
        return 0

    @property
    def d_vocab_out(self) -> int:
        """One number."""
        return 1

    @property
    def n_ctx(self) -> int:
        """The number of coordinates."""
        return self.dimension

    @property
    def answer_position(self) -> int:
        """The only one: an input is read at once."""
        return 0

    def answers(self, inputs: Float[Tensor, "example d_input"]) -> Float[Tensor, "example 1"]:
        """The sum of sines, computed in float64 and rounded to float32, so that it is the same on every machine."""
        sines = np.sin(self.frequency * inputs.double().numpy() + self.phase)
        return as_tensor(self.amplitude * sines.sum(1, keepdims=True))

    @cached_property
    def _samples(self) -> dict[str, Examples]:
        drawn = {}
        for name, size in (("train", self.n_train), ("test", self.n_test)):
            rng = generator(self.data_seed, "regression", name)
            inputs = as_tensor(rng.uniform(self.low, self.high, (size, self.dimension)))
            drawn[name] = Examples(inputs=inputs, targets=self.answers(inputs))
        return drawn

    def train_set(self) -> Examples:
        """The training sample."""
        return self._samples["train"]

    def evaluation_sets(self) -> dict[str, Examples]:
        """Both samples."""
        return dict(self._samples)

    def split_tensors(self) -> dict[str, Tensor]:
        """The seed, from which the samples are drawn again."""
        return {"data_seed": as_tensor(np.array([self.data_seed]))}
