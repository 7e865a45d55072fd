"""Which models are those of addition on a circle, and what is said of the others."""

import pytest
import torch

from interp import fourier, representation
from interp.addition import addition_of, addition_table
from interp.composition import group_of
from interp.subject import Subject
from tasks.base import UserError
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import clock
from tasks.models.mlp import shapes
from tasks.modular import ModularArithmetic

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
