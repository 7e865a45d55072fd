"""The multi-layer perceptron: worked by hand, stacked, tapped and trained."""

import itertools
from dataclasses import replace

import pytest
import torch

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization, initialize
from tasks.models.mlp import forward, shapes
from tasks.training import TrainingConfig, train
from tasks.training.objective import cross_entropy, performance

BITS = MLPConfig(n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(6,), constant_input=True, one_logit=True)
KINDS = {
    "bits, constant, one logit": BITS,
    "bits, two layers, biases": replace(
        BITS, d_hidden=(6, 3), bias=True, output_bias=True, one_logit=False, constant_input=False
    ),
    "bits, two layers, biases, one logit": replace(BITS, d_hidden=(4, 9), bias=True, output_bias=True),
    "width one": replace(BITS, d_hidden=(1,)),
    "one-hot, square": MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="one_hot", act_fn="square"),
    "counts": MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="counts", bias=True),
    "tied embedding": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="embedding", d_embed=5, tied_unembedding=True
    ),
    "wide tied embedding": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=6, d_hidden=(5,), input="embedding", d_embed=20, tied_unembedding=True
    ),
    "wide tied embedding, three layers, biases": MLPConfig(
        n_ctx=3,
        d_vocab=7,
        d_vocab_out=7,
        d_hidden=(5, 30, 4),
        input="embedding",
        d_embed=17,
        tied_unembedding=True,
        bias=True,
        output_bias=True,
    ),
    "wide embedding, square": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(6,), input="embedding", d_embed=9, act_fn="square"
    ),
    "wide embedding, one logit, width one": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=2, d_hidden=(1,), input="embedding", d_embed=9, one_logit=True
    ),
    "embedding, gelu, output bias": MLPConfig(
        n_ctx=3, d_vocab=7, d_vocab_out=4, d_hidden=(8,), input="embedding", d_embed=5, act_fn="gelu", output_bias=True
    ),
    "vector, constant, x tanh": MLPConfig(
        n_ctx=5, d_vocab_out=1, d_hidden=(6,), input="vector", constant_input=True, act_fn="x_tanh"
    ),
    "vector, two layers, biases, softplus": MLPConfig(
        n_ctx=3, d_vocab_out=2, d_hidden=(6, 17), input="vector", act_fn="softplus", bias=True, output_bias=True
    ),
    "vector, tanh": MLPConfig(n_ctx=3, d_vocab_out=2, d_hidden=(7,), input="vector", act_fn="tanh"),
    "vector, sigmoid": MLPConfig(n_ctx=3, d_vocab_out=2, d_hidden=(7,), input="vector", act_fn="sigmoid"),
    "vector, x² tanh": MLPConfig(n_ctx=3, d_vocab_out=2, d_hidden=(7,), input="vector", act_fn="x2_tanh"),
    "a table per position": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="concatenated", d_embed=5
    ),
}
every = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


@pytest.fixture(params=["over the stack", "model by model"])
def either_way(request, monkeypatch):
    """Both ways to compute a stack, whatever the size of its activations."""
    monkeypatch.setattr("tasks.models.layers._WORTH_A_CALL", 1 if request.param == "model by model" else 1 << 60)


def stack(config: MLPConfig, n_models: int = 3):
    """Random weights, none of them zero, and a batch per model."""
    rng = torch.Generator().manual_seed(0)
    params = {name: torch.randn((n_models, *shape), generator=rng) for name, shape in shapes(config).items()}
    size = (n_models, 11, config.n_ctx)
    if config.input == "vector":
        return params, torch.randn(size, generator=rng)
    return params, torch.randint(0, config.d_vocab, size, generator=rng)


def results(params, tokens, config):
    """Logits, and the gradients of a function of them."""
    params = {name: value.detach().requires_grad_() for name, value in params.items()}
    logits = forward(params, tokens, config)
    return [logits, *torch.autograd.grad(logits.sin().sum(), list(params.values()))]


def test_a_network_written_down_for_exclusive_or_computes_it():
    config = replace(BITS, n_ctx=2, d_hidden=(2,), output_bias=True)
    params = {
        "layers.0.W_in": torch.tensor([[[1.0, 1.0], [1.0, 1.0], [0.0, -1.0]]]),  # a + b, and a + b − 1
        "unembed.W_U": torch.tensor([[[4.0], [-8.0]]]),
        "unembed.b_U": torch.tensor([[-2.0]]),
    }
    inputs = torch.tensor(list(itertools.product((0, 1), repeat=2)))
    logits = forward(params, inputs[None], config)[0, :, 0]
    assert logits.flatten().tolist() == [-2, 2, 2, -2]
    found = performance(logits, inputs.sum(1) % 2, {"any": inputs[:, 0] | inputs[:, 1]}, "all")
    assert found["all_accuracy"] == 1.0
    assert found["all_any"] == 0.75
    assert found["all_loss"] == pytest.approx(0.12692801104297263)  # log(1 + e⁻²)


@every
def test_inputs_of_another_length_are_refused(config):
    params, inputs = stack(config)
    with pytest.raises(UserError, match=f"expected inputs of length {config.n_ctx}, got {config.n_ctx - 1}"):
        forward(params, inputs[..., 1:], config)


def test_one_hot_rows_and_embedding_rows_are_added_over_positions():
    one_hot, tied = KINDS["one-hot, square"], KINDS["tied embedding"]
    params, tokens = stack(one_hot, 1)
    W_in, W_U = params["layers.0.W_in"][0], params["unembed.W_U"][0]
    a, b = tokens[0].T
    expected = (W_in[a] + W_in[7 + b]).square() @ W_U
    torch.testing.assert_close(forward(params, tokens, one_hot)[0, :, 0], expected)

    counts = KINDS["counts"]
    params, tokens = stack(counts, 1)
    tokens[0, 0] = 3  # the same token twice counts twice
    W_in, b_in, W_U = (params[name][0] for name in ("layers.0.W_in", "layers.0.b_in", "unembed.W_U"))
    a, b = tokens[0].T
    expected = (W_in[a] + W_in[b] + b_in).relu() @ W_U
    torch.testing.assert_close(forward(params, tokens, counts)[0, :, 0], expected)

    params, tokens = stack(tied, 1)
    W_E, W_in, W_out = (params[name][0] for name in ("embed.W_E", "layers.0.W_in", "unembed.W_out"))
    a, b = tokens[0].T
    expected = ((W_E[a] + W_E[b]) @ W_in).relu() @ W_out @ W_E.T
    torch.testing.assert_close(forward(params, tokens, tied)[0, :, 0], expected)


def test_rows_of_a_table_per_position_stand_side_by_side():
    config = KINDS["a table per position"]
    params, tokens = stack(config, 1)
    W_x, W_y, W_in, W_U = (value[0] for value in params.values())
    a, b = tokens[0].T
    expected = (W_x[a] @ W_in[:5] + W_y[b] @ W_in[5:]).relu() @ W_U
    torch.testing.assert_close(forward(params, tokens, config)[0, :, 0], expected)


def test_a_vector_is_read_as_it_is_with_a_one_appended():
    config = MLPConfig(n_ctx=2, d_vocab_out=1, d_hidden=(1,), input="vector", constant_input=True, act_fn="square")
    params = {"layers.0.W_in": torch.tensor([[[2.0], [-1.0], [0.5]]]), "unembed.W_U": torch.tensor([[[3.0]]])}
    outputs = forward(params, torch.tensor([[[1.5, 1.0], [-0.25, 0.0]]]), config)[0, :, 0]
    assert outputs.flatten().tolist() == [3 * 2.5**2, 0.0]


@every
@pytest.mark.usefixtures("either_way")
def test_a_member_of_a_stack_is_computed_to_the_bit_as_if_it_were_alone(config):
    params, tokens = stack(config)
    together = results(params, tokens, config)
    for m in range(3):
        alone = results({name: value[m : m + 1] for name, value in params.items()}, tokens[m : m + 1], config)
        assert all(torch.equal(ours[m : m + 1], theirs) for ours, theirs in zip(together, alone, strict=True))


@every
@pytest.mark.usefixtures("either_way")
def test_a_batch_that_all_models_share_gives_what_copies_of_it_give(config):
    params, tokens = stack(config)
    shared = tokens[:1].expand(3, -1, -1)
    assert torch.equal(forward(params, shared, config), forward(params, shared.clone(), config))


@every
@pytest.mark.usefixtures("either_way")
def test_looking_at_activations_changes_neither_logits_nor_gradients(config):
    params, tokens = stack(config)
    params = {name: value.double().requires_grad_() for name, value in params.items()}
    seen = []

    def look(name, value):
        seen.append((name, tuple(value.shape)))
        return value

    both = [forward(params, tokens, config), forward(params, tokens, config, tap=look)]
    torch.testing.assert_close(*both)
    gradients = [torch.autograd.grad(logits.sin().sum(), list(params.values())) for logits in both]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    hidden = [
        name
        for layer in range(len(config.d_hidden))
        for name in (f"layers.{layer}.hook_pre", f"layers.{layer}.hook_post")
    ]
    assert [name for name, _ in seen] == ["hook_embed", *hidden, *(["hook_out"] if config.tied_unembedding else [])]
    assert dict(seen)["layers.0.hook_pre"] == (3, 11, config.d_hidden[0])


WIDE = {name: config for name, config in KINDS.items() if name.startswith("wide")} | {
    "published": MLPConfig(
        n_ctx=2, d_vocab=67, d_vocab_out=67, d_hidden=(24,), input="embedding", d_embed=500, tied_unembedding=True
    )
}


def wide_stack(config: MLPConfig, dtype: torch.dtype, batch: int, n_models: int = 3):
    """Weights of usual size, so that rounding stays in proportion, and the rows of a table as every model's batch."""
    init = Initialization(scheme="gain")
    members = [initialize(shapes(config), config, init, seed) for seed in range(n_models)]
    rng = torch.Generator().manual_seed(1)
    params = {
        name: torch.stack([member[name] for member in members]).to(dtype)
        if members[0][name].any()
        else torch.randn((n_models, *members[0][name].shape), generator=rng, dtype=dtype)
        for name in members[0]
    }
    tokens = torch.randint(0, config.d_vocab, (1, batch, config.n_ctx), generator=rng)
    return params, tokens.expand(n_models, -1, -1)


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("config", WIDE.values(), ids=WIDE)
def test_a_wide_table_met_once_per_token_gives_what_it_gives_once_per_example(config, dtype, tolerance, n_models):
    params, tokens = wide_stack(config, dtype, 300, n_models)
    params = {name: value.requires_grad_() for name, value in params.items()}
    ours, theirs = (forward(params, tokens, config, **how) for how in ({}, {"tap": lambda name, value: value}))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    gradients = [torch.autograd.grad(logits.sin().mean(), list(params.values())) for logits in (ours, theirs)]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [20, 66, 67, 911])
def test_a_member_of_a_stack_of_the_published_size_is_as_if_alone_whatever_the_batch(dtype, batch):
    config = WIDE["published"]
    params, tokens = wide_stack(config, dtype, batch, 4)
    together = results(params, tokens, config)
    for m in range(4):
        alone = results({name: value[m : m + 1] for name, value in params.items()}, tokens[:1], config)
        assert all(torch.equal(ours[m : m + 1], theirs) for ours, theirs in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("batch", "width", "formed"), [(911, 24, False), (68, 24, False), (66, 24, True), (911, 501, True)]
)
def test_examples_meet_rows_of_the_table_only_where_the_batch_is_small_or_the_layer_wide(batch, width, formed):
    config = replace(WIDE["published"], d_hidden=(width,))
    params, tokens = wide_stack(config, torch.float32, batch, 1)
    params = {name: value.requires_grad_() for name, value in params.items()}
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape[-2:]))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(params, tokens, config)
    assert ((batch, config.d_embed) in kept) is formed


def test_one_logit_is_two_logits_of_which_the_first_is_zero():
    z = torch.tensor([[-3.0], [0.5], [40.0], [-800.0]], requires_grad=True)
    targets = torch.tensor([0, 1, 0, 1])
    two = torch.cat([torch.zeros_like(z), z], dim=-1)
    torch.testing.assert_close(cross_entropy(z, targets), cross_entropy(two, targets), rtol=1e-14, atol=0)
    ours, theirs = (torch.autograd.grad(cross_entropy(logits, targets).sum(), z)[0] for logits in (z, two))
    torch.testing.assert_close(ours, theirs)


def test_initial_weights_have_the_width_they_read_as_their_fan_in():
    config = MLPConfig(n_ctx=30, d_vocab=2, d_vocab_out=2, d_hidden=(400,), constant_input=True)
    params = initialize(shapes(config), config, Initialization(scheme="gain"), 0)
    assert float(params["layers.0.W_in"].std()) == pytest.approx(31**-0.5, rel=0.03)
    assert float(params["unembed.W_U"].std()) == pytest.approx(400**-0.5, rel=0.06)


def test_a_stack_learns_sparse_parity_and_each_member_is_as_if_alone():
    task = SparseParity(n_bits=8, k=2, n_train=120, n_test=100)
    config = replace(BITS, n_ctx=8, d_hidden=(24,))
    training = TrainingConfig(steps=300, learning_rate=1e-2, weight_decay=0.1, evaluate_every=100, snapshots=0)
    init = Initialization(scheme="gain")
    runs = train(task, config, init, training, seeds=range(3))
    alone = train(task, config, init, training, seeds=[1])[0]
    assert all(alone.params()[name].equal(value) for name, value in runs[1].params().items())
    assert alone.metrics == runs[1].metrics
    for run in runs:
        assert run.metrics[0]["test_accuracy"] < 0.8
        assert run.metrics[-1]["test_accuracy"] > 0.97


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stack_with_a_wide_table_learns_addition_and_each_member_is_as_if_alone(dtype):
    task = ModularArithmetic(p=11, form="pair", unordered=True, train_fraction=0.8)
    config = MLPConfig(
        n_ctx=2, d_vocab=11, d_vocab_out=11, d_hidden=(14,), input="embedding", d_embed=35, tied_unembedding=True
    )
    training = TrainingConfig(steps=100, learning_rate=2e-2, evaluate_every=100, snapshots=0, dtype=dtype)
    init = Initialization(scheme="gain")
    runs = train(task, config, init, training, seeds=range(3))
    alone = train(task, config, init, training, seeds=[2])[0]
    assert all(alone.params()[name].equal(value) for name, value in runs[2].params().items())
    assert alone.metrics == runs[2].metrics
    for run in runs:
        assert run.metrics[0]["train_accuracy"] < 0.5
        assert run.metrics[-1]["train_accuracy"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_hidden": ()}, "expected d_hidden of at least 1, got 0"),
        ({"d_hidden": (4, 0)}, "expected d_hidden of at least 1, got 0"),
        ({"input": "bytes"}, "expected input among bits, one_hot, counts, embedding"),
        ({"act_fn": "swish"}, "expected act_fn among"),
        ({"input": "vector"}, "expected d_vocab 0 with input 'vector', which has no tokens, got 2"),
        ({"d_vocab": 0}, "expected d_vocab of at least 1, got 0"),
        ({"d_embed": 4}, "expected d_embed with input 'embedding' or 'concatenated' and only there, got 4"),
        ({"input": "embedding", "constant_input": False}, "expected d_embed with input 'embedding'"),
        ({"input": "one_hot"}, "expected constant_input with input 'bits' or 'vector' only"),
        ({"tied_unembedding": True}, "a tied unembedding needs input 'embedding'"),
        ({"d_vocab_out": 3}, "one_logit is for two answers"),
    ],
)
def test_options_that_exclude_each_other_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        replace(BITS, **fields)
