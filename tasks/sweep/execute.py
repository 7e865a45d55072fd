"""Running a sweep: stacks of cells on worker processes, each cell a run folder of its own.

* What is done stands in the folder (``tasks.sweep.folder``) and nowhere else. So anything may be killed at any time,
  and the same command continues.
* A stack trains only while it holds the locks of all its unfinished cells (``OUT/locks``); one whose cells another
  command holds is put off. The system frees the locks of a process that dies.
* Each worker is a loky pool of one process: a worker that dies costs its own stack's last seconds and no other's work.
  A stack whose worker dies again and again without progress in between, and one that fails with an exception, is taken
  apart: its cells train alone, and the one at fault is recorded with its error.
* A worker stops within a second when its parent is gone.

On CPU a cell's result depends neither on its stack nor on engine or interruptions.
"""

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base import UserError
from tasks.sweep.engines import Engine, EngineName, Outcome, workers_of
from tasks.sweep.folder import check_finished, forget_failures, locks, record, resume_file, state, take_out, tidy
from tasks.sweep.grid import Cell, SweepSpec, expense, stack_name, stacks

if TYPE_CHECKING:
    from pandas import DataFrame

OnProgress = Callable[[int, int, int], None]
"""Called with the numbers of finished, failed and all cells."""

MOST_DEATHS = 5
"""Workers that a stack may lose one after the other, with no resume file written in between."""

LOOK_EVERY = 2.0
"""Seconds after which the cells of running stacks are looked at: some may end before the others."""


def run_sweep(
    spec: SweepSpec,
    out: str | Path,
    *,
    engine: EngineName = "loky",
    n_jobs: int | None = None,
    scheduler: Any = None,
    device: str = "cpu",
    retry_failed: bool = False,
    resume_every: float = 10.0,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> "DataFrame":
    """The table of results, one row per cell (``tasks.sweep.table``), once every cell is finished or has failed.

    What stands finished in ``out`` is not trained again, what was interrupted goes on. A wider specification in the
    same folder trains what is new. Where it puts other cells together, a stack goes on from the one resume file that
    has most of its cells, and the others begin anew.

    Args:
        spec: the grid.
        out: folder of the sweep.
        engine: ``loky``: processes on this machine; ``dask``: a cluster; ``here``: this process, for a debugger.
        n_jobs: worker processes of ``loky``, one thread each; ``None``: one per core.
        scheduler: of ``dask``: its address, or a cluster object. Its workers need the same libraries, one thread each
            and ``out`` at the same path. On Slurm::

                from dask_jobqueue import SLURMCluster
                cluster = SLURMCluster(cores=1, processes=1, memory="4GB", walltime="08:00:00")
                cluster.adapt(maximum=200)
                run_sweep(spec, "/shared/sweep", engine="dask", scheduler=cluster)

        device: ``cuda`` spreads the workers of this machine over its GPUs; a worker of ``dask`` takes the first that it
            sees. Results are exact on ``cpu`` only.
        retry_failed: train cells again that failed before.
        resume_every: seconds between the resume files of a stack.
        command: recorded in the run folders.

    Raises:
        UserError: what ``SweepSpec.cells`` refuses, a folder that cannot be written or has another sweep, a finished
            cell whose defaults were others, no scheduler or a lost one.
    """
    from tasks.sweep.table import table, write_plan

    out, cells = Path(out).absolute(), spec.cells()
    if n_jobs is not None and n_jobs < 1:
        raise UserError(f"expected at least one job, got {n_jobs}")
    if device == "cuda" and engine != "dask" and not _gpus():
        raise UserError("expected a GPU for device cuda, torch finds none: leave --device out")
    try:
        for name in ("cells", "locks", "stacks"):
            (out / name).mkdir(parents=True, exist_ok=True)
        plan = write_plan(out, spec, cells)
    except OSError as error:
        raise UserError(f"expected a place for a sweep at {out}: {error.strerror}, choose another --out") from error
    if retry_failed:
        forget_failures(out, cells)
    states = {cell.key: state(out, cell) for cell in cells}
    check_finished(out, [cell for cell in cells if states[cell.key] == "finished"])

    def report(looked_at: Sequence[Cell]) -> None:
        ended = {cell.key: end for cell in looked_at if not states[cell.key] and (end := state(out, cell))}
        states.update(ended)
        if on_progress is not None and (ended or not looked_at):
            ends = list(states.values())
            on_progress(ends.count("finished"), ends.count("failed"), len(ends))

    report([])
    groups = stacks(cells, spec.stack_size)
    if waiting := [group for group in groups if any(states[cell.key] is None for cell in group)]:
        waiting.sort(key=expense, reverse=True)  # what is long begins first, so that no worker waits long for the last
        with closing(workers_of(engine, n_jobs, scheduler)) as workers:
            _work(waiting, workers, {"out": out, "device": device, "command": command}, resume_every, report)
    tidy(out, [cell for cell in cells if states[cell.key] == "finished"])
    return table(out, plan)


def _work(
    groups: Sequence[tuple[Cell, ...]],
    workers: Engine,
    settings: dict[str, Any],
    resume_every: float,
    report: Callable[[Sequence[Cell]], None],
) -> None:
    """Train every group to its end, as many at once as there are workers."""
    out = settings["out"]
    queue = deque(Job(cells=group) for group in groups)
    running: dict[Future[Outcome], Job] = {}
    pause = LOOK_EVERY
    deaths: dict[str, list[int]] = {}  # for each death since the last progress, when the resume file was written
    while queue or running:
        while queue and len(running) < workers.slots:
            job = queue.popleft()
            often = min(resume_every, 1.0) if job.name in deaths else resume_every
            running[workers.submit(train_cells, job=job, resume_every=often, **settings)] = job
        done = wait(running, timeout=pause, return_when=FIRST_COMPLETED).done
        if not done:
            began = time.monotonic()
            report([cell for job in running.values() for cell in job.cells])
            pause = max(LOOK_EVERY, 10 * (time.monotonic() - began))  # thousands of cells take a while to look at
        for future in done:
            job = running.pop(future)
            outcome = workers.outcome(future)
            if outcome == "died":
                file = resume_file(out, job.cells)
                written = file.stat().st_mtime_ns if file.is_file() else 0
                deaths[job.name] = [*(at for at in deaths.get(job.name, ()) if at == written), written]
                if len(deaths[job.name]) < MOST_DEATHS:
                    queue.appendleft(job)
                elif len(job.cells) > 1:
                    outcome = "apart"
                else:
                    with locks(out, job.cells) as mine:
                        for cell in job.cells if mine else ():
                            record(out, cell, error=f"its worker died {MOST_DEATHS} times without progress")
                    if not mine:
                        outcome = "held"
            if outcome == "apart":
                queue.extendleft(Job(cells=(cell,)) for cell in reversed(job.cells))
            if outcome == "held":
                queue.append(job)
            report(job.cells)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Cells to train together: a stack, or one of a stack that was taken apart."""

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """A hash of the cells' keys."""
        return stack_name(self.cells)


def train_cells(
    *,
    job: Job,
    out: Path,
    device: str,
    slot: int = 0,
    parent: int | None = None,
    resume_every: float,
    command: str | None,
) -> Outcome:
    """What became of the cells; runs in a worker."""
    import torch

    from tasks.training.trainer import train

    torch.set_num_threads(1)
    if parent is not None:
        _stop_without(parent)
    with locks(out, [cell for cell in job.cells if state(out, cell) is None]) as mine:
        if not mine:
            time.sleep(1)  # whoever put it off asks again at once
            return "held"
        cells = [cell for cell in job.cells if state(out, cell) is None]  # another command may have ended some
        if not cells:
            return "over"
        started = time.monotonic()
        try:
            take_out(out, job.cells, cells)
            train(
                cells[0].task,
                cells[0].model,
                cells[0].init,
                cells[0].training,
                seeds=[cell.seed for cell in cells],
                per_model=_per_model(cells),
                out=[out / "cells" / cell.key for cell in cells],
                resume_file=resume_file(out, job.cells),
                device=f"cuda:{slot % (_gpus() or 1)}" if device == "cuda" else device,
                command=command,
                resume_every=resume_every,
            )
        except Exception as error:
            if len(cells) > 1:
                return "apart"
            why = f"{type(error).__name__}: {error}"
            record(out, cells[0], error=why, traceback=traceback.format_exc())
        else:
            seconds = (time.monotonic() - started) / len(cells)
            for cell in cells:
                record(out, cell, seconds=seconds)
    return "over"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _per_model(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """The fields in which the members of a stack differ."""
    from tasks.training.members import PER_MODEL

    values = {
        name: [getattr(cell.training if hasattr(cell.training, name) else cell.init, name) for cell in cells]
        for name in PER_MODEL
    }
    return {name: own for name, own in values.items() if len(set(own)) > 1}


def _stop_without(parent: int) -> None:
    """End this process within a second of its parent's end, which leaves loky's workers running."""
    if any(thread.name == "parent" for thread in threading.enumerate()):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
