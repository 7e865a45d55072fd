"""Published variants of anchor composition, against their definitions."""

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import tasks
from tasks import variants
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.variants import (
    affine_anchors,
    both_unseen,
    data_complexity,
    nine_anchors,
    permutation_anchors,
    synonym,
    two_intervals,
)

OFFSETS = {1: 5, 2: 1, 3: -2, 4: -8}
EXCEPTIONS = {(1, 2): 4, (1, 3): 1, (1, 4): -5, (2, 3): 5, (2, 4): -9, (3, 4): -6}
"""In the order in which k takes them."""


def labels(task: AnchorComposition) -> dict[tuple[int, int], set[int]]:
    """Label minus key of every trained pair, read off the training sequences."""
    found: dict[tuple[int, int], set[int]] = {}
    data = replace(task, sequences_per_pair=5).train_set()
    for sequence, target in zip(data.inputs.tolist(), data.targets.tolist(), strict=True):
        at = next(i for i, token in enumerate(sequence) if token <= task.n_anchors)
        found.setdefault((sequence[at], sequence[at + 1]), set()).add(target - sequence[at - 1])
    return found


@pytest.mark.parametrize("k", range(7))
def test_data_complexity_relabels_the_first_k_unordered_pairs_in_both_orders(k):
    excepted = dict(list(EXCEPTIONS.items())[:k])
    expected = {
        (a, b): {excepted.get((min(a, b), max(a, b)), OFFSETS[a] + OFFSETS[b])} for a, b in product(OFFSETS, repeat=2)
    }
    assert labels(data_complexity(k)) == expected
    assert len(data_complexity(k).trained_pairs) * data_complexity(k).sequences_per_pair == 90_000


def test_every_exception_of_data_complexity_is_wrong():
    assert all(OFFSETS[a] + OFFSETS[b] != offset for (a, b), offset in EXCEPTIONS.items())


def test_they_are_found_as_a_module_of_the_package():
    assert "variants" in tasks.__all__
    assert tasks.__getattr__("variants") is variants


def test_both_unseen_asks_for_the_composition_of_pairs_that_are_never_trained():
    task = both_unseen()
    assert set(labels(task)) == set(product(OFFSETS, repeat=2)) - {(3, 4), (4, 3)}
    part = replace(task, sequences_per_pair=1).evaluation_sets()["unseen_pairs"]
    assert len(part) == 2 * 498
    at = (part.inputs <= 4).int().argmax(1, keepdim=True)
    anchors = part.inputs.gather(1, at).squeeze(1).tolist(), part.inputs.gather(1, at + 1).squeeze(1).tolist()
    assert Counter(zip(*anchors, strict=True)) == {(3, 4): 498, (4, 3): 498}
    assert part.targets.equal(part.inputs.gather(1, at - 1).squeeze(1) - 10)


def test_a_synonym_has_the_offset_of_another_anchor_and_two_pairs_that_only_its_synonym_answers():
    task = synonym()
    assert task.anchors[4] == task.anchors[2]
    found = labels(task)
    assert set(product(range(1, 6), repeat=2)) - set(found) == {(4, 5), (5, 4)}
    assert found[3, 4] == found[4, 3] == {-10}
    assert len(replace(task, sequences_per_pair=1).evaluation_sets()["unseen_pairs"]) == 2 * 498
    without = labels(synonym(extra=False))
    assert len(without) == 14
    assert set(product(range(1, 5), repeat=2)) - set(without) == {(3, 4), (4, 3)}


def test_nine_anchors_add_minus_four_to_four():
    found = labels(nine_anchors())
    assert found == {
        (a, b): {a - 5 + b - 5} for a, b in product(range(1, 10), repeat=2) if (a, b) not in ((3, 4), (4, 3))
    }


def test_affine_anchors_do_not_commute_where_one_reflects():
    task = affine_anchors()
    assert task.candidate_rules((4, 3), 50) == {"inferential": 127 - 50, "symmetric": 111 - 50}
    differ = {
        pair for pair in product(range(1, 5), repeat=2) if task.composed(pair, 50) != task.composed(pair[::-1], 50)
    }
    assert differ == {(a, b) for a, b in product(range(1, 5), repeat=2) if (a == 3) != (b == 3)}
    assert task.rules_differ((4, 3))


def test_permutation_anchors_map_the_keys_onto_themselves_and_hold_out_nineteen_pairs():
    task = permutation_anchors()
    keys = np.arange(9, 25)
    for anchor in task.anchors:
        assert sorted(anchor(keys).tolist()) == keys.tolist()
    assert len({anchor.permutation for anchor in task.anchors}) == 8
    assert (len(task.held_out), len(task.trained_pairs)) == (19, 45)
    assert 16 * 45 == 720
    assert len(task.combinations("unseen")) == 1
    for pair in task.pairs:
        first, second = (task.anchors[a - 1].permutation for a in pair)
        by_hand = [second[first[x - 9] - 9] for x in range(9, 25)]
        assert task.composed(pair, keys).tolist() == by_hand
    commuting = [
        (a, b) for a, b in task.pairs if a != b and (task.composed((a, b), keys) == task.composed((b, a), keys)).all()
    ]
    assert not commuting  # two random permutations of 16 commute about once in 10¹²
    sets = task.evaluation_sets()
    assert len(sets["held_out"]) + len(sets["unseen_pairs"]) == 19 * 15
    assert permutation_anchors(seed=1).anchors != task.anchors


def test_two_intervals_show_each_anchor_its_own_keys():
    for overlapping, shown in ((False, (range(20, 60), range(60, 100))), (True, (range(20, 70), range(50, 100)))):
        data = replace(two_intervals(overlapping=overlapping), n_train=4_000).train_set()
        for anchor, keys in zip((1, 2), shown, strict=True):
            mine = data.inputs[(data.inputs == anchor).any(1)]
            at = (mine == anchor).int().argmax(1, keepdim=True) + 1
            assert set(mine.gather(1, at).squeeze(1).tolist()) == set(keys)


def test_impossible_variants_are_refused():
    with pytest.raises(UserError, match="expected k between 0 and 6, got 7"):
        data_complexity(7)
    with pytest.raises(UserError, match="expected n_held_out between 0 and 3, got 4"):
        permutation_anchors(n_anchors=2, n_held_out=4)
