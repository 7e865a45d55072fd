"""Whether a run will generalise, and when, told from its weights before it does.

At a step t every run that has not generalised yet either will by the end of training or will not. Which, is predicted
from measures of its snapshot (``interp.sparse_parity.weight_measures``), by logistic regression and by boosted trees,
for cells of the sweep that were not fitted. How many more steps it takes, is predicted for those that will.

* Beside the weights stand the train loss, the hyper-parameters, and both: a measure that only tells which cell a run is
  of adds nothing to them (``gains``). ``auc_within`` compares runs of one cell alone, equal but for the seed: there the
  hyper-parameters give 1/2.
* Measures that know which bits are relevant are sets of their own, ``… rule known``: nobody who waits for a model to
  generalise has them.
* Nothing that is predicted from has seen the test set. Intervals resample cells.
* Controls: labels permuted over all runs (1/2), and within each cell, which leaves what the cell alone tells.

``foresight.analyze(foresight.snapshots(table, out))``
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Int

from interp.sweeps.cells import AXES, axis
from interp.sweeps.foresight_record import (
    ALL,
    ALL_RULE,
    BASE,
    CELL,
    COMPARED,
    LEAST,
    LEAST_TIMED,
    LOSS,
    RULE,
    WEIGHTS,
    Among,
    ForesightResult,
    Moment,
)
from interp.sweeps.foresight_scores import MODELS, Model, Told, tell, time_left
from interp.thresholds import FITTED
from tasks.base import UserError
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

_MADE_OF: dict[str, tuple[str | tuple[str, ...], ...]] = {
    LOSS: ("train.",),
    CELL: (AXES,),
    WEIGHTS: ("weights.",),
    RULE: ("weights.", "rule."),
    BASE: (AXES, "train."),
    ALL: (AXES, "train.", "weights."),
    ALL_RULE: (AXES, "train.", "weights.", "rule."),
}
"""Prefixes of the columns in a set, which is there if it has some of each."""


@ordinary_torch()
def analyze(
    frame: DataFrame,
    *,
    steps: Sequence[int] | None = None,
    among: Among = "all",
    models: Sequence[Model] = MODELS,
    n_permutations: int = 20,
    seed: int = 0,
) -> ForesightResult:
    """What each step's snapshots tell of the rest of training.

    Args:
        frame: one row per run and snapshot with the columns of ``interp.sweeps.snapshots``. More
        measures of
            one's own may stand under ``weights.…`` and ``rule.…``.
        steps: at which to predict; ``None``: all but the last.
        among: ``all``: every run that has not generalised; ``memorised``: of these the ones that are right on .99 of
            the training set, so that telling who fits at all is no help.
        models: to predict by.
        n_permutations: of the labels; 0 leaves that control out.
        seed: of folds, trees, permutations and resampling.

    Raises:
        UserError: a column is missing, a step without snapshots, a run with two rows of one step.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    needed = ("path", "seed", "step", "generalised", "train_accuracy")
    if missing := [name for name in needed if name not in frame]:
        raise UserError(f"expected the columns of foresight.snapshots, {', '.join(missing)} is missing")
    if frame.duplicated(["path", "step"]).any():
        raise UserError("expected one row per run and step, a run has two of one step")
    there = sorted(set(frame["step"].tolist()))
    chosen = there[:-1] if steps is None else sorted(steps)
    if absent := sorted(set(chosen) - set(there)):
        raise UserError(f"expected steps with snapshots, {absent[0]} has none: there are {', '.join(map(str, there))}")
    if among not in get_args(Among) or not models or set(models) - set(MODELS):
        raise UserError(f"expected among {' or '.join(get_args(Among))} and models of {MODELS}, got {among}, {models}")
    features, sets, cell = _features(frame)
    control = ALL if ALL in sets else [*sets][-1]
    runs = frame.groupby("path")["generalised"].first()
    accuracy = {step: frame.loc[frame["step"] == step, "train_accuracy"] for step in there}
    how: dict[str, Any] = {"models": models, "seed": seed}
    generalised = frame["generalised"].to_numpy(dtype=float)
    unfitted = ~(frame["train_accuracy"].to_numpy(dtype=float) >= FITTED)

    def moment(step: int) -> Moment:
        here = frame["step"].to_numpy() == step
        waiting = here & (generalised > step)
        kept = waiting & ~unfitted if among == "memorised" else waiting
        when, groups, later = generalised[kept], _numbered(cell[kept]), np.isfinite(generalised[kept])
        X = {name: features[name].to_numpy()[kept] for name in features}
        n, n_later, n_cells = len(later), int(later.sum()), len(set(groups.tolist()))
        told, timings = Told(), ()
        if min(n_later, n - n_later) >= LEAST and n_cells > 1:
            told = tell(
                X, later, groups, sets, compared=COMPARED, control=control, n_permutations=n_permutations, **how
            )
        of = _numbered(groups[later])
        if n_later >= LEAST_TIMED and len(set(of.tolist())) > 1:
            timings = time_left({k: v[later] for k, v in X.items()}, when[later] - step, of, sets, **how)
        return Moment(
            step=step,
            n_runs=n,
            n_cells=n_cells,
            n_later=n_later,
            n_generalised=int((here & ~waiting).sum()),
            n_unfitted=int((waiting & ~kept).sum()),
            n_missing=len(runs) - int(here.sum()),
            brier_of_share=n_later * (n - n_later) / n**2 if n else math.nan,
            scores=told.scores,
            gains=told.gains,
            permuted=told.permuted,
            timings=timings,
            importances={model: dict(found) for model, found in told.importances.items()},
        )

    with threadpool_limits(1):  # fits are small: threads that wait for each other take most of the time
        moments = tuple(moment(step) for step in chosen)
    return ForesightResult(
        feature_sets={name: tuple(columns) for name, columns in sets.items()},
        models=tuple(models),
        among=among,
        n_runs=len(runs),
        n_cells=len(set(cell.tolist())),
        n_never=int(np.isinf(runs).sum()),
        memorised_by=next((step for step in there if (accuracy[step] >= FITTED).mean() >= 0.5), None),
        moments=moments,
    )


def figures(result: ForesightResult, step: int | None = None) -> dict[str, "go.Figure"]:
    """``auc``: against the step, by sets of features; ``auc within cells``; ``steps left``: predicted against true;
    ``importances``. The last two are of one step; ``None``: when half of the runs have memorised."""
    from interp.sweeps import foresight_figures as drawn

    return drawn.all_figures(result, step)


def _features(frame: DataFrame) -> tuple[DataFrame, dict[str, list[str]], Int[np.ndarray, " row"]]:
    """The columns to predict from, axes on their scale; the sets that have any; and the number of each row's cell."""
    names = [name for name in frame if name.startswith(AXES) and len(set(frame[name])) > 1]
    values = {}
    for name in names:
        at = axis(frame, name)
        place = dict(zip(at.values, at.coordinates.tolist(), strict=True))
        values[name] = [place[value] for value in frame[name]]
    settings = list(zip(*(frame[name] for name in names), strict=True)) or [()] * len(frame)
    numbers = {setting: i for i, setting in enumerate(dict.fromkeys(settings))}
    measures = [name for name in frame if name.startswith(("train.", "weights.", "rule."))]
    features = frame[measures].astype(float).assign(**values)
    sets = {}
    for name, made_of in _MADE_OF.items():
        parts = [[f for f in features if f.startswith(of)] for of in made_of]
        if all(parts):
            sets[name] = [f for f in features if any(f in part for part in parts)]
    return features, sets, np.array([numbers[setting] for setting in settings])


def _numbered(values: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """The values as 0, 1, 2, … in their order."""
    return np.unique(values, return_inverse=True)[1]
