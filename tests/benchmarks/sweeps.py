"""Long checks of the sweep engine: ``python -P tests/benchmarks/sweeps.py kills | overhead``.

*kills*: a sweep whose command and child processes are killed (SIGKILL) at random, twenty times, ends with the table,
the metrics and the last weights of an undisturbed one, bit by bit.

*overhead*: of 500 small cells on one worker, how much of the wall time is not training. Training is timed in the
worker, around ``train``; the rest is the start of the worker with its imports, locks, states and the table.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from tasks.sweep.execute import run_sweep
from tasks.sweep.grid import SweepSpec
from tasks.sweep.table import NOT_RESULTS
from tasks.training.run import Run
from tasks.training.snapshots import checksum

COMMAND = """
import sys
from tasks.sweep.execute import run_sweep
from tasks.sweep.grid import SweepSpec
run_sweep(SweepSpec.from_toml(sys.argv[1]), sys.argv[2], n_jobs=2, resume_every=0.5)
"""
SPEC = """
task = "modular"
seeds = [0, 1, 2]
stack_size = 3
[base]
training.steps = {steps}
training.evaluate_every = 50
training.snapshots = 4
[axes]
task.train_fraction = [0.5, 0.7]
training.weight_decay = [0.0, 1.0]
training.learning_rate = [1e-3, 3e-3]
"""


@dataclass
class Disturbed:
    """A sweep in a process of its own that is killed now and then."""

    spec: Path
    out: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Give the command, unless it runs."""
        if self.process is None or self.process.poll() is not None:
            with open(self.out.with_suffix(".log"), "ab") as log:
                command = [sys.executable, "-c", COMMAND, str(self.spec), str(self.out)]
                self.process = subprocess.Popen(command, stderr=log)

    def written(self) -> float:
        """When a training last wrote its metrics or its resume file."""
        files = [*self.out.glob("cells/*/metrics.jsonl"), *self.out.glob("stacks/*.safetensors")]
        times = [0.0]
        for file in files:
            with suppress(FileNotFoundError):  # a stack that came to its end
                times.append(file.stat().st_mtime)
        return max(times)

    def kill(self, rng: random.Random) -> str:
        """Kill the command or one of its children; what it was."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        victim = rng.choice([psutil.Process(self.process.pid), *children])
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return "nothing"
        if victim.pid == self.process.pid:
            self.process.wait()
            return "the command"
        return "a child"


def life(out: Path) -> dict[str, tuple[str, str]]:
    """Metrics as they stand and the checksum of the last weights, per cell."""
    runs = {folder.name: Run.load(folder) for folder in sorted((out / "cells").iterdir())}
    return {key: ((run.path / "metrics.jsonl").read_text(), checksum(run.params())) for key, run in runs.items()}


def results(out: Path) -> pd.DataFrame:
    """The columns of a sweep's table that are results."""
    return pd.read_parquet(out / "table.parquet").drop(columns=list(NOT_RESULTS))


def kills(folder: Path, number: int, steps: int, seed: int) -> None:
    """Compare a disturbed sweep with an undisturbed one."""
    spec = folder / "spec.toml"
    spec.write_text(SPEC.format(steps=steps))
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", COMMAND, str(spec), str(folder / "undisturbed")], check=True)
    alone = time.monotonic() - start
    rng, done = random.Random(seed), 0
    disturbed = Disturbed(spec, folder / "disturbed")
    start = time.monotonic()
    disturbed.start()
    while disturbed.process is not None and disturbed.process.poll() is None:
        wait_for_training = rng.random() < 0.7  # the others fall into the start, and into the kill before
        begun, delay = time.time(), rng.uniform(0.1, 3)
        while disturbed.process.poll() is None and wait_for_training and disturbed.written() < begun:
            time.sleep(0.02)
        time.sleep(delay)
        if done < number and disturbed.process.poll() is None:
            what = disturbed.kill(rng)
            done += what != "nothing"
            finished = len([f for f in (folder / "disturbed" / "cells").glob("*") if (f / "cell.json").exists()])
            print(f"{time.monotonic() - start:6.1f} s: killed {what}; {finished} cells finished", flush=True)
            disturbed.start()
    assert disturbed.process is not None
    if disturbed.process.returncode:
        sys.exit(f"the command failed: see {folder / 'disturbed.log'}")
    pd.testing.assert_frame_equal(results(folder / "disturbed"), results(folder / "undisturbed"), check_exact=True)
    assert life(folder / "disturbed") == life(folder / "undisturbed")
    took = f"{done} kills in {time.monotonic() - start:.0f} s ({alone:.0f} s undisturbed)"
    print(f"{took}: the same table, metrics and weights")


def overhead(folder: Path, cells: int, steps: int) -> None:
    """Time a sweep of small cells."""
    spec = SweepSpec(
        task="modular",
        base={"training.steps": steps, "training.snapshots": 2},
        axes={"training.learning_rate": [1e-3 * (1 + i) for i in range(cells // 10)]},
        seeds=range(10),
    )
    start = time.monotonic()
    table = run_sweep(spec, folder / "sweep", n_jobs=1)
    wall = time.monotonic() - start
    assert len(table) == cells
    assert table["error"].isna().all()
    training = float(table["seconds"].sum())
    again = time.monotonic()
    run_sweep(spec, folder / "sweep", n_jobs=1)
    again = time.monotonic() - again
    print(f"{cells} cells of {steps} steps: {wall:.1f} s, of which {training:.1f} s training")
    print(f"overhead: {wall / training - 1:.1%} of the time spent in training")
    print(f"the same command again, all being finished: {again:.1f} s")


def main() -> None:
    """Run one of the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["kills", "overhead"])
    parser.add_argument("--number", type=int, help="kills (20) or cells (500)")
    parser.add_argument("--steps", type=int, help="of a training (kills: 3000, overhead: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="rulelens-sweep-") as folder:
        if given.check == "kills":
            kills(Path(folder), given.number or 20, given.steps or 3_000, given.seed)
        else:
            overhead(Path(folder), given.number or 500, given.steps or 300)


if __name__ == "__main__":
    main()
