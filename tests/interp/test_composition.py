"""The table of a model of a group: its parts put together are the model."""

import pytest
import torch

from interp.composition import composition_table
from interp.subject import Subject
from tasks.groups import GroupComposition
from tasks.models.config import MLPConfig
from tasks.models.mlp import shapes


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
