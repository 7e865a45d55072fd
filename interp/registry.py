"""Every analysis and every verdict, a line each: where it lives, and what it applies to.

What reads it: ``python -m interp.probe`` and its help, ``interp``'s public names, the sweeps' tables and the tests. A
new analysis is one line here and its file.

Packages of others join by entry points: an ``Analysis`` in the group ``rulelens.analyses``, a module in the group
``rulelens.verdicts`` under the name of its task family. These are read only when a name is unknown or all names are
listed, so that start-up stays quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.base import UserError

if TYPE_CHECKING:
    from interp.subject import Subject
    from interp.verdict import Verdict

ANY: tuple[str, ...] = ("any",)
"""Of every task family."""
TAKES: dict[str, str] = {
    "subject": "one model at one step: interp.subject.Subject",
    "trajectory": "one run over its steps: interp.subject.Trajectory",
    "pair of ensembles": "two groups of runs that differ in the seed: interp.subject.Ensemble",
    "table": "the runs of a sweep: tasks.sweep.table.table",
}
"""What an analysis can be made of, and what that is."""


@dataclass(frozen=True)
class Analysis:
    """One analysis: a module with ``analyze(x) -> Result`` and, where it draws, ``figures(result)``.

    Attributes:
        module: its dotted name.
        tasks: families it applies to, or ``ANY``.
        on_request: families of which it runs only where it is named: it is slow, trains, or repeats another.
        takes: what ``analyze`` is given, a name of ``TAKES``.

    Raises:
        UserError: another name.
    """

    module: str
    tasks: tuple[str, ...] = field(default=ANY, kw_only=True)
    on_request: tuple[str, ...] = field(default=(), kw_only=True)
    takes: str = field(default="subject", kw_only=True)

    def __post_init__(self) -> None:
        if self.takes not in TAKES:
            raise UserError(f"expected takes among {', '.join(TAKES)}, got {self.takes!r}")

    def applies(self, family: str) -> bool:
        """Whether it is one of such tasks."""
        return self.tasks == ANY or family in self.tasks


_MODULAR, _ANCHOR, _PARITY = ("modular",), ("anchor",), ("parity",)
_TABLES = ("group", "modular")

ANALYSES: dict[str, Analysis] = {
    "fourier": Analysis("interp.modular.fourier", tasks=_MODULAR),
    "progress": Analysis("interp.modular.progress", tasks=_MODULAR),
    "representation": Analysis("interp.group.representation", tasks=_TABLES, on_request=_MODULAR),
    "clock_pizza": Analysis("interp.modular.clock_pizza", tasks=_MODULAR, on_request=_MODULAR),
    "neuron_waves": Analysis("interp.modular.neuron_waves", tasks=_MODULAR),
    "counterfactual": Analysis("interp.anchor.counterfactual", tasks=_ANCHOR),
    "interchange": Analysis("interp.anchor.interchange", tasks=_ANCHOR),
    "relabelling": Analysis("interp.anchor.relabelling", tasks=_ANCHOR, on_request=_ANCHOR),
    "attention": Analysis("interp.anchor.attention", tasks=_ANCHOR),
    "circuits": Analysis("interp.anchor.circuits", tasks=_ANCHOR),
    "geometry": Analysis("interp.anchor.geometry", tasks=_ANCHOR),
    "parity": Analysis("interp.sparse_parity.parity", tasks=_PARITY),
    "condensation": Analysis("interp.weights.condensation"),
    "rank": Analysis("interp.weights.rank"),
    "collapse": Analysis("interp.weights.collapse", tasks=_TABLES),
    "grokking": Analysis("interp.modular.grokking", tasks=_MODULAR, takes="trajectory"),
    "parity_dynamics": Analysis("interp.sparse_parity.parity_dynamics", tasks=_PARITY, takes="trajectory"),
    "dynamics": Analysis("interp.weights.dynamics", takes="trajectory"),
    "directions": Analysis("interp.weights.directions", takes="trajectory"),
    "laziness": Analysis("interp.weights.laziness", takes="trajectory"),
    "contrast": Analysis("interp.sweeps.contrast", takes="pair of ensembles"),
    "phases": Analysis("interp.sweeps.phases", takes="table"),
    "small_multiples": Analysis("interp.sweeps.small_multiples", takes="table"),
    "foresight": Analysis("interp.sweeps.foresight", tasks=_PARITY, takes="table"),
}
"""Name → analysis, in the order in which a report has them."""

MEASURES = {
    "restricted": "interp.modular.restricted",
    "weight_measures": "interp.sparse_parity.weight_measures",
}
"""Public modules of measures that are no analyses of their own."""
VERDICTS: dict[str, str] = {
    "anchor": "interp.anchor.verdict",
    "modular": "interp.modular.verdict",
    "parity": "interp.sparse_parity.verdict",
}
"""Task family → the module with its solutions, its rule and ``verdict(subject, results)``."""
GENERIC_VERDICT = "interp.verdict"
"""That of every other family."""


def analyses() -> dict[str, Analysis]:
    """Every analysis, those of other packages last."""
    return ANALYSES | {name: line for name, line in _joined("rulelens.analyses").items() if isinstance(line, Analysis)}


def analysis(name: str) -> Analysis:
    """The analysis of this name.

    Raises:
        UserError: there is none.
    """
    if name in ANALYSES:
        return ANALYSES[name]
    known = analyses()
    if name not in known:
        subjects = [other for other, line in known.items() if line.takes == "subject"]
        raise UserError(f"expected analyses among {', '.join(subjects)}, got {name!r}")
    return known[name]


def why_not(name: str, family: str) -> str:
    """What is said where an analysis does not apply to a family."""
    return f"it applies to {' and '.join(analysis(name).tasks)}, not to {family}"


def takes(module: ModuleType) -> str:
    """What a module's analysis is made of; where it is not registered, what its ``TAKES`` says, or a subject."""
    for line in ANALYSES.values():
        if line.module == module.__name__:
            return line.takes
    return getattr(module, "TAKES", "subject")


def analysis_modules(names: Sequence[str | ModuleType] | None, family: str) -> dict[str, ModuleType]:
    """The analyses of a subject that are named; where none are, all that apply to the family without being asked for.

    Raises:
        UserError: an unknown name, an analysis of anything else than a subject, a module that keeps not to the
            contract.
    """
    if names is None:
        names = [
            name
            for name, line in analyses().items()
            if line.takes == "subject" and line.applies(family) and family not in line.on_request
        ]
    modules: dict[str, ModuleType] = {}
    for name in names:
        if isinstance(name, ModuleType):
            modules[name.__name__.rsplit(".", 1)[-1]] = _checked(name)
        elif analysis(name).applies(family):
            modules[name] = _checked(import_module(analysis(name).module))
    return modules


def _checked(module: ModuleType) -> ModuleType:
    if not callable(getattr(module, "analyze", None)):
        raise UserError(f"expected a module with a function analyze(subject), {module.__name__} has none")
    if (made_of := takes(module)) != "subject":
        raise UserError(f"expected an analysis of a subject, {module.__name__} takes a {made_of}: call its analyze")
    return module


def verdict_module(family: str) -> ModuleType:
    """The module that concludes for a task family: its own, one of another package, or the generic one."""
    if family in VERDICTS:
        return import_module(VERDICTS[family])
    joined = _joined("rulelens.verdicts").get(family)
    return joined if isinstance(joined, ModuleType) else import_module(GENERIC_VERDICT)


def conclude(subject: "Subject", results: Mapping[str, Any]) -> "Verdict":
    """The verdict of the subject's task family, from what its analyses found."""
    return verdict_module(subject.task.family).verdict(subject, results)


@cache
def _joined(group: str) -> dict[str, object]:
    """Name → what other packages registered under an entry point of this group.

    Raises:
        UserError: one cannot be loaded.
    """
    joined: dict[str, object] = {}
    for point in entry_points(group=group):
        try:
            joined[point.name] = point.load()
        except Exception as error:
            raise UserError(f"expected {point.value} of the entry point {point.name}: {error}") from error
    return joined
