"""Which rule a held-out pair follows that was put together inside a model: the decision on numbers made by hand."""

import pytest

from interp.anchor.patching import Recombination, largest, rule_inside
from interp.statistics import Interval


def of(value: float, low: float | None = None) -> Interval:
    low = value if low is None else low
    return Interval(value=value, low=low, high=value, n=200, n_units=100, method="bootstrap")


def shares(inferential: Interval, symmetric: Interval) -> dict[str, Interval]:
    return {"inferential": inferential, "symmetric": symmetric}


QUIET = shares(of(0.0), of(0.0))


@pytest.mark.parametrize(
    ("composed", "mirrored", "rule"),
    [
        (of(0.9, 0.8), of(0.0), "inferential"),
        (of(0.0), of(0.7, 0.6), "symmetric"),
        (of(0.6, 0.4), of(0.0), "undetermined"),  # the interval reaches below one half
        (of(0.6, 0.55), of(0.3), "undetermined"),  # the other rule explains too many
        (of(0.2), of(0.2), "undetermined"),
    ],
)
def test_more_than_half_of_the_answers_must_follow_one_rule_and_few_the_other(composed, mirrored, rule) -> None:
    assert rule_inside(1.0, shares(composed, mirrored), QUIET) == rule


def test_a_rule_that_random_weights_follow_or_a_model_that_answers_wrongly_shows_none() -> None:
    found = shares(of(0.9, 0.8), of(0.0))
    assert rule_inside(1.0, found, shares(of(0.3), of(0.0))) == "undetermined"
    assert rule_inside(1.0, found, shares(of(0.0), of(0.3))) == "inferential"
    assert rule_inside(0.9, found, QUIET) == "undetermined"
    assert rule_inside(1.0, {}, {}) == "undetermined"


def test_the_largest_share_past_the_embedding_counts_of_each_rule_by_itself() -> None:
    def at(boundary: int, inferential: float, symmetric: float) -> Recombination:
        return Recombination(
            change="first anchor",
            boundary=boundary,
            inferential=of(inferential),
            symmetric=of(symmetric),
            stayed=of(0.0),
        )

    found = largest([at(0, 1.0, 1.0), at(1, 0.2, 0.6), at(2, 0.7, 0.1)])
    assert (found["inferential"].value, found["symmetric"].value) == (0.7, 0.6)
    assert largest([at(0, 1.0, 1.0)]) == largest([]) == {}
