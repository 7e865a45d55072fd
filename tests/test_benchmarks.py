"""The benchmark's two sides are the same model, and its table says what was timed."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_times_both_sides_and_prints_their_ratio() -> None:
    command = [sys.executable, "-P", BENCHMARKS / "bench.py", "--no-write", "--only", "tiny", "--models", "4"]
    done = subprocess.run(
        [*command, "--pairs", "3", "--seconds", "0.05", "--threads", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].split("|")[1:-1]]
    assert cells[:4] == ["tiny transformer, d_model 32, batch 32", "4", "eager", "1"]
    loop, ours = float(cells[4]), float(cells[5])
    ratio = float(cells[6].split("**")[1])
    assert ratio == pytest.approx(loop / ours, rel=0.5)  # a median of ratios, not a ratio of medians


@pytest.mark.slow
def test_the_two_sides_start_from_the_same_loss_and_gradients_and_a_difference_is_seen(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import workloads  # pyright: ignore[reportMissingImports]

    original = workloads.Loop.loss
    for workload in workloads.workloads():
        if "2,048" not in workload.name:  # the same model and data as batch 200, in ten times the time
            _, _, loss_apart, gradient_apart = workloads.same_start(workload)
            # float32 sums of a few thousand examples in another order
            assert loss_apart < 1e-6
            assert gradient_apart < 1e-4
    monkeypatch.setattr(workloads.Loop, "loss", lambda self: 1.01 * original(self))
    _, _, loss_apart, gradient_apart = workloads.same_start(workload)
    assert loss_apart == pytest.approx(0.01, rel=0.02)
    assert gradient_apart == pytest.approx(0.01, rel=0.02)


@pytest.mark.slow
def test_the_measures_of_a_checkpoint_are_timed_with_and_without_their_controls() -> None:
    tiny = BENCHMARKS.parents[1] / "checkpoints" / "tiny" / "modular"
    command = [sys.executable, "-P", BENCHMARKS / "measures.py", "--checkpoint", tiny, "--run", tiny, "--turns", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:-1]] == [
        *("fourier", "progress", "representation", "clock_pizza", "condensation", "rank", "all")
    ]
    measures, whole = (float(cell) for cell in rows[-2][1:])
    assert 0 < measures < whole
