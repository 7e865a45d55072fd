"""What one order of sums costs: a training step under ``MKL_CBWR`` off, AUTO and COMPATIBLE, side by side.

The setting is read once a process, so every turn is a process of its own, and the settings take turns. A row has the
median of CPU milliseconds per step on one thread, and the median of the ratios to off within a turn, with quartiles.
The table goes to the terminal and to ``RESULTS.md``: ``python -P tests/benchmarks/one_order.py``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

SETTINGS = {"off": "", "AUTO": "AUTO", "COMPATIBLE": "COMPATIBLE"}
HEADER = """| workload | models | off, ms | AUTO, ms | COMPATIBLE, ms | AUTO ÷ off (quartiles) | COMPATIBLE ÷ off |
|---|---|---|---|---|---|---|"""
TIMED = (
    ("modular addition, p = 113, full batch", 1),
    ("tiny transformer, d_model 32, batch 32", 64),
    ("parity MLP, hidden 16, batch 1,000", 45),
    ("parity MLP, hidden 128, batch 1,000", 45),
    ("parity MLP, hidden 258, batch 1,750", 45),
)


def milliseconds(name: str, models: int, seconds: float) -> float:
    """CPU time of a step in this process: the median of five stretches."""
    import torch
    from workloads import stack, workloads  # pyright: ignore[reportMissingImports]

    from tasks.training.machine import tuned_for_training

    torch.set_num_threads(1)
    together = stack(next(workload for workload in workloads() if workload.name == name), models)
    stretches = []
    with tuned_for_training():
        for _ in range(3):
            together.update()
        begun = time.process_time()
        together.update()
        steps = max(1, round(seconds / 5 / (time.process_time() - begun)))
        for _ in range(5):
            begun = time.process_time()
            for _ in range(steps):
                together.update()
            stretches.append((time.process_time() - begun) / steps * 1e3)
    return statistics.median(stretches)


def in_a_process(setting: str, name: str, models: int, seconds: float) -> float:
    """``milliseconds`` in a process with this setting; empty turns it off."""
    command = [sys.executable, "-P", __file__, "--time", name, str(models), "--seconds", str(seconds)]
    done = subprocess.run(command, env=os.environ | {"MKL_CBWR": setting}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def row(name: str, models: int, turns: int, seconds: float) -> str:
    """One line of the table."""
    times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for turn in range(turns):
        order = list(SETTINGS.items())
        for setting, value in order if turn % 2 else reversed(order):
            times[setting].append(in_a_process(value, name, models, seconds))
    ratios = {
        setting: [ours / off for ours, off in zip(times[setting], times["off"], strict=True)] for setting in SETTINGS
    }
    low, middle, high = statistics.quantiles(ratios["AUTO"], n=4)
    medians = " | ".join(f"{statistics.median(times[setting]):.3g}" for setting in SETTINGS)
    compatible = statistics.median(ratios["COMPATIBLE"])
    return f"| {name} | {models} | {medians} | **{middle:.3f}** ({low:.3f}–{high:.3f}) | {compatible:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="of every setting, at least 2 (default 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (default 2)")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--time", nargs=2, metavar=("WORKLOAD", "MODELS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time:
        print(milliseconds(arguments.time[0], int(arguments.time[1]), arguments.seconds))
        return
    from bench import processor  # pyright: ignore[reportMissingImports]
    from results import write_section  # pyright: ignore[reportMissingImports]

    print(HEADER)
    rows = []
    for name, models in TIMED:
        if arguments.only in name:
            rows.append(row(name, models, arguments.turns, arguments.seconds))
            print(rows[-1], flush=True)
    if not arguments.no_write:
        said = f"{processor()}; `python -P tests/benchmarks/one_order.py`, CPU time on one thread."
        write_section("## One order of sums", [said, "", *HEADER.splitlines(), *rows])


if __name__ == "__main__":
    main()
