"""What was learned: subjects, analyses, verdicts. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from interp import attention, condensation, counterfactual, dynamics, fourier, interchange, rank, relabelling
    from interp.subject import Ensemble, Subject, Trajectory

__all__ = [
    "Ensemble",
    "Subject",
    "Trajectory",
    "attention",
    "condensation",
    "counterfactual",
    "dynamics",
    "fourier",
    "interchange",
    "rank",
    "relabelling",
]

_WHERE = dict.fromkeys(("Ensemble", "Subject", "Trajectory"), "interp.subject") | {
    name: f"interp.{name}"
    for name in (
        "attention",
        "condensation",
        "counterfactual",
        "dynamics",
        "fourier",
        "interchange",
        "rank",
        "relabelling",
    )
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, name, _WHERE)
