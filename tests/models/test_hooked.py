"""The hooked model and transformer-lens's tools on it. Runs under both majors of transformer-lens."""

from functools import partial

import pytest
import torch
from transformer_lens import ActivationCache, patching

from tasks import UserError
from tasks.models.config import TransformerConfig
from tasks.models.hooked import Cache, HookedTransformer
from tasks.models.initialization import Initialization
from tasks.models.transformer import hook_names, shapes

ALL = [
    "plain",
    "biases",
    "attention only",
    "pre-LN",
    "pre-LN, three layers, gelu, biases",
    "pre-LN, attention only",
    "bidirectional",
    "tied",
    "no positions",
    "attention mix",
    "post-LN",
    "post-LN, attention only",
]
SUMS = [name for name in ALL if not name.startswith("post-LN")]
PRE = [name for name in ALL if name.startswith("pre-LN")]
close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)  # float32 sums in another order


def over(names):
    return pytest.mark.parametrize("model", names, indirect=True)


def final_residual(cache):
    """The residual stream after the last block."""
    return cache["resid_post", -1]


@over([*ALL, "real input"])
def test_parameters_and_hook_points_have_exactly_the_names_of_the_forward_pass(model):
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes(model.config)
    assert set(model.hook_dict) == set(hook_names(model.config))
    assert model.blocks[0].attn.W_Q is model.get_parameter("blocks.0.attn.W_Q")
    assert len(model.blocks) == model.config.n_layers


def test_a_new_model_is_in_eval_mode_and_owns_a_copy_of_its_weights(model):
    assert not any(module.training for module in model.modules())
    params = dict(model.state_dict())
    copy = HookedTransformer(model.config, params)
    params["embed.W_E"].zero_()
    assert copy.W_E.abs().min() > 0


def test_without_weights_the_seed_decides_them(model):
    one, same = (HookedTransformer(model.config, seed=5) for _ in range(2))
    small = HookedTransformer(model.config, init=Initialization(gamma=1.0), seed=5)
    assert torch.equal(one.W_Q, same.W_Q)
    close(small.W_Q, one.W_Q / 4)  # 16^-1 against 16^-0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed.W_E": torch.zeros(11, 15)}, r"embed\.W_E of shape \(11, 16\), got \(11, 15\)"),
        ({"embed.W_U": torch.zeros(2)}, r"unknown parameter 'embed\.W_U'"),
        ({"blocks.1.attn.W_O": None}, r"missing parameter blocks\.1\.attn\.W_O: expected shape \(3, 5, 16\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(model, change, message):
    params = {name: value for name, value in (dict(model.state_dict()) | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        HookedTransformer(model.config, params)


def test_one_sequence_is_a_batch_of_one(model, tokens):
    assert torch.equal(model(tokens[0]), model(tokens[:1]))
    assert model(tokens[0]).shape == (1, 4, 7)


@over(["real input"])
def test_real_vectors_are_read_in_linearly(model):
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(x)
    close(cache["hook_embed"], x @ model.read_in.W)
    close(model(x[0]), logits[:1])


def test_a_shorter_input_reads_the_first_positions(model, tokens):
    close(model(tokens[:, :2]), model(tokens)[:, :2])  # causal: later tokens change nothing


def test_input_and_return_type_are_checked(model, tokens):
    assert model(tokens, return_type=None) is None
    with pytest.raises(UserError, match="expected return_type 'logits' or None, got 'loss'"):
        model(tokens, return_type="loss")
    with pytest.raises(UserError, match="at most n_ctx = 4 positions, got 5"):
        model(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(UserError, match="tokens in 0…10, got 0…11"):
        model(torch.tensor([[0, 11]]))
    with pytest.raises(UserError, match="axes"):
        model(tokens[None])


@over(ALL)
def test_run_with_cache_shows_every_activation_and_leaves_the_logits_alone(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    assert torch.equal(logits, model(tokens))
    assert isinstance(cache, ActivationCache)
    assert list(cache.keys()) == hook_names(model.config)
    assert cache["pattern", 0].shape == (6, 3, 4, 4)
    assert cache["z", 1].shape == (6, 4, 3, 5)


def test_run_with_cache_can_return_a_dict_and_drop_the_batch_axis(model, tokens):
    _, plain = model.run_with_cache(tokens, return_cache_object=False, names_filter="hook_embed")
    assert type(plain) is dict
    assert list(plain) == ["hook_embed"]
    logits, cache = model.run_with_cache(tokens[0], remove_batch_dim=True)
    assert logits.shape == (1, 4, 7)
    assert not cache.has_batch_dim
    close(cache["hook_embed"], plain["hook_embed"][0])
    with pytest.raises(UserError, match="needs a batch of 1, got 6"):
        model.run_with_cache(tokens, remove_batch_dim=True)


def test_a_hook_that_replaces_the_residual_stream_decides_the_logits(model, tokens):
    clean, cache = model.run_with_cache(tokens)
    corrupted = tokens.flip(0)
    patched = model.run_with_hooks(
        corrupted, fwd_hooks=[("blocks.1.hook_resid_pre", lambda value, hook: cache[hook.name])]
    )
    assert torch.equal(patched, clean)
    assert not torch.equal(model(corrupted), clean)  # and the hook is gone


def test_a_head_silenced_by_a_hook_is_a_head_without_output_weights(model, tokens):
    def silence(z, hook):
        z[:, :, 1] = 0
        return z

    hooked = model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_z", silence)])
    params = {name: value.clone() for name, value in model.state_dict().items()}
    params["blocks.0.attn.W_O"][1] = 0
    close(hooked, HookedTransformer(model.config, params)(tokens))


@torch.no_grad()
def test_a_hook_that_writes_into_an_activation_leaves_the_weights_alone(model, tokens):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in model.hook_dict:
        model.run_with_hooks(tokens[:1], fwd_hooks=[(name, lambda value, hook: value.zero_())])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_backward_hook_sees_the_gradient_of_its_activation(model, tokens):
    seen = {}
    with model.hooks(bwd_hooks=[("blocks.1.hook_resid_post", lambda g, hook: seen.update(g=g))]):
        model(tokens)[..., 3].sum().backward()
    close(seen["g"], model.W_U[:, 3].expand(6, 4, 16))


def manually_patched(model, corrupted, cache, name, index):
    """Logits with one entry of one activation copied from the cache."""

    def patch(value, hook):
        value[index] = cache[hook.name][index]
        return value

    return model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)])


@over(["plain", "pre-LN", "post-LN"])
@pytest.mark.parametrize(
    ("function", "name", "index"),
    [
        ("resid_pre", "blocks.1.hook_resid_pre", (slice(None), 2)),
        ("resid_mid", "blocks.1.hook_resid_mid", (slice(None), 2)),
        ("attn_out", "blocks.1.hook_attn_out", (slice(None), 2)),
        ("mlp_out", "blocks.1.hook_mlp_out", (slice(None), 2)),
        ("attn_head_out_by_pos", "blocks.1.attn.hook_z", (slice(None), 2, 0)),
        ("attn_head_q_by_pos", "blocks.1.attn.hook_q", (slice(None), 2, 0)),
        ("attn_head_k_by_pos", "blocks.1.attn.hook_k", (slice(None), 2, 0)),
        ("attn_head_v_by_pos", "blocks.1.attn.hook_v", (slice(None), 2, 0)),
        ("attn_head_pattern_all_pos", "blocks.1.attn.hook_pattern", (slice(None), 0)),
    ],
)
def test_activation_patching_is_what_one_gets_by_hand(model, tokens, function, name, index):
    def metric(logits):
        return logits[:, -1, 0].mean()

    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        corrupted = tokens.flip(0)
        results = getattr(patching, f"get_act_patch_{function}")(model, corrupted, cache, metric)
        where = (1, 0) if "all_pos" in function else (1, *index[1:])
        assert float(results[where]) == pytest.approx(
            float(metric(manually_patched(model, corrupted, cache, name, index))), abs=1e-6
        )


@torch.no_grad()
def test_patching_the_only_position_that_differs_restores_the_clean_metric(model, tokens):
    corrupted = tokens.clone()
    corrupted[:, 1] = (corrupted[:, 1] + 1) % 11

    def metric(logits):
        return logits[:, -1, 0].mean()

    clean, cache = model.run_with_cache(tokens)
    effect = patching.get_act_patch_resid_pre(model, corrupted, cache, metric)
    assert float(effect[0, 1]) == pytest.approx(float(metric(clean)), abs=1e-6)
    for position in (0, 2, 3):  # equal in both runs
        assert float(effect[0, position]) == pytest.approx(float(metric(model(corrupted))), abs=1e-6)


def test_patching_every_head_and_position_reports_all_five_kinds(model, tokens):
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        every = patching.get_act_patch_attn_head_all_pos_every(model, tokens, cache, lambda x: x[:, -1, 0].mean())
        unpatched = float(model(tokens)[:, -1, 0].mean())
    assert every.shape == (5, 2, 3)
    torch.testing.assert_close(every, torch.full_like(every, unpatched))  # clean into clean changes nothing


@over(ALL)
def test_weights_are_stacked_over_layers_and_circuits_are_factored(model):
    c = model.config
    assert model.W_Q.shape == (c.n_layers, 3, 16, 5)
    assert model.b_O.shape == (c.n_layers, 16)
    assert torch.equal(model.W_V[1], model.blocks[1].attn.W_V)
    close(model.OV[1, 2].AB, model.blocks[1].attn.W_V[2] @ model.blocks[1].attn.W_O[2])
    close(model.QK[0, 1].AB, model.blocks[0].attn.W_Q[1] @ model.blocks[0].attn.W_K[1].T)
    singular = model.OV[0, 0].svd()[1]  # rank d_head
    close(singular.square().sum(), model.OV[0, 0].AB.square().sum())
    assert model.W_U.shape == (16, 7)
    assert model.b_U.shape == (7,)
    if c.d_mlp is None:
        with pytest.raises(UserError, match="attention-only model has no W_in"):
            _ = model.W_in
    else:
        assert model.W_in.shape == (c.n_layers, 16, 24)


def test_biases_and_positions_that_are_absent_read_as_zeros(model):
    assert not model.b_in.any()
    assert not model.b_U.any()
    with pytest.raises(UserError, match=r"no ln_final\.w"):
        model.tensor("ln_final.w")


def test_cfg_says_what_the_architecture_is(model):
    cfg = model.cfg
    assert (cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.d_head, cfg.d_mlp) == (2, 3, 16, 5, 24)
    assert (cfg.d_vocab, cfg.d_vocab_out, cfg.n_ctx, cfg.act_fn, cfg.attn_only) == (11, 7, 4, "relu", False)
    assert (cfg.normalization_type, cfg.device, cfg.dtype) == (None, torch.device("cpu"), torch.float32)
    assert model.double().cfg.dtype == torch.float64


@over(SUMS)
def test_the_parts_of_the_residual_stream_add_up_to_it(model, tokens):
    _, cache = model.run_with_cache(tokens)
    last = final_residual(cache)
    close(cache.decompose_resid().sum(0), last)
    close(cache.decompose_resid(layer=1).sum(0), cache["resid_pre", 1])
    close(cache.decompose_resid(layer=1, mlp_input=True).sum(0), cache["resid_mid", 1])
    close(cache.get_full_resid_decomposition(expand_neurons=False).sum(0), last)
    close(cache.stack_head_results(incl_remainder=True).sum(0), last)
    if model.config.d_mlp is not None:
        close(cache.get_full_resid_decomposition(expand_neurons=True).sum(0), last)
        close(cache.stack_neuron_results(-1, incl_remainder=True).sum(0), last)


@over(ALL)
def test_head_results_add_up_to_what_attention_writes(model, tokens):
    _, cache = model.run_with_cache(tokens)
    stack, labels = cache.stack_head_results(return_labels=True)
    assert labels[:4] == ["L0H0", "L0H1", "L0H2", "L1H0"]
    for layer in range(model.config.n_layers):
        close(stack[3 * layer : 3 * layer + 3].sum(0) + model.b_O[layer], cache["attn_out", layer])


@over(ALL)
def test_stacks_of_activations_are_the_activations(model, tokens):
    _, cache = model.run_with_cache(tokens)
    assert torch.equal(cache.stack_activation("pattern")[1], cache["pattern", 1])
    accumulated, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels[:2] == ["0_pre", "0_mid"]
    assert torch.equal(accumulated[0], cache["resid_pre", 0])
    assert torch.equal(accumulated[1], cache["resid_mid", 0])
    assert torch.equal(accumulated[-1], final_residual(cache))


@over(PRE)
def test_parts_scaled_by_the_final_norm_add_up_to_the_normalised_stream(model, tokens):
    _, cache = model.run_with_cache(tokens)
    close(cache.decompose_resid(apply_ln=True).sum(0), cache["ln_final.hook_normalized"])
    close(
        cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True).sum(0),
        cache["ln_final.hook_normalized"],
    )
    close(cache.decompose_resid(layer=1, apply_ln=True).sum(0), cache["normalized", 1, "ln1"])


@over(SUMS)
def test_the_logit_lens_ends_in_the_logits(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    close(cache.accumulated_resid(apply_ln=True)[-1] @ model.W_U + model.b_U, logits)
    if hasattr(ActivationCache, "logit_lens"):  # from 4.x on
        close(cache.logit_lens(return_type="logits", positions=None).values[-1], logits)


@over(SUMS)
def test_logit_attributions_add_up_to_the_logit_but_for_its_constant(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    answers = torch.arange(6).unsqueeze(1).expand(6, 4)
    attributions = cache.logit_attrs(cache.decompose_resid(), answers)
    constant = model.b_U
    if model.config.normalization == "pre":
        constant = constant + model.ln_final.b @ model.W_U
    close(attributions.sum(0), (logits - constant).gather(-1, answers.unsqueeze(-1)).squeeze(-1))
    one = cache.logit_attrs(cache.decompose_resid(), 2, incorrect_tokens=5)
    close(one.sum(0), (logits - constant)[..., 2] - (logits - constant)[..., 5])


@over(["post-LN", "post-LN, attention only"])
@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.decompose_resid(),
        lambda cache: cache.get_full_resid_decomposition(),
        lambda cache: cache.accumulated_resid(apply_ln=True),
        lambda cache: cache.stack_head_results(apply_ln=True),
        lambda cache: cache.stack_head_results(incl_remainder=True),
        lambda cache: cache.stack_neuron_results(1, apply_ln=True, project_output_onto=torch.ones(16)),
        lambda cache: cache.logit_attrs(cache.accumulated_resid(), 0),
        lambda cache: cache.model.tokens_to_residual_directions(0),
    ],
)
def test_what_assumes_a_sum_is_refused_under_post_layer_norm(model, tokens, use):
    _, cache = model.run_with_cache(tokens)
    assert isinstance(cache, Cache)
    with pytest.raises(UserError, match="post-LN"):
        use(cache)


def test_a_model_moves_to_float64_whole(model, tokens):
    close(model(tokens).double(), model.double()(tokens))


def test_a_config_is_enough_to_rebuild_a_model(model, tokens):
    config = TransformerConfig.from_dict(model.config.to_dict())
    assert torch.equal(HookedTransformer(config, dict(model.state_dict()))(tokens), model(tokens))
