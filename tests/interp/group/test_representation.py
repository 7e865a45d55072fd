"""The analysis against networks built by hand, Fourier analysis of the same model, and published weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp.group import representation
from interp.group.characters import characters
from interp.group.cosets import cosets, subgroups
from interp.modular import fourier
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.group import GroupComposition
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import clock, lookup_table
from tasks.models.transformer import shapes

PUBLISHED = Path(__file__).parents[3].parent / "shared" / "published_weights" / "chughtai-C113-transformer-seed1"


def table_of_pairs(group: str, coefficients: dict[str, float], input: str = "one_hot") -> Subject:
    """An MLP with one neuron per pair, which writes Σ coefficient · χ(ab c⁻¹) into the logits."""
    task = GroupComposition(group=group, form="pair", train_fraction=0.5, data_seed=1)
    chars = characters(task.structure)
    n = chars.group.order
    weights = torch.zeros(len(chars), dtype=torch.float64)
    for name, value in coefficients.items():
        weights[chars.names.index(name)] = value
    members = torch.cat([torch.eye(n).repeat_interleave(n, 1), torch.eye(n).repeat(1, n)])  # 1 where the pair has it
    params = {"layers.0.W_in": members, "layers.0.b_in": -torch.ones(n * n)}
    params["unembed.W_U"] = chars.spread(weights)[task.all_targets()].float()
    size = {"n_ctx": 2, "d_vocab": n, "d_vocab_out": n, "d_hidden": (n * n,), "bias": True}
    if input == "concatenated":
        params = {"embed.0.W_E": 2 * torch.eye(n), "embed.1.W_E": torch.eye(n)} | params
        params["layers.0.W_in"] = members * torch.cat([torch.full((n, 1), 0.5), torch.ones(n, 1)])
        return Subject.of(MLPConfig(input="concatenated", d_embed=n, **size), params, task)
    return Subject.of(MLPConfig(input="one_hot", **size), params, task)


@pytest.mark.parametrize("input", ["one_hot", "concatenated"])
@pytest.mark.parametrize(
    ("group", "coefficients"),
    [
        ("S_4", {"standard": 4.0, "standard × sign": 2.0}),
        ("A_4", {"2-dimensional": 5.0}),
        ("D_7", {"sign": 3.0, "frequency 2": 6.0}),
        ("C_12", {"frequency 1": 3.0, "frequency 5": 2.0}),
    ],
)
def test_a_table_of_characters_has_the_representations_it_was_built_from(group, coefficients, input):
    subject = table_of_pairs(group, coefficients, input)
    result = representation.analyze(subject)
    chars = characters(subject.task.structure)
    n = chars.group.order
    ranks = {name: int(rank) for name, rank in zip(chars.names, chars.ranks, strict=True)}
    assert result.key_representations == tuple(name for name in chars.names if name in coefficients)
    assert result.logits_explained == pytest.approx(1)
    assert result.control_logits_explained < 0.1
    assert result.renamed_p_value <= 0.1
    assert result.cube_excluded_loss == pytest.approx(float(torch.tensor(n).log()), rel=1e-5)
    assert result.placebo_cube_restricted_loss == pytest.approx(float(torch.tensor(n).log()), rel=1e-5)
    assert result.cube_restricted_loss < result.cube_excluded_loss
    # one neuron per pair: each of ρ(a), ρ(b), ρ(ab) has its rank's share of the n² − 1 dimensions
    keys = sum(ranks[name] for name in coefficients)
    assert result.hidden_product_explained == pytest.approx(keys / (n * n - 1), abs=1e-6)
    assert result.hidden_explained == pytest.approx(3 * keys / (n * n - 1), abs=1e-6)
    assert result.embedding_explained == pytest.approx((keys / n, keys / n), abs=1e-6)
    assert result.unembedding_explained == pytest.approx(1)
    assert result.hidden_restricted_loss == pytest.approx(result.cube_restricted_loss, rel=1e-4)
    assert result.hidden_excluded_loss == pytest.approx(result.cube_excluded_loss, rel=1e-4)


def test_neurons_on_cosets_are_counted_by_their_subgroup():
    task = GroupComposition(group="S_3", form="pair")
    group = task.structure
    K = next(K for K in subgroups(group) if K.sum() == 2)
    left = torch.nn.functional.one_hot(cosets(group, K, "left")).float()
    right = torch.nn.functional.one_hot(cosets(group, K, "right")).float()
    noise = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    W_in = torch.cat([torch.cat([left, right[:, [1, 0, 2]]]), noise], dim=1)
    config = MLPConfig(n_ctx=2, d_vocab=6, d_vocab_out=6, d_hidden=(6,), input="one_hot")
    W_U = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    result = representation.analyze(Subject.of(config, {"layers.0.W_in": W_in, "unembed.W_U": W_U}, task))
    assert result.coset_subgroups == {2: 3}
    assert result.neurons_on_cosets_share == 0.5
    assert result.control_neurons_on_cosets_share == 0.0


@pytest.mark.parametrize("operation", ["xyx^-1", "xyx"])
def test_other_operations_are_fitted_with_their_own_answers(operation):
    subject = table_of_pairs("S_3", {"standard": 4.0})
    task = GroupComposition(group="S_3", operation=operation, form="pair")
    W_U = characters(task.structure).spread(torch.tensor([0.0, 4.0, 0.0]))[task.all_targets()].float()
    other = Subject.of(subject.config, {**subject.params, "unembed.W_U": W_U}, task)
    result = representation.analyze(other)
    assert result.key_representations == ("standard",)
    assert result.logits_explained == pytest.approx(1)


@pytest.mark.parametrize("operation", ["add", "subtract"])
@pytest.mark.parametrize("diff_vocab", [False, True])
def test_on_a_model_of_modular_arithmetic_it_agrees_with_fourier(operation, diff_vocab):
    task = ModularArithmetic(p=31, operation=operation, diff_vocab=diff_vocab)
    config, params = clock(ModularArithmetic(p=31), (3, 4, 11))
    W_E = params["embed.W_E"]
    if operation == "subtract" or diff_vocab:
        negative = -torch.arange(31) % 31 if operation == "subtract" else torch.arange(31)
        of_b = W_E[negative]
        params["embed.W_E"] = torch.cat([W_E[:31], of_b, W_E[31:]])
        task = ModularArithmetic(p=31, operation=operation, diff_vocab=True)
        config = TransformerConfig.from_dict(config.to_dict() | {"d_vocab": 63})
    subject = Subject.of(config, params, task)
    assert torch.equal(subject.answers(task.all_inputs()), task.all_targets())
    plain = ModularArithmetic(p=31)  # in which fourier reads the same table
    theirs = fourier.analyze(Subject.of(*clock(plain, (3, 4, 11)), plain))
    found = representation.analyze(subject)
    assert found.key_representations == tuple(f"frequency {k}" for k in theirs.key_frequencies)
    assert found.key_similarity == pytest.approx(theirs.cos_similarity)
    assert found.logits_explained > theirs.cos_variance - 1e-8  # of logits in float32, and in float64
    if not task.diff_vocab:  # random weights of the same shapes
        control = torch.tensor(theirs.control_cos_variance).double()
        assert torch.allclose(found.control_similarity[1:].pow(2).sum(), control)
    power = found.embedding_shares[0, 1:] / found.embedding_shares[0, 1:].sum()
    assert torch.allclose(power, theirs.embedding_power, atol=1e-6)
    assert found.neurons_on_cosets_share is None
    assert found.cube_restricted_loss < 1e-4


def test_a_lookup_table_has_all_representations_and_a_poor_fit():
    task = ModularArithmetic(p=23, train_fraction=0.3)
    result = representation.analyze(Subject.of(*lookup_table(task), task))
    assert result.key_count == 11
    assert result.logits_explained == pytest.approx(0.3, abs=0.01)


def test_a_model_without_mlp_has_no_hidden_layer_to_report():
    task = GroupComposition(group="S_3")
    config = TransformerConfig(n_layers=1, d_model=8, n_heads=2, d_head=4, n_ctx=3, d_vocab=7, d_vocab_out=6)
    rng = torch.Generator().manual_seed(0)
    params: dict[str, Tensor] = {name: torch.randn(shape, generator=rng) for name, shape in shapes(config).items()}
    result = representation.analyze(Subject.of(config, params, task))
    assert result.hidden_explained is result.hidden_excluded_loss is result.coset_subgroups is None
    assert set(representation.figures(result)) == {"similarity", "losses", "weights"}
    assert float(result.unembedding_shares.sum()) == pytest.approx(1)


def test_every_figure_names_its_axes_and_says_what_it_shows():
    result = representation.analyze(table_of_pairs("S_4", {"standard": 4.0}))
    made = representation.figures(result)
    assert set(made) == {"similarity", "losses", "weights", "hidden", "cosets"}
    for figure in made.values():
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
        assert figure.layout.title.subtitle.text
    assert list(made["similarity"].data[0].x) == ["standard", "(2,2)", "standard × sign", "sign"]
    assert made["similarity"].data[0].y[0] == pytest.approx(1)


def test_tasks_outside_groups_are_refused():
    task = ModularArithmetic(p=7, operation="multiply")
    with pytest.raises(
        UserError, match="expected a model of GroupComposition or of add or subtract mod p, got multiply"
    ):
        representation.analyze(Subject.of(*lookup_table(ModularArithmetic(p=7)), task))
    parity = SparseParity(n_bits=5)
    config = MLPConfig(n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(3,))
    params = {"layers.0.W_in": torch.zeros(5, 3), "unembed.W_U": torch.zeros(3, 2)}
    with pytest.raises(UserError, match="got SparseParity"):
        representation.analyze(Subject.of(config, params, parity))


@pytest.fixture(scope="module")
def published() -> representation.RepresentationResult:
    if not PUBLISHED.exists():
        pytest.skip("published weights are not here")
    task = GroupComposition(group="C_113", train_fraction=0.3, split="torch_randperm", data_seed=1)
    subject = Subject.load(PUBLISHED / "model.pt", layout="group_transformer", task=task)
    return representation.analyze(subject.with_params({name: value.double() for name, value in subject.params.items()}))


@pytest.mark.slow
def test_published_weights_give_the_published_numbers(published):
    assert published.key_representations == ("frequency 16", "frequency 30", "frequency 56")
    assert published.key_similarity == pytest.approx((0.777973, 0.517671, 0.308732), abs=1e-6)
    assert published.logits_explained == pytest.approx(0.968542, abs=1e-6)
    assert published.cube_restricted_loss == pytest.approx(4.12621e-8, rel=2e-5)  # theirs is of float32 logits
    assert published.cube_excluded_loss == pytest.approx(13.00155, rel=1e-6)
    assert published.key_cube_excluded_loss == pytest.approx((4.96284, 3.11185, 0.253090), rel=2e-6)
    assert published.key_cube_restricted_loss == pytest.approx((2.04303, 2.24860, 2.51097), rel=3e-6)
    assert published.embedding_explained == pytest.approx((0.900833, 0.900833), abs=1e-6)
    assert published.unembedding_explained == pytest.approx(0.994938, abs=1e-6)
    assert published.hidden_explained == pytest.approx(0.914196, abs=1e-6)
    assert published.hidden_product_explained == pytest.approx(0.159421, abs=1e-6)
    assert published.hidden_shares[:, [16, 30, 56]].sum(0).tolist() == pytest.approx(
        [0.461587, 0.279138, 0.173471], abs=1e-6
    )
    assert published.hidden_restricted_loss == pytest.approx(6.0787e-7, rel=1e-5)
    assert published.hidden_excluded_loss == pytest.approx(9.3410, abs=1e-4)


@pytest.mark.slow
def test_the_controls_of_the_published_weights_show_nothing(published):
    assert published.control_key_count == 0
    assert published.control_logits_explained < 1e-6
    assert published.renamed_logits_explained < 0.05
    assert published.renamed_p_value == 0.01
    assert published.placebo_cube_restricted_loss > 4
    assert published.placebo_cube_excluded_loss < 2e-7
    assert published.placebo_hidden_excluded_loss < 1e-6
    assert published.control_hidden_explained < 0.1
    assert published.control_unembedding_explained < 0.1


@pytest.mark.slow
def test_every_frequency_of_the_published_summary_is_met(published):
    theirs = json.loads((PUBLISHED / "summary_metrics.json").read_text())
    for k in range(1, 56):
        name = f"freq_{k}_rep"
        assert float(published.similarity[k]) == pytest.approx(theirs[f"logit_{name}_trace_similarity"], abs=1e-7)
        assert float(published.cube_losses[k, 0]) == pytest.approx(theirs[f"logit_restricted_loss_{name}"], rel=1e-5)
        assert float(published.cube_losses[k, 1]) == pytest.approx(theirs[f"logit_excluded_loss_{name}"], rel=1e-5)
        assert float(published.embedding_shares[0, k]) == pytest.approx(theirs[f"percent_x_embed_{name}"], rel=1e-5)
        assert float(published.unembedding_shares[k]) == pytest.approx(theirs[f"percent_unembed_{name}"], rel=1e-5)
