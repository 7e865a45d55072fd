"""A sweep that trains in a blink, and what a folder of one holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.sweep.grid import SweepSpec
from tasks.sweep.table import NOT_RESULTS
from tasks.training.run import Run
from tasks.training.snapshots import checksum

BASE = {
    "task.p": 7,
    "init.scheme": "power",
    "model.d_model": 16,
    "model.d_head": 8,
    "model.d_mlp": 16,
    "training.steps": 12,
    "training.evaluate_every": 4,
    "training.snapshots": 2,
}


@pytest.fixture
def small() -> Callable[..., SweepSpec]:
    """Addition mod 7, 12 steps; further fields of the specification as given."""

    def spec(**given: Any) -> SweepSpec:
        given = {"task": "modular", "axes": {"training.learning_rate": [1e-3, 3e-3]}, **given}
        varied = {name for axes in (given["axes"], *given.get("zipped", ())) for name in axes}
        base = {name: value for name, value in (BASE | given.pop("base", {})).items() if name not in varied}
        return SweepSpec(**given, base=base)

    return spec


@pytest.fixture
def results() -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The columns of a table that are results."""
    return lambda table: table.drop(columns=list(NOT_RESULTS))


@pytest.fixture
def life() -> Callable[[Path], dict[str, tuple[str, str]]]:
    """Metrics as they stand and the checksum of the last weights, per finished cell of a sweep's folder."""
    return lambda out: {
        run.name: ((run.path / "metrics.jsonl").read_text(), checksum(run.params()))
        for run in map(Run.load, sorted((out / "cells").iterdir()))
        if run.finished
    }
