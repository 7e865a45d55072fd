"""Waves of a perceptron that adds mod p: what each neuron reads of the numbers and writes to the answers, and how the
neurons of a frequency work together.

With one table W_E and one hidden layer the model collapses to two matrices, W_input = W_E W_in [p, neuron] and
W_output = W_out W_Eᵀ [neuron, p] (W_U where nothing is tied): logits = act(W_input[a] + W_input[b]) W_output. A neuron
that reads A cos(ω_k x − φ) and writes B cos(ω_k c − 2φ) turns the sum of two waves into cos(ω_k(a+b) − 2φ) and its
harmonics; over neurons with angles φ all around the circle the harmonics cancel, and what stays is cos ω_k(a+b−c) times
a factor that fades as a − b nears half a turn: cos²(ω_k(a−b)/2) exactly for squares, about its absolute cosine for
ReLUs. A few frequencies then interfere, and only at c = a + b do all of them add up (Pearce et al. 2023, the explorable
"Do Machine Learning Models Memorize or Generalize?").

All numbers are float64 and over all p² pairs.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.modular.angles import doubling, evenness, evenness_of_random
from interp.modular.fourier import logit_variance
from interp.modular.neuron_wave_record import Interference, NeuronWavesResult
from interp.modular.two_matrices import Collapsed, Waves, collapsed, one_table, strongest_waves
from interp.spread import centred
from interp.subject import Subject
from tasks.surroundings import ordinary_torch
from tasks.training.objective import cross_entropy, margins

if TYPE_CHECKING:
    import plotly.graph_objects as go

PUBLISHED_CUT = 10.0
"""Norm of its input wave over the p numbers, √(p/2) A, above which a neuron of the published model counts."""
RELATIVE_CUT = 0.1
"""Amplitude above which a neuron of any other model counts, as a share of the largest."""


class Form(NamedTuple):
    """How well logits are a sum of one form per frequency; see ``fit_form``."""

    coefficients: Float[Tensor, " frequency"]
    residual: float


def fit_form(logits: Float[Tensor, "pairs p"], frequencies: tuple[int, ...], *, power: int) -> Form:
    """The best Σ_k α_k |cos(ω_k(a−b)/2)|^power cos ω_k(a+b−c), and the share of the logits' variance over answers that
    it leaves.

    Power 2 is what squares compute, with α the number of neurons in ``circle_network``; power 1 what ReLUs tend to as
    their number grows. Forms of two frequencies are orthogonal, so each is fitted alone. The residual lies between 0
    and 1 and is NaN for logits that do not vary over answers.
    """
    p = logits.shape[1]
    left = centred(logits).reshape(p, p, p)
    total, x, coefficients = left.pow(2).sum(), torch.arange(p), []
    for k in frequencies:
        turns = (x.view(p, 1, 1) + x.view(1, p, 1) - x) * k % p
        fading = (torch.pi / p * (k * (x.unsqueeze(1) - x) % (2 * p)).double()).cos().abs().pow(power)
        form = fading.unsqueeze(-1) * (2 * torch.pi / p * turns.double()).cos()
        coefficients.append((left * form).sum() / form.pow(2).sum())
        left = left - coefficients[-1] * form
    alpha = torch.stack(coefficients) if coefficients else torch.zeros(0, dtype=torch.float64)
    return Form(alpha, float(left.pow(2).sum() / total))


def interference(parts: Float[Tensor, "frequency pairs p"], answers: Int[Tensor, " pairs"]) -> Interference:
    """Accuracy, loss and margin of the first r parts of the logits added up, for every r."""
    found = [_knowledge(logits, answers) for logits in parts.cumsum(0)]
    accuracy, loss, margin = zip(*found, strict=True) if found else ((), (), ())
    return Interference(accuracy=accuracy, loss=loss, margin=margin)


@ordinary_torch()
def analyze(subject: Subject, *, control_seed: int = 0) -> NeuronWavesResult:
    """The waves of every neuron, whether angles double, how frequencies interfere, and the same for random weights.

    Neurons count as in the explorable: in its model (p = 67, d_embed 500, 24 neurons) with √(p/2) A > 10, elsewhere
    with more than a tenth of the largest amplitude.

    Raises:
        UserError: see ``collapsed``.
    """
    model, task, c = collapsed(subject), one_table(subject), subject.config
    amplitude = strongest_waves(model.W_input).amplitude
    published = (task.p, c.d_embed, c.d_hidden) == (67, 500, (24,))
    cut = PUBLISHED_CUT * (2 / task.p) ** 0.5 if published else RELATIVE_CUT * float(amplitude.max())
    answers = task.all_targets()
    found = _measure(model, answers, amplitude > cut)
    control = _measure(collapsed(subject.randomized(control_seed)), answers, amplitude >= 0)
    beside = "accuracy input_share output_share same_frequency doubling interference square_residual absolute_residual"
    return NeuronWavesResult(
        p=task.p,
        n_neurons=len(amplitude),
        n_counted=int((amplitude > cut).sum()),
        cut=cut,
        **found,
        **{f"control_{name}": control[name] for name in beside.split()},
    )


def figures(result: NeuronWavesResult) -> dict[str, "go.Figure"]:
    """``input_waves``, ``output_waves``: weights of every counted neuron; ``angles``: where each reads and writes, per
    frequency; ``interference``: logits of each frequency and their sum; ``frequencies``: what the strongest know."""
    from interp.modular import neuron_wave_figures as drawn

    if not result.frequencies:
        return {}
    return {
        "input_waves": drawn.waves(result, "input"),
        "output_waves": drawn.waves(result, "output"),
        "angles": drawn.angles(result),
        "interference": drawn.interference(result),
        "frequencies": drawn.frequencies(result),
    }


def _measure(model: Collapsed, answers: Int[Tensor, " pairs"], counted: Bool[Tensor, " neuron"]) -> dict[str, Any]:
    """Every number that the model and its control have alike; of neurons, only those that count."""
    p, hidden = len(model.W_input), model.hidden()
    logits = hidden @ model.W_output + model.bias
    reads = strongest_waves(model.W_input)
    order = _sorted(reads, counted)
    reads = Waves(*(values[order] for values in reads))
    W_input, W_output = model.W_input.T[order], model.W_output[order]
    writes, strongest = strongest_waves(W_output.T, reads.frequency), strongest_waves(W_output.T)
    groups = {k: reads.frequency == k for k in reads.frequency.unique().tolist()}
    parts = {k: hidden[:, order[of_k]] @ W_output[of_k] for k, of_k in groups.items()}
    frequencies = tuple(sorted(groups, key=lambda k: -float(centred(parts[k]).norm())))
    in_order = torch.stack([parts[k] for k in frequencies]) if frequencies else torch.zeros(0, p * p, p)
    variance = logit_variance(logits, p)
    square, absolute = (fit_form(logits, frequencies, power=power) for power in (2, 1))
    pairs = ((0, 0), (p // 5, p // 3), (p // 6, (2 * p) // 3))
    return {
        "accuracy": _knowledge(logits, answers)[0],
        "frequencies": frequencies,
        "neurons_per_frequency": tuple(int(groups[k].sum()) for k in frequencies),
        "evenness": tuple(evenness(reads.angle[groups[k]]) for k in frequencies),
        "random_evenness": tuple(evenness_of_random(int(groups[k].sum())) for k in frequencies),
        "logit_variance": tuple(float(variance[k - 1]) for k in frequencies),
        "input_share": _mean(reads.share.tolist()),
        "output_share": _mean(strongest.share.tolist()),
        "same_frequency": _mean((strongest.frequency == reads.frequency).double().tolist()),
        "doubling": doubling(reads.angle, writes.angle),
        "interference": interference(in_order, answers),
        "square_residual": square.residual,
        "absolute_residual": absolute.residual,
        "square_coefficients": tuple(square.coefficients.tolist()),
        "example_pairs": pairs,
        "neuron_frequency": reads.frequency,
        "amplitude": reads.amplitude,
        "input_angle": reads.angle,
        "output_amplitude": writes.amplitude,
        "output_angle": writes.angle,
        "W_input": W_input,
        "W_output": W_output,
        "examples": torch.stack([in_order[:, a * p + b] for a, b in pairs]),
    }


def _sorted(waves: Waves, counted: Bool[Tensor, " neuron"]) -> Int[Tensor, " counted"]:
    """The neurons that count, by frequency and angle."""
    kept = counted.nonzero().flatten().tolist()
    order = sorted(kept, key=lambda i: (int(waves.frequency[i]), float(waves.angle[i])))
    return torch.tensor(order, dtype=torch.int64)


def _knowledge(logits: Float[Tensor, "pairs p"], answers: Int[Tensor, " pairs"]) -> tuple[float, float, float]:
    return (
        float((logits.argmax(1) == answers).double().mean()),
        float(cross_entropy(logits, answers).mean()),
        float(margins(logits, answers).mean()),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
