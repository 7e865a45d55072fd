"""Train shipped checkpoints again with their recorded commands and compare: ``python -P tests/retrain.py FOLDER``.

Every run folder at FOLDER or below is trained again in a temporary folder by the command in its ``config.json``. On the
machine and library versions it was made with, the weights come out the same to the bit; elsewhere rounding grows over
thousands of steps, and what must agree is the verdict. Exit status 1 if one does not.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from interp import Subject
from interp.probe import examine
from tasks.base import UserError
from tasks.training import Run


def command_of(run: Run) -> list[str]:
    """The recorded command, without its --out.

    Raises:
        UserError: none was recorded.
    """
    if run.config.command is None:
        raise UserError(f"expected a command in {run.path / 'config.json'}, it has none")
    words = shlex.split(run.config.command)
    at = words.index("--out")
    return [sys.executable, *words[1:at], *words[at + 2 :]]


def compare(shipped: Run, again: Run) -> tuple[bool, str]:
    """Whether the two runs end in the same verdict, and what to print about them."""
    ours, theirs = shipped.params(), again.params()
    same_bits = all(bool((ours[name] == theirs[name]).all()) for name in ours)
    verdicts = [examine(Subject.load(run)).verdict.solution for run in (shipped, again)]
    bits = "the same bits" if same_bits else "other bits"
    return verdicts[0] == verdicts[1], f"{shipped.path}: {bits}; shipped {verdicts[0]}, trained again {verdicts[1]}"


def main(folder: Path) -> int:
    """Train every run below the folder again; the number of runs whose verdict changed."""
    runs: dict[tuple[str, ...], list[Run]] = {}
    for config in sorted(folder.rglob("config.json")):
        run = Run.load(config.parent)
        runs.setdefault(tuple(command_of(run)), []).append(run)
    if not runs:
        raise UserError(f"expected run folders below {folder}, found none")
    changed = 0
    for command, shipped in runs.items():
        with tempfile.TemporaryDirectory() as temporary:
            subprocess.run([*command, "--out", temporary, "--quiet"], check=True)
            for run in shipped:
                inside = Path(temporary) / run.path.name
                same, line = compare(run, Run.load(inside if inside.is_dir() else Path(temporary)))
                changed += not same
                print(line, flush=True)
    return changed


if __name__ == "__main__":
    try:
        sys.exit(1 if main(Path(sys.argv[1] if len(sys.argv) > 1 else "checkpoints")) else 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
