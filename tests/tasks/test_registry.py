"""A task in words: its family, and fields with values."""

import pytest

from tasks import AnchorComposition, ModularArithmetic, UserError
from tasks.registry import task_from_words


def test_a_task_is_spelled_as_its_family_and_fields():
    words = "modular p=59 train_fraction=0.8 split=torch_randperm form=pair diff_vocab=true data_seed=3"
    assert task_from_words(words.split()) == ModularArithmetic(
        p=59, train_fraction=0.8, split="torch_randperm", form="pair", diff_vocab=True, data_seed=3
    )
    assert task_from_words(["modular"]) == ModularArithmetic()
    assert task_from_words(["modular", "train_fraction=1"]) == ModularArithmetic(train_fraction=1.0)
    assert task_from_words(["anchor", "held_out=[[2, 1]]"]) == AnchorComposition(held_out=((2, 1),))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("modulo p=7", "expected a task family among anchor, .*, got 'modulo'"),
        ("modular q=7", "ModularArithmetic has no field 'q'"),
        ("modular data-seed=7", "did you mean 'data_seed'"),
        ("modular p=seven", "expected a field and its value, such as p=113, got p=seven"),
        ("modular p=7.5", "such as p=113, got p=7.5"),
        ("modular p", "such as p=113, got p="),
        ("modular weights.pt", "such as p=113, got weights.pt="),
        ("modular diff_vocab=1", "such as diff_vocab=false, got diff_vocab=1"),
        ("modular train_fraction=half", "such as train_fraction=0.3, got train_fraction=half"),
        ("modular split=nonsense", "expected a split among"),
        ("modular p=1", "expected a modulus p of at least 2, got 1"),
    ],
)
def test_what_is_no_field_or_no_value_of_its_kind_is_one_clear_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        task_from_words(words.split())
    assert "\n" not in str(caught.value)
