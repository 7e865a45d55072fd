"""The table of a sweep's results, one row per cell, rebuilt from the folders whenever it is asked for."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base import UserError, as_lists
from tasks.sweep.grid import Cell, SweepSpec, rank
from tasks.training.run import SCHEMA_VERSION, is_final, read_metrics
from tasks.training.snapshots import write_atomically

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_RESULTS = ("path", "seconds", "host")
"""Columns that say how and where a result was come by."""


def write_plan(out: Path, spec: SweepSpec, cells: Sequence[Cell]) -> dict[str, Any]:
    """What ``spec.json`` now holds: the specification, its axes, and every cell by its key.

    Raises:
        UserError: ``out`` has the plan of another sweep, one with cells that are not among these.
    """
    described = [
        {"key": cell.key, "seed": cell.seed, "coordinates": {k: as_lists(v) for k, v in cell.coordinates.items()}}
        for cell in cells
    ]
    plan = {"schema_version": SCHEMA_VERSION, "spec": spec.to_dict(), "axes": spec.names, "cells": described}
    if (out / "spec.json").is_file():
        there = {cell["key"] for cell in _plan(out)["cells"]}
        if lost := there - {cell.key for cell in cells}:
            raise UserError(
                f"expected the sweep of {out} or a wider one, {len(lost)} of its {len(there)} cells are not in this "
                "one: choose another folder"
            )
    write_atomically(out / "spec.json", (json.dumps(plan, indent=1) + "\n").encode())
    return plan


def table(out: str | Path, plan: Mapping[str, Any] | None = None) -> "DataFrame":
    """One row per finished or failed cell, ordered by the axes and the seed; also written to ``out/table.parquet``.

    Columns: ``key``, ``path`` (from ``out``), ``seed``; each axis under its dotted name; each metric of the last
    evaluation; ``max_…`` of each accuracy and each share of answers, over all evaluations; ``last_step``; ``seconds``
    of training since the last interruption, divided by the cells trained together; ``host``; ``error``, null where the
    cell is finished. A failed cell has no metrics. ``seconds`` and ``host`` are null where a cell ended early and the
    command was killed before the rest of its stack had ended.

    An axis holds numbers where all of its values are numbers, or lists of one number (``model.d_hidden``). Otherwise it
    holds text: names as they are, everything else as JSON, such as ``[16, 16]``, or ``null`` for ``None``.

    Args:
        out: folder of the sweep.
        plan: what ``write_plan`` gave: only the rows of its cells. The file has those of the widest sweep in ``out``.

    Raises:
        UserError: no sweep in ``out``.
    """
    out = Path(out)
    widest = _plan(out)
    frame = _frame(out, widest)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_atomically(out / "table.parquet", buffer.getvalue())
    return frame if plan is None or plan["cells"] == widest["cells"] else _frame(out, plan)


def _plan(out: Path) -> dict[str, Any]:
    try:
        plan = json.loads((out / "spec.json").read_text())
        return {"axes": plan["axes"], "cells": plan["cells"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"expected the spec.json of a sweep in {out}: give a folder that a sweep wrote") from error


def _frame(out: Path, plan: Mapping[str, Any]) -> "DataFrame":
    import pandas as pd

    axes = {axis: _column([cell["coordinates"][axis] for cell in plan["cells"]]) for axis in plan["axes"]}
    rows = [
        row | {axis: values[at] for axis, values in axes.items()}
        for at, cell in enumerate(plan["cells"])
        if (row := _row(out, cell)) is not None
    ]
    rows.sort(key=lambda row: (*(rank(row[axis]) for axis in axes), row["seed"]))
    first, last = ["key", "path", "seed", *axes], ["last_step", "seconds", "host", "error"]
    measured = dict.fromkeys(name for row in rows for name in row if name not in (*first, *last))
    frame = pd.DataFrame(rows, columns=pd.Index([*first, *measured, *last]))
    # "str" is another type in pandas 2, where it makes the text "None" of what is null
    kinds = {"seed": "int64", "last_step": "Int64", "seconds": "float64", "host": "string", "error": "string"}
    return frame.astype(kinds)


def _column(values: Sequence[Any]) -> list[Any]:
    """An axis as the table holds it, from all cells of the plan: what has ended yet changes no type."""
    lone = all(isinstance(value, list) and len(value) == 1 for value in values)
    numbers = [value[0] for value in values] if lone else list(values)
    if all(isinstance(number, int | float) for number in numbers):
        return numbers
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _row(out: Path, cell: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of a cell that has ended."""
    path = Path("cells", cell["key"])
    record = out / path / "cell.json"
    how = json.loads(record.read_text()) if record.is_file() else {"seconds": None, "host": None, "error": None}
    metrics = read_metrics(out / path)
    row = {"key": cell["key"], "path": str(path), "seed": cell["seed"]}
    if is_final(metrics):
        return row | _results(metrics) | {"seconds": how["seconds"], "host": how["host"], "error": None}
    return row | {"host": how["host"], "error": how["error"]} if how["error"] else None


def _results(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = {name: value for name, value in metrics[-1].items() if name not in ("step", "final")}
    sets = tuple(name.removesuffix("accuracy") for name in last if name.endswith("_accuracy"))
    shares = [name for name in last if name.startswith(sets) and not name.endswith("_loss")] if sets else []
    largest = {
        f"max_{name}": max((row[name] for row in metrics if row[name] is not None), default=None) for name in shares
    }
    return last | largest | {"last_step": metrics[-1]["step"]}
