"""Our models against transformer-lens's own, ``HookedTransformer`` or ``TransformerBridge``. Runs under both majors."""

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tasks import ModularArithmetic, UserError
from tasks.models import convert
from tasks.models.config import TransformerConfig
from tasks.models.hooked import HookedTransformer

OLD = int(version("transformer-lens").split(".")[0]) < 4
PUBLISHED = Path(__file__).parents[3] / "shared/published_weights/chughtai-C113-transformer-seed1/model.pt"
WITH_COUNTERPART = [
    "plain",
    "one layer, one head",
    "biases",
    "gelu, MLP biases",
    "attention only",
    "pre-LN",
    "pre-LN, three layers, gelu, biases",
    "pre-LN, attention only",
    "bidirectional",
    "tied",
    "no positions",
]
WITHOUT_COUNTERPART = {
    "post-LN": "post-LN",
    "post-LN, attention only": "post-LN",
    "attention mix": "attention_mix=0.5",
    "identity": "'identity'",
    "real input": "real-vector input",
}
every = pytest.mark.parametrize("model", WITH_COUNTERPART, indirect=True)


def transformer_lens_model(**settings: Any) -> torch.nn.Module:
    """A small model of the installed transformer-lens, built without our converter."""
    settings = (
        {
            "n_layers": 1,
            "d_model": 8,
            "n_heads": 2,
            "d_head": 4,
            "d_mlp": 16,
            "n_ctx": 4,
            "d_vocab": 11,
            "act_fn": "relu",
            "device": "cpu",
        }
        | {"normalization_type": None}
        | settings
    )
    if OLD:
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        with pytest.warns(DeprecationWarning, match="HookedTransformer is deprecated"):
            return HookedTransformer(HookedTransformerConfig(**settings))
    from transformer_lens import TransformerBridge, TransformerBridgeConfig

    return TransformerBridge.boot_native(TransformerBridgeConfig(**settings))


def loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the last position, with targets 0, 1, 2, …."""
    return torch.nn.functional.cross_entropy(logits[:, -1], torch.arange(len(logits)))


@every
def test_logits_agree_with_transformer_lens(model, tokens):
    theirs = model.to_transformer_lens()
    assert not theirs.training
    # float32 sums in possibly another order
    torch.testing.assert_close(model(tokens), theirs(tokens), atol=1e-5, rtol=0)


@every
def test_gradients_agree_with_transformer_lens(model, tokens):
    theirs = model.to_transformer_lens()
    loss(model(tokens)).backward()
    loss(theirs(tokens)).backward()
    ours = {name: value.grad for name, value in model.named_parameters()}
    if OLD:
        there = {name: value.grad for name, value in theirs.named_parameters()}
    else:  # the bridge holds linear layers; its converter is linear, so it converts gradients too
        from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

        ours = convert_tl_checkpoint(ours, theirs.cfg)
        there = {
            name: value.grad for name, value in theirs.state_dict(keep_vars=True).items() if value.grad is not None
        }
    if model.config.tied_unembedding:  # they hold a copy: the two gradients add up
        embed, unembed = ("embed.W_E", "unembed.W_U") if OLD else ("embed.weight", "unembed.weight")
        there[embed][:7] += there[unembed].T if OLD else there[unembed]
    assert set(ours) - set(there) <= {"unembed.bias"}  # a buffer of the bridge
    # The gradient of b_K is 0: a shift of every key's score leaves the pattern as it is. What is found in its place is
    # the rounding of a sum over tokens whose terms are as large as other gradients: √n roundings of ε each.
    largest = max(float(gradient.norm()) for gradient in ours.values() if gradient is not None)
    rounding = tokens.numel() ** 0.5 * torch.finfo(torch.float32).eps * largest
    for name in set(ours) & set(there):
        assert (ours[name] - there[name]).norm() <= 1e-4 * ours[name].norm() + rounding, name


@every
def test_activations_agree_with_transformer_lens_under_the_same_names(model, tokens):
    _, ours = model.run_with_cache(tokens)
    _, theirs = model.to_transformer_lens().run_with_cache(tokens)
    names = set(ours.cache_dict) & set(theirs.cache_dict)
    # without an MLP transformer-lens has no resid_mid; without positions it adds zeros
    assert set(ours.cache_dict) - names <= {f"blocks.{layer}.hook_resid_mid" for layer in range(2)}
    for name in names:
        if not OLD and name.endswith("hook_attn_scores"):
            continue  # the native bridge of 4.x shows the pattern under this name
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)


@every
def test_the_way_there_and_back_changes_no_bit(model):
    kinds = {"tied_unembedding": model.config.tied_unembedding, "positions": model.config.positions}
    back = HookedTransformer.from_transformer_lens(model.to_transformer_lens(), **kinds)
    assert back.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


@pytest.mark.parametrize("model", WITH_COUNTERPART, indirect=True)
def test_a_bare_state_dict_spells_its_architecture(model):
    unsaid = {name: getattr(model.config, name) for name in ("act_fn", "causal", "n_ctx", "d_vocab_out")}
    config, params = convert.from_transformer_lens(model.state_dict(), **unsaid)
    assert config == model.config
    assert list(params) == list(model.state_dict())


@pytest.mark.parametrize(
    ("model", "named"), WITHOUT_COUNTERPART.items(), ids=list(WITHOUT_COUNTERPART), indirect=["model"]
)
def test_an_architecture_without_a_counterpart_is_refused_by_name_before_any_call(model, named, monkeypatch):
    monkeypatch.setattr(convert, "_bridge", None)
    monkeypatch.setattr(convert, "_hooked_transformer", None)
    with pytest.raises(UserError, match=named):
        model.to_transformer_lens()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"act_fn": "gelu_new"}, "gelu_new"),
        ({"gated_mlp": True}, "gated_mlp"),
        ({"normalization_type": "RMS"}, "'RMS'"),
        ({"positional_embedding_type": "rotary"}, "rotary"),
        ({"n_key_value_heads": 1}, "grouped-query"),
        ({"use_attn_scale": False}, "attention scale"),
        ({"attn_scores_soft_cap": 10.0}, "soft cap"),
        ({"normalization_type": "LN", "final_rms": True}, "final_rms"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_transformer_lens_model_we_cannot_represent_is_refused_by_name(settings, named):
    if OLD and "use_attn_scale" in settings:
        settings = settings | {"attn_scale": 1.0}
    with pytest.raises(UserError, match=named):
        HookedTransformer.from_transformer_lens(transformer_lens_model(**settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"normalization_type": "LN", "act_fn": "gelu"}, {"attn_only": True}, {"normalization_type": "LNPre"}],
    ids=["none", "LN", "attention only", "LNPre"],
)
def test_a_model_made_by_transformer_lens_is_read_exactly(settings, tokens):
    theirs = transformer_lens_model(**settings).eval()
    model = HookedTransformer.from_transformer_lens(theirs)
    torch.testing.assert_close(model(tokens), theirs(tokens), atol=1e-5, rtol=0)
    assert not model.config.mlp_bias
    assert not model.config.attention_bias


@pytest.mark.parametrize("model", ["pre-LN, three layers, gelu, biases"], indirect=True)
def test_a_model_with_folded_layer_norm_is_read_exactly(model, tokens):
    theirs = model.to_transformer_lens()
    if OLD:
        theirs.process_weights_()
    else:
        theirs.enable_compatibility_mode(disable_warnings=True)
    folded = HookedTransformer.from_transformer_lens(theirs)
    torch.testing.assert_close(folded(tokens), theirs(tokens), atol=1e-5, rtol=0)
    assert torch.equal(folded.tensor("ln_final.w"), torch.ones(16))
    # folding centres W_U, which shifts all logits of a position alike
    shift = folded(tokens) - model(tokens)
    assert (shift - shift.mean(-1, keepdim=True)).abs().max() < 1e-4


def test_folded_layer_norms_of_a_bare_state_dict_are_put_back_when_named(model):
    config, params = convert.from_transformer_lens(model.state_dict(), normalization="pre")
    assert config.normalization == "pre"
    assert torch.equal(params["blocks.1.ln2.w"], torch.ones(16))
    assert torch.equal(params["ln_final.b"], torch.zeros(16))


@pytest.mark.parametrize("model", ["biases"], indirect=True)
def test_a_group_of_biases_that_is_all_zero_is_dropped_unless_asked_for(model):
    weights = {k: torch.zeros_like(v) if k.endswith(("b_in", "b_out")) else v for k, v in model.state_dict().items()}
    config, params = convert.from_transformer_lens(weights)
    assert (config.attention_bias, config.mlp_bias, config.unembedding_bias) == (True, False, True)
    assert "blocks.0.mlp.b_in" not in params
    config, params = convert.from_transformer_lens(weights, keep_zero_biases=True)
    assert config.mlp_bias
    assert "blocks.0.mlp.b_in" in params


@pytest.mark.parametrize("model", ["biases"], indirect=True)
@pytest.mark.parametrize("field", ["mlp_bias", "positions"])
def test_what_is_not_zero_cannot_be_left_out(model, field):
    with pytest.raises(UserError, match=f"{field}=False needs"):
        convert.from_transformer_lens(model.state_dict(), **{field: False})


def test_an_unembedding_that_is_no_copy_cannot_be_tied(model):
    with pytest.raises(UserError, match="tied_unembedding=True needs"):
        convert.from_transformer_lens(model.state_dict(), tied_unembedding=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.mlp.W_in": torch.zeros(16, 23)}, r"blocks\.1\.mlp\.W_in of shape \(16, 24\), got \(16, 23\)"),
        ({"blocks.0.attn.W_Q": torch.zeros(16, 15)}, r"blocks\.0\.attn\.W_Q with 3 axes, got shape \(16, 15\)"),
        ({"blocks.0.attn.W_K": None}, "missing parameter blocks.0.attn.W_K"),
        ({"embed.W_E": None}, "embed.W_E among them"),
        ({"blocks.0.attn.rotary": torch.zeros(2)}, "unknown parameter 'blocks.0.attn.rotary'"),
        ({"pos_embed.W_pos": None}, "expected n_ctx="),
        ({"step": 3}, "got int under 'step'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_state_dict_that_does_not_fit_is_one_clear_line(model, change, message):
    weights = {name: value for name, value in (dict(model.state_dict()) | change).items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        convert.from_transformer_lens(weights)
    assert "\n" not in str(caught.value)


def test_a_mistyped_override_names_the_nearest_field(model):
    with pytest.raises(UserError, match="did you mean 'act_fn'"):
        convert.from_transformer_lens(model.state_dict(), act_fun="gelu")


def test_weights_are_read_from_safetensors_and_from_torch_files(model, tmp_path):
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for file in ("w.safetensors", "w.pt"):
        read = HookedTransformer.from_transformer_lens(tmp_path / file)
        assert torch.equal(read.tensor("embed.W_E"), model.tensor("embed.W_E"))


def test_a_file_that_is_no_weights_is_one_clear_line(model, tmp_path):
    (tmp_path / "object.pkl").write_bytes(pickle.dumps(ModularArithmetic()))
    torch.save(model.config, tmp_path / "object.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    (tmp_path / "empty.pt").write_bytes(b"")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError, match=file.name) as caught:
            HookedTransformer.from_transformer_lens(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no file"):
        HookedTransformer.from_transformer_lens(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("model", ["post-LN", "plain"], indirect=True)
def test_a_model_of_ours_is_copied_as_it_is(model, tokens):
    copy = HookedTransformer.from_transformer_lens(model)
    assert copy.config == model.config
    assert torch.equal(copy(tokens), model(tokens))
    assert copy.W_E is not model.W_E


def test_a_module_that_is_no_transformer_lens_model_is_refused():
    with pytest.raises(UserError, match="got Linear, which has no cfg"):
        HookedTransformer.from_transformer_lens(torch.nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published weights are not here")
def test_published_weights_reproduce_their_published_losses():
    model = HookedTransformer.from_transformer_lens(torch.load(PUBLISHED, weights_only=True, map_location="cpu"))
    assert model.config == TransformerConfig(
        n_layers=1, d_model=128, n_heads=4, d_head=32, n_ctx=3, d_vocab=114, d_vocab_out=113, d_mlp=512
    )
    task = ModularArithmetic(p=113, split="torch_randperm", data_seed=1)
    with torch.no_grad():
        logits = model(task.all_inputs())[:, task.answer_position].double()
    losses = -logits.log_softmax(-1).gather(1, task.all_targets()[:, None])[:, 0]
    # seven published digits; the logits are float32, whose rounding moves a loss of 1e-7 by parts in 10⁶
    assert float(losses[task.train_mask].mean()) == pytest.approx(8.859246e-8, rel=2e-5)
    assert float(losses[~task.train_mask].mean()) == pytest.approx(1.884755e-7, rel=2e-5)
    assert float(losses.mean()) == pytest.approx(1.585160e-7, rel=2e-5)
