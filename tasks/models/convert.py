"""To and from transformer-lens: its 3.9 ``HookedTransformer``, its 4.x ``TransformerBridge``, and bare state dicts.

Design:

* Both sides use the same names and shapes, so converting is filling in and leaving out. transformer-lens always has
  biases, positions and an untied unembedding: what a model lacks is written as zeros or as a copy. On the way back a
  group of biases that is all zero is left out, unless told otherwise.
* An architecture that transformer-lens does not have is refused by name before anything of it is called: 4.x accepts a
  post-LN setting and silently builds pre-LN.
* A bare state dict says everything but the activation function, the mask and ε; those are given by keyword.
* Files are read without unpickling (safetensors, or ``torch.load`` with ``weights_only=True``).
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tasks.base import UserError
from tasks.models.config import TransformerConfig
from tasks.models.layers import ACTIVATIONS
from tasks.models.transformer import shapes

Weights = Mapping[str, Float[Tensor, "..."]]

_BIASES: dict[str, tuple[str, ...]] = {
    "attention_bias": ("b_Q", "b_K", "b_V", "b_O"),
    "mlp_bias": ("b_in", "b_out"),
    "unembedding_bias": ("b_U",),
}
# buffers of transformer-lens 1 to 3, and copies of W_E in the files of Chughtai et al. 2023
NO_PARAMETERS = ("mask", "IGNORE", "x_embed", "y_embed")


def check_parameters(params: Weights, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a UserError that names the tensor unless ``params`` has the names and shapes that are expected."""
    for name, value in params.items():
        if name not in expected:
            raise UserError(f"unknown parameter {name!r}: this architecture has {', '.join(expected)}")
        if tuple(value.shape) != expected[name]:
            raise UserError(f"expected {name} of shape {expected[name]}, got {tuple(value.shape)}")
    if missing := [name for name in expected if name not in params]:
        raise UserError(f"missing parameter {missing[0]}: expected shape {expected[missing[0]]}")


def full_config(config: TransformerConfig) -> TransformerConfig:
    """The same architecture with all that transformer-lens's models always have: biases, positions, an untied W_U."""
    return replace(
        config,
        d_vocab_out=config.d_out,
        positions=True,
        attention_bias=True,
        mlp_bias=True,
        unembedding_bias=True,
        tied_unembedding=False,
    )


def full_parameters(config: TransformerConfig, params: Weights) -> dict[str, Float[Tensor, "..."]]:
    """A tensor for every parameter of ``full_config``: zeros for an absent one, W_E transposed for a tied W_U."""
    like = next(iter(params.values()))
    out = {name: params.get(name, like.new_zeros(shape)) for name, shape in shapes(full_config(config)).items()}
    if config.tied_unembedding:
        out["unembed.W_U"] = params["embed.W_E"][: config.d_out].T
    return out


def to_transformer_lens(config: TransformerConfig, params: Weights) -> nn.Module:
    """The installed transformer-lens's own model with these weights, in eval mode.

    3.9: ``HookedTransformer``. 4.x: ``TransformerBridge.boot_native``, through transformer-lens's checkpoint converter;
    there b_U is a buffer, which gets no gradient. Biases the model lacks are zero, a model without positions gets a
    zero W_pos, a tied W_U is a copy.

    Raises:
        UserError: an architecture without a counterpart.
    """
    if missing := _without_counterpart(config):
        raise UserError(f"transformer-lens has no {missing}: this model cannot be converted, use it as it is")
    params = {name: value.detach() for name, value in params.items()}
    weights = full_parameters(config, params)
    like = next(iter(params.values()))
    settings = {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "d_head": config.d_head,
        "d_mlp": config.d_mlp,
        "n_ctx": config.n_ctx,
        "d_vocab": config.d_vocab,
        "d_vocab_out": config.d_out,
        "act_fn": config.act_fn,
        "attn_only": config.d_mlp is None,
        "normalization_type": "LN" if config.normalization == "pre" else None,
        "eps": config.norm_eps,
        "attention_dir": "causal" if config.causal else "bidirectional",
        "init_weights": False,
        "device": str(like.device),
        "dtype": like.dtype,
    }
    build = _hooked_transformer if int(version("transformer-lens").split(".")[0]) < 4 else _bridge
    return build(settings, weights).eval()


def _without_counterpart(config: TransformerConfig) -> str | None:
    """What of this architecture transformer-lens cannot represent."""
    if config.normalization == "post":
        return "post-LN transformer"
    if config.attention_mix != 1.0:
        return f"attention mixed with ones (attention_mix={config.attention_mix})"
    if config.d_input is not None:
        return "real-vector input"
    if config.act_fn not in ("relu", "gelu") and config.d_mlp is not None:
        return f"activation function {config.act_fn!r}"
    return None


def _hooked_transformer(settings: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    lens: Any = import_module("transformer_lens")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.9 announces its end; the caller asked for this very class
        model = lens.HookedTransformer(lens.HookedTransformerConfig(**settings))
    model.load_state_dict(model.state_dict() | weights)  # the model's own mask and IGNORE stay
    return model


def _bridge(settings: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    lens: Any = import_module("transformer_lens")
    cfg = lens.TransformerBridgeConfig(**settings)
    bridge = lens.TransformerBridge.boot_native(cfg, device=settings["device"], dtype=settings["dtype"])
    bridge.load_state_dict(convert_tl_checkpoint(weights, cfg))
    return bridge


def from_transformer_lens(
    source: nn.Module | Mapping[str, Any] | str | Path, *, keep_zero_biases: bool = False, **overrides: Any
) -> tuple[TransformerConfig, dict[str, Float[Tensor, "..."]]]:
    """The configuration and the parameters of a transformer-lens model, a state dict in its layout, or a file of one.

    Sizes, normalisation and biases are read off the shapes; activation function, mask and ε come from the model, and
    for a bare state dict from ``overrides`` (else relu, causal, 1e-5). LayerNorms that were folded into the weights
    come back with weight 1 and bias 0; a bare state dict does not show them, so say ``normalization="pre"``.

    Args:
        source: a 3.9 ``HookedTransformer``, a ``TransformerBridge`` from ``boot_native``, names → tensors, or a path.
        keep_zero_biases: keep a group of biases (attention, MLP, unembedding) although all of it is zero.
        overrides: fields of ``TransformerConfig``.

    Raises:
        UserError: an architecture without a counterpart, a name or shape that does not fit, a file that is no weights.
    """
    known: dict[str, Any] = {}
    if isinstance(source, str | Path):
        weights = read_weights(source)
    elif isinstance(source, nn.Module):
        weights, known = _read_model(source)
    else:
        weights = dict(source)
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise UserError(f"expected a state dict of tensors, got {type(value).__name__} under {name!r}")
    weights = {name: value.detach() for name, value in weights.items() if name.rsplit(".", 1)[-1] not in NO_PARAMETERS}
    config, params = _infer(weights, known | overrides, keep_zero_biases)
    check_parameters(params, shapes(config))
    return config, params


def read_weights(path: str | Path) -> dict[str, Any]:
    """What a safetensors file or a file written by ``torch.save`` holds, on the CPU: tensors by name, in some files
    among numbers and dictionaries of more. Nothing is unpickled.

    Raises:
        UserError: no such file, or a file that holds no dictionary or objects of other kinds.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: expected a .safetensors file or a torch state dict")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about an unusual pickle, which then fails or is read
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is no file of plain tensors: expected .safetensors or a torch state dict") from error
    if not isinstance(values, Mapping):
        raise UserError(f"expected a state dict in {path}, got {type(values).__name__}")
    return dict(values)


def _read_model(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a transformer-lens model under its names, and what only its configuration says."""
    cfg = getattr(model, "cfg", None)
    if cfg is None:
        raise UserError(f"expected a transformer-lens model, got {type(model).__name__}, which has no cfg")
    if missing := _without_counterpart_here(cfg):
        raise UserError(f"rulelens has no {missing}: this transformer-lens model cannot be converted")
    # a bridge keeps its weights as linear layers; tl_parameters gives them under transformer-lens's names and shapes,
    # and invents zeros for the MLP that an attention-only bridge does not have
    weights = dict(getattr(model, "tl_parameters", model.state_dict)())
    return {name: value for name, value in weights.items() if not (cfg.attn_only and ".mlp." in name)}, {
        "act_fn": cfg.act_fn if not cfg.attn_only else "relu",
        "causal": cfg.attention_dir == "causal",
        "norm_eps": cfg.eps,
        "normalization": "none" if cfg.normalization_type is None else "pre",
    }


def _without_counterpart_here(cfg: Any) -> str | None:
    """What of a transformer-lens configuration our transformer cannot represent."""
    architecture = getattr(cfg, "architecture", None)
    if architecture not in (None, "TransformerLensNative"):
        return f"architecture {architecture}"
    if cfg.normalization_type not in (None, "LN", "LNPre"):
        return f"normalization_type {cfg.normalization_type!r}"
    if cfg.positional_embedding_type != "standard":
        return f"positional_embedding_type {cfg.positional_embedding_type!r}"
    if not cfg.attn_only and cfg.act_fn not in ACTIVATIONS:
        return f"activation function {cfg.act_fn!r}"
    if cfg.n_key_value_heads not in (None, cfg.n_heads):
        return "grouped-query attention"
    scale = cfg.d_head**0.5 if cfg.use_attn_scale and cfg.attn_scale <= 0 else cfg.attn_scale
    if not cfg.use_attn_scale or abs(scale - cfg.d_head**0.5) > 1e-6:
        return "attention scale other than √d_head"
    if cfg.attn_scores_soft_cap > 0 or cfg.output_logits_soft_cap > 0:
        return "soft cap"
    for name in (
        "gated_mlp",
        "parallel_attn_mlp",
        "final_rms",
        "use_local_attn",
        "scale_attn_by_inverse_layer_idx",
        "post_embedding_ln",
        "use_qk_norm",
        "use_normalization_before_and_after",
        "num_experts",
    ):
        if getattr(cfg, name):
            return name
    return None


def _infer(
    weights: dict[str, Tensor], given: dict[str, Any], keep_zero_biases: bool
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """The configuration that the names and shapes spell, completed by ``given``, and the parameters it has."""
    n_heads, d_model, d_head = _shape(weights, "blocks.0.attn.W_Q", 3)
    blocks = [int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))]
    fields: dict[str, Any] = {
        "n_layers": max(blocks) + 1,
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": d_head,
        "normalization": "none" if "blocks.0.ln1.w" not in weights else ("pre" if "ln_final.w" in weights else "post"),
        "positions": "pos_embed.W_pos" in weights,
        "tied_unembedding": "unembed.W_U" not in weights,
    }
    if "read_in.W" in weights:
        fields["d_input"] = _shape(weights, "read_in.W", 2)[0]
    else:
        fields["d_vocab"] = _shape(weights, "embed.W_E", 2)[0]
    if "blocks.0.mlp.W_in" in weights:
        fields["d_mlp"] = _shape(weights, "blocks.0.mlp.W_in", 2)[1]
    if "pos_embed.W_pos" in weights:
        fields["n_ctx"] = _shape(weights, "pos_embed.W_pos", 2)[0]
    for name, n_axes in (("unembed.b_U", 1), ("unembed.W_U", 2)):
        if name in weights:
            fields["d_vocab_out"] = _shape(weights, name, n_axes)[-1]
    fields |= given
    if "n_ctx" not in fields:
        raise UserError("expected n_ctx=…: without position embeddings the weights do not say how long an input is")

    absent: list[str] = []
    for group, tensors in _BIASES.items():
        names = [name for name in weights if name.rsplit(".", 1)[-1] in tensors]
        there = any(bool(weights[name].any()) for name in names)
        fields[group] = given.get(group, there or (keep_zero_biases and bool(names)))
        if not fields[group]:
            absent += _dropped(names, not there, f"{group}=False needs biases that are zero")
    if not fields["positions"]:
        names = [name for name in ("pos_embed.W_pos",) if name in weights]
        absent += _dropped(names, not any(weights[name].any() for name in names), "positions=False needs a zero W_pos")
    if fields["tied_unembedding"] and "unembed.W_U" in weights:
        W_U, W_E = weights["unembed.W_U"], weights["embed.W_E"]
        copied = W_U.shape[0] == d_model and torch.equal(W_U, W_E[: W_U.shape[1]].T)
        absent += _dropped(["unembed.W_U"], copied, "tied_unembedding=True needs a W_U that is W_E transposed")

    config = TransformerConfig.from_dict(fields)
    params = {name: value for name, value in weights.items() if name not in absent}
    if config.normalization == "pre" and not any(".ln" in name or name.startswith("ln") for name in weights):
        for name, shape in shapes(config).items():  # folded into the weights
            if "ln" in name.split(".")[-2]:
                like = weights["blocks.0.attn.W_Q"]
                params[name] = like.new_ones(shape) if name.endswith(".w") else like.new_zeros(shape)
    return config, {name: params[name] for name in shapes(config) if name in params} | params


def _dropped(names: list[str], allowed: bool, reason: str) -> list[str]:
    if not allowed:
        raise UserError(f"{reason}: leave it out, or change the weights")
    return names


def _shape(weights: dict[str, Tensor], name: str, n_axes: int) -> tuple[int, ...]:
    """Shape of a tensor that the configuration is read from."""
    if name not in weights:
        there = ", ".join(list(weights)[:3]) or "nothing"
        raise UserError(f"expected a state dict with transformer-lens's names, {name} among them, got {there} …")
    if weights[name].ndim != n_axes:
        raise UserError(f"expected {name} with {n_axes} axes, got shape {tuple(weights[name].shape)}")
    return tuple(weights[name].shape)
