"""Modular arithmetic against tables worked by hand and against the published recipes of its split."""

import json
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import Task, UserError
from tasks.families.group import GroupComposition
from tasks.families.modular import ModularArithmetic

OPERATIONS = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "x2+y2",
    "x2+xy+y2",
    "x2+xy+y2+x",
    "x3+xy",
    "x3+xy2+y",
    "divide_or_subtract",
)


def answer(operation: str, a: int, b: int, p: int) -> int:
    return int(ModularArithmetic(p=p, operation=operation, train_fraction=1.0).answers(torch.tensor([[a, b]])))


@pytest.mark.parametrize(
    ("operation", "a", "b", "by_hand"),
    [
        ("add", 5, 4, 2),
        ("subtract", 2, 5, 4),
        ("multiply", 3, 5, 1),
        ("divide", 1, 3, 5),  # 3 · 5 = 15 = 1
        ("divide", 6, 4, 5),  # 4 · 5 = 20 = 6
        ("x2+y2", 3, 5, 6),  # 9 + 25 = 34
        ("x2+xy+y2", 3, 5, 0),  # 9 + 15 + 25 = 49
        ("x2+xy+y2+x", 3, 5, 3),
        ("x3+xy", 3, 5, 0),  # 27 + 15 = 42
        ("x3+xy2+y", 3, 5, 2),  # 27 + 75 + 5 = 107
        ("divide_or_subtract", 1, 3, 5),  # odd: divide
        ("divide_or_subtract", 1, 4, 4),  # even: subtract
        ("divide_or_subtract", 1, 0, 1),
    ],
)
def test_operations_modulo_seven_are_those_worked_by_hand(operation, a, b, by_hand):
    assert answer(operation, a, b, 7) == by_hand


@settings(max_examples=40, deadline=None)
@given(p=st.sampled_from([2, 3, 5, 7, 11, 113]), data=st.data())
def test_division_undoes_multiplication(p, data):
    a, b = data.draw(st.integers(0, p - 1)), data.draw(st.integers(1, p - 1))
    assert answer("divide", answer("multiply", a, b, p), b, p) == a


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_of_every_operation_lies_between_zero_and_p(operation):
    targets = ModularArithmetic(p=113, operation=operation).all_targets()
    assert int(targets.min()) >= 0
    assert int(targets.max()) < 113


@pytest.mark.parametrize("operation", ["divide", "divide_or_subtract"])
def test_division_needs_a_prime(operation):
    with pytest.raises(UserError, match=f"expected a prime p for {operation}, got 9"):
        ModularArithmetic(p=9, operation=operation)


def test_division_leaves_out_zero_as_divisor_and_keeps_every_other_pair():
    task = ModularArithmetic(p=5, operation="divide")
    assert task.pairs.tolist() == [[a, b] for a in range(5) for b in range(1, 5)]
    assert len(task.train_set()) == int(0.3 * 20)


def test_inputs_come_in_the_order_a_times_p_plus_b():
    pairs = ModularArithmetic(p=7).pairs
    assert (pairs[:, 0] * 7 + pairs[:, 1]).tolist() == list(range(49))


def test_the_equation_form_ends_in_token_p_and_the_pair_form_ends_at_b():
    equation, pair = ModularArithmetic(p=7), ModularArithmetic(p=7, form="pair")
    assert equation.all_inputs()[11].tolist() == [1, 4, 7]
    assert pair.all_inputs()[11].tolist() == [1, 4]
    assert (equation.d_vocab, equation.n_ctx, equation.answer_position) == (8, 3, 2)
    assert (pair.d_vocab, pair.n_ctx, pair.answer_position) == (7, 2, 1)
    assert equation.all_targets().equal(pair.all_targets())
    assert equation.d_vocab_out == pair.d_vocab_out == 7


def test_with_a_vocabulary_of_its_own_b_is_told_from_a_and_the_answers_stay():
    equation, pair = (ModularArithmetic(p=7, form=form, diff_vocab=True) for form in ("equation", "pair"))
    assert equation.all_inputs()[11].tolist() == [1, 4 + 7, 14]
    assert pair.all_inputs()[11].tolist() == [1, 4 + 7]
    assert (equation.d_vocab, pair.d_vocab, pair.d_vocab_out) == (15, 14, 7)
    assert pair.all_targets().equal(ModularArithmetic(p=7).all_targets())
    assert ModularArithmetic.from_dict(pair.to_dict()) == pair


def test_unordered_pairs_are_those_with_a_at_most_b():
    task = ModularArithmetic(p=67, form="pair", unordered=True, train_fraction=0.4)
    assert (task.n_pairs, len(task.train_set()), len(task.evaluation_sets()["test"])) == (2_278, 911, 1_367)
    assert task.pairs.tolist() == [[a, b] for a in range(67) for b in range(a, 67)]
    assert task.all_targets().equal(task.pairs.sum(1) % 67)
    assert ModularArithmetic.from_dict(task.to_dict()) == task


@pytest.mark.parametrize("operation", ["add", "multiply", "x2+y2", "x2+xy+y2"])
def test_the_ordered_table_of_unordered_pairs_has_both_orders_in_the_same_part(operation):
    task = ModularArithmetic(p=11, operation=operation, unordered=True, train_fraction=0.4)
    whole = task.ordered
    assert whole.pairs.equal(ModularArithmetic(p=11).pairs)
    assert whole.all_targets().equal(whole.all_targets().view(11, 11).T.flatten())
    mask = whole.train_mask.view(11, 11)
    assert mask.equal(mask.T)
    a, b = task.pairs.T
    assert mask[a, b].equal(task.train_mask)


def test_the_ordered_table_of_a_task_that_has_every_pair_is_itself():
    for task in (ModularArithmetic(p=7), GroupComposition(group="S_3")):
        assert task.ordered is task


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("add", "multiply", "x2+y2", "x2+xy+y2")])
def test_only_pairs_of_a_commutative_operation_can_be_unordered(operation):
    a, b = ModularArithmetic(p=7).pairs.T
    asked = torch.stack([a, b], 1)[b > 0], torch.stack([b, a], 1)[b > 0]
    task = ModularArithmetic(p=7, operation=operation, train_fraction=1.0)
    assert not task.answers(asked[0]).equal(task.answers(asked[1]))
    with pytest.raises(UserError, match=r"expected a commutative operation \(.*\) with unordered, got"):
        ModularArithmetic(p=7, operation=operation, unordered=True)


@pytest.mark.parametrize("split", ["random", "python_shuffle", "torch_randperm"])
@pytest.mark.parametrize("form", ["equation", "pair"])
def test_train_and_test_are_disjoint_and_cover_the_table(split, form):
    task = ModularArithmetic(p=11, split=split, form=form, train_fraction=0.37)
    sets = task.evaluation_sets()
    parts = {name: [tuple(row) for row in part.inputs.tolist()] for name, part in sets.items()}
    assert len(parts["train"]) == int(0.37 * 121)
    assert sorted(parts["train"] + parts["test"]) == sorted(map(tuple, task.all_inputs().tolist()))
    assert len(set(parts["train"] + parts["test"])) == 121
    for part in sets.values():
        assert part.targets.tolist() == [(a + b) % 11 for a, b in part.inputs[:, :2].tolist()]


def test_python_shuffle_is_the_recipe_of_nanda_literally():
    state = random.getstate()
    random.seed(0)
    pairs = [(i, j) for i in range(113) for j in range(113)]
    random.shuffle(pairs)
    random.setstate(state)
    shown = pairs[: int(0.3 * len(pairs))]
    task = ModularArithmetic(p=113, train_fraction=0.3, split="python_shuffle", data_seed=0)
    sets = task.evaluation_sets()
    assert {name: len(part) for name, part in sets.items()} == {"train": 3_830, "test": 8_939}
    assert {(a, b) for a, b, _ in sets["train"].inputs.tolist()} == set(shown)


def test_torch_randperm_is_the_recipe_of_chughtai_literally():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        order = torch.randperm(113 * 113)
    task = ModularArithmetic(p=113, train_fraction=0.3, split="torch_randperm", data_seed=1)
    shown = task.train_mask.nonzero().squeeze(1)
    assert shown.equal(order[:3_830].sort().values)


@pytest.mark.parametrize("split", ["random", "python_shuffle", "torch_randperm"])
def test_the_split_follows_its_seed_and_leaves_global_random_state_alone(split):
    python, torch_state = random.getstate(), torch.get_rng_state()
    masks = [ModularArithmetic(p=11, split=split, data_seed=seed).train_mask for seed in (0, 0, 1)]
    assert masks[0].equal(masks[1])
    assert not masks[0].equal(masks[2])
    assert random.getstate() == python
    assert torch.get_rng_state().equal(torch_state)


def test_a_mask_of_ones_own_is_the_split():
    mask = torch.arange(49) % 3 == 0
    task = ModularArithmetic(p=7, split=mask)
    assert task.train_set().inputs.equal(task.all_inputs()[mask])
    assert task.evaluation_sets()["test"].inputs.equal(task.all_inputs()[~mask])
    assert task.split_tensors()["train_mask"].equal(mask)
    assert task.to_dict()["split"] == "mask"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"p": 7, "split": torch.ones(48, dtype=torch.bool)},
            r"expected a mask of shape \(49,\), one per pair, got \(48,\)",
        ),
        (
            {"p": 5, "operation": "divide", "split": torch.ones(25, dtype=torch.bool)},
            r"expected a mask of shape \(20,\)",
        ),
        ({"p": 7, "split": torch.zeros(49, dtype=torch.bool)}, "at least one training pair"),
        ({"p": 3, "train_fraction": 0.1}, "expected at least one training pair, got none of 9"),
        ({"p": 7, "split": "mask"}, "needs the mask itself"),
        ({"p": 1}, "modulus p of at least 2, got 1"),
        ({"p": 7, "train_fraction": 0.0}, r"train_fraction in \(0, 1\], got 0.0"),
        ({"p": 7, "train_fraction": 1.01}, r"train_fraction in \(0, 1\], got 1.01"),
        ({"p": 7, "train_fraction": float("nan")}, r"train_fraction in \(0, 1\], got nan"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ModularArithmetic(**fields)


@pytest.mark.parametrize("field", ["operation", "split", "form"])
def test_a_choice_that_config_json_misspells_is_refused(field):
    with pytest.raises((UserError, TypeError)) as refusal:
        ModularArithmetic.from_dict({"p": 7, field: "sum"})
    assert "sum" in str(refusal.value)


@settings(max_examples=20, deadline=None)
@given(
    p=st.sampled_from([2, 7, 12, 13]),
    operation=st.sampled_from([o for o in OPERATIONS if not o.startswith("divide")]),
    form=st.sampled_from(["equation", "pair"]),
    split=st.sampled_from(["random", "python_shuffle", "torch_randperm"]),
    fraction=st.sampled_from([0.3, 0.5, 1.0]),
    data_seed=st.integers(0, 2**40),
)
def test_a_task_returns_from_json_with_the_same_data(p, operation, form, split, fraction, data_seed):
    task = ModularArithmetic(
        p=p, operation=operation, form=form, split=split, train_fraction=fraction, data_seed=data_seed
    )
    again = ModularArithmetic.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task
    assert isinstance(again, Task)
    assert again.train_mask.equal(task.train_mask)


def test_a_change_of_one_field_makes_another_task_with_its_own_split():
    task = ModularArithmetic(p=7)
    assert len(task.train_set()) == 14
    assert len(replace(task, train_fraction=0.5).train_set()) == 24
