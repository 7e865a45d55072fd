"""The forward pass: counts, what activations mean, shortcuts against the plain path, members of a stack alone."""

import math

import pytest
import torch

from tasks.models.config import TransformerConfig
from tasks.models.hooked import HookedTransformer
from tasks.models.initialization import Initialization
from tasks.models.transformer import distinct_tokens, forward, hook_names, shapes

PUBLISHED_ANCHOR = TransformerConfig(  # Zhang et al. 2024, appendix C
    n_layers=2,
    d_model=400,
    n_heads=1,
    d_head=200,
    d_mlp=1200,
    n_ctx=20,
    d_vocab=201,
    normalization="post",
    unembedding_bias=True,
)
SMALL = {"n_layers": 2, "d_model": 16, "n_heads": 3, "d_head": 5, "n_ctx": 4, "d_vocab": 11, "d_mlp": 24}


def stack(config, n_models=2):
    """Parameters of a stack, none of them zero, and one batch of tokens per model."""
    rng = torch.Generator().manual_seed(0)
    params = {
        name: 0.3 * torch.randn((n_models, *shape), generator=rng) + name.endswith(".w")
        for name, shape in shapes(config).items()
    }
    return params, torch.randint(0, 11, (n_models, 6, config.n_ctx), generator=rng)


def gradients(params, run):
    """Value of ``run(params)`` and the gradient of its squared mean with respect to every parameter."""
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    value = run(params)
    return value.detach(), torch.autograd.grad(value.square().mean(), list(params.values()))


def assert_same(params, one, other):
    """Two ways to compute logits agree to 1e-5 relative in value and gradient: float32 sums in another order."""
    (value, grads), (value_, grads_) = gradients(params, one), gradients(params, other)
    torch.testing.assert_close(value, value_, atol=1e-5, rtol=1e-5)
    for name, grad, grad_ in zip(params, grads, grads_, strict=True):
        # the gradient of b_K is rounding: a shift of every key's score leaves the pattern as it is
        assert (grad - grad_).norm() <= 1e-5 * grad.norm() + 1e-6, name


def test_the_published_anchor_model_has_its_number_of_parameters():
    assert sum(math.prod(shape) for shape in shapes(PUBLISHED_ANCHOR).values()) == 2_732_201


@pytest.mark.slow
def test_rows_after_a_post_layer_norm_have_norm_sqrt_d_model():
    model = HookedTransformer(PUBLISHED_ANCHOR, init=Initialization(gamma=0.3))
    tokens = torch.randint(20, 100, (8, 9), generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(tokens)
    for layer in range(2):
        for name in ("normalized_mid", "normalized_post"):
            norms = cache[f"blocks.{layer}.hook_{name}"].norm(dim=-1)
            # ε = 1e-5 against a variance above 0.05 shortens a row by at most a part in 10⁴
            torch.testing.assert_close(norms, torch.full_like(norms, 20.0), rtol=1e-4, atol=0)


def test_post_layer_norm_shows_sums_before_and_rows_after_each_norm(tokens):
    config = TransformerConfig(**SMALL, normalization="post")
    params, _ = stack(config, 1)
    model = HookedTransformer(config, {name: value[0] for name, value in params.items()})
    logits, cache = model.run_with_cache(tokens)
    for block in ("blocks.0", "blocks.1"):
        seen = {
            name: cache[f"{block}.hook_{name}"] for name in ("resid_pre", "attn_out", "resid_mid", "normalized_mid")
        }
        torch.testing.assert_close(seen["resid_mid"], seen["resid_pre"] + seen["attn_out"])
        normed = model.get_submodule(f"{block}.ln1")(seen["resid_mid"])
        torch.testing.assert_close(seen["normalized_mid"], normed, atol=1e-5, rtol=1e-5)
        total = seen["normalized_mid"] + cache[f"{block}.hook_mlp_out"]
        torch.testing.assert_close(cache[f"{block}.hook_resid_post"], total)
        normed = model.get_submodule(f"{block}.ln2")(total)
        torch.testing.assert_close(cache[f"{block}.hook_normalized_post"], normed, atol=1e-5, rtol=1e-5)
    assert torch.equal(cache["blocks.0.hook_normalized_post"], cache["blocks.1.hook_resid_pre"])
    torch.testing.assert_close(logits, cache["blocks.1.hook_normalized_post"] @ model.W_U, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["none", "pre", "post"])
def test_activations_are_shown_in_the_order_in_which_they_are_computed(normalization):
    norm = ["ln.hook_scale", "ln.hook_normalized"]
    attention = [f"attn.hook_{name}" for name in ("q", "k", "v", "attn_scores", "pattern", "z")]
    after, end = ["hook_normalized_mid"], ["hook_normalized_post"]
    mlp = ["mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
    expected = {
        "none": ["hook_resid_pre", *attention, "hook_attn_out", "hook_resid_mid", *mlp],
        "pre": ["hook_resid_pre", *norm, *attention, "hook_attn_out", "hook_resid_mid", *norm, *mlp],
        "post": ["hook_resid_pre", *attention, "hook_attn_out", "hook_resid_mid", *norm, *after, *mlp, *norm, *end],
    }[normalization]
    names = hook_names(TransformerConfig(**SMALL, normalization=normalization))
    assert names[:2] == ["hook_embed", "hook_pos_embed"]
    for layer in range(2):
        block = f"blocks.{layer}."
        shown = [name.removeprefix(block) for name in names if name.startswith(block)]
        assert [name.replace("ln1", "ln").replace("ln2", "ln") for name in shown] == expected
    assert names[-2:] == (["ln_final.hook_scale", "ln_final.hook_normalized"] if normalization == "pre" else names[-2:])


def test_a_normalised_row_is_shown_before_the_affine_map(tokens):
    config = TransformerConfig(**SMALL, normalization="pre")
    params, _ = stack(config, 1)
    _, cache = HookedTransformer(config, {k: v[0] for k, v in params.items()}).run_with_cache(tokens)
    rows = cache["blocks.0.ln1.hook_normalized"]
    torch.testing.assert_close(rows.mean(-1), torch.zeros(6, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.square().mean(-1), torch.ones(6, 4), atol=1e-3, rtol=0)  # ε


SHORTCUTS = [
    {"n_layers": n_layers, "n_heads": n_heads, "normalization": normalization}
    for n_layers in (1, 2, 3)
    for n_heads in (1, 3)
    for normalization in ("none", "pre", "post")
] + [
    {"d_mlp": None},
    {"d_mlp": None, "normalization": "post"},
    {"positions": False, "normalization": "pre"},
    {"causal": False},
    {"attention_mix": 0.25},
    {"tied_unembedding": True},
    {"attention_bias": True, "mlp_bias": True, "unembedding_bias": True, "act_fn": "gelu"},
]


@pytest.mark.parametrize("change", SHORTCUTS, ids=lambda change: ", ".join(f"{k} {v}" for k, v in change.items()))
@pytest.mark.parametrize("position", [3, 1])
def test_the_shortcuts_compute_what_the_plain_path_computes(change, position):
    config = TransformerConfig(**(SMALL | change))
    params, tokens = stack(config)
    prepared = distinct_tokens(tokens.flatten(0, 1))

    def plain(params):
        return forward(params, tokens, config)[:, :, position : position + 1]

    assert_same(params, plain, lambda p: forward(p, tokens, config, answer_position=position))
    assert_same(params, plain, lambda p: forward(p, tokens, config, prepared=prepared)[:, :, position : position + 1])
    assert_same(params, plain, lambda p: forward(p, tokens, config, prepared=prepared, answer_position=position))


@pytest.mark.parametrize("change", SHORTCUTS, ids=lambda change: ", ".join(f"{k} {v}" for k, v in change.items()))
def test_an_answer_position_that_always_holds_the_same_token_is_asked_once_for_all_examples(change):
    config = TransformerConfig(**(SMALL | change))
    params, tokens = stack(config)
    tokens[..., 2] = 4
    prepared = distinct_tokens(tokens.flatten(0, 1))
    assert [row is None for row in prepared.constant] == [True, True, False, True]
    assert_same(
        params,
        lambda p: forward(p, tokens, config)[:, :, 2:3],
        lambda p: forward(p, tokens, config, prepared=prepared, answer_position=2),
    )


@pytest.mark.parametrize("normalization", ["pre", "post"])
def test_layer_norm_of_many_rows_is_the_same_model_by_model_as_over_the_stack(normalization, monkeypatch):
    config = TransformerConfig(**SMALL, normalization=normalization)
    params, tokens = stack(config, 2)
    rng = torch.Generator().manual_seed(0)
    params = {name: value + 0.1 * torch.randn(value.shape, generator=rng) for name, value in params.items()}
    over_the_stack = forward(params, tokens, config)
    monkeypatch.setattr("tasks.models.layers._WORTH_A_CALL", 1)
    torch.testing.assert_close(forward(params, tokens, config), over_the_stack)
    alone = [forward({k: v[m : m + 1] for k, v in params.items()}, tokens[m : m + 1], config) for m in range(2)]
    assert torch.equal(forward(params, tokens, config), torch.cat(alone))


@pytest.mark.parametrize("normalization", ["none", "pre", "post"])
def test_looking_at_activations_changes_neither_logits_nor_gradients(normalization):
    config = TransformerConfig(**SMALL, normalization=normalization)
    params, tokens = stack(config)
    assert_same(
        params,
        lambda p: forward(p, tokens, config),
        lambda p: forward(p, tokens, config, tap=lambda name, value: value),
    )


def test_distinct_tokens_lists_every_token_and_position_once():
    table = distinct_tokens(torch.tensor([[5, 2, 5], [5, 2, 0]]))
    assert sorted(zip(table.tokens.tolist(), table.positions.tolist(), strict=True)) == [(0, 2), (2, 1), (5, 0), (5, 2)]
    for token, position in ((0, 2), (2, 1), (5, 0), (5, 2)):
        row = table.row[token, position]
        assert (table.tokens[row], table.positions[row]) == (token, position)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("normalization", ["none", "pre", "post"])
def test_a_member_of_a_stack_is_computed_to_the_bit_as_if_it_were_alone(normalization, shortcut):
    config = TransformerConfig(**SMALL, normalization=normalization, mlp_bias=True)
    params, tokens = stack(config, 3)
    how = {"answer_position": 3, "prepared": distinct_tokens(tokens.flatten(0, 1))} if shortcut else {}
    together = forward(params, tokens, config, **how)
    for m in range(3):
        alone = forward({name: value[m : m + 1] for name, value in params.items()}, tokens[m : m + 1], config, **how)
        assert torch.equal(together[m : m + 1], alone)


@pytest.mark.parametrize("mix", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("causal", [True, False])
def test_mixed_attention_rows_sum_to_alpha_plus_what_each_query_sees(mix, causal, tokens):
    config = TransformerConfig(**SMALL, attention_mix=mix, causal=causal)
    params, _ = stack(config, 1)
    _, cache = HookedTransformer(config, {k: v[0] for k, v in params.items()}).run_with_cache(tokens)
    seen = torch.arange(1.0, 5.0) if causal else torch.full((4,), 4.0)
    rows = cache["pattern", 0].sum(-1)
    torch.testing.assert_close(rows, (mix + (1 - mix) * seen).expand(6, 3, 4))
    if mix == 0.0:
        expected = torch.ones(4, 4).tril() if causal else torch.ones(4, 4)
        assert torch.equal(cache["pattern", 1], expected.expand(6, 3, 4, 4))


def test_a_hand_built_attention_head_copies_the_previous_token():
    """One head whose scores depend on positions only and pick the key one position earlier; OV copies the embedding."""
    config = TransformerConfig(n_layers=1, d_model=8, n_heads=1, d_head=4, n_ctx=4, d_vocab=4)
    eye = torch.eye(4)
    params = {
        "embed.W_E": torch.cat([eye, 0 * eye], dim=1),  # token in the first half, position in the second
        "pos_embed.W_pos": torch.cat([0 * eye, eye], dim=1),
        "blocks.0.attn.W_Q": torch.cat([0 * eye, 200 * eye.roll(-1, 1)])[None],  # position s asks for s − 1
        "blocks.0.attn.W_K": torch.cat([0 * eye, eye])[None],
        "blocks.0.attn.W_V": torch.cat([eye, 0 * eye])[None],
        "blocks.0.attn.W_O": torch.cat([2 * eye, 0 * eye], dim=1)[None],
        "unembed.W_U": torch.cat([eye, 0 * eye]),
    }
    tokens = torch.tensor([[2, 0, 3, 1], [1, 1, 0, 2]])
    logits = HookedTransformer(config, params)(tokens)
    assert torch.equal(logits[:, 1:].argmax(-1), tokens[:, :-1])
    onehot = torch.nn.functional.one_hot(tokens, 4).float()
    torch.testing.assert_close(logits[:, 1:], onehot[:, 1:] + 2 * onehot[:, :-1])
