"""``python -m tasks sweep``: train every cell of a grid, and again where it was interrupted."""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tasks.base import UserError
from tasks.sweep.engines import EngineName
from tasks.sweep.grid import SweepSpec
from tasks.sweep.ready import READY

SHOWN_ERRORS = 5


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Train a grid of runs; the same command continues what was interrupted."""

    spec: Annotated[str, tyro.conf.Positional]
    """A .toml file, a .py file that defines SPEC, or the name of a ready sweep."""
    out: Path
    """Folder of the sweep: a run folder per cell, and the table of results."""
    engine: EngineName = "loky"
    """loky: processes on this machine; dask: a cluster; here: this process."""
    jobs: int | None = None
    """Worker processes of loky, one thread each. Default: one per core."""
    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: the workers share the GPUs that there are."""
    retry_failed: bool = False
    """Train cells again that failed before."""
    quiet: bool = False
    """No progress bar."""

    def __call__(self) -> None:
        """Run it; exit status 1 if a cell failed."""
        from tasks.sweep.execute import run_sweep

        with _Progress(self.quiet) as progress:
            results = run_sweep(
                find(self.spec),
                self.out,
                engine=self.engine,
                n_jobs=self.jobs,
                scheduler=self.scheduler,
                device=self.device,
                retry_failed=self.retry_failed,
                command=shlex.join(["python", "-m", "tasks", *sys.argv[1:]]),
                on_progress=progress,
            )
        failed = results[results["error"].notna()]
        print(f"{self.out / 'table.parquet'}: {len(results) - len(failed)} cells finished, {len(failed)} failed")
        for path, error in list(zip(failed["path"], failed["error"], strict=True))[:SHOWN_ERRORS]:
            print(f"{self.out / path}: {error}", file=sys.stderr)
        if len(failed):
            print("--retry-failed trains them again; cell.json has each traceback", file=sys.stderr)
            sys.exit(1)


def find(name: str) -> SweepSpec:
    """The sweep of this name: a file, or one of ``READY``.

    Raises:
        UserError: neither.
    """
    if name in READY:
        return READY[name]
    if name.endswith(".toml"):
        return SweepSpec.from_toml(name)
    if name.endswith(".py"):
        return SweepSpec.from_python(name)
    raise UserError(f"expected a .toml or .py file or a sweep among {', '.join(READY)}, got {name!r}")


class _Progress:
    """One bar over the cells: their rate, the time left, and how many failed."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = TextColumn("{task.description}")
        columns = (BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn(elapsed_when_finished=True))
        # the rate and the time left are of the whole command, not of its last seconds: stacks take minutes
        self.bar = Progress(*columns, disable=quiet, speed_estimate_period=float("inf"))
        self.begun: tuple[float, int] | None = None

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, finished: int, failed: int, cells: int) -> None:
        ended, now = finished + failed, time.monotonic()
        if self.begun is None:
            self.begun = now, ended
            self.bar.add_task("", total=cells, completed=ended)
        since, before = self.begun
        rate = f"{60 * (ended - before) / (now - since):.3g} cells a minute, " if ended > before else ""
        self.bar.update(self.bar.task_ids[0], completed=ended, description=f"{rate}{failed} failed")
