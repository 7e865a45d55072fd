"""The generator behind the sequence tasks: the split, the shares, the seeds, and what every one of them promises."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import (
    AnchorIntervals,
    Classification,
    Identity,
    MemoryReasoning,
    ReadingComprehension,
    Recitation,
    SequenceTask,
    UserError,
    WorkingMemory,
)
from tasks.base import Task, digest
from tasks.registry import task_from_dict, task_to_dict
from tasks.sequence import Draft, Group, Written, block_starts

ALL: tuple[type[SequenceTask], ...] = (
    Identity,
    Classification,
    Recitation,
    ReadingComprehension,
    WorkingMemory,
    AnchorIntervals,
    MemoryReasoning,
)


@dataclass(frozen=True, kw_only=True)
class Echo(SequenceTask):
    """The key at any place of three; one group in four has even keys only, one is held out with the key 25."""

    family: ClassVar[str] = "echo"

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        return (1,)

    @property
    def groups(self) -> tuple[Group, ...]:
        return (
            Group(name="even", keys=tuple(range(20, 30, 2))),
            Group(name="any", share=3),
            Group(name="alone", keys=(25,), trained=False),
        )

    @property
    def positions(self) -> range:
        return range(3)

    def write(self, group: Group, draft: Draft) -> Written:
        draft.put(3, {"even": 1, "any": 2, "alone": 3}[group.name])
        return draft.read(draft.at), {"wrong": draft.keys + 1}


ECHO = Echo(sequence_length=4, key_high=29, split_modulus=5, n_train=400, d_vocab=40)


def test_a_key_and_position_is_unseen_where_the_key_leaves_the_position_as_remainder():
    even, anyone, alone = ECHO.groups
    unseen = {(20, 0), (25, 0), (21, 1), (26, 1), (22, 2), (27, 2)}
    assert set(map(tuple, ECHO.combinations(anyone, "unseen").tolist())) == unseen
    assert set(map(tuple, ECHO.combinations(even, "unseen").tolist())) == {(20, 0), (26, 1), (22, 2)}
    assert ECHO.combinations(alone, "seen").tolist() == [[25, 1], [25, 2]]
    seen = ECHO.combinations(anyone, "seen").tolist()
    assert seen == sorted(seen, key=lambda combination: combination[::-1])
    assert len(seen) == 30 - 6
    mask = ECHO.split_tensors()["seen"]
    assert {(20 + x, at) for at, x in (~mask).nonzero().tolist()} == unseen


def test_the_training_set_is_divided_by_shares_and_draws_the_position_before_the_key():
    data = ECHO.train_set()
    assert Counter(data.inputs[:, 3].tolist()) == {1: 100, 2: 300}
    task = replace(ECHO, n_train=40_000)
    inputs, targets = task.train_set().inputs[10_000:], task.train_set().targets[10_000:]
    # the key may recur as noise: count the places where the answer stands, 1/3 each and a chance tenth of the others
    found = (inputs[:, :3] == targets[:, None]).double().mean(0)
    assert found.tolist() == pytest.approx([1 / 3 + 2 / 3 * 0.1] * 3, abs=0.02)


def test_shares_that_do_not_divide_the_training_set_leave_no_sequence_out():
    for n_train in (3, 5, 7):
        assert len(replace(ECHO, n_train=n_train).train_set()) == n_train


def test_a_share_that_rounds_to_no_sequence_is_refused():
    assert Counter(replace(ECHO, n_train=3).train_set().inputs[:, 3].tolist()) == {1: 1, 2: 2}
    with pytest.raises(UserError, match="each trained group a sequence by its share, 2 gives 'even' none"):
        replace(ECHO, n_train=2)  # one in four of two is half a sequence


def test_evaluation_sets_hold_every_combination_once_and_the_rules_answers():
    sets = ECHO.evaluation_sets()
    assert {name: len(part) for name, part in sets.items()} == {"train": 12 + 24, "test": 3 + 6, "alone": 2}
    assert all(part.rules["wrong"].equal(part.targets + 1) for part in sets.values())
    assert sets["alone"].inputs[0, 1] == sets["alone"].inputs[1, 2] == 25


def test_a_grid_repeats_each_combination_in_order_with_fresh_noise():
    group = ECHO.groups[1]
    grid = ECHO.grid(group, "seen", n_noise=3)
    for i, sequence in enumerate(grid.inputs.tolist()):
        key, at = ECHO.combinations(group, "seen")[i // 3]
        assert sequence[at] == key
    assert len({tuple(s) for s in grid.inputs[:3].tolist()}) > 1
    assert not ECHO.grid(group, "seen", n_noise=3, seed=1).inputs.equal(grid.inputs)


@pytest.mark.parametrize(
    ("n_blocks", "width", "room", "layouts"), [(1, 2, 4, 3), (2, 2, 4, 1), (3, 2, 8, 10), (2, 3, 8, 6), (3, 2, 5, 0)]
)
def test_blocks_are_laid_in_every_way_without_overlap(n_blocks, width, room, layouts):
    starts = block_starts(n_blocks, width, room)
    assert starts.shape == (layouts, n_blocks)
    assert len({tuple(row) for row in starts.tolist()}) == layouts
    assert (np.diff(starts, axis=1) >= width).all()
    assert not len(starts) or (starts.min(), starts.max()) == (0, room - width)


@pytest.mark.parametrize("task_class", ALL, ids=lambda c: c.family)
def test_every_sequence_task_is_a_task_of_the_registry_that_comes_back_from_json(task_class):
    task = replace(task_class(), n_train=300, data_seed=3)
    assert isinstance(task, Task)
    again = task_from_dict(json.loads(json.dumps(task_to_dict(task))))
    assert again == task
    assert digest(again.train_set()) == digest(task.train_set())
    assert digest(replace(task, data_seed=4).train_set()) != digest(task.train_set())


@pytest.mark.parametrize("task_class", ALL, ids=lambda c: c.family)
def test_tokens_and_answers_lie_in_the_vocabulary_and_noise_among_the_keys(task_class):
    task = replace(task_class(), n_train=2_000)
    for part in (task.train_set(), *task.evaluation_sets().values()):
        assert part.inputs.shape[1] == task.n_ctx == task.answer_position + 1
        anchors = sum((part.inputs == anchor for anchor in task.anchor_tokens), start=part.inputs < 0)
        keys = (part.inputs >= task.key_low) & (part.inputs <= task.key_high)
        assert bool((anchors ^ keys).all())
        low, high = task.answer_range
        answers = [part.targets, *part.rules.values()]
        assert all(low <= int(a.min()) and int(a.max()) <= high < task.d_vocab_out for a in answers)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.sampled_from(ALL), st.integers(8, 21), st.integers(0, 2**32), st.integers(0, 2))
def test_what_is_written_has_its_key_at_its_place_on_the_right_side_of_the_split(task_class, modulus, seed, longer):
    length = task_class().sequence_length + longer
    task = replace(
        task_class(), split_modulus=modulus, data_seed=seed, n_train=200, sequence_length=length, d_vocab=300
    )
    places: list[tuple[int, int]] = []

    class Watched(task_class):
        def write(self, group: Group, draft: Draft) -> Written:
            written = super().write(group, draft)
            assert group.trained
            assert np.array_equal(draft.read(draft.at), draft.keys)
            assert group.keys is None or set(draft.keys.tolist()) <= set(group.keys)
            places.extend(zip(draft.keys.tolist(), draft.at.tolist(), strict=True))
            return written

    watched = Watched(**{name: getattr(task, name) for name in task.to_dict()})
    assert digest(watched.train_set()) == digest(task.train_set())
    assert len(places) == 200
    assert all(key % modulus != at and at in task.positions for key, at in places)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key_low": 100}, "expected key_low of at most key_high, got 100…99"),
        ({"anchor": 20}, r"expected anchor tokens between 1 and key_low − 1 = 19, got \(20,\)"),
        ({"anchor": 0}, "expected anchor tokens between 1"),
        ({"d_vocab": 99}, "expected answers between 0 and d_vocab − 1 = 98, got 20…99"),
        ({"split_modulus": 1}, "expected a split_modulus of at least 2, got 1"),
        ({"split_modulus": 1_000}, "split_modulus 1000 leaves no unseen key"),
        ({"n_train": 0}, "a sequence by its share, 0 gives 'identity' none"),
        ({"key_low": 27, "key_high": 27, "sequence_length": 2, "split_modulus": 13}, "no key of the group 'identity'"),
        ({"data_seed": -1}, "expected a seed of at least 0"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Identity(**fields).train_set()


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Identity has no field 'distanse': did you mean 'distance'"):
        task_from_dict({"family": "identity", "distanse": 2})
