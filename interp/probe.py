"""``python -m interp.probe``: look at trained models and say how each solves its task, with the numbers that carry it.

``examine(subject)`` runs the analyses that apply to the subject's task and ends in a verdict; the command does so for
run folders or for weights that others published, prints a table per run, and writes a report (one HTML file) or JSON.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tasks.base import UserError
from tasks.models.config import Layout

if TYPE_CHECKING:
    from interp.subject import Subject
    from interp.verdict import Verdict

ANALYSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fourier": ("interp.fourier", ("modular",)),
    "progress": ("interp.progress", ("modular",)),
    "representation": ("interp.representation", ("group", "modular")),
    "clock_pizza": ("interp.clock_pizza", ("modular",)),
    "neuron_waves": ("interp.neuron_waves", ("modular",)),
    "counterfactual": ("interp.counterfactual", ("anchor",)),
    "interchange": ("interp.interchange", ("anchor",)),
    "relabelling": ("interp.relabelling", ("anchor",)),
    "attention": ("interp.attention", ("anchor",)),
    "circuits": ("interp.circuits", ("anchor",)),
    "geometry": ("interp.geometry", ("anchor",)),
    "parity": ("interp.parity", ("parity",)),
    "condensation": ("interp.condensation", ("anchor", "group", "modular", "parity")),
    "rank": ("interp.rank", ("anchor", "group", "modular", "parity")),
    "collapse": ("interp.collapse", ("group", "modular")),
}
"""Name of an analysis → its module and the task families it applies to. A new analysis is one line here."""
ON_REQUEST = {"clock_pizza": ("modular",), "relabelling": ("anchor",), "representation": ("modular",)}
"""Analyses that run only where they are named, and of which tasks: clock_pizza takes long, relabelling trains, and what
representation says of addition mod p is told by fourier."""
CHECKPOINTS = Path("checkpoints")
_FOR_TESTS = "tiny"


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
        import html

        return f"<p><b>{html.escape(self.verdict.sentence)}</b></p>" + "".join(
            f"<details><summary>{name}</summary>{result._repr_html_()}</details>"
            for name, result in self.results.items()
        )


_OF_DATA = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def _of_data(performance: Mapping[str, float]) -> dict[str, float]:
    """Loss and accuracy on train and test; what candidate rules explain is for an analysis to say, with its
    intervals."""
    return {key: performance[key] for key in _OF_DATA if key in performance}


def _json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """The numbers with NaN as JSON's null."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def applies(name: str, family: str) -> bool:
    """Whether the analysis of this name is one of such tasks."""
    return family in ANALYSES[name][1]


def why_not(name: str, family: str) -> str:
    """What is said where it is not."""
    return f"it applies to {' and '.join(ANALYSES[name][1])}, not to {family}"


def analysis_modules(names: Sequence[str | ModuleType] | None, family: str) -> dict[str, ModuleType]:
    """The analyses asked for, by name; where none are named, all that apply to the task family and are not in
    ``ON_REQUEST``.

    Raises:
        UserError: an unknown name, one that does not apply to the family, a module that keeps not to the contract.
    """
    if names is None:
        names = [name for name in ANALYSES if applies(name, family) and family not in ON_REQUEST.get(name, ())]
    modules: dict[str, ModuleType] = {}
    for name in names:
        if isinstance(name, ModuleType):
            if not callable(getattr(name, "analyze", None)):
                raise UserError(f"expected a module with a function analyze(subject), {name.__name__} has none")
            if (takes := getattr(name, "TAKES", "subject")) != "subject":
                raise UserError(f"expected an analysis of a subject, {name.__name__} takes a {takes}: call its analyze")
            modules[name.__name__.rsplit(".", 1)[-1]] = name
        elif name not in ANALYSES:
            raise UserError(f"expected analyses among {', '.join(ANALYSES)}, got {name!r}")
        elif applies(name, family):
            modules[name] = import_module(ANALYSES[name][0])
    return modules


def examine(subject: "Subject", analyses: Sequence[str | ModuleType] | None = None) -> Report:
    """What the analyses find about a subject, and the verdict.

    Args:
        subject: one model with its task.
        analyses: names from ``ANALYSES`` or modules of one's own with ``analyze(subject)``; ``None``: all that apply
            and are not in ``ON_REQUEST``.

    Raises:
        UserError: an unknown analysis.
    """
    from interp.verdict import conclude
    from tasks.surroundings import ordinary_torch

    modules = analysis_modules(analyses, subject.task.family)
    results: dict[str, Any] = {}
    skipped = {
        name: why_not(name, subject.task.family)
        for name in analyses or ()
        if isinstance(name, str) and name not in modules
    }
    for name, module in modules.items():
        try:
            with ordinary_torch():  # analyses of our own see to it themselves, those of others may not
                results[name] = module.analyze(subject)
        except UserError as error:
            if analyses is not None:
                raise
            skipped[name] = str(error)
    return Report(
        subject=subject,
        performance=_of_data(subject.performance),
        control_performance=_of_data(subject.randomized(0).performance),
        modules=modules,
        results=results,
        skipped=skipped,
        verdict=conclude(subject, results),
    )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Say how trained models solve their task: a table and a verdict per run."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folders, or folders that hold some; without any, those directly under checkpoints/."""
    step: str = "last"
    """A step that has a snapshot, last, or all."""
    layout: Layout | None = None
    """For weights that others published: how they are stored. RUN is then their file."""
    task: tuple[str, ...] = ()
    """For such weights: what they were trained on, a family with its fields, as in modular p=113 train_fraction=0.3."""
    only: str | None = None
    """Analyses to run, separated by commas; without it, all that apply but those that run on request alone."""
    report: Path | None = None
    """Write one standalone HTML file with every figure."""
    json: str | None = None
    """Write the results as JSON to this file, or - for standard output."""
    quiet: bool = False
    """Print no tables."""

    def __call__(self) -> None:
        import torch

        torch.set_num_threads(1)
        names = None if self.only is None else [name.strip() for name in self.only.split(",") if name.strip()]
        unknown = [name for name in names or [] if name not in ANALYSES]
        if unknown:
            raise UserError(f"expected analyses among {', '.join(ANALYSES)}, got {unknown[0]!r}")
        if names == []:
            raise UserError(f"expected analyses among {', '.join(ANALYSES)} after --only, got none")
        for target in (self.report, None if self.json in (None, "-") else Path(self.json)):
            if target is not None and not target.resolve().parent.is_dir():
                raise UserError(f"expected a folder for {target}, {target.resolve().parent} does not exist")
            if target is not None and target.is_dir():
                raise UserError(f"expected a file to write, {target} is a folder")
        reports = [examine(subject, names) for subject in _subjects(self.runs, self.step, self.layout, self.task)]
        if not self.quiet and self.json != "-":
            _print(reports)
        if self.report is not None:
            from interp.report.page import write_page

            write_page(reports, self.report)
            if not self.quiet and self.json != "-":
                print(f"report: {self.report}")
        if self.json is not None:
            text = json.dumps([report.to_dict() for report in reports], indent=1, allow_nan=False) + "\n"
            if self.json == "-":
                sys.stdout.write(text)
            else:
                Path(self.json).write_text(text)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders among the paths, each path a run folder or a folder that holds some, directly or one level down.

    Without paths: those directly under ``checkpoints/``, the ones for tests left out.

    Raises:
        UserError: a path that is neither; no paths and no ``checkpoints/``.
    """
    if not paths:
        if not CHECKPOINTS.is_dir():
            raise UserError(
                "expected run folders to probe, there is no checkpoints/ here: python -m interp.probe RUN …"
            )
        paths = sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir() and path.name != _FOR_TESTS)
    found: list[Path] = []
    for path in paths:
        if (path / "config.json").is_file() or not path.is_dir():
            found.append(path)
            continue
        inside = sorted(config.parent for config in path.glob("*/config.json"))
        if not inside:
            raise UserError(f"expected a run folder with a config.json at {path}, found none there or one level down")
        found += inside
    return found


def _subjects(paths: Sequence[Path], step: str, layout: Layout | None, words: Sequence[str]) -> "list[Subject]":
    from interp.subject import Subject
    from tasks.registry import task_from_words
    from tasks.training.run import Run

    if layout is not None or words or any(path.is_file() for path in paths):
        if layout is None or not words or not paths or step != "last":
            raise UserError(
                "expected files of weights with --layout and --task and without --step, such as "
                "FILE --layout progress_measures --task modular p=113"
            )
        task = task_from_words(words)
        return [Subject.load(path, layout=layout, task=task) for path in paths]
    if step not in ("last", "all") and not step.isdecimal():
        raise UserError(f"expected a step number, last or all, got {step!r}")
    subjects = []
    for run in [Run.load(path) for path in run_folders(paths)]:
        steps = [run.resolve("last" if step == "all" else "last" if step == "last" else int(step))]
        subjects += [Subject.load(run, at) for at in (run.steps if step == "all" else steps)]
    return subjects


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


def _print(reports: Sequence[Report]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for report in reports:
        subject = report.subject
        title = subject.name if subject.step is None else f"{subject.name}, step {subject.step}"
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(style="dim")
        table.add_column()
        for name, value in headline(report):
            table.add_row(name, value)
        for name, why in report.skipped.items():
            table.add_row(name, f"skipped: {why}")
        console.print(table)
        console.print(report.verdict.sentence, style="bold", highlight=False)
        console.print()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    try:
        tyro.cli(Probe, prog="python -m interp.probe", args=arguments)()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
