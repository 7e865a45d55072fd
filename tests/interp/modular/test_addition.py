"""Which models are those of addition on a circle, and what is said of the others."""

import json
import weakref

import pytest
import torch

from interp.group import representation
from interp.group.composition import composition_table, group_of
from interp.modular import clock_pizza, fourier, progress
from interp.modular.addition import addition_of, addition_table, control_table, pair_logits
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import clock
from tasks.models.mlp import shapes
from tasks.models.quadratic import circle_network

APART = ModularArithmetic(p=13, diff_vocab=True)


def apart() -> Subject:
    """A clock that embeds b by rows of its own, a's multiplied by five."""
    config, params = clock(ModularArithmetic(p=13), (2, 3))
    W_E = params["embed.W_E"]
    params["embed.W_E"] = torch.cat([W_E[:13], 5 * W_E[:13], W_E[13:]])
    return Subject.of(TransformerConfig.from_dict(config.to_dict() | {"d_vocab": 27}), params, APART)


@pytest.mark.parametrize("measure", [addition_table, fourier.analyze])
def test_operands_with_tokens_of_their_own_are_refused_with_the_analysis_that_takes_them(measure):
    with pytest.raises(
        UserError, match=r"expected one embedding per number, got diff_vocab: use representation.analyze"
    ):
        measure(apart())
    assert representation.analyze(apart()).group == "C_13"


@pytest.mark.parametrize("measure", [addition_table, fourier.analyze])
def test_a_perceptron_is_refused_with_the_analysis_that_takes_it(measure):
    config = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="one_hot")
    params = {name: torch.ones(shape) for name, shape in shapes(config).items()}
    with pytest.raises(UserError, match=r"expected a transformer, got a perceptron: representation.analyze"):
        measure(Subject.of(config, params, ModularArithmetic(p=7, form="pair")))


def test_addition_and_subtraction_alone_have_a_circle_and_a_cyclic_group():
    for task in (APART, ModularArithmetic(p=13, operation="subtract")):
        assert addition_of(task) is task
        assert group_of(task).name == "C_13"
    product = ModularArithmetic(p=13, operation="multiply")
    with pytest.raises(UserError, match="expected a model of add or subtract mod p, got multiply mod 13"):
        addition_of(product)
    with pytest.raises(UserError, match="expected a model of GroupComposition or of add or subtract mod p, got mult"):
        group_of(product)


def same(one, other) -> bool:
    """Whether two results have equal numbers, NaN included."""
    return json.dumps(one.to_dict(arrays=True), sort_keys=True) == json.dumps(
        other.to_dict(arrays=True), sort_keys=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("measure", [fourier.analyze, progress.analyze, representation.analyze, clock_pizza.analyze])
def test_a_model_of_unordered_pairs_is_measured_on_every_pair(measure):
    unordered = ModularArithmetic(p=13, unordered=True, train_fraction=0.5)
    config, params = clock(unordered, (2, 3))
    found = measure(Subject.of(config, params, unordered))
    assert same(found, measure(Subject.of(config, params, unordered.ordered)))


def test_both_orders_of_an_unordered_pair_are_counted_where_the_one_was_trained():
    task = ModularArithmetic(p=13, unordered=True, train_fraction=0.5)
    table = addition_table(Subject.of(*clock(task, (2, 3)), task))
    mask = table.train.view(13, 13)
    assert mask.equal(mask.T)
    assert table.targets.view(13, 13)[4, 12] == table.targets.view(13, 13)[12, 4] == 3
    assert int(mask.sum() + mask.diagonal().sum()) == 2 * int(0.5 * 91)
    perceptron = circle_network(ModularArithmetic(p=13, form="pair"), 5)
    subject = Subject.of(*perceptron, ModularArithmetic(p=13, form="pair", unordered=True))
    assert composition_table(subject).logits.shape == (169, 13)


def test_the_analyses_of_one_model_look_at_it_and_at_its_random_weights_once(monkeypatch):
    from interp.modular import addition

    looked, table = [], addition._table
    monkeypatch.setattr(addition, "_table", lambda subject, dtype: looked.append(subject.name) or table(subject, dtype))
    subject = Subject.of(*clock(ModularArithmetic(p=13), (2, 3)), ModularArithmetic(p=13), name="clock")
    for analysis in (fourier, progress, representation):
        analysis.analyze(subject)
    assert looked == ["clock", "clock, random weights"]


def test_the_last_table_is_kept_for_its_subject_and_let_go_with_it():
    task = ModularArithmetic(p=7)
    first, second = (Subject.of(*clock(task, (k,)), task) for k in (1, 2))
    table = addition_table(first)
    assert addition_table(first) is table
    assert control_table(first, 0) is control_table(first, 0)
    assert control_table(first, 1) is not control_table(first, 0)
    assert not torch.equal(addition_table(second).logits, table.logits)
    assert addition_table(first) is not table  # a run of a hundred subjects keeps one table
    table = weakref.ref(addition_table(first))
    del first
    assert table() is None


@pytest.mark.parametrize("form", ["equation", "pair"])
def test_the_logits_of_all_pairs_are_those_of_the_whole_forward_pass(form):
    task = ModularArithmetic(p=13, form=form)
    subject = Subject.of(*clock(task, (2, 3)), task)
    inputs = task.all_inputs()
    names = ["blocks.0.hook_resid_pre", "blocks.0.attn.hook_z", "blocks.0.mlp.hook_post"]
    logits, kept = subject.activations(inputs, names)
    table = addition_table(subject)
    torch.testing.assert_close(pair_logits(subject, inputs), logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.logits, logits.double(), rtol=1e-5, atol=1e-5)
    for found, name in zip((table.past_attention, table.heads, table.post), names, strict=True):
        torch.testing.assert_close(found, kept[name][:, task.answer_position].double(), rtol=1e-5, atol=1e-5)
