"""Sparse parity in an MLP of one hidden layer: a few neurons that read the right bits, or the training set by heart.

A network that generalises reads few bits with few neurons of large weights, while all else decays (Merrill et al. 2023,
arXiv 2303.11873; Pearce et al. 2023). Measured here: which bits are read (mass of input weights), which decide the
answer (influence), whether answers are the parity of the relevant bits (their Fourier–Walsh coefficient), and how few
neurons do the network's work. Controls: random weights, random neurons, and distractors in place of the relevant bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor

from interp.result import Result
from interp.sparse_parity.subnetwork import TOLERANCE, Subnetwork, hidden_layer, smallest_subnetwork
from interp.sparse_parity.walsh import N_SAMPLES, bit_strings, influences, largest_coefficient, walsh_coefficient
from interp.statistics import Interval, share
from interp.subject import Subject
from interp.thresholds import FITTED
from tasks.base import UserError, generator
from tasks.families.parity import SparseParity
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go


Solution = Literal["memorising", "generalising by k bits", "undetermined"]
GENERALISES = 0.95
"""Walsh coefficient of the relevant bits from which the answers are their parity: 97.5 % of all answers."""
UNRELATED = 0.20
"""Size of that coefficient up to which a fitted network recites: 60 % of all answers, where guessing gives 50 %."""
OVERTAKEN = 0.50
"""Share of the bits' weight mass above which the relevant bits outweigh all others."""
PARITY_RULE = (
    f"generalising by k bits: train and test accuracy ≥ {FITTED}, Walsh coefficient of the relevant bits "
    f"≥ {GENERALISES} and more than {OVERTAKEN} of the bits' weight mass on them, where random weights have less; "
    f"memorising: train accuracy ≥ {FITTED} and a Walsh coefficient within ±{UNRELATED}"
)
N_PLACEBOS = 20
_SHOWN = 64


def relevant_share(W_in: Float[Tensor, "bit neuron"], subset: Sequence[int]) -> float:
    """Share of the squared weights of all bits that lies on a subset of them; NaN where all weights are 0.

    Misleads where many neurons write nothing: what they read counts as well.

    >>> import torch
    >>> relevant_share(torch.tensor([[1.0], [2.0], [0.0]]), (0,))
    0.2
    """
    mass = W_in.double().square().sum(1)
    return float(mass[list(subset)].sum() / mass.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityResult(Result):
    """What ``analyze`` finds.

    Attributes:
        relevant_mass, distractor_mass, constant_mass: sum of squared input weights on these inputs.
        relevant_share: the first over the first two; k/n_bits where no bit is preferred.
        walsh: Fourier–Walsh coefficient of the relevant bits, on inputs drawn afresh.
        largest_other_subset, largest_other: of all other subsets of at most three bits, that of the largest
            coefficient.
        sensitivity: the number of bits that change the answer, mean over inputs; ``relevant_influence``,
            ``distractor_influence``: share of answers that one such bit changes, mean over bits.
        subnetwork: the smallest set of neurons that is as accurate on the training set; faithful on the fresh inputs.
        control_relevant_share, control_walsh, control_largest_other, control_sensitivity: of random weights.
        placebo_walsh, placebo_share: the largest size among draws of k distractors in place of the relevant bits;
            NaN where there are fewer.
        influence: of each bit. ``W_in``: input weights, neurons in descending order of their norm on bits.
    """

    n_bits: int
    k: int
    solution: Solution
    train_accuracy: float
    test_accuracy: float
    relevant_mass: float
    distractor_mass: float
    constant_mass: float
    relevant_share: float
    walsh: Interval
    largest_other_subset: tuple[int, ...]
    largest_other: float
    sensitivity: float
    relevant_influence: float
    distractor_influence: float
    subnetwork: Subnetwork
    control_relevant_share: float
    control_walsh: float
    control_largest_other: float
    control_sensitivity: float
    placebo_walsh: float
    placebo_share: float
    influence: Float[Tensor, " bit"]
    W_in: Float[Tensor, "d_model neuron"]


@ordinary_torch()
def analyze(subject: Subject, *, n_samples: int = N_SAMPLES, seed: int = 0) -> ParityResult:
    """How an MLP answers a sparse parity.

    Args:
        subject: a model with one hidden layer that reads bits, and its task.
        n_samples: fresh inputs, drawn from all; where there are no more than these, all are taken.
        seed: of these inputs and of every control.

    Raises:
        UserError: another task, or another architecture.
    """
    task, config = subject.task, subject.config
    if not isinstance(task, SparseParity):
        raise UserError(f"expected a sparse parity, got a task of the family {task.family}")
    if config.reads != "bits" or len(config.neurons) != 1:
        raise UserError("expected an MLP with one hidden layer that reads bits, where neurons can be told apart")
    n, relevant, control, train = task.n_bits, tuple(range(task.k)), subject.randomized(seed), task.train_set()
    inputs = bit_strings(n, n_samples, seed)
    answers, control_answers = subject.answers(inputs), control.answers(inputs)
    influence, W_in = influences(subject.answers, inputs), subject.params["layers.0.W_in"].double()
    subset, largest = largest_coefficient(answers, inputs, besides=relevant)
    placebos = _placebos(task, seed)
    mass = W_in.square().sum(1)
    found = ParityResult(
        n_bits=n,
        k=task.k,
        solution="undetermined",
        train_accuracy=subject.performance["train_accuracy"],
        test_accuracy=subject.performance["test_accuracy"],
        relevant_mass=float(mass[: task.k].sum()),
        distractor_mass=float(mass[task.k : n].sum()),
        constant_mass=float(mass[n:].sum()),
        relevant_share=relevant_share(W_in[:n], relevant),
        walsh=_with_interval(answers == task.answers(inputs), sampled=len(inputs) < 2**n),
        largest_other_subset=subset,
        largest_other=largest,
        sensitivity=float(influence.sum()),
        relevant_influence=float(influence[: task.k].mean()),
        distractor_influence=float(influence[task.k :].mean()),
        subnetwork=smallest_subnetwork(
            hidden_layer(subject, train.inputs), train.targets, hidden_layer(subject, inputs), answers, seed=seed
        ),
        control_relevant_share=relevant_share(control.params["layers.0.W_in"][:n], relevant),
        control_walsh=walsh_coefficient(control_answers, inputs, relevant),
        control_largest_other=largest_coefficient(control_answers, inputs, besides=relevant)[1],
        control_sensitivity=float(influences(control.answers, inputs).sum()),
        placebo_walsh=max((abs(walsh_coefficient(answers, inputs, some)) for some in placebos), default=math.nan),
        placebo_share=max((relevant_share(W_in[:n], some) for some in placebos), default=math.nan),
        influence=influence,
        W_in=W_in[:, W_in[:n].norm(dim=0).argsort(descending=True, stable=True)],
    )
    return replace(found, solution=solution(found))


def solution(found: ParityResult) -> Solution:
    """How the network answers, by ``PARITY_RULE``."""
    if found.train_accuracy < FITTED:
        return "undetermined"
    reads_them = found.relevant_share > OVERTAKEN >= found.control_relevant_share
    if found.test_accuracy >= FITTED and found.walsh.value >= GENERALISES and reads_them:
        return "generalising by k bits"
    return "memorising" if abs(found.walsh.value) <= UNRELATED else "undetermined"


def figures(result: ParityResult) -> dict[str, "go.Figure"]:
    """``weights``: the input weights of the neurons of largest norm; ``influence``: of each bit on the answer;
    ``subnetworks``: what the top 1, 2, … neurons do."""
    from interp import plots

    n, part = result.n_bits, result.subnetwork
    return {
        "weights": plots.heatmap(
            result.W_in[:, :_SHOWN].T.tolist(),
            title="Input weights",
            x="input bit",
            y="neuron, largest norm first",
            colour="weight",
            caption=f"Relevant are the first {result.k} bits: {result.relevant_share:.1%} of the bits' squared weights "
            f"(random weights {result.control_relevant_share:.1%}).",
            x_labels=[*range(n), *["constant"] * (len(result.W_in) - n)],
        ),
        "influence": plots.bars(
            list(range(n)),
            {"influence": result.influence.tolist()},
            title="Influence of each bit",
            x="input bit",
            y="share of answers that it changes",
            caption=f"Relevant are the first {result.k}. The sum is the sensitivity, {result.sensitivity:.2f} (random "
            f"weights {result.control_sensitivity:.2f}).",
        ),
        "subnetworks": plots.lines(
            list(range(1, part.neurons + 1)),
            {
                "accuracy on the training set": part.top_accuracy.tolist(),
                "faithfulness on fresh inputs": part.top_faithfulness.tolist(),
            },
            title="The neurons of largest input norm alone",
            x="number of neurons",
            y="share of inputs",
            caption=f"{part.size} of {part.neurons} neurons reach the network's accuracy up to {TOLERANCE}; as many "
            f"random ones are right on {part.random_accuracy:.1%} and faithful on {part.random_faithfulness:.1%}.",
        ),
    }


def _with_interval(right: Tensor, *, sampled: bool) -> Interval:
    """The coefficient of a rule that is right on these inputs; no interval where they are all inputs."""
    found = share(right)
    value, low, high = (2 * end - 1 for end in (found.value, found.low, found.high))
    if not sampled:
        return replace(found, value=value, low=math.nan, high=math.nan, method="none")
    return replace(found, value=value, low=low, high=high)


def _placebos(task: SparseParity, seed: int) -> list[tuple[int, ...]]:
    """Draws of k bits none of which is relevant; none where there are fewer distractors."""
    if task.n_bits < 2 * task.k:
        return []
    rng = generator(seed, "parity", "placebo")
    draws = (rng.permutation(range(task.k, task.n_bits))[: task.k] for _ in range(N_PLACEBOS))
    return [tuple(sorted(int(bit) for bit in draw)) for draw in draws]
