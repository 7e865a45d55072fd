"""Transition times and phases on curves drawn by hand."""

import math

import pytest

from interp.transitions import Phases, Transition, cleanup_end, first, fitted, phases
from tasks.base import UserError

NAN = math.nan
STEPS = [0, 1000, 2000, 3000, 4000, 5000, 6000]
TRAIN = [4.7, 1e-3, 1e-5, 1e-6, 1e-7, 1e-7, 1e-7]
TEST = [4.7, 20.0, 30.0, 16.0, 14.0, 1e-6, 1e-7]
EXCLUDED = [4.7, 0.01, 0.019, 0.5, 1.0, 5.0, 6.0]
GENERALISED = Transition(after=4000, by=5000)
NEVER = Transition(after=None, by=None)


def test_a_time_lies_between_the_last_step_without_and_the_first_step_with_it():
    assert fitted([0, 10, 20, 30], [0.1, 0.98, 0.99, 0.5]) == Transition(after=10, by=20)


def test_what_holds_from_the_start_has_no_lower_end_and_what_never_holds_no_upper_one():
    assert fitted([5, 10], [1.0, 1.0]) == Transition(after=None, by=5)
    assert fitted([5, 10], [0.1, 0.2]) == Transition(after=10, by=None)
    assert not fitted([5, 10], [0.1, 0.2]).reached
    assert fitted([], []) == NEVER


def test_a_step_without_a_measurement_widens_the_interval():
    assert fitted([0, 10, 20, 30], [0.1, NAN, NAN, 1.0]) == Transition(after=0, by=30)
    assert fitted([0, 10], [NAN, NAN]) == NEVER


def test_times_are_printed_as_intervals():
    shown = [str(Transition(after=a, by=b)) for a, b in ((1400, 1600), (None, 0), (25000, None), (None, None))]
    assert shown == ["1,400–1,600", "by 0", "not by 25,000", "not reached"]


def test_values_that_do_not_match_the_steps_are_refused():
    with pytest.raises(UserError, match="got 1 for 2 steps"):
        first([0, 1], [True])
    with pytest.raises(UserError, match="ascending order"):
        first([0, 2, 1], [False, False, False])


def test_the_three_phases_end_where_their_rules_say():
    end = Transition(after=5000, by=6000)
    found = phases(STEPS, TRAIN, TEST, EXCLUDED, end)
    # 0.019 is not twice the minimum 0.01; 16 is not below half of 30, 14 is
    assert found == Phases(
        memorisation=Transition(after=2000, by=3000), circuit_formation=Transition(after=3000, by=4000), cleanup=end
    )


def test_excluded_loss_above_twice_its_minimum_before_the_minimum_ends_no_memorisation():
    falling = [4.7, 3.0, 2.0, 1.0, 0.5, 0.3, 0.2]
    found = phases(STEPS, TRAIN, TEST, falling, Transition(after=5000, by=6000))
    never = Transition(after=6000, by=None)
    assert found == Phases(memorisation=never, circuit_formation=never, cleanup=never)


def test_memorisation_waits_for_train_loss():
    late = [4.7, 4.0, 3.0, 2.0, 1.0, 1e-3, 1e-4]
    assert phases(STEPS, late, TEST, EXCLUDED, NEVER).memorisation == Transition(after=4000, by=5000)


def test_cleanup_needs_both_close_losses_and_settled_weights():
    close, far = [1e-7] * 7, [1e-9] * 7
    settled, shrinking = [900.0] * 7, [900.0 * 0.98**i for i in range(7)]
    test = [4.7, 20, 30, 16, 14, 3e-7, 3e-7]
    assert cleanup_end(STEPS, test, close, settled, GENERALISED) == Transition(after=4000, by=5000)
    assert cleanup_end(STEPS, test, far, settled, GENERALISED) == Transition(after=6000, by=None)
    assert cleanup_end(STEPS, test, close, shrinking, GENERALISED) == Transition(after=6000, by=None)
    assert not cleanup_end(STEPS, test, close, settled, Transition(after=6000, by=None)).reached


def test_the_slope_of_the_norm_is_counted_per_thousand_steps():
    steps, test = [0, 100, 200], [30.0, 1e-7, 1e-7]
    slow, fast = [900.0, 900.5, 901.0], [900.0, 901.0, 902.0]  # 0.55 and 1.1 % per 1,000 steps
    generalised = Transition(after=0, by=100)
    assert cleanup_end(steps, test, test, slow, generalised).by == 100
    assert cleanup_end(steps, test, test, fast, generalised).by is None


def test_a_restricted_loss_that_is_missing_makes_cleanup_later_not_earlier():
    test = [4.7, 20, 30, 16, 14, 3e-7, 3e-7]
    restricted = [1e-7] * 5 + [NAN, 1e-7]
    assert cleanup_end(STEPS, test, restricted, [900.0] * 7, GENERALISED) == Transition(after=4000, by=6000)


def test_cleanup_that_came_before_the_circuit_was_formed_ends_with_it():
    found = phases(STEPS, TRAIN, TEST, EXCLUDED, Transition(after=1000, by=2000))
    assert found.cleanup == found.circuit_formation
