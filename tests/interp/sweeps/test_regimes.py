"""The classes of Pearce et al. on curves made by hand: their order, their bounds, and what was not logged."""

import math

import pytest

from interp.sweeps.regimes import LOSS_FLOOR, PEARCE, transitions


def curve(train: list[float | None], test: list[float | None]) -> list[dict[str, float | None]]:
    return [
        {"step": 100 * i, "train_loss": a, "test_loss": b} for i, (a, b) in enumerate(zip(train, test, strict=True))
    ]


def label(train: list[float | None], test: list[float | None]) -> str:
    return PEARCE.label(transitions(curve(train, test)))


def test_high_train_is_asked_before_high_test_and_both_before_the_ratio() -> None:
    assert label([0.7, 1e-3], [0.7, 1e-3]) == "high train"
    assert label([0.7, 1e-8], [0.7, 9.0]) == "high test"  # whatever its ratio
    assert label([0.7, 1e-8, 1e-8], [0.7, 9.0, 1e-8]) == "grokking"


def test_a_loss_counts_at_its_lowest_and_the_ratio_at_its_highest() -> None:
    assert label([0.7, 1e-6, 0.7], [0.7, 1e-6, 0.7]) == "train and test drop together"
    assert label([0.7, 1e-6, 1e-6], [0.7, 0.06, 1e-6]) == "grokking"
    assert label([1e-6, 0.7, 1e-6], [1e-6, 0.06, 1e-6]) == "train and test drop together"  # step by step, not max/min


def test_losses_at_their_bound_are_low_and_a_ratio_at_its_bound_is_grokking() -> None:
    assert label([1e-5], [1e-5]) == "train and test drop together"
    assert label([1.00001e-5], [1e-5]) == "high train"
    assert label([1e-5], [1.00001e-5]) == "high test"
    at_bound = {"min_train_loss": 0.0, "min_test_loss": 0.0, "max_loss_ratio": 50_000.0}
    assert PEARCE.label(at_bound) == "grokking"
    assert PEARCE.label(at_bound | {"max_loss_ratio": 49_999.0}) == "train and test drop together"


def test_the_floor_bounds_the_ratio_of_a_train_loss_of_zero() -> None:
    assert pytest.approx(1.19e-7, rel=0.01) == LOSS_FLOOR
    found = transitions(curve([0.0, 0.0], [1.0, 0.0]))
    assert found["max_loss_ratio"] == pytest.approx(1 / LOSS_FLOOR + 1)


def test_a_loss_that_was_not_logged_decides_nothing() -> None:
    assert label([1e-6, 1e-6], [None, None]) == "undetermined"
    assert math.isnan(transitions(curve([1e-6], [None]))["max_loss_ratio"])
    assert label([1e-6, None, 1e-6], [1e-6, 0.9, None]) == "train and test drop together"  # no ratio of different steps
