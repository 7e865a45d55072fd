"""What was learned: subjects, analyses, verdicts. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from interp import (
        attention,
        circuits,
        clock_pizza,
        condensation,
        contrast,
        counterfactual,
        directions,
        dynamics,
        fourier,
        geometry,
        grokking,
        interchange,
        parity,
        parity_dynamics,
        phases,
        progress,
        rank,
        relabelling,
        representation,
        restricted,
    )
    from interp.subject import Ensemble, Subject, Trajectory

__all__ = [
    "Ensemble",
    "Subject",
    "Trajectory",
    "attention",
    "circuits",
    "clock_pizza",
    "condensation",
    "contrast",
    "counterfactual",
    "directions",
    "dynamics",
    "fourier",
    "geometry",
    "grokking",
    "interchange",
    "parity",
    "parity_dynamics",
    "phases",
    "progress",
    "rank",
    "relabelling",
    "representation",
    "restricted",
]

_WHERE = dict.fromkeys(("Ensemble", "Subject", "Trajectory"), "interp.subject") | {
    name: f"interp.{name}" for name in __all__ if name.islower()
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, name, _WHERE)
