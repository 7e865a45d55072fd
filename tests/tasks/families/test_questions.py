"""Reading comprehension and working memory, on sequences read without the code that wrote them."""

from collections import Counter

import pytest

from tasks.base import UserError
from tasks.families.questions import ReadingComprehension, WorkingMemory


def marks(sequence: list[int], n_anchors: int) -> list[tuple[int, int, int]]:
    """The anchor, the key behind it and the key's position, of every anchor but the last token."""
    text = sequence[:-1]
    return [(token, sequence[at + 1], at + 1) for at, token in enumerate(text) if token <= n_anchors]


@pytest.mark.parametrize(("n_anchors", "length"), [(3, 9), (2, 6), (1, 4)])
def test_reading_answers_with_the_key_behind_the_anchor_that_the_last_token_repeats(n_anchors, length):
    task = ReadingComprehension(n_anchors=n_anchors, sequence_length=length, n_train=600)
    sets = task.evaluation_sets()
    for name, part in {"training": task.train_set(), **sets}.items():
        for i, sequence in enumerate(part.inputs.tolist()):
            text = marks(sequence, n_anchors)
            assert sorted(anchor for anchor, _, _ in text) == list(range(1, n_anchors + 1))
            assert len({at for _, _, at in text} | {at - 1 for _, _, at in text}) == 2 * n_anchors  # no overlap
            ((answer, at),) = [(key, at) for anchor, key, at in text if anchor == sequence[-1]]
            assert part.targets[i] == answer == part.rules["earliest"][i]
            assert part.rules["last_key"][i] == text[-1][1]
            assert at < length - 1
            assert (answer % 9 == at) == (name == "test")


def test_reading_asks_for_every_anchor_in_every_order_about_as_often():
    data = ReadingComprehension(n_train=12_000).train_set().inputs.tolist()
    orders = Counter(tuple(anchor for anchor, _, _ in marks(sequence, 3)) for sequence in data)
    # six orders and three questions, 2,000 and 4,000 each: four standard deviations are 163 and 207
    assert all(abs(count - 2_000) < 163 for count in orders.values())
    assert len(orders) == 6
    assert all(abs(count - 4_000) < 207 for count in Counter(sequence[-1] for sequence in data).values())


@pytest.mark.parametrize(("n_marks", "length"), [(2, 20), (1, 6), (3, 14)])
def test_working_memory_answers_with_the_key_that_the_asked_anchor_marked_last(n_marks, length):
    task = WorkingMemory(n_marks=n_marks, sequence_length=length, n_train=600)
    for name, part in {"training": task.train_set(), **task.evaluation_sets()}.items():
        first = set()
        for i, sequence in enumerate(part.inputs.tolist()):
            text = marks(sequence, 2)
            order = [anchor for anchor, _, _ in text]
            assert order in ([1, 2] * n_marks, [2, 1] * n_marks)
            first.add(order[0])
            own = [(key, at) for anchor, key, at in text if anchor == sequence[-1]]
            answer, at = own[-1]
            assert part.targets[i] == answer
            assert part.rules["earliest"][i] == own[0][0]
            assert part.rules["last_key"][i] == text[-1][1]
            assert (answer % 20 == at) == (name == "test")
        assert first == {1, 2} or len(part) < 10


def test_working_memory_asks_for_the_anchor_that_came_last_about_half_the_time():
    data = WorkingMemory(n_train=4_000).train_set()
    agree = (data.targets == data.rules["last_key"]).double().mean()
    # of 14 places two can hold the third mark only, two the fourth only, the others either: four standard deviations
    assert abs(float(agree) - 0.5) < 0.032
    assert float((data.targets == data.rules["earliest"]).double().mean()) < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReadingComprehension(n_anchors=0), "expected n_anchors of at least 1, got 0"),
        (lambda: ReadingComprehension(sequence_length=6), "a sequence_length of 6 has no room"),
        (lambda: ReadingComprehension(n_anchors=25, sequence_length=60), "expected anchor tokens between 1 and"),
        (lambda: WorkingMemory(n_marks=0), "expected n_marks of at least 1, got 0"),
        (lambda: WorkingMemory(sequence_length=8), "a sequence_length of 8 has no room"),
    ],
)
def test_impossible_tasks_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
