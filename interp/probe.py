"""``python -m interp.probe``: look at trained models and say how each solves its task, with the numbers that carry it.

``examine(subject)`` runs the analyses that apply to the subject's task and ends in a verdict; the command does so for
run folders or for weights that others published, prints a table per run, and writes a report (one HTML file) or JSON.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.registry import ANALYSES, analysis, analysis_modules, conclude, why_not
from interp.report.examined import Report, headline, of_data
from tasks.base import UserError
from tasks.models.config import Layout
from tasks.terminal import mistakes_in_one_line

if TYPE_CHECKING:
    from interp.subject import Subject

CHECKPOINTS = Path("checkpoints")
_FOR_TESTS = "tiny"
_OF_A_SUBJECT = ", ".join(name for name, line in ANALYSES.items() if line.takes == "subject")
_ONLY = (
    "Analyses to run, separated by commas; without it, all that apply but those that run on request alone. "
    f"There are {_OF_A_SUBJECT}."
)


def examine(subject: "Subject", analyses: Sequence[str | ModuleType] | None = None) -> Report:
    """What the analyses find about a subject, and the verdict.

    Args:
        subject: one model with its task.
        analyses: names from ``interp.registry`` or modules of one's own with ``analyze(subject)``; ``None``: all that
            apply without being asked for.

    Raises:
        UserError: an unknown analysis.
    """
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
        performance=of_data(subject.performance),
        control_performance=of_data(subject.randomized(0).performance),
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
    only: Annotated[str | None, tyro.conf.arg(help=_ONLY)] = None
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
        for name in names or []:
            analysis(name)  # refuses what it does not know, before anything is computed
        if names == []:
            raise UserError(f"expected analyses among {_OF_A_SUBJECT} after --only, got none")
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
    with mistakes_in_one_line():
        tyro.cli(Probe, prog="python -m interp.probe", args=arguments)()


if __name__ == "__main__":
    main()
