"""Paths through the last layer: against networks built by hand, and against edits of every activation in full."""

import math

import pytest
import torch
from torch import Tensor

from interp.modular import ablation, paths
from interp.modular.addition import addition_table
from interp.subject import Subject
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.constructed import clock, lookup_table, pizza
from tasks.models.transformer import shapes
from tasks.training.objective import cross_entropy

KEYS = (3, 4, 11)
TASK = ModularArithmetic(p=31)


@pytest.mark.parametrize("build", [clock, pizza])
def test_everything_in_a_network_of_circles_goes_through_attention_and_mlp(build):
    subject = Subject.of(*build(TASK, KEYS), TASK)
    table = addition_table(subject)
    found, full = paths.path_ablations(subject, table), float(cross_entropy(table.logits, table.targets).mean())
    ceiling = ablation.shuffled_labels(table)
    assert found["past attention"].zero == pytest.approx(full, rel=1e-4)
    assert found["past MLP"].zero == found["past MLP"].mean == pytest.approx(full, rel=1e-6)
    assert found["MLP"].zero == pytest.approx(math.log(31), abs=1e-6)
    assert found["MLP"].resampled.value == pytest.approx(ceiling.value)
    assert found["attention"].resampled.value == pytest.approx(ceiling.value, rel=1e-5)
    assert min(found["attention"].zero, found["attention"].mean) > math.log(31) - 1e-4


def test_each_head_of_a_clock_brings_one_number_and_the_other_head_cannot_stand_in():
    subject = Subject.of(*clock(TASK, KEYS), TASK)
    table = addition_table(subject)
    found = paths.path_ablations(subject, table)
    for head in ("head 0", "head 1"):
        assert min(found[head].zero, found[head].mean) > 1
        # one number of another pair makes a wrong sum, as two do
        assert found[head].resampled.value == pytest.approx(found["attention"].resampled.value, rel=0.1)


def test_a_table_known_by_heart_answers_the_pairs_it_knows_through_both_heads():
    task = ModularArithmetic(p=13, train_fraction=1.0)
    subject = Subject.of(*lookup_table(task), task)
    found = paths.path_ablations(subject, addition_table(subject))
    for head in ("head 0", "head 1"):
        assert found[head].zero == pytest.approx(math.log(13))  # a neuron needs both numbers
        assert found[head].resampled.value > 10
    assert found["past MLP"].zero < 1e-5


def random_model(normalization: str, n_layers: int) -> Subject:
    config = TransformerConfig(
        n_layers=n_layers, d_model=8, n_heads=2, d_head=4, d_mlp=16, n_ctx=3, d_vocab=12, d_vocab_out=11,
        normalization=normalization, attention_bias=True, mlp_bias=True,
        unembedding_bias=True,
    )  # fmt: skip
    drawn = torch.Generator().manual_seed(0)
    params = {
        name: torch.randn(shape, generator=drawn, dtype=torch.float64) / 2 for name, shape in shapes(config).items()
    }
    return Subject.of(config, params, ModularArithmetic(p=11))


@pytest.mark.parametrize(("normalization", "n_layers"), [("none", 1), ("pre", 2), ("post", 2)])
def test_paths_cut_by_shortcut_are_those_of_activations_edited_in_full(normalization, n_layers):
    subject = random_model(normalization, n_layers)
    table = addition_table(subject)
    found, inputs, last = paths.path_ablations(subject, table), subject.task.all_inputs(), f"blocks.{n_layers - 1}"
    names = [f"{last}.hook_resid_pre", f"{last}.attn.hook_z", f"{last}.hook_attn_out"]
    _, kept = subject.activations(inputs, names)
    before, z, written = (kept[name] for name in names)
    shown, other = ablation.couples(121, 0)[0]

    def loss(edits: dict) -> float:
        logits = subject.logits(inputs, {name: lambda v, to=to: to for name, to in edits.items()})
        return float(cross_entropy(logits, table.targets).mean())

    def with_head(to: Tensor) -> Tensor:
        edited = z.clone()
        edited[:, :, 1] = to
        return edited

    mid = f"{last}.hook_resid_mid"
    assert found["head 1"].zero == pytest.approx(loss({names[1]: with_head(torch.zeros(4))}))
    assert found["head 1"].mean == pytest.approx(loss({names[1]: with_head(z[:, :, 1].mean(0))}))
    assert found["past attention"].zero == pytest.approx(loss({mid: written}))
    assert found["past attention"].mean == pytest.approx(loss({mid: written + before.mean(0)}))
    assert found["attention"].zero == pytest.approx(loss({names[1]: torch.zeros_like(z)}))
    edited = before[shown] + written[other]
    resampled = subject.logits(inputs[shown], {mid: lambda v: edited})
    whole = [
        float(cross_entropy(resampled, table.targets[shown]).mean()),
        ablation.ablate(
            written[:, -1], before[:, -1], table.targets, torch.stack([shown, other])[None],
            lambda residual: paths.logits_after_attention(subject, residual),
        ).resampled.value,
    ]  # fmt: skip
    assert whole[0] == pytest.approx(whole[1])
    assert ("MLP" in found) == (normalization == "none")
    if normalization == "none":
        names = [f"{last}.hook_mlp_out", f"{last}.hook_resid_post"]
        _, kept = subject.activations(inputs, names)
        mlp_out, post = (kept[name] for name in names)
        past = post - mlp_out
        assert found["MLP"].zero == pytest.approx(loss({names[0]: torch.zeros_like(mlp_out)}))
        assert found["MLP"].mean == pytest.approx(loss({names[0]: mlp_out.mean(0).expand_as(mlp_out)}))
        assert found["past MLP"].zero == pytest.approx(loss({names[1]: mlp_out}))
        assert found["past MLP"].mean == pytest.approx(loss({names[1]: mlp_out + past.mean(0)}))
