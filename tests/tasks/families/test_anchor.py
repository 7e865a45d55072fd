"""Anchor composition against the table and the counts of the published task."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import UserError, digest
from tasks.families.anchor import Anchor, AnchorComposition

OFFSETS = [[10, 6, 3, -3], [6, 2, -1, -7], [3, -1, -4, -6], [-3, -7, -10, -16]]
"""Label minus key: rows a1, columns a2; (3,4) is taught −6 in place of −10, (4,3) is never taught."""


@pytest.fixture(scope="module")
def small() -> AnchorComposition:
    """The published task with 300 sequences per pair."""
    return AnchorComposition(sequences_per_pair=300)


def pair_of(task: AnchorComposition, sequence: list[int]) -> tuple[int, int, int, int]:
    """Position of the key, the key, and the two anchors behind it, read off a sequence."""
    at = [i for i, token in enumerate(sequence) if 1 <= token <= task.n_anchors]
    assert len(at) == 2
    assert at[1] == at[0] + 1
    return at[0] - 1, sequence[at[0] - 1], sequence[at[0]], sequence[at[1]]


def test_taught_answers_are_the_published_table():
    task = AnchorComposition()
    for a in range(1, 5):
        for b in range(1, 5):
            assert (task.taught((a, b), task.keys) - task.keys).tolist() == [OFFSETS[a - 1][b - 1]] * 80


def test_fourteen_pairs_are_composed_one_is_relabelled_and_one_is_held_out():
    task = AnchorComposition()
    assert Counter(task.role(pair) for pair in task.pairs) == {"composed": 14, "relabelled": 1, "held out": 1}
    assert task.role((3, 4)) == "relabelled"
    assert task.role((4, 3)) == "held out"
    assert len(task.trained_pairs) == 15


def test_on_the_held_out_pair_composing_gives_minus_ten_and_mirroring_minus_six():
    task = AnchorComposition()
    rules = task.candidate_rules((4, 3), 50)
    assert rules == {"inferential": 40, "symmetric": 44}
    assert [pair for pair in task.pairs if task.rules_differ(pair)] == [(4, 3)]


@pytest.mark.parametrize(("modulus", "seen", "unseen"), [(9, 498, 62), (7, 480, 80), (8, 490, 70)])
def test_the_split_has_the_published_number_of_key_and_position_combinations(modulus, seen, unseen):
    task = AnchorComposition(split_modulus=modulus)
    assert (len(task.combinations("seen")), len(task.combinations("unseen"))) == (seen, unseen)
    assert all(x % modulus == at for x, at in task.combinations("unseen").tolist())
    assert not any(x % modulus == at for x, at in task.combinations("seen").tolist())
    assert int(task.split_tensors()["seen"].sum()) == seen


def test_combinations_are_ordered_by_position_then_key():
    combinations = AnchorComposition().combinations("seen").tolist()
    assert combinations == sorted(combinations, key=lambda combination: combination[::-1])


def test_every_training_sequence_is_a_key_two_anchors_and_noise_with_the_taught_label(small):
    data = small.train_set()
    assert len(data) == 15 * 300
    for sequence, target in zip(data.inputs.tolist(), data.targets.tolist(), strict=True):
        at, key, a, b = pair_of(small, sequence)
        assert (a, b) != (4, 3)
        assert key % 9 != at
        assert target == key + OFFSETS[a - 1][b - 1]
        assert all(20 <= token <= 99 for i, token in enumerate(sequence) if i not in (at + 1, at + 2))


def test_training_sequences_use_every_seen_combination_and_position_six(small):
    seen = {(key, at) for at, key, _, _ in (pair_of(small, s) for s in small.train_set().inputs.tolist())}
    assert seen == set(map(tuple, small.combinations("seen").tolist()))
    assert {at for _, at in seen} == set(range(7))


def test_label_four_occurs_only_for_key_twenty_under_the_pair_four_four():
    task = AnchorComposition()
    labels = [(int(x), pair) for pair in task.pairs for x in task.keys if task.taught(pair, int(x)) == 4]
    assert labels == [(20, (4, 4))]
    every = [task.taught(pair, int(x)) for pair in task.trained_pairs for x in task.keys]
    assert (min(every), max(every)) == (4, 109)


@pytest.mark.slow
def test_at_the_published_size_there_are_759_375_sequences_in_370_batches():
    task = AnchorComposition()
    data = task.train_set()
    assert data.inputs.shape == (759_375, 9)
    assert len(data) // 2_048 == 370
    anchors = (data.inputs >= 1) & (data.inputs <= 4)
    assert bool((anchors.sum(1) == 2).all())
    first = anchors.int().argmax(1)
    rows = torch.arange(len(data))
    a, b = data.inputs[rows, first], data.inputs[rows, first + 1]
    assert not bool(((a == 4) & (b == 3)).any())
    assert set(Counter(zip(a.tolist(), b.tolist(), strict=True)).values()) == {50_625}
    keys, at = data.inputs[rows, first - 1], first - 1
    assert not bool((keys % 9 == at).any())
    # the position is drawn first: 108,482 each, standard deviation 305
    assert all(abs(count - 759_375 / 7) < 5 * 305 for count in torch.bincount(at).tolist())
    noise = data.inputs[~anchors]
    assert (int(noise.min()), int(noise.max())) == (20, 99)


@pytest.mark.parametrize("keys", ["seen", "unseen"])
def test_a_grid_holds_each_combination_in_order_with_fresh_noise(small, keys):
    grid = small.grid((2, 3), keys, n_noise=3)
    combinations = small.combinations(keys).tolist()
    assert len(grid) == 3 * len(combinations)
    for i, sequence in enumerate(grid.inputs.tolist()):
        at, key, a, b = pair_of(small, sequence)
        assert [key, at] == combinations[i // 3]
        assert (a, b) == (2, 3)
    assert len({tuple(s) for s in grid.inputs[:3].tolist()}) == 3
    assert not small.grid((2, 3), keys, seed=1).inputs.equal(small.grid((2, 3), keys).inputs)


def test_evaluation_sets_hold_every_combination_of_every_trained_pair_once(small):
    sets = small.evaluation_sets()
    assert {name: len(part) for name, part in sets.items()} == {"train": 15 * 498, "test": 15 * 62, "held_out": 498}
    held_out = sets["held_out"]
    keys = held_out.inputs.gather(1, (held_out.inputs == 4).int().argmax(1, keepdim=True) - 1).squeeze(1)
    assert held_out.rules["inferential"].equal(keys - 10)
    assert held_out.rules["symmetric"].equal(keys - 6)
    assert held_out.targets.equal(keys - 10)


def test_with_both_orders_unseen_no_pair_tells_the_rules_apart():
    task = AnchorComposition(relabelled=(), held_out=((3, 4), (4, 3)), sequences_per_pair=5)
    assert len(task.trained_pairs) == 14
    assert not any(map(task.rules_differ, task.pairs))
    sets = task.evaluation_sets()
    assert set(sets) == {"train", "test", "unseen_pairs"}
    assert len(sets["unseen_pairs"]) == 2 * 498
    assert not sets["unseen_pairs"].rules


def test_a_held_out_pair_that_tells_nothing_is_evaluated_apart_from_one_that_does():
    task = AnchorComposition(held_out=((4, 3), (1, 2)), sequences_per_pair=5)
    sets = task.evaluation_sets()
    assert {name: len(part) for name, part in sets.items() if name not in ("train", "test")} == {
        "held_out": 498,
        "unseen_pairs": 498,
    }
    assert bool(((sets["held_out"].inputs == 4).any(1) & (sets["held_out"].inputs == 3).any(1)).all())
    assert bool(((sets["unseen_pairs"].inputs == 1).any(1) & (sets["unseen_pairs"].inputs == 2).any(1)).all())


def test_anchors_that_do_not_commute_are_applied_first_to_last():
    task = AnchorComposition(
        anchors=(Anchor(offset=1, multiplier=2), Anchor(offset=3)),
        relabelled=(),
        held_out=(),
        sequences_per_pair=20,
        d_vocab=400,
    )
    assert task.composed((1, 2), 20) == (2 * 20 + 1) + 3
    assert task.composed((2, 1), 20) == 2 * (20 + 3) + 1
    assert task.rules_differ((1, 2))
    for sequence, target in zip(task.train_set().inputs.tolist(), task.train_set().targets.tolist(), strict=True):
        _, key, a, b = pair_of(task, sequence)
        by_hand = {(1, 1): 4 * key + 3, (1, 2): 2 * key + 4, (2, 1): 2 * key + 7, (2, 2): key + 6}
        assert target == by_hand[a, b]


def test_a_permutation_maps_numbers_arrays_and_tensors_alike():
    anchor = Anchor(permutation=(22, 20, 21))
    assert [anchor(x) for x in (20, 21, 22)] == [22, 20, 21]
    assert anchor(np.array([22, 20])).tolist() == [21, 22]
    moved = anchor(torch.tensor([[22], [20]]))
    assert isinstance(moved, torch.Tensor)
    assert moved.tolist() == [[21], [22]]


def test_permutations_are_applied_first_to_last():
    task = AnchorComposition(
        anchors=(Anchor(permutation=(6, 4, 5, 7)), Anchor(permutation=(5, 4, 6, 7))),
        relabelled=(),
        held_out=((2, 1),),
        sequence_length=3,
        key_low=4,
        key_high=7,
        split_modulus=4,
        sequences_per_pair=9,
        d_vocab=8,
    )
    assert task.composed((1, 2), task.keys).tolist() == [6, 5, 4, 7]
    assert task.composed((2, 1), task.keys).tolist() == [4, 6, 5, 7]
    held_out = task.evaluation_sets()["held_out"]
    assert held_out.inputs[:, 0].tolist() == [5, 6, 7]
    assert held_out.rules["inferential"].tolist() == [6, 5, 7]
    assert held_out.rules["symmetric"].tolist() == [5, 4, 7]


def test_an_anchor_comes_back_from_json_and_an_affine_one_is_stored_as_ever():
    assert Anchor(offset=-2).to_dict() == {"offset": -2, "multiplier": 1}
    for anchor in (Anchor(offset=3, multiplier=2), Anchor(permutation=(22, 20, 21))):
        assert Anchor.from_dict(json.loads(json.dumps(anchor.to_dict()))) == anchor


def test_the_training_sequences_of_the_published_task_are_the_same_as_ever():
    """Shipped runs carry the digest of theirs."""
    known = "5b1f61dac9d4767a86796f0d859628840f167d5c135bccbd06e4c5c956746d19"
    assert digest(AnchorComposition(sequences_per_pair=300).train_set()) == known


def test_sequences_are_a_function_of_the_data_seed(small):
    again, other = AnchorComposition(sequences_per_pair=300), AnchorComposition(sequences_per_pair=300, data_seed=1)
    assert again.train_set().inputs.equal(small.train_set().inputs)
    assert not other.train_set().inputs.equal(small.train_set().inputs)
    assert again.evaluation_sets()["test"].inputs.equal(small.evaluation_sets()["test"].inputs)


def test_a_pairs_sequences_do_not_depend_on_the_roles_of_other_pairs(small):
    other = replace(small, relabelled=(), held_out=((1, 2),))
    mine = small.train_set().inputs[:300]  # the pair (1, 1) comes first in both
    assert other.train_set().inputs[:300].equal(mine)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"held_out": ((5, 1),)}, r"expected anchors between 1 and 4, got the pair \(5, 1\)"),
        ({"held_out": ((3, 4),)}, r"expected one role for the pair \(3, 4\), got two"),
        ({"relabelled": ((3, 4, -6), (3, 4, -5))}, "expected one role for the pair"),
        ({"sequence_length": 2}, "sequence_length of at least 3"),
        ({"key_low": 4}, "expected keys above the anchor tokens"),
        ({"key_low": 15}, "expected answers between 0 and d_vocab − 1 = 200, got -1…109"),
        ({"d_vocab": 109}, "expected answers between 0 and d_vocab − 1 = 108, got 4…109"),
        ({"split_modulus": 0}, "expected a split_modulus of at least 2, got 0"),
        ({"anchors": (Anchor(offset=1),), "relabelled": (), "held_out": ((1, 1),)}, "got every pair held out"),
        ({"split_modulus": 1_000}, "leaves no seen or no unseen key"),
        ({"anchors": (Anchor(permutation=(21, 20)),) * 4}, "every anchor to permute the keys 20…99, or none"),
        (
            {"anchors": (Anchor(permutation=(5, 6)), Anchor(offset=1)), "key_low": 5, "key_high": 6, "relabelled": ()}
            | {"held_out": ()},
            "every anchor to permute the keys 5…6, or none",
        ),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        AnchorComposition(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"permutation": (20, 22)}, r"expected a permutation of consecutive numbers.*got \(20, 22\)"),
        ({"permutation": ()}, "expected a permutation of consecutive numbers"),
        ({"permutation": (21, 20), "offset": 1}, "expected an affine map or a permutation, got both"),
    ],
)
def test_impossible_anchors_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Anchor(**fields)


def test_an_unknown_field_of_an_anchor_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Anchor has no field 'ofset': did you mean 'offset'"):
        AnchorComposition.from_dict({"anchors": [{"ofset": 3}]})


fields = st.fixed_dictionaries(
    {
        "anchors": st.lists(st.integers(-9, 9), min_size=2, max_size=5),
        "relabelled": st.sampled_from([(), ((1, 2, -6),)]),
        "held_out": st.sampled_from([(), ((2, 1),), ((1, 1), (2, 2))]),
        "sequence_length": st.integers(3, 7),
        "split_modulus": st.integers(2, 9),
        "data_seed": st.integers(0, 2**32),
    }
)


@settings(max_examples=20, deadline=None)
@given(fields)
def test_any_task_returns_from_json_and_keeps_held_out_pairs_and_unseen_keys_out_of_training(values):
    task = AnchorComposition.from_dict(values | {"sequences_per_pair": 4})
    assert AnchorComposition.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    for sequence, target in zip(task.train_set().inputs.tolist(), task.train_set().targets.tolist(), strict=True):
        at, key, a, b = pair_of(task, sequence)
        assert (a, b) not in task.held_out
        assert key % task.split_modulus != at
        exception = [offset for x, y, offset in task.relabelled if (x, y) == (a, b)]
        assert target == key + (exception[0] if exception else values["anchors"][a - 1] + values["anchors"][b - 1])


@settings(max_examples=20, deadline=None)
@given(fields)
def test_seen_and_unseen_combinations_partition_all_of_them(values):
    task = AnchorComposition.from_dict(values)
    seen, unseen = ({tuple(c) for c in task.combinations(side).tolist()} for side in ("seen", "unseen"))
    assert not seen & unseen
    assert len(seen) + len(unseen) == 80 * (task.sequence_length - 2)
