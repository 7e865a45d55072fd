"""Grids: which cells there are, what their keys depend on, and which train together."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.sweep.grid import Cell, SweepSpec, rank, stack_name, stacks
from tasks.training.config import TrainingConfig
from tasks.training.run import SCHEMA_VERSION

CELL = Cell(
    task=ModularArithmetic(p=7),
    model=TransformerConfig(n_layers=1, d_model=16, n_heads=2, d_head=8, n_ctx=3, d_vocab=8),
    init=Initialization(gamma=0.8),
    training=TrainingConfig(steps=24),
    seed=3,
)


def test_a_key_is_the_hash_of_schema_version_and_changed_fields_worked_out_by_hand():
    text = (
        '{"init":{"gamma":0.8},"model":{"d_head":8,"d_model":16,"d_vocab":8,"family":"transformer","n_ctx":3,'
        f'"n_heads":2,"n_layers":1}},"schema_version":{SCHEMA_VERSION},"seed":3,'
        '"task":{"family":"modular","p":7},"training":{"steps":24}}'
    )
    assert CELL.key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_field_given_at_its_default_an_equal_number_and_the_coordinates_do_not_change_the_key():
    same = [
        replace(CELL, training=TrainingConfig(steps=24, beta1=0.9)),
        replace(CELL, training=TrainingConfig(steps=24, learning_rate=1e-3)),
        replace(CELL, task=ModularArithmetic(p=7, data_seed=0)),
        replace(CELL, coordinates={"init.gamma": 0.8}),
    ]
    assert {cell.key for cell in same} == {CELL.key}
    one, whole = (SweepSpec(task="modular", base={"init.gain": gain}).cells()[0] for gain in (2, 2.0))
    assert one.key == whole.key


def test_every_part_changes_the_key():
    others = [
        replace(CELL, task=ModularArithmetic(p=7, data_seed=1)),
        replace(CELL, model=replace(CELL.model, d_mlp=4)),
        replace(CELL, init=Initialization(gamma=0.7)),
        replace(CELL, training=TrainingConfig(steps=25)),
        replace(CELL, seed=4),
    ]
    assert len({cell.key for cell in [CELL, *others]}) == 6


def test_a_field_that_a_later_version_adds_changes_no_key():
    @dataclass(frozen=True, kw_only=True)
    class Later(TrainingConfig):
        lookahead: int = 0
        milestones: tuple[int, ...] = ()

    assert replace(CELL, training=Later(steps=24)).key == CELL.key
    assert replace(CELL, training=Later(steps=24, lookahead=1)).key != CELL.key


def test_cells_are_the_product_of_axes_and_zipped_groups_with_seeds_varying_fastest(small):
    spec = small(
        axes={"init.gamma": [0.5, 0.8]},
        zipped=[{"model.d_mlp": [8, 16], "training.learning_rate": [1e-3, 2e-3]}],
        seeds=[5, 6],
    )
    points = [(*cell.coordinates.values(), cell.seed) for cell in spec.cells()]
    walk = [(8, 1e-3), (16, 2e-3)]
    assert points == [(gamma, *pair, seed) for gamma in (0.5, 0.8) for pair in walk for seed in (5, 6)]
    last = spec.cells()[-1]
    assert (last.init.gamma, last.model.d_mlp, last.training.learning_rate, last.seed) == (0.8, 16, 2e-3, 6)
    assert spec.names == ["init.gamma", "model.d_mlp", "training.learning_rate"]


def test_a_change_of_the_task_fits_the_model_to_it(small):
    cells = small(axes={"task.p": [5, 11]}).cells()
    assert [(cell.model.d_vocab, cell.model.d_vocab_out) for cell in cells] == [(6, 5), (12, 11)]


def test_what_cells_share_is_one_object_and_what_they_do_not_is_none(small):
    cells = small(axes={"task.p": [5, 7], "init.gamma": [0.5, 0.8, 1.1]}, seeds=[0, 1]).cells()
    kinds = ("task", "model", "init", "training")
    assert [len({id(getattr(cell, kind)) for cell in cells}) for kind in kinds] == [2, 2, 3, 1]
    assert {(cell.task.p, cell.model.d_vocab) for cell in cells} == {(5, 6), (7, 8)}


@given(st.permutations([1, 2.5, "[8]", "[16]", "[16, 8]", "[128]", "[[3, 4], [4, 3]]", "gelu", "relu", "null"]))
def test_values_of_an_axis_are_ordered_as_numbers_then_lists_then_names_then_none(values):
    ordered = [1, 2.5, "[8]", "[16]", "[16, 8]", "[128]", "[[3, 4], [4, 3]]", "gelu", "relu", "null"]
    assert sorted(values, key=rank) == ordered


def test_cells_share_a_stack_unless_they_differ_in_what_a_stack_shares(small):
    spec = small(
        axes={"task.p": [5, 7], "init.gamma": [0.5, 0.8], "training.weight_decay": [0.0, 1.0], "training.beta1": [0.8]},
        seeds=[0, 1],
    )
    groups = stacks(spec.cells(), 8)
    assert [len(group) for group in groups] == [8, 8]
    assert [{cell.task.p for cell in group} for group in groups] == [{5}, {7}]
    apart = {
        "model.d_mlp": [4, 8],
        "training.beta1": [0.8, 0.9],
        "init.scheme": ["power", "gain"],
        "task.data_seed": [0, 1],
    }
    for name, values in apart.items():
        groups = stacks(small(axes={name: values}, seeds=[0, 1]).cells(), 8)
        assert [len(group) for group in groups] == [2, 2]


@settings(deadline=None)
@given(size=st.integers(1, 7), seeds=st.integers(1, 9))
def test_every_cell_is_in_one_stack_and_no_stack_is_larger_than_asked(size, seeds):
    cells = SweepSpec(task="modular", axes={"task.p": [5, 7]}, seeds=range(seeds)).cells()
    groups = stacks(cells, size)
    assert Counter(cell.key for group in groups for cell in group) == Counter(cell.key for cell in cells)
    assert max(map(len, groups)) <= size
    assert len({stack_name(group) for group in groups}) == len(groups)


def test_toml_with_names_in_quotes_or_without_gives_the_same_sweep(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text(
        'task = "modular"\nseeds = [0, 1]\nstack_size = 4\n'
        '[base]\ntraining.steps = 30\n"task.p" = 11\n'
        '[axes]\ninit.gamma = [0.5, 0.8]\n"training.snapshots" = [3, [0, 10]]\n'
        "[[zipped]]\nmodel.d_mlp = [8, 16]\ntraining.learning_rate = [1e-3, 2e-3]\n"
    )
    spec = SweepSpec.from_toml(file)
    assert spec == SweepSpec(
        task="modular",
        base={"training.steps": 30, "task.p": 11},
        axes={"init.gamma": [0.5, 0.8], "training.snapshots": [3, (0, 10)]},
        zipped=[{"model.d_mlp": [8, 16], "training.learning_rate": [1e-3, 2e-3]}],
        seeds=[0, 1],
        stack_size=4,
    )
    assert SweepSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_python_file_gives_its_spec_and_one_without_is_refused(tmp_path):
    file = tmp_path / "spec.py"
    file.write_text("from tasks.sweep import SweepSpec\nSPEC = SweepSpec(task='modular', seeds=range(3))\n")
    assert SweepSpec.from_python(file).seeds == (0, 1, 2)
    file.write_text("spec = 1\n")
    with pytest.raises(UserError, match=r"expected SPEC = SweepSpec\(…\) in .*spec\.py, got NoneType"):
        SweepSpec.from_python(file)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"task": "modul"}, "expected a task among .*, got 'modul'"),
        ({"preset": "huge"}, "expected a preset among tiny"),
        ({"axes": {"training.learning_rat": [1]}}, "has no field 'training.learning_rat': did you mean 'training.lear"),
        ({"base": {"weight_decay": 1}}, "has no field 'weight_decay': did you mean 'training.weight_decay'"),
        ({"base": {"task.family": "anchor"}}, "has no field 'task.family'"),
        ({"base": {"model.d_vocab": 5}}, "model.d_vocab follows the task: leave it out"),
        ({"base": {"task.p": 5}, "axes": {"task.p": [5, 7]}}, "expected one place for task.p, .* gives it twice"),
        ({"axes": {"task.p": 5}}, "expected a list of values for task.p, got 5"),
        ({"seeds": [-1]}, r"expected a list of seeds of at least 0, got \[-1\]"),
        ({"task": "anchor", "base": {"task.held_out": 5}}, "expected a list for task.held_out, got 5"),
        ({"task": "anchor", "base": {"task.held_out": (5,)}}, r"at task.held_out = \(5,\): "),
        ({"task": "anchor", "base": {"task.anchors": {"1": 5}}}, "expected a list for task.anchors, got {'1': 5}"),
        ({"task": "parity", "axes": {"model.d_hidden": [3]}}, "expected a list for model.d_hidden, got 3"),
        ({"axes": {"training.snapshots": [2.5]}}, "expected int or a list for training.snapshots, got 2.5"),
        ({"axes": {"task.p": []}}, r"expected a list of values for task.p, got \(\)"),
        ({"zipped": [{"task.p": [5, 7], "init.gamma": [1.0]}]}, "of one length, task.p has 2, init.gamma has 1"),
        ({"seeds": []}, r"expected a seed and a stack_size of at least 1, got \(\) and 8"),
        ({"axes": {"training.steps": [5.5]}}, "expected int for training.steps, got 5.5"),
        ({"axes": {"training.clip_norm": ["a"]}}, "expected float or none for training.clip_norm, got 'a'"),
        ({"axes": {"task.p": [7, 1]}}, "at task.p = 1: expected a modulus p of at least 2, got 1"),
        ({"axes": {"training.learning_rate": [1, 1.0]}}, "expected cells that differ, .* is the same run as"),
        ({"seeds": [2, 2]}, "expected cells that differ, {} with seed 2 is the same run as {} with seed 2"),
    ],
)
def test_a_mistake_in_a_specification_is_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        SweepSpec(**{"task": "modular", **spec}).cells()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": ["modular"]}, r"expected the name of a task, got \['modular'\]"),
        ({"axes": 5}, "expected axes as name = value, got 5"),
        ({"base": 3}, "expected base as name = value, got 3"),
        (
            {"zipped": {"init.gamma": [1.0]}},
            r"expected a list of groups for zipped, got .*: in TOML write \[\[zipped\]\]",
        ),
        ({"zipped": [3]}, "expected a list of groups for zipped"),
        ({"seeds": 3}, "expected a list of seeds of at least 0, got 3"),
        ({"seeds": [1.5]}, r"expected a list of seeds of at least 0, got \[1.5\]"),
        ({"seeds": ["a"]}, r"expected a list of seeds of at least 0, got \['a'\]"),
        ({"stack_size": 2.5}, "expected a whole number as stack_size, got 2.5"),
    ],
)
def test_a_field_of_another_kind_is_refused_in_one_line(given, message):
    spec = object.__new__(SweepSpec)  # the annotations would refuse it first, and less kindly
    for name, value in {"task": "modular", "base": {}, "axes": {}, **given}.items():
        object.__setattr__(spec, name, value)
    with pytest.raises(UserError, match=message) as caught:
        spec.__post_init__()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "expected TOML in"),
        ('task = "modular"\naxis = 1', "SweepSpec has no field 'axis': did you mean 'axes'"),
        ("seeds = [0]", "expected the fields of a sweep in .*'task'"),
    ],
)
def test_a_broken_toml_file_is_refused_in_one_line(text, message, tmp_path):
    (tmp_path / "spec.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        SweepSpec.from_toml(tmp_path / "spec.toml")
    with pytest.raises(UserError, match=r"expected a TOML file at .*none\.toml: No such file"):
        SweepSpec.from_toml(tmp_path / "none.toml")
