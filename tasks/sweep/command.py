"""``python -m tasks sweep``: train every cell of a grid, and again where it was interrupted."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tasks.base import UserError
from tasks.sweep.engines import EngineName
from tasks.sweep.grid import SweepSpec
from tasks.sweep.ready import READY
from tasks.terminal import progress_bar

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

        with _cells_shown(self.quiet) as show:
            results = run_sweep(
                find(self.spec),
                self.out,
                engine=self.engine,
                n_jobs=self.jobs,
                scheduler=self.scheduler,
                device=self.device,
                retry_failed=self.retry_failed,
                command=shlex.join(["python", "-m", "tasks", *sys.argv[1:]]),
                on_progress=show,
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


@contextmanager
def _cells_shown(quiet: bool) -> Iterator[Callable[[int, int, int], None]]:
    """One bar over the cells: their rate, the time left, and how many failed."""
    with progress_bar(quiet=quiet, whole_rate=True) as bar:
        begun: list[tuple[float, int]] = []

        def show(finished: int, failed: int, cells: int) -> None:
            ended = finished + failed
            if not begun:  # cells that an earlier command finished count as done, not towards the rate
                begun.append((time.monotonic(), ended))
                bar.add_task("", total=cells, completed=ended)
            since, before = begun[0]
            minutes = (time.monotonic() - since) / 60
            rate = f"{(ended - before) / minutes:.3g} cells a minute, " if ended > before else ""
            bar.update(bar.task_ids[0], completed=ended, description=f"{rate}{failed} failed")

        yield show
