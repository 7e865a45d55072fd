"""Sweeps: ``SweepSpec``, ``Cell``, ``run_sweep``. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.sweep.execute import run_sweep
    from tasks.sweep.grid import Cell, SweepSpec

__all__ = ["Cell", "SweepSpec", "run_sweep"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "Cell": "tasks.sweep.grid:Cell",
            "SweepSpec": "tasks.sweep.grid:SweepSpec",
            "run_sweep": "tasks.sweep.execute:run_sweep",
        },
    )
