"""What can be told of a run's end from its snapshots; ``interp.sweeps.foresight`` makes it of a table of snapshots."""

from dataclasses import dataclass
from typing import Literal

from interp.result import Result
from interp.statistics import Interval
from interp.sweeps.foresight_scores import Gain, Model, Permuted, Score, Timing
from tasks.base import UserError

Among = Literal["all", "memorised"]

LOSS, CELL = "train loss", "hyper-parameters"
WEIGHTS, RULE = "weights", "weights, rule known"
BASE = "hyper-parameters and train loss"
ALL, ALL_RULE = f"{BASE}, weights", f"{BASE}, weights, rule known"
COMPARED = ((WEIGHTS, LOSS), (RULE, LOSS), (WEIGHTS, CELL), (ALL, BASE), (ALL_RULE, ALL))
"""Whose gain over what is reported."""
LEAST = 5
"""Runs of either label below which a step is not scored."""
LEAST_TIMED = 10
"""Runs that generalise later below which the number of steps is not predicted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment(Result):
    """What can be told at one step.

    Attributes:
        n_runs, n_cells, n_later: scored, and how many of them generalise later.
        n_generalised, n_unfitted, n_missing: left out: have generalised, have not memorised (where that is asked for),
            have no snapshot at the step.
        brier_of_share: the Brier score of calling every run by the share of those that will; scores above it say less
            than nothing.
        scores, gains, permuted: empty where fewer than ``LEAST`` runs have either label.
        timings: empty where fewer than ten runs generalise later, or those of fewer than two cells.
        importances: model → feature → how much of the AUC of all features together is lost where this one is permuted
            among held-out runs. Features that say the same share it.
    """

    step: int
    n_runs: int
    n_cells: int
    n_later: int
    n_generalised: int
    n_unfitted: int
    n_missing: int
    brier_of_share: float
    scores: tuple[Score, ...]
    gains: tuple[Gain, ...]
    permuted: tuple[Permuted, ...]
    timings: tuple[Timing, ...]
    importances: dict[str, dict[str, Interval]]

    def score(self, features: str, model: Model = "boosting") -> Score:
        """The score of a set of features.

        Raises:
            UserError: the step was not scored, or no such set.
        """
        for found in self.scores:
            if (found.features, found.model) == (features, model):
                return found
        raise UserError(f"expected a set scored at step {self.step}, got {features!r} with {model}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ForesightResult(Result):
    """What ``analyze`` finds: the features of each set, the runs, and a ``Moment`` per step.

    ``memorised_by``: the first step at which half of all runs are right on .99 of the training set, which figures show
    where one step must be chosen; ``None``: there is none.
    """

    feature_sets: dict[str, tuple[str, ...]]
    models: tuple[Model, ...]
    among: Among
    n_runs: int
    n_cells: int
    n_never: int
    memorised_by: int | None
    moments: tuple[Moment, ...]

    def at(self, step: int) -> Moment:
        """The moment of this step.

        Raises:
            UserError: there is none.
        """
        for moment in self.moments:
            if moment.step == step:
                return moment
        raise UserError(f"expected a step among {', '.join(str(m.step) for m in self.moments)}, got {step}")
