"""What is found of the waves of a perceptron that adds mod p; ``interp.modular.neuron_waves`` finds it."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.angles import Doubling
from interp.result import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Interference(Result):
    """What the logits of the r strongest frequencies know, r = 1, 2, …, over all pairs.

    ``margin`` is the mean of the right answer's logit minus the largest wrong one. The last entry holds every counted
    neuron; what the rest adds is the difference to the whole model.
    """

    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    margin: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronWavesResult(Result):
    """What ``analyze`` finds. Every ``control_…`` is the same number for random weights, all of whose neurons count.

    ``n_counted`` of ``n_neurons`` have an input amplitude above ``cut``; they alone are measured. ``input_share`` and
    ``output_share`` are the mean shares of a neuron's weights in its strongest wave, ``same_frequency`` the share of
    neurons whose two waves have one frequency. ``frequencies`` come with the strongest logits first, and aligned with
    them ``neurons_per_frequency``, the ``evenness`` of their input angles beside that of as many random angles, and
    ``logit_variance``, the τ_k of the logits. ``square_residual`` and ``absolute_residual`` are what the forms with
    cos² and with |cos| leave of the logits (``fit_form``), ``square_coefficients`` the α_k of the first.

    Arrays have the counted neurons sorted by frequency and angle. ``examples`` [pair, frequency, p] are the logits of
    each frequency for ``example_pairs``.
    """

    p: int
    n_neurons: int
    n_counted: int
    cut: float
    accuracy: float
    control_accuracy: float
    frequencies: tuple[int, ...]
    neurons_per_frequency: tuple[int, ...]
    evenness: tuple[float, ...]
    random_evenness: tuple[float, ...]
    logit_variance: tuple[float, ...]
    input_share: float
    control_input_share: float
    output_share: float
    control_output_share: float
    same_frequency: float
    control_same_frequency: float
    doubling: Doubling
    control_doubling: Doubling
    interference: Interference
    control_interference: Interference
    square_residual: float
    control_square_residual: float
    absolute_residual: float
    control_absolute_residual: float
    square_coefficients: tuple[float, ...]
    example_pairs: tuple[tuple[int, int], ...]
    neuron_frequency: Int[Tensor, " neuron"]
    amplitude: Float[Tensor, " neuron"]
    input_angle: Float[Tensor, " neuron"]
    output_amplitude: Float[Tensor, " neuron"]
    output_angle: Float[Tensor, " neuron"]
    W_input: Float[Tensor, "neuron p"]
    W_output: Float[Tensor, "neuron p"]
    examples: Float[Tensor, "pair frequency p"]
