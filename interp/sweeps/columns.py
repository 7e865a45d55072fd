"""Numbers of analyses as columns of a sweep's table, computed from the run folders and kept beside them.

Each cell's folder gets a file ``analyses.json``: name of an analysis → what it looked at, and the scalar fields of its
result, or why it was refused. An entry counts while the last snapshot has the same step, size and time of writing and
the result the same fields; anything else is computed again. A changed algorithm with unchanged fields is not noticed:
``fresh=True``.

Training goes by ``config.json``, metrics and snapshots alone and leaves the file as it is.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from interp.registry import analysis, analysis_modules, why_not
from interp.subject import Subject
from interp.sweeps.cells import succeeded
from tasks.base import UserError
from tasks.training.run import Run
from tasks.training.snapshots import write_atomically

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

CACHE = "analyses.json"
Scalar = bool | int | float | str


def with_analyses(
    table: DataFrame, out: str | Path, names: str | Sequence[str | ModuleType], *, fresh: bool = False
) -> DataFrame:
    """The table with a column ``<analysis>.<field>`` for every scalar field of each analysis' result.

    Args:
        table: a sweep's, with ``path`` relative to ``out``.
        out: the sweep's folder.
        names: one analysis that ``interp.probe`` knows, or several; modules with ``analyze(subject) -> Result``, too.
        fresh: compute again what is kept.

    A cell that failed, or has no snapshot yet, has NaN in every column, and so has one to which an analysis cannot be
    applied.

    Raises:
        UserError: an unknown analysis, or one that can be applied to no cell that has a snapshot.
    """
    names = [names] if isinstance(names, str) else names
    for name in names:
        if isinstance(name, str):
            analysis(name)  # refuses what it does not know
    found = [
        _entries(Path(out) / path, names, fresh) if fine else {}
        for path, fine in zip(table["path"], succeeded(table), strict=True)
    ]
    for name in dict.fromkeys(name for entries in found for name in entries):
        refusals = [entries[name].get("refused") for entries in found if name in entries]
        if all(refusals):
            raise UserError(f"expected an analysis of the table's runs, {name} is of none: {refusals[0]}")
    rows = list(map(_scalars, found))
    columns = dict.fromkeys(column for row in rows for column in row)
    return table.assign(**{column: [row.get(column, math.nan) for row in rows] for column in columns})


def _scalars(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Scalar]:
    return {
        f"{name}.{field}": math.nan if value is None else value
        for name, entry in entries.items()
        for field, value in entry["fields"].items()
    }


def _entries(path: Path, names: Sequence[str | ModuleType], fresh: bool) -> dict[str, dict[str, Any]]:
    """Name of an analysis → ``fields``, or none and why it was ``refused``."""
    if not (path / "config.json").is_file() or not (run := Run.load(path)).steps:
        return {}
    kept = {} if fresh else _read(path / CACHE)
    modules = analysis_modules(names, run.task.family)
    seen = {name: _identity(run, module) for name, module in modules.items()}
    stale = [name for name in modules if kept.get(name, {}).get("of") != seen[name]]
    if stale:
        subject = Subject.load(run)
        for name in stale:
            kept[name] = {"of": seen[name], **_measured(modules[name], subject)}
        write_atomically(path / CACHE, (json.dumps(kept, indent=1, allow_nan=False) + "\n").encode())
    others = [name for name in names if isinstance(name, str) and name not in modules]
    foreign = {name: {"fields": {}, "refused": why_not(name, run.task.family)} for name in others}
    return {name: kept[name] for name in modules} | foreign


def _measured(module: ModuleType, subject: Subject) -> dict[str, Any]:
    """The numbers and names among a result's fields; why there are none where the analysis refuses the subject."""
    try:
        values = module.analyze(subject).to_dict()
    except UserError as error:
        return {"fields": {}, "refused": str(error)}
    return {"fields": {field: value for field, value in values.items() if value is None or isinstance(value, Scalar)}}


def _identity(run: Run, module: ModuleType) -> dict[str, Any]:
    """What an entry depends on, in JSON's types: the last snapshot's file, and the fields of the analysis' result."""
    step = run.resolve("last")
    file = (run.path / "snapshots" / f"step-{step:07d}.safetensors").stat()
    result = module.analyze.__annotations__.get("return")
    if isinstance(result, str):
        result = getattr(module, result, None)
    named = [f"{f.name}: {f.type}" for f in fields(result)] if is_dataclass(result) else []
    return {
        "step": step,
        "size": file.st_size,
        "mtime_ns": file.st_mtime_ns,
        "fields": zlib.crc32(repr(named).encode()),
    }


def _read(file: Path) -> dict[str, Any]:
    """What is kept; nothing where there is no file, or none that can be read."""
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
