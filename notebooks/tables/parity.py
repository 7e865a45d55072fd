"""The tables of the two parity sweeps: ``python -P notebooks/tables/parity.py runs/parity runs/parity-small``.

``parity.parquet``, ``parity-small.parquet``: a row per run, with its transitions. ``parity-curves.parquet``: log10 of
train and test loss of every run of the whole sweep at 41 steps, log-spaced as far as there are evaluations.
``parity-small-snapshots.parquet``: a row per run and snapshot, for ``foresight.analyze``.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from interp.sweeps.regimes import with_transitions
from interp.sweeps.snapshots import snapshots
from tasks.sweep.table import table
from tasks.training.run import read_metrics

HERE = Path(__file__).parent
N_STEPS = 41


def log_spaced(steps: list[int], n: int) -> list[int]:
    """``n`` of the steps, as evenly spaced in their logarithm as they allow; the first above 0 and the last are in."""
    ahead = np.array([step for step in steps if step > 0])
    for points in range(n, 100 * n):
        wanted = np.geomspace(ahead[0], ahead[-1], points)
        chosen = {int(ahead[np.abs(ahead - step).argmin()]) for step in wanted}
        if len(chosen) == n:
            return sorted(chosen)
    raise SystemExit(f"expected {n} log-spaced steps among {len(ahead)} evaluations")


def curves(runs: pd.DataFrame, out: Path) -> pd.DataFrame:
    """log10 of both losses at the chosen steps, in half precision: three digits of a logarithm."""
    rows = []
    for path, key in zip(runs["path"], runs["key"], strict=True):
        metrics = {row["step"]: row for row in read_metrics(out / path)}
        chosen = log_spaced(sorted(metrics), N_STEPS)
        losses = {
            f"{part}_loss_{step}": np.float16(np.log10(metrics[step][f"{part}_loss"] + 2**-23))
            for part in ("train", "test")
            for step in chosen
        }
        rows.append({"key": key, **losses})
    return pd.DataFrame(rows)


def main(whole: Path, small: Path) -> None:
    """Write the four tables."""
    for out, name in ((whole, "parity"), (small, "parity-small")):
        runs = with_transitions(table(out), out).assign(host=None)
        runs.to_parquet(HERE / f"{name}.parquet", index=False)
        print(f"{name}.parquet: {len(runs)} runs")
    runs = table(whole)
    curves(runs, whole).to_parquet(HERE / "parity-curves.parquet", index=False, compression="zstd")
    snapshots(table(small), small).to_parquet(HERE / "parity-small-snapshots.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
