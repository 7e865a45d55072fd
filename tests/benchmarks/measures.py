"""What it costs to look at a model of addition mod p, and at a run of them: ``python -P tests/benchmarks/measures.py``.

CPU seconds on one thread, medians over turns, of each analysis of one checkpoint and of all of them together. The first
column leaves out the controls (random weights, random frequencies and neurons, renamed answers), the second is what
``analyze`` takes. Each turn starts from a subject of which nothing is kept, so that the first analysis pays for what
the others share. Then every snapshot of a run (``--run``), or as many times ``--snapshots`` of the checkpoint.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from interp.group import representation
from interp.modular import ablation, clock_pizza, fourier, grokking, operands, progress
from interp.subject import Subject, Trajectory
from interp.weights import condensation, rank

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "modular-addition"
ANALYSES = (fourier, progress, representation, clock_pizza, condensation, rank)
CONTROLS = (
    (fourier, "_control"),
    (progress, "_controls"),
    (ablation, "_random_frequencies"),
    (ablation, "_random_neurons"),
    (representation, "_control"),
    (representation, "renamed_fits"),
    (clock_pizza, "_control"),
)
"""The functions that compute nothing but controls; the few of condensation and rank count as measures."""


class Stopwatch:
    """CPU seconds spent in the functions that it wraps, calls within calls counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.running = False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.running:
                return function(*args, **kwargs)
            self.running, start = True, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.running = False
                self.seconds += time.process_time() - start

        return timed


def turn(path: Path) -> dict[str, tuple[float, float]]:
    """Seconds of each analysis without its controls, and with them."""
    subject, seconds = Subject.load(path), dict[str, tuple[float, float]]()
    operands.seeded_triples.cache_clear()
    for analysis in ANALYSES:
        watch = Stopwatch()
        patches = [patch.object(module, name, watch.wrap(getattr(module, name))) for module, name in CONTROLS]
        for each in patches:
            each.start()
        start = time.process_time()
        analysis.analyze(subject)
        whole = time.process_time() - start
        for each in patches:
            each.stop()
        seconds[analysis.__name__.rpartition(".")[2]] = (whole - watch.seconds, whole)
    measures, whole = zip(*seconds.values(), strict=True)
    return seconds | {"all": (sum(measures), sum(whole))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="default: the shipped p = 113")
    parser.add_argument("--turns", type=int, default=5, help="of the analyses of one checkpoint (default 5)")
    parser.add_argument("--run", type=Path, help="a run folder of addition mod p with its snapshots")
    parser.add_argument("--snapshots", type=int, default=100, help="without --run (default 100)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turns = [turn(arguments.checkpoint) for _ in range(arguments.turns)]
    print("| analysis of one checkpoint | measures, s | with controls, s |\n|---|---|---|")
    for name in turns[0]:
        measures, whole = (statistics.median(seconds[name][column] for seconds in turns) for column in (0, 1))
        print(f"| {name} | {measures:.2f} | {whole:.2f} |")
    if arguments.run is not None:
        trajectory = Trajectory.load(arguments.run)
    else:
        last = Subject.load(arguments.checkpoint)
        steps = range(100, 100 * (arguments.snapshots + 1), 100)
        trajectory = Trajectory([Subject.of(last.config, last.params, last.task, step=step) for step in steps])
    start = time.process_time()
    grokking.analyze(trajectory, show_progress=True)
    print(f"| grokking, {len(trajectory)} snapshots | | {time.process_time() - start:.0f} |")


if __name__ == "__main__":
    main()
