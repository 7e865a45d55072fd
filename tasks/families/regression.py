"""Regression on a sum of sines: numbers from a few real coordinates, the target of the initial-condensation
experiment.

y = Σ_k amplitude · sin(frequency · x_k + phase), x uniform in a cube. The defaults are those of Zhou et al. 2022 (arXiv
2105.11686): 80 samples of Σ 3.5 sin(5 x_k + 1) with five coordinates in [−4, 2]. A network fits it by mean squared
error; what is looked at is where its neurons point long before it does.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from tasks.base import Tensor, UserError, as_tensor
from tasks.sample import Sampled


@dataclass(frozen=True, kw_only=True)
class SineRegression(Sampled):
    """A sum of one sine per coordinate, from a finite sample.

    Args:
        dimension: number of coordinates of an input.
        amplitude, frequency, phase: of every sine.
        low, high: ends of the interval that coordinates are drawn from.
        n_train, n_test, data_seed: see ``Sampled``.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_below_one("dimension")
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

    def draw(self, size: int, rng: np.random.Generator) -> Float[Tensor, "example d_input"]:
        """Points of the cube."""
        return as_tensor(rng.uniform(self.low, self.high, (size, self.dimension)))

    def answers(self, inputs: Float[Tensor, "example d_input"]) -> Float[Tensor, "example 1"]:
        """The sum of sines, computed in float64 and rounded to float32, so that it is the same on every machine."""
        sines = np.sin(self.frequency * inputs.double().numpy() + self.phase)
        return as_tensor(self.amplitude * sines.sum(1, keepdims=True))
