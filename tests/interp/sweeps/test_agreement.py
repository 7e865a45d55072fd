"""Two sweeps side by side, counted by hand."""

import math

import pandas as pd
import pytest

from interp.sweeps import agreement
from tasks.base import UserError

CELLS = [(0.1, 16), (0.1, 32), (1.0, 16), (1.0, 32)]


def sweep(*classes: str) -> pd.DataFrame:
    """One word per cell, a letter per seed."""
    rows = [
        {"training.weight_decay": decay, "model.d_hidden": width, "seed": seed, "class": label}
        for (decay, width), labels in zip(CELLS, classes, strict=True)
        for seed, label in enumerate(labels)
    ]
    return pd.DataFrame(rows)


def test_cells_agree_where_the_same_class_leads() -> None:
    found = agreement.compare(sweep("ggg", "ggt", "hhh", "ghh"), sweep("ggt", "ttt", "hhh", "hhh"))
    assert (found.same, found.n_cells) == (3, 4)
    (other,) = found.others
    assert other.at == {"model.d_hidden": 32, "training.weight_decay": 0.1}
    assert (other.counts, other.other_counts) == ({"g": 2, "t": 1}, {"t": 3})
    assert found.same_runs == 2 + 1 + 3 + 2


def test_a_tie_has_no_leading_class() -> None:
    found = agreement.compare(sweep("gt", "gg", "hh", "hh"), sweep("gt", "gg", "hh", "hh"))
    assert (found.same, found.same_runs) == (3, 8)


def test_the_number_of_runs_has_students_interval_over_seeds() -> None:
    found = agreement.compare(sweep("ggg", "ggt", "hhh", "ghh"), sweep("ggg", "ggg", "hhh", "hhh")).counts["g"]
    assert found.value == 6  # by seed 3, 2 and 1
    assert found.low == pytest.approx(6 - 4.302652729749464 * 1 * math.sqrt(3))
    assert (found.n_units, found.method) == (3, "student")


def test_chance_is_known_from_exchanged_cells() -> None:
    alike = sweep("ggg", "ggg", "hhh", "hhh")
    found = agreement.compare(alike, alike)
    assert found.same == 4
    assert found.control_same == pytest.approx(2, abs=0.2)  # half of the cells, by chance
    constant = sweep("ggg", "ggg", "ggg", "ggg")
    assert agreement.compare(constant, constant).control_same == 4


def test_other_cells_axes_and_tables_without_a_class_are_refused() -> None:
    whole = sweep("ggg", "ggg", "hhh", "hhh")
    with pytest.raises(UserError, match="1 are in one only"):
        agreement.compare(whole, whole[whole.index < 9])
    with pytest.raises(UserError, match="same axes"):
        agreement.compare(whole, whole.drop(columns="model.d_hidden"))
    with pytest.raises(UserError, match="column class"):
        agreement.compare(whole, whole.drop(columns="class"))


def test_runs_are_classed_by_the_published_rule_and_failed_ones_left_out() -> None:
    table = pd.DataFrame(
        {
            "training.weight_decay": [0.1, 0.1, 0.1],
            "seed": [0, 1, 2],
            "min_train_loss": [1e-7, 1e-2, math.nan],
            "min_test_loss": [1e-7, 1.0, math.nan],
            "max_loss_ratio": [1e6, 10.0, math.nan],
            "error": [None, None, "diverged"],
        }
    )
    assert agreement.classed(table)["class"].tolist() == ["grokking", "high train"]
