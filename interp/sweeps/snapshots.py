"""Measures of a parity sweep's snapshots: a table with one row per run and step, for ``interp.sweeps.foresight``.

* ``weights.…``: read off the weights, the subnetwork also off the training set. They know neither the rule nor any
  test example.
* ``rule.…``: read off the weights by one who knows which bits are relevant.
* ``train.…``: loss and error on the training set at the last evaluation up to the step.
"""

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.registry import MEASURES
from interp.sweeps.cells import AXES, succeeded
from interp.sweeps.regimes import LOSS_FLOOR, transitions
from interp.thresholds import FITTED
from tasks.training.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

_ERROR_FLOOR = 1e-4  # below one wrong answer in any training set here


def snapshots(table: DataFrame, out: str | Path, *, reached: float = FITTED) -> DataFrame:
    """One row per run and snapshot of a sweep: where it stands, the measures, and when the run generalises.

    Columns: ``path``, ``seed``, ``step``, the sweep's axes, the measures under the names above, and two that are no
    features: ``train_accuracy``, and ``generalised``, the first logged step with a test accuracy of ``reached``,
    infinite where there is none. That column alone looks at the test set. Cells that failed are left out.

    Args:
        table: of the sweep, as ``tasks.sweep.table`` gives.
        out: the sweep's folder.
        reached: test accuracy from which a run counts as having generalised.

    Raises:
        UserError: a run of another task or architecture than a sparse parity in an MLP of one hidden layer.
    """
    import pandas as pd

    measures = import_module(MEASURES["weight_measures"])
    names = [name for name in table if name.startswith(AXES)]
    rows = []
    for fine, cell in zip(succeeded(table), table.to_dict("records"), strict=True):
        if not fine:
            continue
        run = Run.load(Path(out) / cell["path"])
        metrics = run.metrics
        kept = {name: cell[name] for name in ("path", "seed", *names)}
        when = {"generalised": transitions(metrics, reached)["test_reached"]}
        for step in run.steps:
            rows.append(kept | {"step": step} | when | _on_train(metrics, step) | measures.of_run(run, step))
    return pd.DataFrame(rows)


def _on_train(metrics: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Loss and accuracy on the training set at the last evaluation up to a step; NaN where there was none."""
    logged = [row for row in metrics if row["step"] <= step]
    last = logged[-1] if logged else {}
    loss, accuracy = (_number(last.get(f"train_{name}")) for name in ("loss", "accuracy"))
    return {
        "train_accuracy": accuracy,
        "train.log_loss": math.log10(loss + LOSS_FLOOR),
        "train.log_error": math.log10(1 - accuracy + _ERROR_FLOOR),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value
