"""Fourier analysis against waves written by hand, networks built by hand, and the published weights."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp import waves
from interp.modular import fourier
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.constructed import clock, composer, lookup_table, pizza
from tasks.models.transformer import shapes

PUBLISHED = Path(__file__).parents[3].parent / "shared" / "published_weights"


def angles(p: int, k: int) -> Tensor:
    """ω_k(a + b − c) for all a, b, c, as a table [p², p]."""
    a, b, c = torch.meshgrid(*[torch.arange(p, dtype=torch.float64)] * 3, indexing="ij")
    return (2 * torch.pi * k / p * (a + b - c)).flatten(0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("p", "weights"), [(13, {2: 3.0, 5: 1.0, 6: 2.0}), (12, {1: 1.0, 6: 2.0})])
def test_a_sum_of_cosines_gives_back_its_frequencies_and_coefficients(p, weights):
    logits = torch.stack([weight * torch.cos(angles(p, k)) for k, weight in weights.items()]).sum(0)
    variance, fit = fourier.logit_variance(logits, p), fourier.cosine_fit(logits, p)
    power = {k: weight**2 * (1 if 2 * k == p else 0.5) for k, weight in weights.items()}
    assert fourier.key_frequencies(variance) == tuple(weights)
    for k, weight in weights.items():
        expected = power[k] / sum(power.values())
        assert float(variance[k - 1]) == pytest.approx(expected, abs=1e-12)
        assert float(fit.similarity[k - 1]) == pytest.approx(expected**0.5, abs=1e-12)
        assert float(fit.coefficient[k - 1]) == pytest.approx(weight, abs=1e-12)
    assert fit.explained(tuple(weights)) == pytest.approx(1.0)


def test_what_depends_on_the_difference_is_not_counted_as_the_sum():
    p, k = 11, 3
    a, b = torch.meshgrid(*[torch.arange(p, dtype=torch.float64)] * 2, indexing="ij")
    difference = torch.cos(2 * torch.pi * k / p * (a - b)).reshape(-1, 1)
    assert float(fourier.logit_variance(difference, p).max()) < 1e-20
    total = torch.cos(2 * torch.pi * k / p * (a + b)).reshape(-1, 1)
    assert float(fourier.logit_variance(difference + total, p)[k - 1]) == pytest.approx(0.5)


@pytest.mark.parametrize("p", [9, 10])
def test_the_cosine_fit_equals_products_with_the_whole_cubes(p):
    logits = noise(p * p, p, seed=p)
    centred = logits - logits.mean(1, keepdim=True)
    fit = fourier.cosine_fit(logits, p)
    for k in range(1, p // 2 + 1):
        cube = torch.cos(angles(p, k))
        inner = (centred * cube).sum()
        assert torch.allclose(fit.similarity[k - 1], inner / centred.norm() / cube.norm(), atol=1e-12)
        assert torch.allclose(fit.coefficient[k - 1], inner / cube.pow(2).sum(), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 12), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_shifting_the_numbers_or_scaling_the_logits_changes_no_share(shift, scale, seed):
    p = 13
    logits, W = noise(p * p, p, seed=seed), noise(p, 5, seed=seed)
    moved = (scale * logits).unflatten(0, (p, p)).roll((shift, 2 * shift), (0, 1)).flatten(0, 1)
    assert torch.allclose(fourier.logit_variance(moved, p), fourier.logit_variance(logits, p), atol=1e-12)
    assert torch.allclose(fourier.power_spectrum(scale * W.roll(shift, 0)), fourier.power_spectrum(W), atol=1e-12)


def test_permuting_the_inputs_empties_the_key_set():
    p = 31
    logits = torch.cos(angles(p, 4)) + torch.cos(angles(p, 7))
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(0))
    assert fourier.key_frequencies(fourier.logit_variance(logits, p)) == (4, 7)
    assert fourier.key_frequencies(fourier.logit_variance(logits[order], p)) == ()


def test_the_threshold_itself_makes_no_key():
    assert fourier.key_frequencies(torch.tensor([0.005, 0.0051, 0.0], dtype=torch.float64)) == (2,)


def test_power_is_shared_by_the_frequencies_of_the_rows_without_the_constant():
    x = torch.arange(10, dtype=torch.float64)
    W = torch.stack([7 + torch.cos(2 * torch.pi * 3 * x / 10), 2 * torch.sin(2 * torch.pi * x / 10)], dim=1)
    assert torch.allclose(fourier.power_spectrum(W), torch.tensor([0.8, 0, 0.2, 0, 0], dtype=torch.float64), atol=1e-12)


def test_a_neuron_of_one_frequency_is_explained_and_a_mixed_one_in_part():
    p = 13
    a, b = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(p, dtype=torch.float64)] * 2, indexing="ij"))

    def cos(k, x):
        return torch.cos(2 * torch.pi * k * x / p + 0.3)

    neurons = torch.stack(
        [
            5 + cos(4, a) * cos(4, b) + cos(4, b),  # linear and quadratic terms of 4
            cos(2, a) + 0.5 * cos(6, b),  # 0.8 of the variance in 2
            cos(1, a) * cos(3, b),  # in no block of one frequency
            torch.full_like(a, 0.7),
        ],
        dim=1,
    )
    found = fourier.neuron_frequencies(neurons, p)
    assert found.frequency.tolist()[:2] == [4, 2]
    assert torch.allclose(found.explained[:3], torch.tensor([1.0, 0.8, 0.0], dtype=torch.float64), atol=1e-12)
    assert int(found.frequency[3]) == 0
    assert bool(found.explained[3].isnan())


def test_reordering_and_scaling_neurons_reorders_their_frequencies():
    p, order = 11, torch.tensor([3, 0, 4, 1, 2])
    activations = noise(p * p, 5)
    found, moved = fourier.neuron_frequencies(activations, p), fourier.neuron_frequencies(-3 * activations[:, order], p)
    assert torch.equal(moved.frequency, found.frequency[order])
    assert torch.allclose(moved.explained, found.explained[order])


@pytest.mark.parametrize(
    ("x", "expected"), [([2.0, 2.0, 2.0], 0.0), ([1.0, 3.0, 2.0], 2 / 9), ([0.0, 0.0, 5.0], 2 / 3)]
)
def test_gini_equals_the_value_worked_by_hand(x, expected):
    assert fourier.gini(torch.tensor(x)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("build", [clock, pizza])
@pytest.mark.parametrize("form", ["equation", "pair"])
def test_the_circles_of_a_network_built_by_hand_are_found_exactly(build, form):
    task = ModularArithmetic(p=31, form=form)
    result = fourier.analyze(Subject.of(*build(task, (3, 4, 11)), task))
    assert result.key_frequencies == (3, 4, 11)
    assert result.control_key_count == 0
    assert result.control_cos_variance < 0.02
    assert result.neurons_explained_share is not None
    assert result.control_neurons_explained_share == 0.0
    if build is clock:  # logits are cosines of a + b − c, whatever a − b
        assert result.cos_variance == pytest.approx(1, abs=1e-3)
    else:  # |cos| of the difference: (2/π)²/(1/2) of the variance is its mean; each neuron is one rectified wave
        assert result.cos_variance == pytest.approx(8 / torch.pi**2, abs=2e-3)
        assert result.neurons_explained_share == 1.0
        assert result.neurons_per_key == (9, 9, 9)


def test_subtraction_is_addition_of_the_negative():
    task = ModularArithmetic(p=31, operation="subtract")
    config, params = clock(ModularArithmetic(p=31), (3, 7))
    b_sines = slice(-7, -4, 2)  # of the subspaces a, b, answer at the stream's end, the sines of b
    params["blocks.0.attn.W_O"][1, :, b_sines] *= -1
    subject = Subject.of(config, params, task)
    assert torch.equal(subject.answers(task.all_inputs()), task.all_targets())
    result = fourier.analyze(subject)
    assert result.key_frequencies == (3, 7)
    assert result.cos_variance == pytest.approx(1, abs=1e-3)


def test_a_lookup_table_spreads_over_all_frequencies_and_has_no_neuron_with_one():
    task = ModularArithmetic(p=23, train_fraction=0.3)
    result = fourier.analyze(Subject.of(*lookup_table(task), task))
    assert result.key_frequencies == tuple(range(1, 12))  # its right answers alone put 0.3/11 into each
    assert float(result.logit_variance.max() / result.logit_variance.min()) < 1.01
    assert result.cos_variance == pytest.approx(0.3, abs=0.01)
    assert result.neurons_explained_share == 0.0


def test_a_model_without_mlp_has_no_neurons_to_report():
    task = ModularArithmetic(p=11)
    config = TransformerConfig(n_layers=1, d_model=8, n_heads=2, d_head=4, n_ctx=3, d_vocab=12, d_vocab_out=11)
    result = fourier.analyze(
        Subject.of(config, {name: noise(*shape).float() for name, shape in shapes(config).items()}, task)
    )
    assert result.neurons_explained_share is None
    assert result.gini_logits is None
    assert "neurons" not in fourier.figures(result)


def test_a_table_of_part_of_the_inputs_is_refused_with_what_to_do():
    with pytest.raises(UserError, match=r"expected all p² = 529 inputs, got 400: pass task.all_inputs\(\)"):
        fourier.logit_variance(torch.zeros(400, 23), 23)
    with pytest.raises(UserError, match=r"got shape \(5, 2, 2\)"):
        fourier.power_spectrum.__wrapped__(torch.zeros(5, 2, 2))  # past the shape checks of the tests
    with pytest.raises(UserError, match="modulus p of at least 2"):
        waves.fourier_basis(1)


def test_tasks_without_a_circle_are_refused():
    task = ModularArithmetic(p=7)
    subject = Subject.of(*lookup_table(task), ModularArithmetic(p=7, operation="multiply"))
    with pytest.raises(UserError, match="got multiply mod 7"):
        fourier.analyze(subject)
    anchors = AnchorComposition(key_low=20, key_high=39, sequence_length=5, split_modulus=5, d_vocab=64)
    with pytest.raises(UserError, match="got AnchorComposition"):
        fourier.analyze(Subject.of(*composer(anchors), anchors))


def published(name: str) -> dict[str, Tensor]:
    """Weights of one of the four published models, in transformer-lens's layout."""
    if name == "C113":
        path = PUBLISHED / "chughtai-C113-transformer-seed1" / "model.pt"
    else:
        path = PUBLISHED / "nanda-progress-measures" / f"{name}.pth"
    if not path.exists():
        pytest.skip("published weights are not here")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if name == "C113":
        return {key: stored[key] for key in shapes(NANDA)}
    stored = stored["model"]
    out = {key: stored[key] for key in shapes(NANDA) if key in stored}
    out["embed.W_E"] = stored["embed.W_E"].T
    out["unembed.W_U"] = stored["unembed.W_U"][:, :113]
    for part in "QKV":
        out[f"blocks.0.attn.W_{part}"] = stored[f"blocks.0.attn.W_{part}"].transpose(1, 2)
    out["blocks.0.attn.W_O"] = stored["blocks.0.attn.W_O"].reshape(128, 4, 32).permute(1, 2, 0)
    for part in ("W_in", "W_out"):
        out[f"blocks.0.mlp.{part}"] = stored[f"blocks.0.mlp.{part}"].T
    return {key: value.contiguous() for key, value in out.items()}


NANDA = TransformerConfig(
    n_layers=1, d_model=128, n_heads=4, d_head=32, n_ctx=3, d_vocab=114, d_vocab_out=113, d_mlp=512, mlp_bias=True
)
GOLDEN = {
    "C113": {
        "keys": {16: 0.6153, 30: 0.2758, 56: 0.0958},
        "cos_coefficient": [34.41, 22.89, 13.65],
        "cos_variance": 0.968542,
        "neurons": 495,
        "per_key": (196, 103, 196),
        "gini": (0.6550, 0.8407),
    },
    "wd_10-1_mod_addition_loss_curve": {
        "keys": {6: 0.0737, 23: 0.8138, 37: 0.0389, 39: 0.0215, 41: 0.0309},
        "cos_coefficient": [9.37, 31.30, 6.80, 5.05, 6.07],
        "cos_variance": 0.97477,
        "neurons": 185,
        "per_key": (47, 31, 65, 11, 31),
        "gini": (0.5386, 0.7576),
    },
    "low_precision_mod_addition": {
        "keys": {3: 0.0304, 6: 0.0948, 23: 0.7158, 39: 0.0476, 46: 0.0090},
        "cos_coefficient": [4.16, 9.19, 21.65, 8.23, 0.73],
        "cos_variance": 0.47214,
        "neurons": 405,
        "per_key": (0, 106, 194, 105, 0),
        "gini": (0.5843, 0.6044),
    },
    "mod_addition_no_wd": {
        "keys": {36: 0.7991, 52: 0.1695},
        "cos_coefficient": [249.58, 114.72],
        "cos_variance": 0.94838,
        "neurons": 320,
        "per_key": (181, 139),
        "gini": (0.1780, 0.3719),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_published_weights_give_the_published_numbers(name):
    expected = GOLDEN[name]
    result = fourier.analyze(Subject.of(NANDA, published(name), ModularArithmetic(p=113)))
    assert result.key_frequencies == tuple(expected["keys"])
    assert result.key_variance == pytest.approx(list(expected["keys"].values()), abs=6e-5)
    assert result.cos_coefficient == pytest.approx(expected["cos_coefficient"], abs=6e-3)
    assert result.cos_variance == pytest.approx(expected["cos_variance"], abs=6e-6)
    assert result.neurons_explained_share == expected["neurons"] / 512
    assert result.neurons_per_key == expected["per_key"]
    assert (result.gini_embedding, result.gini_logits) == pytest.approx(expected["gini"], abs=6e-5)
    assert result.control_key_count == 0
    assert result.control_neurons_explained_share == 0.0
    assert result.control_cos_variance < 1e-4
    if name == "C113":
        assert result.cos_similarity == pytest.approx([0.777973, 0.517671, 0.308732], abs=1e-6)
        assert float(result.neuron_explained.mean()) == pytest.approx(0.9565, abs=6e-5)


@pytest.mark.slow
def test_a_wrong_transpose_of_published_weights_loses_the_key_frequencies():
    params = published("wd_10-1_mod_addition_loss_curve")
    params["blocks.0.attn.W_O"] = params["blocks.0.attn.W_O"].flatten(0, 1).T.reshape(4, 32, 128)
    result = fourier.analyze(Subject.of(NANDA, params, ModularArithmetic(p=113)))
    assert result.key_frequencies != (6, 23, 37, 39, 41)
    assert result.cos_variance < 0.5
