"""Sparse parity over training: when the relevant bits outweigh the distractors, and what few neurons then do.

The measures of ``interp.sparse_parity.parity`` at every snapshot of one run. Where a network first recites and then
generalises, distractor mass decays and relevant mass grows long after the training set is fitted (Merrill et al. 2023;
Pearce et al. 2023).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.result import Result
from interp.sparse_parity import parity
from interp.sparse_parity.parity import ParityResult
from interp.sparse_parity.walsh import N_SAMPLES
from interp.subject import Trajectory
from interp.transitions import Transition, first, fitted
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityDynamicsResult(Result):
    """What ``analyze`` finds: the measures at every step, and between which snapshots something happened.

    ``memorised``, ``generalised``: accuracy of .99 on train and test. ``overtaken``: the relevant bits have more than
    half of the bits' weight mass, from which snapshot on, for good. ``control_overtaken``: the same of random weights
    with each snapshot's scales.
    """

    steps: tuple[int, ...]
    memorised: Transition
    generalised: Transition
    overtaken: Transition
    control_overtaken: Transition
    measures: tuple[ParityResult, ...]


@ordinary_torch()
def analyze(trajectory: Trajectory, *, n_samples: int = N_SAMPLES, seed: int = 0) -> ParityDynamicsResult:
    """The measures of ``parity.analyze`` over the snapshots of one run.

    Args:
        trajectory: one run over its steps.
        n_samples, seed: see ``parity.analyze``; every snapshot is shown the same inputs.

    Raises:
        UserError: a run without snapshots, another task, or another architecture.
    """
    subjects = list(trajectory)
    if not subjects:
        raise UserError("expected at least one snapshot, the trajectory is empty")
    measures = tuple(parity.analyze(subject, n_samples=n_samples, seed=seed) for subject in subjects)
    steps = tuple(0 if subject.step is None else subject.step for subject in subjects)
    return ParityDynamicsResult(
        steps=steps,
        memorised=fitted(steps, [m.train_accuracy for m in measures]),
        generalised=fitted(steps, [m.test_accuracy for m in measures]),
        overtaken=overtaken(steps, [m.relevant_share for m in measures]),
        control_overtaken=overtaken(steps, [m.control_relevant_share for m in measures]),
        measures=measures,
    )


def overtaken(steps: tuple[int, ...], relevant_share: list[float]) -> Transition:
    """From which snapshot on the relevant bits have more than half of the weight mass, up to the last one.

    >>> overtaken((0, 10, 20, 30), [0.6, 0.1, 0.7, 0.9])
    Transition(after=10, by=20)
    """
    above = [share > parity.OVERTAKEN for share in relevant_share]
    return first(steps, [all(above[at:]) for at in range(len(above))])


def figures(result: ParityDynamicsResult) -> dict[str, "go.Figure"]:
    """``mass``: squared input weights; ``accuracy``; ``coefficients``: of the relevant bits and their controls;
    ``neurons``: the size of the smallest subnetwork, and the number of bits that matter."""
    from interp import plots

    at, m = [max(step, 1) for step in result.steps], result.measures  # step 0 has no place on a logarithmic axis
    steps = {"x": "step (0 is drawn at 1)", "log_x": True}
    return {
        "mass": plots.lines(
            at,
            {
                "relevant bits": [x.relevant_mass for x in m],
                "distractors": [x.distractor_mass for x in m],
                "constant input": [x.constant_mass for x in m],
            },
            title="Squared input weights",
            y="Σ W_in²",
            caption=f"The relevant bits outweigh the distractors: {result.overtaken}.",
            **steps,
        ),
        "accuracy": plots.lines(
            at,
            {"train": [x.train_accuracy for x in m], "test": [x.test_accuracy for x in m]},
            title="Accuracy",
            y="share of right answers",
            caption=f"It is .99 on train: {result.memorised}, on test: {result.generalised}.",
            **steps,
        ),
        "coefficients": plots.lines(
            at,
            {
                "relevant bits": [abs(x.walsh.value) for x in m],
                "largest other subset": [abs(x.largest_other) for x in m],
                "control: random weights": [abs(x.control_walsh) for x in m],
            },
            title="Fourier–Walsh coefficients",
            y="absolute coefficient",
            caption="1: the answer is the parity of this subset of bits. The other subset has at most three.",
            **steps,
        ),
        "neurons": plots.lines(
            at,
            {
                "smallest subnetwork": [x.subnetwork.size for x in m],
                "sensitivity": [x.sensitivity for x in m],
                "control: sensitivity of random weights": [x.control_sensitivity for x in m],
            },
            title="Neurons needed, and bits that matter",
            y="number of neurons, or of bits",
            caption="As few neurons of largest norm as answer the training set like all; to guess, one is enough.",
            **steps,
        ),
    }
