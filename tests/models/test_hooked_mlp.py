"""The hooked MLP: one forward pass, its names, and hooks that decide. Runs under both majors of transformer-lens."""

import pytest
import torch
from transformer_lens import HookedRootModule

from tasks import UserError
from tasks.models import HookedMLP, mlp
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization

BITS = MLPConfig(n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(6,), constant_input=True, one_logit=True)
KINDS = {
    "bits, one logit": BITS,
    "two layers, biases": MLPConfig(
        n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(6, 3), bias=True, output_bias=True, act_fn="gelu"
    ),
    "one-hot": MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="one_hot", act_fn="square"),
    "tied": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="embedding", d_embed=5, tied_unembedding=True
    ),
    "a table per position": MLPConfig(
        n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="concatenated", d_embed=5
    ),
    "vector": MLPConfig(n_ctx=3, d_vocab_out=1, d_hidden=(6,), input="vector", act_fn="tanh"),
}
every = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def model_and_inputs(config: MLPConfig) -> tuple[HookedMLP, torch.Tensor]:
    """Random weights, none of them zero, and nine inputs."""
    rng = torch.Generator().manual_seed(0)
    model = HookedMLP(config, {name: torch.randn(shape, generator=rng) for name, shape in mlp.shapes(config).items()})
    size = (9, config.n_ctx)
    if config.input == "vector":
        return model, torch.randn(size, generator=rng)
    return model, torch.randint(0, config.d_vocab, size, generator=rng)


@every
def test_it_computes_what_training_computes_under_the_names_of_training(config) -> None:
    model, inputs = model_and_inputs(config)
    params = {name: value[None] for name, value in model.state_dict().items()}
    torch.testing.assert_close(model(inputs), mlp.forward(params, inputs[None], config)[0])
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == mlp.shapes(config)
    assert isinstance(model, HookedRootModule)
    assert not any(module.training for module in model.modules())


@every
def test_the_cache_has_every_activation_that_the_forward_pass_shows(config) -> None:
    model, inputs = model_and_inputs(config)
    seen = {}

    def tap(name, value):
        seen[name] = value[0]
        return value

    mlp.forward({name: value[None] for name, value in model.state_dict().items()}, inputs[None], config, tap=tap)
    logits, cache = model.run_with_cache(inputs)
    assert torch.equal(logits, model(inputs))
    assert list(cache) == list(seen)
    assert set(model.hook_dict) == set(seen)
    assert all(torch.equal(cache[name], value) for name, value in seen.items())
    last = f"layers.{len(config.d_hidden) - 1}.hook_post"
    assert set(seen) >= {"hook_embed", "layers.0.hook_pre", last}
    assert ("hook_out" in seen) == config.tied_unembedding


def test_a_neuron_silenced_by_a_hook_is_a_neuron_without_output_weights() -> None:
    model, inputs = model_and_inputs(KINDS["two layers, biases"])

    def silence(value, hook):
        value[:, 2] = 0
        return value

    hooked = model.run_with_hooks(inputs, fwd_hooks=[("layers.0.hook_post", silence)])
    params = {name: value.clone() for name, value in model.state_dict().items()}
    params["layers.1.W_in"][2] = 0
    torch.testing.assert_close(hooked, HookedMLP(model.config, params)(inputs))
    assert not torch.allclose(hooked, model(inputs))  # and the hook is gone


@torch.no_grad()
@pytest.mark.parametrize("neuron", range(6))
def test_a_patched_neuron_moves_the_logit_by_its_difference_times_its_weight(neuron) -> None:
    model, inputs = model_and_inputs(BITS)
    clean, cache = model.run_with_cache(inputs)
    post = cache["layers.0.hook_post"]

    def patch(value, hook):
        value[:, neuron] = post[:, neuron]
        return value

    patched = model.run_with_hooks(inputs.flip(0), fwd_hooks=[("layers.0.hook_post", patch)])
    moved = (post - post.flip(0))[:, neuron] * model.unembed.W_U[neuron, 0]
    torch.testing.assert_close(patched[:, 0, 0], clean.flip(0)[:, 0, 0] + moved)


@every
@torch.no_grad()
def test_a_hook_that_writes_into_an_activation_leaves_weights_and_inputs_alone(config) -> None:
    model, inputs = model_and_inputs(config)
    before = {name: value.clone() for name, value in model.state_dict().items()} | {"inputs": inputs.clone()}
    for name in model.hook_dict:
        model.run_with_hooks(inputs, fwd_hooks=[(name, lambda value, hook: value.zero_())])
    assert all(torch.equal(value, before[name]) for name, value in (model.state_dict() | {"inputs": inputs}).items())


def test_a_backward_hook_sees_the_gradient_of_its_activation() -> None:
    model, inputs = model_and_inputs(BITS)
    seen = {}
    with model.hooks(bwd_hooks=[("layers.0.hook_post", lambda g, hook: seen.update(g=g))]):
        model(inputs).sum().backward()
    torch.testing.assert_close(seen["g"], model.unembed.W_U[:, 0].expand(9, 6))


def test_one_input_is_a_batch_of_one_whose_axis_the_cache_can_drop() -> None:
    model, inputs = model_and_inputs(BITS)
    assert torch.equal(model(inputs[0]), model(inputs[:1]))
    _, cache = model.run_with_cache(inputs[:1], remove_batch_dim=True)
    torch.testing.assert_close(cache["layers.0.hook_pre"], model.run_with_cache(inputs)[1]["layers.0.hook_pre"][0])
    _, one = model.run_with_cache(inputs[0], names_filter="layers.0.hook_post")
    assert {name: value.shape for name, value in one.items()} == {"layers.0.hook_post": (1, 6)}
    with pytest.raises(UserError, match="needs a batch of 1, got 9"):
        model.run_with_cache(inputs, remove_batch_dim=True)


def test_without_weights_the_seed_decides_them_and_given_weights_are_copied() -> None:
    one, same, other = (HookedMLP(BITS, init=Initialization(scheme="gain"), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one.layers[0].W_in, same.layers[0].W_in)
    assert not torch.equal(one.layers[0].W_in, other.layers[0].W_in)
    params = dict(one.state_dict())
    copy = HookedMLP(BITS, params)
    params["layers.0.W_in"].zero_()
    assert copy.layers[0].W_in.abs().min() > 0


def test_what_does_not_fit_is_refused_by_name() -> None:
    model, inputs = model_and_inputs(BITS)
    with pytest.raises(UserError, match=r"layers\.0\.W_in of shape \(6, 6\), got \(5, 6\)"):
        HookedMLP(BITS, dict(model.state_dict()) | {"layers.0.W_in": torch.zeros(5, 6)})
    with pytest.raises(UserError, match=r"missing parameter unembed\.W_U: expected shape \(6, 1\)"):
        HookedMLP(BITS, {"layers.0.W_in": torch.zeros(6, 6)})
    with pytest.raises(UserError, match="expected inputs of length 5, got 4"):
        model(inputs[:, 1:])
    with pytest.raises(UserError, match="axes batch pos"):
        model(inputs[None])
    with pytest.raises(UserError, match="return_type 'logits' or None, got 'loss'"):
        model(inputs, return_type="loss")
    assert model(inputs, return_type=None) is None
    with pytest.raises(UserError, match="tokens in 0…6, got 0…7"):
        model_and_inputs(KINDS["one-hot"])[0](torch.tensor([[0, 7]]))
