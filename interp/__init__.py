"""What was learned: subjects, analyses, verdicts. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from interp.registry import ANALYSES, MEASURES
from tasks.lazy import lazily

if TYPE_CHECKING:
    from interp.anchor import attention, circuits, counterfactual, geometry, interchange, relabelling
    from interp.group import representation
    from interp.modular import clock_pizza, fourier, grokking, neuron_waves, progress, restricted
    from interp.sparse_parity import parity, parity_dynamics, weight_measures
    from interp.subject import Ensemble, Subject, Trajectory
    from interp.sweeps import contrast, foresight, phases, small_multiples
    from interp.weights import collapse, condensation, directions, dynamics, laziness, rank

__all__ = [
    "Ensemble",
    "Subject",
    "Trajectory",
    "attention",
    "circuits",
    "clock_pizza",
    "collapse",
    "condensation",
    "contrast",
    "counterfactual",
    "directions",
    "dynamics",
    "foresight",
    "fourier",
    "geometry",
    "grokking",
    "interchange",
    "laziness",
    "neuron_waves",
    "parity",
    "parity_dynamics",
    "phases",
    "progress",
    "rank",
    "relabelling",
    "representation",
    "restricted",
    "small_multiples",
    "weight_measures",
]

_WHERE = (
    {name: f"interp.subject:{name}" for name in ("Ensemble", "Subject", "Trajectory")}
    | {name: line.module for name, line in ANALYSES.items()}
    | MEASURES
)


def __getattr__(name: str) -> Any:
    return lazily(__name__, name, _WHERE)
