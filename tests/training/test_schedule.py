"""Learning rates and snapshot steps against the published schedule."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.presets import preset
from tasks.training.config import TrainingConfig
from tasks.training.schedule import learning_rate_factor, snapshot_steps


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-5), (1_850, 1.05e-4), (3_700, 2e-4), (40_700, 1.05e-4), (77_700, 1e-5)]
)
def test_the_published_anchor_schedule_warms_up_to_2e_4_and_falls_back_to_1e_5(step, rate):
    training = preset("anchor", "paper").training
    assert training.learning_rate * learning_rate_factor(training, step) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 5, 9, 10, 11, 39_999])
def test_the_published_modular_schedule_is_the_lesser_of_a_tenth_of_the_step_and_one(step):
    assert learning_rate_factor(preset("modular", "paper").training, step) == pytest.approx(min(step / 10, 1))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 10**6),
    warmup=st.integers(0, 10**5),
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    decay=st.sampled_from(["constant", "cosine"]),
    share=st.floats(0, 1),
)
def test_the_factor_stays_between_its_ends_and_one(steps, warmup, start, end, decay, share):
    config = TrainingConfig(steps=steps, warmup_steps=warmup, warmup_from=start, decay=decay, decay_to=end, snapshots=2)
    factor = learning_rate_factor(config, round(share * steps))
    assert min(start, end) - 1e-12 <= factor <= 1 + 1e-12


def test_the_cosine_is_half_way_down_in_the_middle():
    config = TrainingConfig(steps=30, warmup_steps=10, decay="cosine", decay_to=0.2)
    assert learning_rate_factor(config, 20) == pytest.approx(0.6)
    assert learning_rate_factor(config, 15) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_log_spaced_snapshots_lie_a_decade_apart():
    assert snapshot_steps(TrainingConfig(steps=10_000, snapshots=6)) == [0, 1, 10, 100, 1_000, 10_000]


def test_named_snapshots_are_kept_with_the_first_step_and_the_last():
    assert snapshot_steps(TrainingConfig(steps=50, snapshots=(30, 7))) == [0, 7, 30, 50]
    assert snapshot_steps(TrainingConfig(steps=20, snapshots=(30, 7))) == [0, 7, 20]  # a shorter run leaves some out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 40))
def test_snapshot_steps_ascend_from_the_first_step_to_the_last_and_are_no_more_than_asked_for(steps, count):
    kept = snapshot_steps(TrainingConfig(steps=steps, snapshots=count))
    assert kept[0] == 0
    assert kept[-1] == steps
    assert kept == sorted(set(kept))
    assert len(kept) <= max(count, 2)
