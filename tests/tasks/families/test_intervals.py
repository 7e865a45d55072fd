"""Anchors with masked intervals, on sequences read without the code that wrote them."""

import pytest

from tasks.base import UserError
from tasks.families.intervals import AnchorIntervals


def test_no_anchor_is_trained_with_its_masked_keys_and_every_one_is_asked_them():
    task = AnchorIntervals(n_train=5_000)
    shown = set()
    for sequence, target in zip(task.train_set().inputs.tolist(), task.train_set().targets.tolist(), strict=True):
        ((at, anchor),) = [(i, token) for i, token in enumerate(sequence) if token <= 10]
        key = sequence[at + 1]
        assert target == key + anchor
        assert not 20 + 8 * (anchor - 1) <= key < 20 + 8 * anchor
        assert key % 9 != at + 1
        shown.add((anchor, key))
    assert len(shown) > 0.95 * 10 * 72
    sets = task.evaluation_sets()
    assert list(sets) == ["train", "test", *(f"masked_{anchor}" for anchor in range(1, 11))]
    for anchor in range(1, 11):
        part = sets[f"masked_{anchor}"]
        keys = part.targets - anchor
        assert set(keys.tolist()) == set(range(20 + 8 * (anchor - 1), 20 + 8 * anchor))
        assert bool(((part.inputs == anchor).sum(1) == 1).all())
        after = part.inputs.gather(1, (part.inputs == anchor).int().argmax(1, keepdim=True) + 1).squeeze(1)
        assert after.equal(keys)
        assert not part.rules


def test_with_two_anchors_the_other_ones_answer_is_a_candidate_on_masked_keys():
    sets = AnchorIntervals(offsets=(0, 5), masked=((60, 99), (20, 59)), n_train=100).evaluation_sets()
    for name, own, other in (("masked_1", 0, 5), ("masked_2", 5, 0)):
        keys = sets[name].targets - own
        assert sets[name].rules["anchor"].equal(keys + own)
        assert sets[name].rules["other_anchor"].equal(keys + other)
    assert not sets["train"].rules


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offsets": (1, 2)}, "expected one masked interval per anchor, got 10 of 2 anchors"),
        ({"offsets": (), "masked": ()}, "expected one masked interval per anchor, got 0 of 0"),
        ({"offsets": (1,), "masked": ((20, 99),)}, "some of the keys 20…99 but not all, got 20…99"),
        ({"offsets": (1,), "masked": ((1, 19),)}, "but not all, got 1…19"),
        ({"offsets": (150,), "masked": ((20, 29),)}, "expected answers between 0 and d_vocab − 1 = 200, got 170…249"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        AnchorIntervals(**fields)
