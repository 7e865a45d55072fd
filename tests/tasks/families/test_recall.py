"""Identity, classification and recitation, on sequences read without the code that wrote them."""

from dataclasses import replace

import pytest

from tasks.base import UserError
from tasks.families.recall import Classification, Identity, Recitation
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train


def rows(task):
    """Every training and evaluation sequence with its target."""
    for part in (task.train_set(), *task.evaluation_sets().values()):
        yield from zip(part.inputs.tolist(), part.targets.tolist(), strict=True)


@pytest.mark.parametrize(
    ("distance", "wrap", "places"),
    [
        (1, False, range(1, 9)),
        (3, False, range(3, 9)),
        (-1, False, range(8)),
        (2, True, range(9)),
        (-8, False, [0]),
    ],
)
def test_identity_answers_with_the_key_at_its_distance_from_the_anchor(distance, wrap, places):
    task = Identity(distance=distance, wrap=wrap)
    found = set()
    for sequence, target in rows(task):
        assert sequence.count(3) == 1
        at = sequence.index(3) + distance
        assert wrap or 0 <= at < 9
        assert target == sequence[at % 9]
        found.add(at % 9)
    assert found == set(places)


def test_identity_holds_out_keys_by_their_position():
    task = Identity()
    assert all(s[s.index(3) + 1] % 9 != s.index(3) + 1 for s in task.train_set().inputs.tolist())
    sets = task.evaluation_sets()
    # keys 20…99 with remainder 1 to 8 at positions 1 to 8: nine of each, but eight of 1
    assert (len(sets["train"]), len(sets["test"])) == (640 - 71, 71)
    assert all(s[s.index(3) + 1] % 9 == s.index(3) + 1 for s in sets["test"].inputs.tolist())


def test_classification_answers_with_the_class_of_the_key_behind_the_anchor():
    for sequence, target in rows(Classification(n_train=500)):
        key = sequence[sequence.index(3) + 1]
        assert target == 100 + (key >= 40) + (key >= 60) + (key >= 80)


@pytest.mark.parametrize("anchor", [(3,), (3, 4), (3, 4, 5)])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_recitation_asks_for_the_other_end_of_what_the_anchor_joins(anchor, direction):
    task = Recitation(anchor=anchor, direction=direction, n_train=500)
    for sequence, target in rows(task):
        first = sequence.index(3) - 1
        last = first + len(anchor) + 1
        assert tuple(sequence[first + 1 : last]) == anchor
        assert 0 <= first < last < 8  # the question is no part of what it asks about
        asked, answer = (first, last) if direction == "forward" else (last, first)
        assert sequence[8] == sequence[asked]
        assert target == sequence[answer]
    answers = {s.index(3) + (len(anchor) if direction == "forward" else -1) for s, _ in rows(task)}
    assert answers == set(task.positions)
    assert len(answers) == 7 - len(anchor)


@pytest.mark.slow
def test_two_layers_learn_identity_on_unseen_keys_and_one_layer_does_not():
    """Published at n_train = 1,000: 1.0 and .09. One layer sees key and anchor from the end, but not which key is
    the anchor's neighbour."""
    task = replace(Identity(key_low=10, key_high=29, sequence_length=6, split_modulus=7, d_vocab=30), n_train=1_000)
    training = TrainingConfig(
        steps=200, batch_size=64, learning_rate=3e-3, weight_decay=0.01, warmup_steps=50, evaluate_every=200
    )
    unseen = {}
    for n_layers in (1, 2):
        model = TransformerConfig(
            n_layers=n_layers, d_model=32, n_heads=1, d_head=32, d_mlp=64, d_vocab=30, n_ctx=6, normalization="post"
        )
        runs = train(task, model, Initialization(), training, seeds=(0, 1))
        unseen[n_layers] = [run.metrics[-1]["test_accuracy"] for run in runs]
    assert len(task.evaluation_sets()["test"]) == 14
    assert unseen[2] == [1.0, 1.0]
    assert max(unseen[1]) < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Identity(distance=0), "expected a distance between 1 and sequence_length − 1 = 8.*got 0"),
        (lambda: Identity(distance=-9), "expected a distance between 1"),
        (lambda: Classification(n_classes=3), "expected n_classes that divides the 80 keys, got 3"),
        (lambda: Classification(d_vocab=103), "expected answers between 0 and d_vocab − 1 = 102, got 100…103"),
        (lambda: Recitation(anchor=()), "expected at least one anchor token, got none"),
        (lambda: Recitation(direction="up"), "expected a direction forward or backward, got 'up'"),
        (lambda: Recitation(sequence_length=3), "a sequence_length of 3 has no room"),
    ],
)
def test_impossible_tasks_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
