"""A training step of this project against the usual loop, side by side: ``make bench``.

The usual loop is transformer-lens's own model, ``torch.optim.AdamW`` and a loss at the answer position. Before anything
is timed, both sides show the same loss and gradients from the same weights. Then they take turns; a row is the median
of the paired ratios, with quartiles. One thread is timed in CPU time, two in wall time; compiled steps with one
thread only. The table goes to the terminal and to ``RESULTS.md``.
"""

import argparse
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from results import write_section  # pyright: ignore[reportMissingImports]
from workloads import Workload, parity_sweep, same_start, stack, workloads  # pyright: ignore[reportMissingImports]

from tasks.base import UserError
from tasks.training.machine import check_compiler, tuned_for_training

HEADER = """| workload | models | step | threads | loop, ms | rulelens, ms | times faster (quartiles) |
|---|---|---|---|---|---|---|"""
SWEEP = "parity MLPs, mean over the 25 shapes of the 1,125-model sweep"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: milliseconds per model and step of both sides, turn by turn."""

    workload: str
    models: int
    compiled: bool
    threads: int
    loop: tuple[float, ...]
    ours: tuple[float, ...]

    def __str__(self) -> str:
        loop, ours = statistics.median(self.loop), statistics.median(self.ours)
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(self.loop, self.ours, strict=True)], n=4)
        step = "compiled" if self.compiled else "eager"
        return (
            f"| {self.workload} | {self.models} | {step} | {self.threads} | {loop:.3g} | {ours:.3g} "
            f"| **{ratio:.2f}** ({low:.2f}–{high:.2f}) |"
        )


def turn(step: Callable[[], None], steps: int, clock: Callable[[], float]) -> float:
    """Milliseconds per step."""
    start = clock()
    for _ in range(steps):
        step()
    return (clock() - start) / steps * 1e3


def measure(
    workload: Workload, n_models: int, threads: int, pairs: int, seconds: float, *, compiled: bool = False
) -> Row:
    """The row of one workload at one stack size. A turn lasts about ``seconds``."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    loop, ours, loss_apart, gradient_apart = same_start(workload, compiled=compiled and n_models == 1)
    if loss_apart > 1e-5 or gradient_apart > 1e-3:
        raise SystemExit(
            f"{workload.name}: the sides differ, loss by {loss_apart:.1e}, gradient by {gradient_apart:.1e}"
        )
    if n_models > 1:
        ours = stack(workload, n_models, compiled=compiled)

    def our_turn(steps: int) -> float:
        with tuned_for_training():
            return turn(ours.update, steps, clock)

    our_turn(2)  # the first step compiles
    loop_steps = max(1, round(seconds * 1e3 / turn(loop.step, 2, clock)))
    our_steps = max(1, round(seconds * 1e3 / our_turn(2)))
    times = []
    for pair in range(pairs):
        if pair % 2:
            ours_ms = our_turn(our_steps)
            times.append((turn(loop.step, loop_steps, clock), ours_ms / n_models))
        else:
            loop_ms = turn(loop.step, loop_steps, clock)
            times.append((loop_ms, our_turn(our_steps) / n_models))
    return Row(
        workload=workload.name,
        models=n_models,
        compiled=compiled,
        threads=threads,
        loop=tuple(a for a, _ in times),
        ours=tuple(b for _, b in times),
    )


def mean(rows: list[Row], name: str) -> Row:
    """The mean of several rows, turn by turn: what a mix of workloads costs."""
    loops, ours = ([getattr(row, side) for row in rows] for side in ("loop", "ours"))
    return replace(
        rows[0],
        workload=name,
        loop=tuple(map(statistics.mean, zip(*loops, strict=True))),
        ours=tuple(map(statistics.mean, zip(*ours, strict=True))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="turns of each side, at least 2 (default 7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn (default 0.5)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--models", type=int, nargs="+", help="these stack sizes only")
    parser.add_argument("--eager", action="store_true", help="leave out what needs a compiler")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args()
    if arguments.pairs < 2:
        parser.error(f"expected at least 2 pairs, got {arguments.pairs}: quartiles need two")
    can_compile = True
    try:
        check_compiler()
    except UserError as error:
        can_compile = False
        print(f"no compiled steps: {error}", file=sys.stderr)
    print(HEADER)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(row, flush=True)
        gc.collect()

    for threads in arguments.threads:
        turns = (threads, arguments.pairs, arguments.seconds)
        for workload in workloads():
            for n_models in workload.stacks:
                if arguments.only in workload.name and (not arguments.models or n_models in arguments.models):
                    add(measure(workload, n_models, *turns))
                    if n_models in workload.compiled and threads == 1 and can_compile and not arguments.eager:
                        add(measure(workload, n_models, *turns, compiled=True))
        if arguments.only in SWEEP and (not arguments.models or 45 in arguments.models):
            add(mean([measure(workload, 45, *turns) for workload in parity_sweep()], SWEEP))
    if not arguments.no_write:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformer-lens"))
        said = f"{processor()}; {libraries}; `make bench`."
        write_section("# Benchmark", [said, "", *HEADER.splitlines(), *map(str, rows)])


def processor() -> str:
    """The processor's name and number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


if __name__ == "__main__":
    main()
