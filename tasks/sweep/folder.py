"""A sweep's folder: how each cell ended, whose locks are held, and what an interrupted stack goes on from.

``OUT/cells/KEY`` is a run folder, finished when its training is, with ``cell.json`` beside the rest: how long it took,
where, and the error of a cell that failed. ``OUT/stacks/NAME.safetensors`` are resume files, ``OUT/locks`` the locks.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tasks.base import UserError
from tasks.sweep.grid import Cell, stack_name

_TAIL = 2**16  # bytes, more than a line of metrics has


def state(out: Path, cell: Cell) -> Literal["finished", "failed"] | None:
    """How a cell ended; ``None``: it has not yet. Of its metrics only the end is read."""
    folder = out / "cells" / cell.key
    with suppress(OSError, ValueError, IndexError), open(folder / "metrics.jsonl", "rb") as metrics:
        metrics.seek(max(0, metrics.seek(0, os.SEEK_END) - _TAIL))
        if json.loads(metrics.read().splitlines()[-1]).get("final", False):
            return "finished"
    return "failed" if (folder / "cell.json").is_file() else None


def check_finished(out: Path, cells: Sequence[Cell]) -> None:
    """Compare finished cells with what was trained in their folders: a key says nothing of fields at their defaults.

    Raises:
        UserError: one was trained otherwise. A field that its version did not have yet counts as equal.
    """
    from tasks.registry import model_config_to_dict, task_to_dict

    for cell in cells:
        folder = out / "cells" / cell.key
        expected = {
            "task": task_to_dict(cell.task),
            "model": model_config_to_dict(cell.model),
            "init": cell.init.to_dict(),
            "training": cell.training.to_dict(),
        }
        try:
            found = json.loads((folder / "config.json").read_text())
            pairs = [
                (f"{part}.{name}", value, values.get(name))
                for part, values in json.loads(json.dumps(expected)).items()
                for name, value in found[part].items()
            ]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"expected the config.json of a run in {folder}: delete it to train it again") from error
        for name, trained, now in pairs:
            if trained != now:
                raise UserError(
                    f"expected {name} = {now!r} in {folder}, it was trained with {trained!r}, the default of its "
                    "version: choose another folder"
                )


def record(out: Path, cell: Cell, **how: Any) -> None:
    """Write ``cell.json``."""
    from tasks.training.snapshots import write_atomically

    folder = out / "cells" / cell.key
    folder.mkdir(exist_ok=True)
    text = json.dumps({"seconds": None, "host": socket.gethostname(), "error": None, **how}, indent=1) + "\n"
    write_atomically(folder / "cell.json", text.encode())


def forget_failures(out: Path, cells: Sequence[Cell]) -> None:
    """Let cells that failed be trained again, those aside that another command is at."""
    for cell in cells:
        if state(out, cell) == "failed":
            with locks(out, [cell]) as mine:
                if mine and state(out, cell) == "failed":
                    (out / "cells" / cell.key / "cell.json").unlink()


def tidy(out: Path, finished: Sequence[Cell]) -> None:
    """Write the ``cell.json`` of cells that ended before the others of a stack that was killed, and delete the resume
    files of which every cell is finished. Cells that failed, and those of a wider sweep, may yet go on from theirs."""
    for cell in finished:
        if not (out / "cells" / cell.key / "cell.json").is_file():
            with locks(out, [cell]) as mine:  # where they are another command's, it will write the file
                if mine:
                    record(out, cell, host=None)
    keys = {cell.key for cell in finished}
    for file in (out / "stacks").glob("*.safetensors"):
        if keys.issuperset(_place(file)["runs"]):
            file.unlink(missing_ok=True)


def resume_file(out: Path, cells: Sequence[Cell]) -> Path:
    """What the training of these cells together goes on from."""
    return out / "stacks" / f"{stack_name(cells)}.safetensors"


def take_out(out: Path, stack: Sequence[Cell], unfinished: Sequence[Cell]) -> None:
    """Make the resume file of a stack that has none from the one, of another stack, that has most of its cells: of one
    that was taken apart, or that was composed otherwise when it was interrupted. The other cells begin anew."""
    from tasks.training.snapshots import read_tensors, write_tensors

    own, keys = resume_file(out, stack), {cell.key for cell in unfinished}
    if own.is_file() or not any((out / "cells" / key / "metrics.jsonl").is_file() for key in keys):
        return
    places = {file: _place(file) for file in (out / "stacks").glob("*.safetensors")}
    shared = {file: [key for key in place["runs"] if key in keys] for file, place in places.items()}
    most = max(shared, key=lambda file: (len(shared[file]), places[file]["step"]), default=None)
    if most is not None and shared[most]:
        tensors, place = read_tensors(most)
        rows = [place["runs"].index(key) for key in shared[most]]
        write_tensors(own, {name: tensor[rows] for name, tensor in tensors.items()}, place | {"runs": shared[most]})


def _place(file: Path) -> dict[str, Any]:
    """The step and the runs of a resume file, without its tensors; no runs where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return json.loads(opened.metadata()["metadata"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {"step": 0, "runs": []}


@contextmanager
def locks(out: Path, cells: Sequence[Cell]) -> Iterator[bool]:
    """Whether all locks of these cells were free; they are held while the block runs."""
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        try:
            for key in sorted(cell.key for cell in cells):
                held.enter_context(FileLock(out / "locks" / key, blocking=False))
        except Timeout:
            held.close()
            yield False
        else:
            yield True
