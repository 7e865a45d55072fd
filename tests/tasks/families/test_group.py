"""Groups against tables worked by hand and sympy's order of elements; the task against the published recipe."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import Task, UserError
from tasks.families.group import GroupComposition
from tasks.families.modular import ModularArithmetic
from tasks.finite_groups import Group, closure, cyclic, dihedral, named, product, symmetric
from tasks.registry import task_from_dict, task_to_dict

NAMES = ["C_1", "C_2", "C_7", "C_12", "D_1", "D_2", "D_5", "D_6", "S_1", "S_2", "S_3", "S_4", "A_3", "A_4", "C_2xS_3"]


@pytest.mark.parametrize(
    ("name", "order", "n_classes"),
    [
        ("C_12", 12, 12),
        ("C_2xC_2", 4, 4),
        ("C_3xS_3", 18, 9),
        ("D_1", 2, 2),
        ("D_5", 10, 4),
        ("D_6", 12, 6),
        ("S_3", 6, 3),
        ("S_4", 24, 5),
        ("S_5", 120, 7),
        ("S_6", 720, 11),
        ("A_4", 12, 4),
        ("A_5", 60, 5),
        ("A_6", 360, 7),
    ],
)
def test_a_group_has_its_order_and_its_number_of_conjugacy_classes(name, order, n_classes):
    group = named(name)
    assert group.order == order
    assert group.classes.max() + 1 == n_classes


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 99))
def test_identity_inverses_and_associativity_hold_and_conjugates_share_a_class(name, seed):
    group = named(name)
    t, e = group.table, group.identity
    x, y, z = np.random.Generator(np.random.Philox(seed)).integers(group.order, size=(3, 50))
    assert (t[t[x, y], z] == t[x, t[y, z]]).all()
    assert (t[x, e] == x).all()
    assert (t[x, group.inverses[x]] == e).all()
    assert (t[group.inverses[x], x] == e).all()
    assert (group.classes[t[t[y, x], group.inverses[y]]] == group.classes[x]).all()
    assert closure(t, group.generators or (e,)).all()


def test_the_order_of_s4_is_the_one_that_sympy_documents():
    documented = (
        "0123 1230 2301 3120 0231 1302 2013 3201 0312 1023 2130 3012 "
        "0132 1203 2310 3102 0213 1320 2031 3210 0321 1032 2103 3021"
    )
    assert ["".join(map(str, images)) for images in symmetric(4).permutations] == documented.split()


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_elements_and_products_of_permutations_are_sympys(n):
    named_groups = pytest.importorskip("sympy.combinatorics.named_groups")
    theirs, ours = named_groups.SymmetricGroup(n).elements, symmetric(n)
    assert [p.array_form for p in theirs] == ours.permutations.tolist()
    for a, b in ((1, 4), (5, 2), (len(theirs) - 2, 3)):
        assert (theirs[a] * theirs[b]).array_form == ours.permutations[ours.table[a, b]].tolist()


def test_the_elements_of_a5_are_sympys_for_the_published_generators():
    sympy = pytest.importorskip("sympy.combinatorics")
    theirs = sympy.PermutationGroup(sympy.Permutation(0, 1, 2, 3, 4), sympy.Permutation(1, 2)(3, 4)).elements
    assert [p.array_form for p in theirs] == named("A_5").permutations.tolist()


@pytest.mark.parametrize("name", ["S_3", "S_4", "S_5", "A_4", "A_5"])
def test_a_product_of_permutations_applies_the_left_factor_first(name):
    group = named(name)
    for a, b in ((1, 3), (4, 2), (5, 5)):
        by_hand = [group.permutations[b][image] for image in group.permutations[a]]
        assert group.permutations[group.table[a, b]].tolist() == by_hand


def test_the_triangle_turns_and_reflects_as_worked_by_hand():
    # r⁰ r¹ r² s rs r²s; s r = r² s, rs·rs = 1, r·s = rs
    assert dihedral(3).table.tolist() == [
        [0, 1, 2, 3, 4, 5],
        [1, 2, 0, 4, 5, 3],
        [2, 0, 1, 5, 3, 4],
        [3, 5, 4, 0, 2, 1],
        [4, 3, 5, 1, 0, 2],
        [5, 4, 3, 2, 1, 0],
    ]


def test_a_direct_product_multiplies_factor_by_factor():
    group = product(cyclic(2), symmetric(3))
    for g, h in ((0, 5), (1, 4)):
        for g2, h2 in ((1, 1), (1, 3)):
            assert group.table[g * 6 + h, g2 * 6 + h2] == (g + g2) % 2 * 6 + symmetric(3).table[h, h2]
    assert named("C_2xS_3").table.tolist() == group.table.tolist()


def test_cyclic_composition_is_addition_with_the_same_split_and_tokens():
    ours, theirs = (
        task(train_fraction=0.3, split="torch_randperm", data_seed=1, **size)
        for task, size in ((GroupComposition, {"group": "C_23"}), (ModularArithmetic, {"p": 23}))
    )
    assert ours.all_inputs().equal(theirs.all_inputs())
    assert ours.all_targets().equal(theirs.all_targets())
    assert ours.train_mask.equal(theirs.train_mask)
    assert (ours.d_vocab, ours.d_vocab_out, ours.n_ctx) == (theirs.d_vocab, theirs.d_vocab_out, theirs.n_ctx)


@pytest.mark.parametrize("name", ["S_3", "S_5", "D_5"])
def test_conjugates_are_conjugate_and_operations_are_made_of_products(name):
    group = named(name)
    tasks = {op: GroupComposition(group=name, operation=op) for op in ("xy", "xyx^-1", "xyx")}
    x, y = tasks["xy"].pairs.numpy().T
    answers = {op: task.all_targets().numpy() for op, task in tasks.items()}
    assert (group.classes[answers["xyx^-1"]] == group.classes[y]).all()
    assert (group.table[answers["xyx^-1"], x] == answers["xy"]).all()
    assert (group.table[answers["xy"], x] == answers["xyx"]).all()
    assert all((np.bincount(given) == group.order).all() for given in answers.values())


def test_train_and_test_cover_the_table_and_the_published_split_is_literally_theirs():
    task = GroupComposition(group="S_4", train_fraction=0.4, split="torch_randperm", data_seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        shown = torch.randperm(576)[:230]
    assert task.train_mask.nonzero().squeeze(1).equal(shown.sort().values)
    sets = task.evaluation_sets()
    assert {name: len(part) for name, part in sets.items()} == {"train": 230, "test": 346}
    assert sets["train"].inputs[:, 2].eq(24).all()
    assert task.train_set().inputs.equal(sets["train"].inputs)


@settings(max_examples=20, deadline=None)
@given(
    group=st.sampled_from(["S_3", "D_5", "A_4", "C_2xS_3"]),
    operation=st.sampled_from(["xy", "xyx^-1", "xyx"]),
    form=st.sampled_from(["equation", "pair"]),
    split=st.sampled_from(["random", "python_shuffle", "torch_randperm"]),
    data_seed=st.integers(0, 2**40),
)
def test_a_task_returns_from_json_with_the_same_data(group, operation, form, split, data_seed):
    task = GroupComposition(group=group, operation=operation, form=form, split=split, data_seed=data_seed)
    again = task_from_dict(json.loads(json.dumps(task_to_dict(task))))
    assert again == task
    assert isinstance(again, Task)
    assert again.train_mask.equal(task.train_mask)


def test_a_mask_of_ones_own_is_the_split():
    mask = torch.arange(36) % 3 == 0
    task = GroupComposition(group="S_3", split=mask)
    assert task.train_set().inputs.equal(task.all_inputs()[mask])
    assert task.split_tensors()["train_mask"].equal(mask)
    assert task.to_dict()["split"] == "mask"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group": "S5"}, "expected a group such as S_5.*got 'S5'"),
        ({"group": "S_7"}, "got S_7: larger ones"),
        ({"group": "S_3", "split": torch.ones(35, dtype=torch.bool)}, r"expected a mask of shape \(36,\)"),
        ({"group": "S_3", "split": "mask"}, "needs the mask itself"),
        ({"group": "S_3", "train_fraction": 0.0}, r"train_fraction in \(0, 1\]"),
        ({"group": "S_3", "train_fraction": 0.01}, "at least one training pair, got none of 36"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        GroupComposition(**fields)


@pytest.mark.parametrize("field", ["operation", "split", "form"])
def test_a_choice_that_config_json_misspells_is_refused(field):
    with pytest.raises((UserError, TypeError)) as refusal:
        GroupComposition.from_dict({"group": "S_3", field: "sum"})
    assert "sum" in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0, 1], [1, 2]], "products among the 2 elements"),
        ([[1, 0], [1, 0]], "expected an identity"),
        ([[0, 1, 2], [1, 1, 0], [2, 0, 1]], "once in each row and column"),
        (  # the smallest loop that is no group: every element its own inverse, of prime order
            [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]],
            r"expected \(x·y\)·z = x·\(y·z\)",
        ),
    ],
)
def test_a_table_of_no_group_is_refused(table, message):
    with pytest.raises(UserError, match=message):
        Group(name="G", table=np.array(table))
