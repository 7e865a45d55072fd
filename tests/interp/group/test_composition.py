"""The table of a model of a group: its parts put together are the model."""

import pytest
import torch

from interp.group.composition import composition_table
from interp.subject import Subject
from tasks.families.group import GroupComposition
from tasks.models.config import MLPConfig
from tasks.models.mlp import shapes


def test_a_shared_row_per_token_is_read_alike_at_both_places():
    task = GroupComposition(group="S_3", form="pair")
    config = MLPConfig(n_ctx=2, d_vocab=6, d_vocab_out=6, d_hidden=(5,), input="counts")
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn(shape, generator=rng).double() for name, shape in shapes(config).items()}
    table = composition_table(Subject.of(config, params, task))
    assert all(torch.equal(of, params["layers.0.W_in"]) for of in table.operands)
    assert torch.allclose(table.pre, (table.operands[0].unsqueeze(1) + table.operands[1]).flatten(0, 1))


@pytest.mark.parametrize("reading", [{"input": "one_hot"}, {"input": "concatenated", "d_embed": 4}])
@pytest.mark.parametrize("form", ["pair", "equation"])
def test_operands_add_to_the_first_layer_and_the_readout_gives_the_logits(reading, form):
    task = GroupComposition(group="S_3", form=form)
    config = MLPConfig(n_ctx=task.n_ctx, d_vocab=task.d_vocab, d_vocab_out=6, d_hidden=(5,), **reading)
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn(shape, generator=rng).double() for name, shape in shapes(config).items()}
    table = composition_table(Subject.of(config, params, task))
    of_a, of_b = table.operands
    assert not torch.allclose(of_a, of_b)
    left = table.pre - (of_a.unsqueeze(1) + of_b).flatten(0, 1)
    assert torch.allclose(left, left[:1].expand(36, -1))  # what is left is read of "="
    assert form == "equation" or torch.allclose(left, torch.zeros_like(left))
    assert torch.allclose(table.post @ table.readout, table.logits)
    assert table.answers.equal(task.all_targets())
