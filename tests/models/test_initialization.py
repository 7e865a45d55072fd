"""Initial weights: their scale, their streams, and the loss they start from."""

import math

import pytest
import torch

from tasks import UserError
from tasks.models import mlp
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import forward, shapes
from tasks.presets import preset

ANCHOR = TransformerConfig(  # Zhang et al. 2024, appendix C, with every group of biases
    n_layers=2,
    d_model=400,
    n_heads=1,
    d_head=200,
    d_mlp=1200,
    n_ctx=20,
    d_vocab=201,
    normalization="post",
    attention_bias=True,
    mlp_bias=True,
    unembedding_bias=True,
)
FAN_IN = {
    "W_E": 400,
    "W_pos": 400,
    "W_Q": 400,
    "W_K": 400,
    "W_V": 400,
    "W_O": 200,
    "W_in": 400,
    "W_out": 1200,
    "W_U": 400,
}
MATRICES = ["embed.W_E", "pos_embed.W_pos", *(f"blocks.0.attn.W_{part}" for part in "QKVO")]
MATRICES += ["blocks.1.mlp.W_in", "blocks.1.mlp.W_out", "unembed.W_U"]


def drawn(name, init, config=ANCHOR):
    """At least 160,000 values of one tensor, over as many seeds as that takes: their std is known to 0.2 %."""
    shape = shapes(config)[name]
    seeds = range(math.ceil(160_000 / math.prod(shape)))
    return torch.cat([initialize({name: shape}, config, init, seed)[name].flatten() for seed in seeds])


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("gamma", [0.5, 0.8])
def test_power_gives_every_matrix_the_std_of_its_input_width(name, gamma):
    values = drawn(name, Initialization(gamma=gamma))
    std = FAN_IN[name.rsplit(".", 1)[-1]] ** -gamma
    assert float(values.std()) == pytest.approx(std, rel=0.01)
    assert abs(float(values.mean())) < 0.01 * std


def test_the_published_values_of_the_std_at_width_400():
    for gamma, std in ((0.1, 0.5493), (0.3, 0.1657), (0.5, 0.0500), (0.6, 0.0275), (0.7, 0.0151), (0.8, 0.00829)):
        assert Initialization(gamma=gamma).std("embed.W_E", (201, 400), ANCHOR) == pytest.approx(std, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "init", "std"),
    [
        ("blocks.0.attn.W_O", Initialization(scheme="gain", gain=0.5), 0.5 / 200**0.5),
        ("blocks.1.mlp.W_out", Initialization(scheme="gain", mlp=2.0), 2 / 1200**0.5),
        ("blocks.1.mlp.W_out", Initialization(scheme="progress_measures"), 1 / 400**0.5),
        ("unembed.W_U", Initialization(scheme="progress_measures"), 1 / 201**0.5),
        ("blocks.0.attn.W_K", Initialization(gamma=0.5, qk=0.8), 400**-0.8),
        ("blocks.0.attn.W_V", Initialization(gamma=0.5, qk=0.8), 400**-0.5),
        ("embed.W_E", Initialization(gamma=0.5, gain=8.0), 8 * 400**-0.5),
    ],
)
def test_schemes_parts_and_gain_set_the_std_they_name(name, init, std):
    assert float(drawn(name, init).std()) == pytest.approx(std, rel=0.01)


def test_the_unembedding_bias_is_uniform_under_power_and_zero_otherwise():
    values = drawn("unembed.b_U", Initialization(gamma=0.8))
    assert float(values.std()) == pytest.approx(0.05 / 3**0.5, rel=0.01)  # uniform in ±1/√400, whatever γ is
    assert float(values.abs().max()) <= 0.05
    assert not drawn("unembed.b_U", Initialization(scheme="gain")).any()


def test_layer_norms_start_as_the_identity_and_other_biases_at_zero():
    params = initialize(shapes(ANCHOR), ANCHOR, Initialization(), 0)
    for name, value in params.items():
        if name.endswith(".w"):
            assert torch.equal(value, torch.ones_like(value))
        elif name.endswith((".b", "b_Q", "b_K", "b_V", "b_O", "b_in", "b_out")):
            assert not value.any()


def test_a_tensor_depends_on_the_seed_and_its_own_name_only():
    init = Initialization()
    params = initialize(shapes(ANCHOR), ANCHOR, init, 3)
    wider = TransformerConfig.from_dict(ANCHOR.to_dict() | {"d_mlp": 1300, "n_layers": 3})
    other = initialize(shapes(wider), wider, init, 3)
    assert torch.equal(params["blocks.0.attn.W_Q"], other["blocks.0.attn.W_Q"])
    assert not torch.equal(params["blocks.0.attn.W_Q"], params["blocks.1.attn.W_Q"])
    assert not torch.equal(params["embed.W_E"], initialize(shapes(ANCHOR), ANCHOR, init, 4)["embed.W_E"])


def test_weights_are_drawn_once_and_rounded_to_the_precision_asked_for():
    shape = {"embed.W_E": (201, 400)}
    double, single = (
        initialize(shape, ANCHOR, Initialization(), 0, dtype)["embed.W_E"] for dtype in ("float64", "float32")
    )
    assert double.dtype == torch.float64
    assert torch.equal(double.float(), single)


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="power, gain or progress_measures, got 'xavier'"):
        Initialization.from_dict({"scheme": "xavier"})


EXPLORABLE = MLPConfig(
    n_ctx=2, d_vocab=67, d_vocab_out=67, d_hidden=(24,), input="embedding", d_embed=500, tied_unembedding=True
)


def test_the_explorable_model_starts_with_the_published_norm():
    init = preset("modular", "explorable").init
    # the published weights are truncated at two standard deviations, which leaves 0.88 of one
    for name, std in (
        ("embed.W_E", (2 / 67) ** 0.5),
        ("layers.0.W_in", 0.88 / 500**0.5),
        ("unembed.W_out", 0.88 / 24**0.5),
    ):
        assert init.std(name, mlp.shapes(EXPLORABLE)[name], EXPLORABLE) == pytest.approx(std, rel=1e-3)
    for seed in range(3):
        params = initialize(mlp.shapes(EXPLORABLE), EXPLORABLE, init, seed, "float64")
        assert sum(float(W.square().sum()) for W in params.values()) ** 0.5 == pytest.approx(37.4, abs=0.3)


def test_a_circle_holds_cosine_and_sine_of_each_frequency_and_nothing_beyond_the_numbers():
    config = MLPConfig(n_ctx=3, d_vocab=6, d_vocab_out=5, d_hidden=(3,), input="embedding", d_embed=4)
    params, free = (
        initialize(mlp.shapes(config), config, Initialization(circle=circle), 0, "float64") for circle in ((1, 2), ())
    )
    angle = 2 * math.pi / 5 * torch.arange(5, dtype=torch.float64)
    expected = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], dim=1)
    torch.testing.assert_close(params["embed.W_E"][:5], expected, rtol=0, atol=1e-14)
    assert not params["embed.W_E"][5].any()
    assert params["layers.0.W_in"].equal(free["layers.0.W_in"])


@pytest.mark.parametrize(
    ("circle", "fields", "message"),
    [
        ((1,), {}, r"expected an embedding of width 2 for circle \(1,\), got 4"),
        ((1, 3), {}, "expected frequencies of at most 2 in circle for p = 5, got 3"),
        ((1, 0), {}, "expected frequencies of at least 1 in circle, got 0"),
        ((1,), {"input": "one_hot", "d_embed": None}, "expected a model with an embedding for circle"),
    ],
)
def test_circles_that_do_not_fit_the_model_are_refused(circle, fields, message):
    config = MLPConfig(
        **{"n_ctx": 2, "d_vocab": 5, "d_vocab_out": 5, "d_hidden": (3,), "input": "embedding", "d_embed": 4} | fields
    )
    with pytest.raises(UserError, match=message):
        initialize(mlp.shapes(config), config, Initialization(circle=circle), 0)


@pytest.mark.slow
@torch.no_grad()
def test_initial_loss_is_the_published_one():
    """Rows of norm √400 meet W_U with std 400^−γ: logits are Gaussian with variance σ² = 400^(1−2γ), and the loss over
    uniform targets is ln 201 + σ²/2."""
    tokens = torch.randint(20, 100, (1, 128, 9), generator=torch.Generator().manual_seed(0))
    # rows of one model point in similar directions, so the model scatters: by √((e^σ² − 1)/201) ≈ 0.09 at γ = 0.5
    for gamma, published, tolerance in ((0.8, 5.32, 0.01), (0.5, 5.80, 0.1)):
        losses = []
        for seed in range(3):
            params = initialize(shapes(ANCHOR), ANCHOR, Initialization(gamma=gamma), seed)
            stacked = {name: value[None] for name, value in params.items()}
            logits = forward(stacked, tokens, ANCHOR, answer_position=8).double()
            losses.append(float((logits.logsumexp(-1) - logits.mean(-1)).mean()))
        assert sum(losses) / 3 == pytest.approx(published, abs=tolerance)
