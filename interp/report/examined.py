"""What was found about one subject: performance, results, verdict; and the numbers of it that are shown."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.subject import Subject
    from interp.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``examine`` found about one subject.

    Attributes:
        performance: loss and accuracy on train and test.
        control_performance: the same of random weights of the same shapes.
        results: name of an analysis → its result.
        skipped: name of an analysis that does not apply → why.
        modules: name of an analysis → its module, for the figures.
    """

    subject: "Subject"
    performance: Mapping[str, float]
    control_performance: Mapping[str, float]
    results: Mapping[str, Any]
    skipped: Mapping[str, str]
    verdict: "Verdict"
    modules: Mapping[str, ModuleType]

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """The object that ``--json`` writes for this run and step."""
        from tasks.registry import task_to_dict

        return {
            "run": self.subject.name if self.subject.run is None else str(self.subject.run.path),
            "task": task_to_dict(self.subject.task),
            "step": self.subject.step,
            "verdict": self.verdict.to_dict(),
            "performance": _json_numbers(self.performance),
            "control_performance": _json_numbers(self.control_performance),
            "analyses": {name: result.to_dict(arrays=arrays) for name, result in self.results.items()},
            "skipped": dict(self.skipped),
        }

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(self.verdict.sentence)}</b></p>" + "".join(
            f"<details><summary>{name}</summary>{result._repr_html_()}</details>"
            for name, result in self.results.items()
        )


OF_DATA = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def of_data(performance: Mapping[str, float]) -> dict[str, float]:
    """Loss and accuracy on train and test; what candidate rules explain is for an analysis to say, with its
    intervals."""
    return {key: performance[key] for key in OF_DATA if key in performance}


def _json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """The numbers with NaN as JSON's null."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def headline(report: Report) -> list[tuple[str, str]]:
    """Name and value of the numbers shown for a subject: performance, then each result's plain numbers beside
    controls."""
    rows = [
        (name.replace("_", " "), f"{value:.4g}  (random weights {report.control_performance[name]:.4g})")
        for name, value in report.performance.items()
    ]
    for name, result in report.results.items():
        plain = {key: value for key, value in result.to_dict().items() if isinstance(value, int | float | list | str)}
        for key, value in plain.items():
            if key.startswith("control_"):
                continue
            text = _shown(value)
            if text is not None and f"control_{key}" in plain:
                text += f"  (random weights {_shown(plain[f'control_{key}'])})"
            if text is not None:
                rows.append((f"{name}: {key.replace('_', ' ')}", text))
    return rows


def _shown(value: Any) -> str | None:
    """A number, a name or a list of them; None for anything longer."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        flat = all(isinstance(v, int | float | str) for v in value)
        return ", ".join(map(str, map(_shown, value))) or "none" if flat else None
    return str(value)
