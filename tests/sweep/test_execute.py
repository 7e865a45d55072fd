"""Running a sweep: any engine gives the same table, what fails is recorded, what is killed goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pandas as pd
import psutil
import pytest
from filelock import FileLock

from tasks.base import UserError
from tasks.sweep import engines, execute
from tasks.sweep.execute import Job, resume_file, run_sweep
from tasks.sweep.folder import record
from tasks.sweep.grid import SweepSpec, stacks
from tasks.sweep.table import table
from tasks.training import trainer
from tasks.training.run import Run


def here(spec: SweepSpec, out: Path, **options) -> pd.DataFrame:
    return run_sweep(spec, out, engine="here", **options)


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_every_cell_is_a_finished_run_folder_of_its_own_configuration(small, tmp_path):
    spec = small(axes={"task.train_fraction": [0.5, 0.7], "training.learning_rate": [1e-3, 3e-3]}, seeds=[0, 1])
    results = here(spec, tmp_path / "sweep", command="python -m tasks sweep")
    cells = {cell.key: cell for cell in spec.cells()}
    assert set(results["key"]) == set(cells)
    for key, path in zip(results["key"], results["path"], strict=True):
        run, cell = Run.load(tmp_path / "sweep" / path), cells[key]
        assert run.finished
        assert run.steps == [0, 12]
        own = (run.config.task, run.config.model, run.config.init, run.config.training, run.config.seed)
        assert own == (cell.task, cell.model, cell.init, cell.training, cell.seed)
        assert run.config.command == "python -m tasks sweep"
    assert not list((tmp_path / "sweep" / "stacks").iterdir())


def test_stacks_of_any_size_give_the_same_results(small, tmp_path, results, life):
    axes = {"training.learning_rate": [1e-3, 3e-3], "init.gamma": [0.5, 0.8]}
    for size in (1, 3, 8):
        here(small(axes=axes, seeds=[0, 1], stack_size=size), tmp_path / str(size))
    for size in ("3", "8"):
        same(results(table(tmp_path / size)), results(table(tmp_path / "1")))
        assert life(tmp_path / size) == life(tmp_path / "1")


def test_a_finished_sweep_is_not_trained_again_and_a_wider_one_trains_what_is_new(small, tmp_path, monkeypatch):
    here(small(seeds=[0]), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cells/**/*") if file.is_file()}
    trained = []
    monkeypatch.setattr(trainer, "train", lambda *a, seeds, **k: trained.extend(seeds) or train(*a, seeds=seeds, **k))
    here(small(seeds=[0]), tmp_path)
    assert not trained
    assert len(here(small(seeds=[0, 1]), tmp_path)) == 4
    assert trained == [1, 1]
    assert {file: file.stat().st_mtime_ns for file in before} == before


train = trainer.train


def test_a_failing_cell_is_recorded_with_its_error_and_costs_no_other(small, tmp_path, results):
    spec = small(axes={"init.gamma": [0.5, -1000.0, 0.8]}, seeds=[0, 1])  # 16 ** 1000 is no float
    counts = []
    found = here(spec, tmp_path / "some", on_progress=lambda *numbers: counts.append(numbers))
    failed = found[found["error"].notna()]
    assert list(failed["init.gamma"]) == [-1000.0, -1000.0]
    assert set(failed["error"]) == {"OverflowError: (34, 'Numerical result out of range')"}
    assert failed[["train_loss", "last_step"]].isna().all(axis=None)
    record = json.loads((tmp_path / "some" / failed["path"].iloc[0] / "cell.json").read_text())
    assert "initialization.py" in record["traceback"]
    assert counts[-1] == (4, 2, 6)
    good = here(small(axes={"init.gamma": [0.5, 0.8]}, seeds=[0, 1]), tmp_path / "good")
    same(results(found[found["error"].isna()].reset_index(drop=True)), results(good))


def test_a_failed_cell_is_tried_again_only_when_that_is_asked_for(small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", full)
        assert here(small(), tmp_path)["error"].tolist() == ["OSError: [Errno 28] No space left on device"] * 2
    assert here(small(), tmp_path)["error"].notna().all()
    assert here(small(), tmp_path, retry_failed=True)["error"].isna().all()


def test_a_loss_that_is_not_finite_is_a_result(small, tmp_path):
    (row,) = here(small(axes={"init.gamma": [-50.0]}), tmp_path).to_dict("records")
    assert pd.isna(row["error"])
    assert pd.isna(row["train_loss"])
    assert row["last_step"] == 12


class Killed(BaseException):
    """Stands for the signal within one process."""


def killed_at(step: int, patch: pytest.MonkeyPatch) -> None:
    def until(now: int, rows: object) -> None:
        if now == step:
            raise Killed

    patch.setattr(trainer, "train", lambda *a, **k: train(*a, **k | {"resume_every": 0.0}, on_evaluation=until))


def test_a_stack_killed_in_mid_training_goes_on_from_its_resume_file(small, tmp_path, monkeypatch, results, life):
    spec, steps = small(seeds=[0, 1]), []
    here(spec, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        killed_at(8, patch)
        with pytest.raises(Killed):
            here(spec, tmp_path / "killed")
    assert resume_file(tmp_path / "killed", spec.cells()).is_file()
    seen = lambda step, rows: steps.append(step)  # noqa: E731
    monkeypatch.setattr(trainer, "train", lambda *a, **k: train(*a, **k, on_evaluation=seen))
    same(results(here(spec, tmp_path / "killed")), results(table(tmp_path / "undisturbed")))
    assert steps == [8, 12]
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_cells_taken_out_of_a_failed_stack_go_on_where_it_was(small, tmp_path, monkeypatch, life):
    spec, steps = small(seeds=[0, 1]), []
    here(spec, tmp_path / "undisturbed")

    def fails_together(*given, seeds, **options):
        def callback(step, rows):
            steps.append((len(seeds), step))
            if len(seeds) > 1 and step == 8:
                raise RuntimeError

        return train(*given, seeds=seeds, **options | {"resume_every": 0.0}, on_evaluation=callback)

    monkeypatch.setattr(trainer, "train", fails_together)
    assert here(spec, tmp_path / "apart")["error"].isna().all()
    assert steps == [(4, 0), (4, 4), (4, 8), *[(1, 8), (1, 12)] * 4]
    assert life(tmp_path / "apart") == life(tmp_path / "undisturbed")


def test_a_widened_sweep_goes_on_from_the_resume_files_of_stacks_that_were_composed_otherwise(
    small, tmp_path, monkeypatch, life
):
    spec, wider, steps = small(seeds=[0, 1]), small(seeds=[0, 1, 2]), []
    here(wider, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        killed_at(8, patch)
        with pytest.raises(Killed):
            here(spec, tmp_path / "killed")
    seen = lambda step, rows: steps.append((step, len(rows)))  # noqa: E731
    monkeypatch.setattr(trainer, "train", lambda *a, **k: train(*a, **k, on_evaluation=seen))
    here(wider, tmp_path / "killed")
    assert steps == [(8, 4), (12, 4), (0, 2), (4, 2), (8, 2), (12, 2)]
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")
    assert not list((tmp_path / "killed" / "stacks").iterdir())


def test_the_resume_file_of_a_failed_cell_stays_until_it_is_trained_again(small, tmp_path, monkeypatch):
    spec, steps = small(axes={"init.gamma": [0.5]}), []
    (cell,) = spec.cells()
    with monkeypatch.context() as patch:
        killed_at(8, patch)
        with pytest.raises(Killed):
            here(spec, tmp_path)
    record(tmp_path, cell, error="its worker died 5 times without progress")
    here(spec, tmp_path)
    assert resume_file(tmp_path, [cell]).is_file()
    monkeypatch.setattr(
        trainer, "train", lambda *a, **k: train(*a, **k, on_evaluation=lambda step, _: steps.append(step))
    )
    here(spec, tmp_path, retry_failed=True)
    assert steps == [8, 12]
    assert not list((tmp_path / "stacks").iterdir())


def test_a_resume_file_from_before_a_cell_was_begun_anew_is_not_believed(small, tmp_path, monkeypatch, life):
    """Its weights are older than the folder's metrics: going on from it would leave a gap."""
    together, alone = small(seeds=[0, 1]), small(seeds=[0, 1], stack_size=1)
    here(together, tmp_path / "undisturbed")
    file = resume_file(tmp_path / "killed", together.cells())
    for spec, step in ((together, 8), (alone, 0)):
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            with pytest.raises(Killed):
                here(spec, tmp_path / "killed")
        if spec is together:
            file.rename(tmp_path / "aside")
    (tmp_path / "aside").rename(file)
    here(together, tmp_path / "killed")
    assert life(tmp_path / "killed") == life(tmp_path / "undisturbed")


def test_what_trains_longest_begins_first(small, tmp_path, monkeypatch):
    spec = small(axes={"model.d_mlp": [4, 16, 8]}, seeds=[0, 1], stack_size=1)
    order = []
    monkeypatch.setattr(trainer, "train", lambda *a, **k: order.append(a[1].d_mlp) or train(*a, **k))
    here(spec, tmp_path)
    assert order == [16, 16, 8, 8, 4, 4]


def test_cells_that_another_command_holds_are_put_off_until_it_is_done(small, tmp_path, monkeypatch):
    spec = small(seeds=[0, 1], stack_size=2)
    held, other = stacks(spec.cells(), 2)
    order, tries = [], []
    locks = tmp_path / "locks"
    locks.mkdir(parents=True)
    lock = FileLock(locks / held[1].key)
    lock.acquire()

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 2:
            lock.release()

    monkeypatch.setattr(execute.time, "sleep", sleep)
    monkeypatch.setattr(trainer, "train", lambda *a, **k: order.append(k["out"][0].name) or train(*a, **k))
    assert len(here(spec, tmp_path)) == 4
    assert order == [other[0].key, held[0].key]
    assert len(tries) == 2


def test_a_cell_trained_under_another_default_is_not_taken_for_this_one(small, tmp_path):
    spec = small()
    here(spec, tmp_path)
    file = tmp_path / "cells" / spec.cells()[0].key / "config.json"
    config = json.loads(file.read_text())
    del config["training"]["autocast"]  # as a version writes it that does not have the field
    file.write_text(json.dumps(config))
    assert len(here(spec, tmp_path)) == 2
    config["training"]["beta2"] = 0.9
    file.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"expected training\.beta2 = 0\.98 in .*, it was trained with 0\.9, the default"
    ):
        here(spec, tmp_path)


def test_a_finished_cell_whose_stack_was_killed_before_it_was_recorded_is_recorded_without_a_time(small, tmp_path):
    spec = small()
    here(spec, tmp_path)
    file = tmp_path / "cells" / spec.cells()[0].key / "cell.json"
    file.unlink()
    found = here(spec, tmp_path)
    assert json.loads(file.read_text()) == {"seconds": None, "host": None, "error": None}
    assert found[["seconds", "host"]].isna().to_numpy().tolist() == [[True, True], [False, False]]


def test_cells_that_finish_before_their_stack_are_reported_at_once(small, tmp_path, monkeypatch):
    counts, first = [], threading.Event()

    class Slow(engines.Here):
        """A stack whose first cell ends, and the others only when that has been reported."""

        def submit(self, function, *, job, **task):
            super().submit(function, job=Job(cells=job.cells[:1]), **task)
            future: Future = Future()

            def rest() -> None:
                first.wait()
                future.set_result(function(job=job, **task))

            threading.Thread(target=rest).start()
            return future

    def seen(*numbers: int) -> None:
        counts.append(numbers)
        if numbers[0]:
            first.set()

    monkeypatch.setattr(execute, "workers_of", lambda *_: Slow())
    monkeypatch.setattr(execute, "LOOK_EVERY", 0.01)
    run_sweep(small(seeds=[0, 1]), tmp_path, on_progress=seen)
    assert counts[:2] == [(0, 0, 4), (1, 0, 4)]
    assert counts[-1] == (4, 0, 4)


def test_a_failed_cell_that_another_command_tries_again_is_left_to_it(small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    spec = small()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", full)
        here(spec, tmp_path)
    held, free = spec.cells()
    with FileLock(tmp_path / "locks" / held.key):
        found = here(spec, tmp_path, retry_failed=True).set_index("key")["error"]
    assert found.isna()[[held.key, free.key]].tolist() == [False, True]


class Dying(engines.Here):
    """Workers that die of some cells."""

    def __init__(self, deadly: set[str], progress: bool = False) -> None:
        self.deadly, self.progress, self.deaths = deadly, progress, 0

    def submit(self, function, *, job, out, **task):
        future: Future = Future()
        if self.deadly & {cell.key for cell in job.cells} and not (self.progress and self.deaths > 12):
            self.deaths += 1
            if self.progress:
                resume_file(out, job.cells).write_bytes(b"")
                os.utime(resume_file(out, job.cells), ns=(self.deaths, self.deaths))
            future.set_result("died")
            return future
        resume_file(out, job.cells).unlink(missing_ok=True)
        return super().submit(function, job=job, out=out, **task)


def test_a_cell_whose_worker_dies_without_progress_is_given_up_alone(small, tmp_path, monkeypatch):
    spec = small(seeds=[0, 1])
    cells = spec.cells()
    workers = Dying({cells[2].key})
    monkeypatch.setattr(execute, "workers_of", lambda *_: workers)
    found = run_sweep(spec, tmp_path).set_index("key")["error"]
    assert found[cells[2].key] == "its worker died 5 times without progress"
    assert found.drop(cells[2].key).isna().all()
    assert workers.deaths == 10


def test_a_stack_that_comes_on_between_deaths_is_never_given_up(small, tmp_path, monkeypatch):
    spec = small(seeds=[0, 1])
    workers = Dying({cell.key for cell in spec.cells()}, progress=True)
    monkeypatch.setattr(execute, "workers_of", lambda *_: workers)
    assert run_sweep(spec, tmp_path)["error"].isna().all()
    assert workers.deaths == 13


def test_a_resume_file_and_run_folders_of_its_own_are_asked_of_a_trainer_of_several(small, tmp_path):
    cell = small().cells()[0]
    given = (cell.task, cell.model, cell.init, cell.training)
    with pytest.raises(UserError, match="expected a folder per run, 2 in all, got"):
        train(*given, seeds=[0, 1], out=[tmp_path / "a"])
    with pytest.raises(UserError, match="expected a resume_file with a folder per run"):
        train(*given, seeds=[0, 1], out=[tmp_path / "a", tmp_path / "b"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, "expected an engine among loky, dask, here, got 'slurm'"),
        ({"engine": "dask"}, "expected the address of a Dask scheduler"),
        ({"n_jobs": 0}, "expected at least one job, got 0"),
        ({"device": "cuda"}, "expected a GPU for device cuda, torch finds none"),
    ],
)
def test_an_impossible_request_is_refused(options, message, small, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "_gpus", lambda: 0)
    for module, name in ((execute, "run_sweep"), (engines, "workers_of")):
        function = getattr(module, name)  # the annotations would refuse the engine first, and less kindly
        monkeypatch.setattr(execute, name, getattr(function, "__wrapped__", function))
    with pytest.raises(UserError, match=message):
        execute.run_sweep(small(), tmp_path, **options)


COMMAND = """
import sys
from tasks.sweep.execute import run_sweep
from tasks.sweep.grid import SweepSpec
run_sweep(SweepSpec.from_toml(sys.argv[1]), sys.argv[2], n_jobs=1, resume_every=0.1)
"""
SPEC = """
task = "modular"
seeds = [0, 1, 2]
[base]
task.p = 7
model.d_model = 16
model.d_head = 8
training.steps = 300
training.evaluate_every = 20
training.snapshots = 3
"""


def children(process: subprocess.Popen) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "loky" in " ".join(child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline())
    ]


@pytest.mark.slow
def test_workers_and_command_killed_by_sigkill_lose_nothing_and_leave_no_worker_behind(tmp_path, results, life, small):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    here(SweepSpec.from_toml(spec), tmp_path / "undisturbed")
    out = tmp_path / "killed"

    def command() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", COMMAND, spec, out], env=os.environ | {"OMP_NUM_THREADS": "1"})

    def training(process: subprocess.Popen) -> None:
        begun = time.time()
        while process.poll() is None:
            if any(file.stat().st_mtime > begun for file in out.glob("cells/*/metrics.jsonl")):
                return
            time.sleep(0.01)

    process = command()
    training(process)
    children(process)[0].kill()
    training(process)
    (worker,) = children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    worker.wait()  # it ends by itself
    assert command().wait() == 0
    same(results(table(out)), results(table(tmp_path / "undisturbed")))
    assert life(out) == life(tmp_path / "undisturbed")


@pytest.mark.slow
def test_dask_with_four_workers_gives_the_table_of_one_process(small, tmp_path, results, life):
    distributed = pytest.importorskip("distributed")
    spec = small(axes={"task.train_fraction": [0.5, 0.7], "init.gamma": [0.5, -1000.0]}, seeds=[0, 1], stack_size=2)
    here(spec, tmp_path / "here")
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        run_sweep(spec, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
    same(results(table(tmp_path / "dask")), results(table(tmp_path / "here")))
    assert life(tmp_path / "dask") == life(tmp_path / "here")
    assert len(life(tmp_path / "dask")) == 4
