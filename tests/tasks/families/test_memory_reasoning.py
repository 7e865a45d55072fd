"""Memory and reasoning anchors, on sequences read without the code that wrote them."""

from collections import Counter

import pytest

from tasks.base import UserError
from tasks.families.memory_reasoning import MemoryReasoning


@pytest.fixture(scope="module")
def task() -> MemoryReasoning:
    return MemoryReasoning(n_train=20_000)


def read(sequence: list[int]) -> tuple[int, int, int, int]:
    """Key position, key, and the two anchors behind it."""
    at = [i for i, token in enumerate(sequence) if token <= 20]
    assert len(at) == 2
    assert at[1] == at[0] + 1
    return at[0] - 1, sequence[at[0] - 1], sequence[at[0]], sequence[at[1]]


@pytest.mark.slow
def test_reasoning_pairs_are_sums_and_memory_pairs_a_table_that_is_the_same_everywhere(task):
    table: dict[tuple[int, int, int], int] = {}
    for part in (task.train_set(), *task.evaluation_sets().values()):
        for sequence, target in zip(part.inputs.tolist(), part.targets.tolist(), strict=True):
            _, key, a, b = read(sequence)
            assert (a <= 10) == (b <= 10)
            if a > 10:
                assert target == key + a + b
            else:
                assert table.setdefault((key, a, b), target) == target
    assert len(table) > 6_000  # of 10,000, drawn about once each
    assert (min(table.values()), max(table.values())) == (21, 120)
    # a random label is that of the same key under the swapped pair, or the sum, once in a hundred
    swapped = [table[key, b, a] == label for (key, a, b), label in table.items() if a != b and (key, b, a) in table]
    assert sum(swapped) / len(swapped) < 0.03


def test_every_trained_pair_is_as_likely_as_any_other_and_the_held_out_ones_never_come(task):
    pairs = Counter(read(sequence)[2:] for sequence in task.train_set().inputs.tolist())
    assert len(pairs) == 198
    assert not {(11, 13), (13, 11)} & set(pairs)
    # 101 each, standard deviation 10
    assert all(abs(count - 20_000 / 198) < 50 for count in pairs.values())
    assert sum(count for (a, _), count in pairs.items() if a <= 10) == round(20_000 * 100 / 198)
    assert all(key % 9 != at for at, key, _, _ in map(read, task.train_set().inputs.tolist()))


def test_evaluation_sets_tell_memory_reasoning_and_held_out_sums_apart(task):
    sets = {name: [read(s)[2:] for s in part.inputs.tolist()] for name, part in task.evaluation_sets().items()}
    assert all(max(pair) <= 10 for pair in sets["memory"])
    assert all(min(pair) > 10 and pair not in task.held_out for pair in sets["reasoning"])
    assert set(sets["held_out"]) == {(11, 13), (13, 11)}
    assert Counter(sets["train"]) == Counter(sets["memory"] + sets["reasoning"])
    assert len(sets["memory"]) == 7 * 100 - 78  # of remainders 0 to 6, 3 comes 12 times among 21…120, the others 11


def test_the_tables_labels_stay_in_their_range_and_follow_from_the_seed():
    narrow = MemoryReasoning(memory_labels=(30, 49), n_train=100)
    assert (narrow.table.min(), narrow.table.max()) == (30, 49)
    assert (MemoryReasoning(data_seed=1).table != MemoryReasoning().table).any()


def test_nothing_need_be_held_out():
    sets = MemoryReasoning(held_out=(), n_train=400).evaluation_sets()
    assert set(sets) == {"train", "test", "memory", "reasoning"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_memory": 0}, "expected n_memory of at least 1, got 0"),
        ({"held_out": ((10, 11),)}, r"expected held-out pairs of reasoning anchors 11…20, got \(10, 11\)"),
        ({"n_reasoning": 1, "held_out": ((11, 11),)}, "expected at least one trained reasoning pair"),
        ({"memory_labels": (50, 49)}, "expected memory_labels from low to high, got 50…49"),
        ({"d_vocab": 160}, "expected answers between 0 and d_vocab − 1 = 159, got 21…160"),
        ({"n_memory": 12}, "expected held-out pairs of reasoning anchors 13…22"),
        ({"key_low": 20}, "expected anchor tokens between 1 and key_low − 1 = 19"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        MemoryReasoning(**fields)
