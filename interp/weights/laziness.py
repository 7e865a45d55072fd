"""Lazy or rich: do the logits follow the features that the initial weights had, or do weights and features change?

A *lazy* network moves its weights so little that its logits stay linear in them: the tangent kernel K of
``interp.weights.tangent`` is that of the start, and the network learns what this kernel can. A *rich* one changes its
kernel. Grokking can be the one after the other: the initial kernel fits the training set and suits the task badly, and
the test loss falls when the kernel turns to the task (Kumar et al. 2023, arXiv 2310.06110).

Measured at every snapshot of one run:

* how far the weights went, ‖w − w_0‖/‖w_0‖, their norm, and their cosine with w_0;
* how far the kernel went from K(0): centred alignment, and ‖K − K(0)‖/‖K(0)‖;
* how well K suits the task: its centred alignment with yyᵀ, y the one-hot targets, and the task difficulty yᵀK⁻¹y.

w_0 and K(0) are those of the first snapshot given: start a trajectory at step 0. Controls: permuted targets, and the
kernel of random weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.result import Result
from interp.spread import finite
from interp.statistics import Interval, mean
from interp.subject import Subject, Trajectory, weight_vector
from interp.transitions import Transition, first
from interp.weights.tangent import tangent_kernel
from tasks.base import Examples, UserError, generator
from tasks.models.initialization import PARTS
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_INPUTS = 256
N_PERMUTATIONS = 99
RIDGE = 1e-3
"""What is added to the eigenvalues of K before it is inverted, in units of their mean."""
MOVED = 0.9
"""The kernel has moved where its alignment with the first one is below this."""


def centred(kernel: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """HKH with H = I − 11ᵀ/n: the kernel of features whose mean over inputs is taken away."""
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()


def kernel_alignment(K: Float[Tensor, "n n"], L: Float[Tensor, "n n"]) -> float:
    """Centred kernel alignment ⟨HKH, HLH⟩/(‖HKH‖‖HLH‖) in Frobenius' product (Cortes et al. 2012; Kornblith et al.
    2019).

    1 for kernels that are equal up to a positive factor and a constant, never below 0 for those of features; NaN where
    one of them is constant. Misleads for few inputs: with fewer than there are features the diagonal outweighs all
    else, and any two kernels align. Of 256 inputs and 113 answers most is diagonal; what counts is the distance from
    permuted targets.
    """
    K, L = centred(K.double()), centred(L.double())
    norm = float(K.norm() * L.norm())
    return float((K * L).sum()) / norm if norm else math.nan


def regular_inverse(K: Float[Tensor, "n n"], ridge: float = RIDGE) -> Float[Tensor, "n n"]:
    """(K + λI)⁻¹ with λ = ridge · tr K/n, a share of the mean eigenvalue; float64, NaN for a kernel of zeros."""
    K = K.double()
    shift = ridge * K.diagonal().mean()
    if not shift > 0:
        return torch.full_like(K, torch.nan)
    return torch.cholesky_inverse(torch.linalg.cholesky(finite(K) + shift * torch.eye(len(K), dtype=K.dtype)))


def task_difficulty(K: Float[Tensor, "n n"], y: Float[Tensor, "n d_out"], ridge: float = RIDGE) -> float:
    """Σ_c y_cᵀ (K + λI)⁻¹ y_c with λ = ridge · tr K/n: the least ‖f‖² + Σ_i (y_i − f(x_i))²/λ among functions f, their
    norm that of the kernel.

    Small where the targets lie along eigenvectors of K with large eigenvalues. It halves where K doubles: compare it
    with that of permuted targets, not with that of another kernel.

    >>> round(task_difficulty(torch.eye(2), torch.eye(2), ridge=1.0), 6)
    1.0
    """
    return float((regular_inverse(K, ridge) * (y.double() @ y.double().T)).sum())


def relative_distance(w: Mapping[str, Float[Tensor, "..."]], start: Mapping[str, Float[Tensor, "..."]]) -> float:
    """‖w − w_0‖/‖w_0‖ over all entries, in float64; NaN where w_0 is zero."""
    w_0 = weight_vector(start)
    return float((weight_vector(w) - w_0).norm() / w_0.norm()) if w_0.norm() else math.nan


def by_part(params: Mapping[str, Float[Tensor, "..."]]) -> dict[str, dict[str, Float[Tensor, "..."]]]:
    """The parameters of each part of the model, of those that ``Initialization`` names, biases and LayerNorms apart."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in params.items():
        parts.setdefault(PARTS.get(name.rsplit(".", 1)[-1], "biases and norms"), {})[name] = value
    return parts


@dataclass(frozen=True, kw_only=True, eq=False)
class StepLaziness(Result):
    """The measures at one step.

    ``distance``, ``distances``: ‖w − w_0‖/‖w_0‖ of all parameters, and of each part of the model (NaN for biases that
    start at 0). ``norm``: ‖w‖. ``cosine``: of w and w_0. ``kernel_alignment``, ``kernel_distance``: K against K(0).
    ``alignment``: K against yyᵀ. ``difficulty``: yᵀK⁻¹y. ``permuted_…``: means of the same over permutations of the
    targets, with which the kernel has no more in common than with any; ``alignment_p_value``: how often one of them
    aligns as well.
    """

    step: int
    train_loss: float
    test_loss: float
    distance: float
    distances: dict[str, float]
    norm: float
    cosine: float
    kernel_alignment: float
    kernel_distance: float
    alignment: float
    permuted_alignment: Interval
    alignment_p_value: float
    difficulty: float
    permuted_difficulty: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class LazinessResult(Result):
    """What ``analyze`` finds: the measures at every step, and since when the kernel has moved from K(0).

    ``control_…`` are of random weights with the last snapshot's scales: alignment with the targets, and with K(0). A
    kernel that is no nearer to K(0) than the latter has kept nothing of it but what the architecture gives.
    """

    n_inputs: int
    moved: Transition
    control_alignment: float
    control_kernel_alignment: float
    measures: tuple[StepLaziness, ...]


@ordinary_torch()
def analyze(
    trajectory: Trajectory, *, n_inputs: int = N_INPUTS, seed: int = 0, control_seed: int = 0
) -> LazinessResult:
    """How far weights and tangent kernel went, and how well the kernel suits the task, over the snapshots of one run.

    With the default of 256 inputs a snapshot takes 3 to 4 s on one core for a transformer of 226,000 parameters and
    113 logits. The time grows with the number of logits and of inputs, squared in part.

    Args:
        trajectory: one run over its steps, the first of which is the start.
        n_inputs: train inputs that the kernels are computed on; all where there are fewer. Take a few times the number
            of answers: where all targets differ yyᵀ is the identity in any order, and tells nothing of the task.
        seed: of their choice, and of the permutations.
        control_seed: of the random weights.

    Raises:
        UserError: a run without snapshots, or fewer than two inputs.
    """
    subjects = list(trajectory)
    if not subjects:
        raise UserError("expected at least one snapshot, the trajectory is empty")
    if n_inputs < 2:
        raise UserError(f"expected n_inputs of at least 2, got {n_inputs}: a kernel compares pairs of inputs")
    examples = subjects[0].task.train_set()
    n = min(n_inputs, len(examples))
    rng = generator(seed, "tangent kernel")
    chosen = torch.from_numpy(rng.permutation(len(examples))[:n])
    orders = torch.stack([torch.from_numpy(rng.permutation(n)) for _ in range(N_PERMUTATIONS)])
    inputs, y = examples.inputs[chosen], one_hot_targets(examples)[chosen]
    start, first_kernel = subjects[0], tangent_kernel(subjects[0], inputs)
    control = tangent_kernel(subjects[-1].randomized(control_seed), inputs)
    measures = []
    for subject in subjects:
        K = first_kernel if subject is start else tangent_kernel(subject, inputs)
        measures.append(
            StepLaziness(
                step=0 if subject.step is None else subject.step,
                train_loss=subject.performance["train_loss"],
                test_loss=subject.performance["test_loss"],
                **_of_weights(subject, start),
                kernel_alignment=kernel_alignment(K, first_kernel),
                kernel_distance=float((K - first_kernel).norm() / first_kernel.norm()),
                **_of_task(K, y, orders),
            )
        )
    return LazinessResult(
        n_inputs=n,
        moved=first([at.step for at in measures], [at.kernel_alignment < MOVED for at in measures]),
        control_alignment=kernel_alignment(control, y @ y.T),
        control_kernel_alignment=kernel_alignment(control, first_kernel),
        measures=tuple(measures),
    )


def one_hot_targets(examples: Examples) -> Float[Tensor, "example d_out"]:
    """One column per answer that occurs, 1 where it is the target; targets that are numbers as they are."""
    if examples.targets.is_floating_point():
        return examples.targets.double()
    return F.one_hot(examples.targets.unique(return_inverse=True)[1]).double()


def _of_weights(subject: Subject, start: Subject) -> dict[str, Any]:
    w, w_0 = weight_vector(subject.params), weight_vector(start.params)
    parts, first_parts = by_part(subject.params), by_part(start.params)
    return {
        "distance": relative_distance(subject.params, start.params),
        "distances": {name: relative_distance(part, first_parts[name]) for name, part in parts.items()},
        "norm": float(w.norm()),
        "cosine": float(w @ w_0 / (w.norm() * w_0.norm())),
    }


def _of_task(
    K: Float[Tensor, "n n"], y: Float[Tensor, "n d_out"], orders: Int[Tensor, "permutation n"]
) -> dict[str, Any]:
    """Alignment and difficulty for the targets in their order, and in others."""
    permuted = [y[order] for order in orders]
    aligned = torch.tensor([kernel_alignment(K, other @ other.T) for other in permuted], dtype=torch.float64)
    inverse, alignment = regular_inverse(K), kernel_alignment(K, y @ y.T)
    as_large = 1 + int((aligned >= alignment).sum())
    difficulty, *difficulties = (float((inverse @ other * other).sum()) for other in (y, *permuted))
    return {
        "alignment": alignment,
        "permuted_alignment": mean(aligned),
        "alignment_p_value": math.nan if math.isnan(alignment) else as_large / (1 + len(orders)),
        "difficulty": difficulty,
        "permuted_difficulty": mean(torch.tensor(difficulties, dtype=torch.float64)),
    }


def figures(result: LazinessResult) -> dict[str, "go.Figure"]:
    """``distance``: of the weights and of each part of the model from the start; ``kernel distance``: of the kernel;
    ``kernel``: what is left of K(0) and w_0; ``alignment`` and ``difficulty``: how well the kernel suits the task;
    ``loss``."""
    from interp import plots

    m = result.measures
    at = [max(x.step, 1) for x in m]  # step 0 has no place on a logarithmic axis
    steps: dict[str, Any] = {"x": "step (0 is drawn at 1)", "log_x": True}
    parts = {name: [x.distances[name] for x in m] for name in m[0].distances}
    on = f"Tangent kernel of {result.n_inputs} train inputs"
    return {
        "distance": plots.lines(
            at,
            {
                "all weights": [x.distance for x in m],
                **{name: part for name, part in parts.items() if not math.isnan(part[0])},
            },
            title="Distance of the weights from the start",
            y="‖w − w₀‖ / ‖w₀‖",
            caption="Of all weights, and of each part of the model that does not start at 0.",
            **steps,
        ),
        "kernel distance": plots.lines(
            at,
            {"kernel": [x.kernel_distance for x in m]},
            title="Distance of the tangent kernel from the start",
            y="‖K − K(0)‖ / ‖K(0)‖",
            caption=f"{on}. Above 1 it has grown: weights twice as large make that of a deep network several times as "
            "large, whatever they compute.",
            **steps,
        ),
        "kernel": plots.lines(
            at,
            {
                "K with K(0)": [x.kernel_alignment for x in m],
                "w with w₀": [x.cosine for x in m],
                "control: K of random weights with K(0)": [result.control_kernel_alignment] * len(at),
            },
            title="What is left of the start",
            y="centred alignment, cosine",
            caption=f"{on}. It has moved where its alignment is below {MOVED}: {result.moved}. Control: the last "
            "snapshot's scales.",
            threshold=MOVED,
            **steps,
        ),
        "alignment": plots.lines(
            at,
            {
                "K with the targets": [x.alignment for x in m],
                "control: permuted targets": [x.permuted_alignment.value for x in m],
                "control: random weights": [result.control_alignment] * len(at),
            },
            title="Alignment of the kernel with the task",
            y="centred alignment with yyᵀ",
            caption=f"{on}; y are the one-hot targets. Random weights have the last snapshot's scales.",
            dashes={"control: random weights": "dot"},
            **steps,
        ),
        "difficulty": plots.lines(
            at,
            {"targets / permuted": [x.difficulty / x.permuted_difficulty.value for x in m]},
            title="Task difficulty",
            y="yᵀK⁻¹y / that of permuted targets",
            caption=f"{on}, with {RIDGE:g} of its mean eigenvalue added. Dotted: it suits the targets no better than "
            "the same ones in another order.",
            threshold=1.0,
            **steps,
        ),
        "loss": plots.lines(
            at,
            {"train": [x.train_loss for x in m], "test": [x.test_loss for x in m]},
            title="Loss",
            y="loss",
            caption=f"Of the snapshots. The kernel moves: {result.moved}.",
            log_y=True,
            **steps,
        ),
    }
