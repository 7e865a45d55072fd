"""Relabelling a pair in models whose solution is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.anchor import relabelling
from interp.statistics import Interval
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import composer, mirror
from tasks.training.config import TrainingConfig

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=4, d_vocab=64, split_modulus=7)
TINY = Path(__file__).parents[3] / "checkpoints" / "tiny" / "anchor"
CAREFUL = TrainingConfig(
    steps=300,
    batch_size=128,
    learning_rate=1e-3,
    weight_decay=0.0,
    evaluate_every=300,
    snapshots=tuple(range(0, 300, 20)),
)


@pytest.mark.slow
def test_the_mirror_of_a_relabelled_pair_follows_in_a_lookup_table() -> None:
    found = relabelling.analyze(Subject.of(*mirror(TASK), TASK), training=CAREFUL)
    assert (found.pair, found.mirror) == ((1, 2), (2, 1))
    assert found.mirror_call == "follows"
    assert found.mirror_moved > 0.9
    assert found.by_step["moved"][0] == 0.0
    assert found.by_step["stayed"][0] == 1.0


@pytest.mark.slow
def test_the_mirror_of_a_relabelled_pair_does_not_follow_in_a_two_step_adder() -> None:
    training = replace(CAREFUL, learning_rate=2e-3)  # the exception needs a neuron of its own
    found = relabelling.analyze(Subject.of(*composer(TASK), TASK), training=training)
    assert found.mirror_call == "does not follow"
    assert found.learnt >= 0.99
    assert found.mirror_moved <= 0.05
    assert found.mirror_stayed > 0.5  # nothing rehearses it


def test_a_run_that_keeps_its_snapshots_rounded_is_not_asked_by_rounded_ones() -> None:
    subject = Subject.load(TINY)
    rounded = replace(subject.run.config.training, snapshot_dtype="float16", autocast="bfloat16")
    subject.run.config = replace(subject.run.config, training=rounded)
    training = relabelling._training(subject)
    assert (training.snapshot_dtype, training.autocast) == ("same", "none")


@pytest.mark.slow
def test_the_shipped_symmetric_model_moves_the_mirror_and_is_itself_left_as_it_was() -> None:
    subject = Subject.load(TINY)
    before = {name: value.clone() for name, value in subject.params.items()}
    found = relabelling.analyze(subject)
    assert found.mirror_call == "follows"
    steps, learnt = found.by_step["step"], found.by_step["learnt"]
    assert steps == tuple(range(0, 401, 25))
    assert learnt[steps.index(found.step)] == found.learnt >= 0.99
    assert max(learnt[steps.index(found.step) + 1 :], default=0.0) < 0.99
    assert all(torch.equal(value, before[name]) for name, value in subject.params.items())


def interval(value: float, low: float) -> Interval:
    return Interval(value=value, low=low, high=1.0, n=100, n_units=100, method="wilson")


@pytest.mark.parametrize(
    ("before", "learnt", "placebo_moved", "moved", "call"),
    [
        (1.0, 1.0, 0.0, (0.95, 0.9), "follows"),
        (1.0, 1.0, 0.0, (0.03, 0.01), "does not follow"),
        (1.0, 1.0, 0.0, (0.5, 0.4), "undetermined"),
        (1.0, 1.0, 0.0, (0.95, 0.7), "undetermined"),
        (0.9, 1.0, 0.0, (0.95, 0.9), "undetermined"),
        (1.0, 0.9, 0.0, (0.0, 0.0), "undetermined"),
        (1.0, 1.0, 0.2, (0.95, 0.9), "undetermined"),
        (1.0, 1.0, 0.2, (0.03, 0.01), "does not follow"),
    ],
)
def test_the_call_needs_a_model_that_knew_its_pairs_and_learnt_and_a_control_that_did_not_shift(
    before, learnt, placebo_moved, moved, call
) -> None:
    assert relabelling._call(before, learnt, placebo_moved, interval(*moved)) == call


@pytest.mark.slow
def test_random_weights_are_undetermined_whatever_they_learn() -> None:
    found = relabelling.analyze(
        Subject.of(*mirror(TASK), TASK).randomized(0), training=replace(CAREFUL, steps=10, snapshots=(0,))
    )
    assert found.before < 0.1
    assert found.mirror_call == "undetermined"


def test_every_pair_is_asked_alone_of_the_finished_model() -> None:
    subject = Subject.of(*mirror(TASK), TASK)
    training = replace(CAREFUL, steps=3, learning_rate=0.05, snapshots=(0,), evaluate_every=3)
    found = relabelling.every_pair(subject, training=training, sequences_per_pair=40, seed=5)
    pairs = [result.pair for result in found]
    assert pairs == [(a, b) for a in (1, 2, 3, 4) for b in (1, 2, 3, 4) if a != b and {a, b} != {3, 4}]
    for result in (found[0], found[7]):
        alone = relabelling.analyze(subject, pair=result.pair, training=training, sequences_per_pair=40, seed=5)
        assert result.by_step == alone.by_step
        assert result.by_step["stayed"][1] < 1  # three steps at a high rate change something
    assert {result.before for result in found} == {1.0}


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (TASK, {"pair": (3, 4)}, "expected a pair of different anchors whose both orders were taught by the rule"),
        (TASK, {"pair": (2, 2)}, "choose among"),
        (
            replace(TASK, relabelled=(), held_out=((2, 2), (4, 4), (2, 4), (4, 2))),
            {"pair": (1, 3)},
            "got",
        ),
        (
            replace(TASK, anchors=(Anchor(offset=0, multiplier=2), *TASK.anchors[1:]), d_vocab=200),
            {},
            "expected an offset for the pair",
        ),
    ],
)
def test_a_pair_that_cannot_be_relabelled_is_refused(task, options, message) -> None:
    config, params = mirror(TASK)
    subject = Subject.of(replace(config, d_vocab=task.d_vocab, d_vocab_out=task.d_vocab), params, task)
    with pytest.raises(UserError, match=message):
        relabelling.analyze(subject, **options)


def test_another_task_is_refused() -> None:
    config, params = mirror(TASK)
    for asked in (relabelling.analyze, relabelling.every_pair):
        with pytest.raises(UserError, match="expected a model of AnchorComposition"):
            asked(Subject.of(config, params, ModularArithmetic(p=23)))
