"""What was learned: subjects, analyses, verdicts. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from interp import (
        attention,
        circuits,
        clock_pizza,
        collapse,
        condensation,
        contrast,
        counterfactual,
        directions,
        dynamics,
        foresight,
        fourier,
        geometry,
        grokking,
        interchange,
        laziness,
        neuron_waves,
        parity,
        parity_dynamics,
        phases,
        progress,
        rank,
        relabelling,
        representation,
        restricted,
        small_multiples,
        weight_measures,
    )
    from interp.subject import Ensemble, Subject, Trajectory

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

_WHERE = dict.fromkeys(("Ensemble", "Subject", "Trajectory"), "interp.subject") | {
    name: f"interp.{name}" for name in __all__ if name.islower()
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, name, _WHERE)
