"""Weights that others published: from the layout of a file to a configuration and parameters under our names.

Design:

* A layout is a table: the last part of a stored tensor's name → its axes as they are stored. Reading permutes them into
  our order; then ``convert`` reads the architecture off the shapes, as it does for transformer-lens.
* The task gives the sizes that it knows (tokens, answers, positions), the weights give the others, and every tensor is
  held against them as it is stored. So a wrong layout, a transpose, another modulus or a group of another order is
  refused by the name of a tensor.
* Shapes do not show everything: W_O is square where the heads fill d_model, as they do in these papers, W_in where
  d_mlp = d_model; a mask and an activation function leave no trace; groups may be of one order. There the accuracy on
  the task alone says whether weights were read rightly. Look at it first.
* Columns of the unembedding that are no answers (that of "=") are left out, as the authors do.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tasks.base import Task, UserError
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.convert import NO_PARAMETERS, from_transformer_lens, read_weights

# In each table a tensor that shows a size stands before those that are held against it.
_TRANSFORMER_LENS = {
    "W_pos": "pos d_model",
    "W_E": "d_vocab d_model",
    "W_Q": "head d_model d_head",
    "W_K": "head d_model d_head",
    "W_V": "head d_model d_head",
    "W_O": "head d_head d_model",
    "b_Q": "head d_head",
    "b_K": "head d_head",
    "b_V": "head d_head",
    "b_O": "d_model",
    "b_in": "d_mlp",
    "W_in": "d_model d_mlp",
    "W_out": "d_mlp d_model",
    "b_out": "d_model",
    "W_U": "d_model logit",
    "b_U": "logit",
    "w": "d_model",
    "b": "d_model",
}
_PROGRESS_MEASURES = {
    "W_pos": "pos d_model",
    "W_E": "d_model d_vocab",
    "W_Q": "head d_head d_model",
    "W_K": "head d_head d_model",
    "W_V": "head d_head d_model",
    "W_O": "d_model head*d_head",
    "b_in": "d_mlp",
    "W_in": "d_mlp d_model",
    "W_out": "d_model d_mlp",
    "b_out": "d_model",
    "W_U": "d_model logit",
}
_GROUP_MLP = {
    "W_x": "d_vocab d_embed",
    "W_y": "d_vocab d_embed",
    "W": "pos*d_embed d_hidden",
    "W_U": "d_hidden d_vocab_out",
}
LAYOUTS: dict[str, dict[str, str]] = {
    "transformer_lens": _TRANSFORMER_LENS,
    "progress_measures": _PROGRESS_MEASURES,
    "clock_pizza": _PROGRESS_MEASURES,
    "group_mlp": _GROUP_MLP,
    "group_transformer": _TRANSFORMER_LENS,
}
"""Layout → last part of a tensor's name → its axes as stored. ``head*d_head`` is one axis, heads outermost."""


def read(
    source: str | Path | Mapping[str, Any], layout: str, task: Task, **architecture: Any
) -> tuple[TransformerConfig | MLPConfig, dict[str, Float[Tensor, "..."]]]:
    """The configuration and the parameters, under our names, of weights in one of these layouts:

    - ``transformer_lens``: our own names and axes.
    - ``progress_measures`` (Nanda et al. 2023): matrices transposed, the heads of W_O side by side.
    - ``clock_pizza`` (Zhong et al. 2023): stored likewise, but a query sees all positions, and attention is mixed with
      ones by attn_coeff. That and act_fn come from ``config_NAME.json`` beside ``model_NAME.pt``, or are given as
      ``attention_mix`` and ``act_fn``. Another model with such tensors computes something else: read as this one it is
      not refused, only wrong.
    - ``group_mlp`` (Chughtai et al. 2023): logits = relu([W_x[a], W_y[b]] W) W_U.
    - ``group_transformer`` (Chughtai et al. 2023): ``transformer_lens`` among copies of W_E, which are left out.

    Args:
        source: a file written by ``torch.save`` or safetensors, or names → tensors; the weights may stand under
            ``model`` among other things.
        task: what the model was trained on. Its vocabulary, answers and input length must be those of the weights.
        architecture: fields of the configuration that weights do not show, such as ``act_fn``.

    Raises:
        UserError: an unknown layout, a name that it does not have or lacks, or a tensor whose shape is not what layout
            and task expect. What shapes do not show is for the accuracy to say; see the top of this file.
    """
    if layout not in LAYOUTS:
        raise UserError(f"expected a layout among {', '.join(LAYOUTS)}, got {layout!r}")
    weights, beside = contents(source)
    weights = {name: value for name, value in weights.items() if _kind(name) not in NO_PARAMETERS}
    sizes = _sizes(weights, layout, task)
    if layout == "group_mlp":
        fields = {"n_ctx": task.n_ctx, "d_vocab": task.d_vocab, "d_vocab_out": task.d_vocab_out}
        fields |= {"input": "concatenated", "d_embed": sizes["d_embed"], "d_hidden": (sizes["d_hidden"],)}
        names = {"embed.0.W_E": "W_x", "embed.1.W_E": "W_y", "layers.0.W_in": "W", "unembed.W_U": "W_U"}
        return MLPConfig.from_dict(fields | architecture), {ours: weights[theirs] for ours, theirs in names.items()}
    for name, value in weights.items():
        weights[name] = _permuted(value, LAYOUTS[layout][_kind(name)], _TRANSFORMER_LENS[_kind(name)], sizes)
        if _kind(name) in ("W_U", "b_U"):
            weights[name] = weights[name][..., : task.d_vocab_out].contiguous()
    if layout == "clock_pizza":
        architecture = _mixed_attention(beside.get("config", {})) | architecture
        if "attention_mix" not in architecture:
            raise UserError("expected attention_mix=…, or config_NAME.json with attn_coeff beside model_NAME.pt")
    known: dict[str, Any] = {"n_ctx": task.n_ctx, "d_vocab_out": task.d_vocab_out}
    return from_transformer_lens(weights, **known | architecture)


def contents(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Float[Tensor, "..."]], dict[str, Any]]:
    """The stored weights, and what stands beside them in the file, such as ``train_losses``; under ``config`` also the
    author's configuration where it is ``config_NAME.json`` beside ``model_NAME.pt``.

    Raises:
        UserError: no such file, one that holds no weights, or a configuration that is no JSON.
    """
    held = read_weights(source) if isinstance(source, str | Path) else dict(source)
    weights = held.pop("model") if isinstance(held.get("model"), Mapping) else held
    beside = {} if weights is held else held
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise UserError(f"expected a state dict of tensors, got {type(value).__name__} under {name!r}")
    if isinstance(source, str | Path) and Path(source).name.startswith("model_"):
        config = Path(source).with_name(f"config_{Path(source).stem.removeprefix('model_')}.json")
        if config.is_file():
            try:
                beside["config"] = dict(json.loads(config.read_text()))
            except (ValueError, TypeError) as error:
                raise UserError(f"expected a JSON object in {config}, it is damaged") from error
    return {name: value.detach() for name, value in weights.items()}, beside


def _kind(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _sizes(weights: Mapping[str, Tensor], layout: str, task: Task) -> dict[str, int]:
    """Size of every axis, from the task and from the tensors, all of which must agree."""
    table = LAYOUTS[layout]
    sizes = {"d_vocab": task.d_vocab, "d_vocab_out": task.d_vocab_out, "pos": task.n_ctx, "logit": task.d_vocab_out}
    if any(_kind(name) in ("W_U", "b_U") and value.shape[-1:] == (task.d_vocab,) for name, value in weights.items()):
        sizes["logit"] = task.d_vocab
    for kind, axes in ((kind, axes.split()) for kind, axes in table.items()):
        named = [name for name in weights if _kind(name) == kind]
        if not named and table is not _TRANSFORMER_LENS:
            raise UserError(
                f"expected {kind} [{', '.join(axes)}] in layout {layout}, got no such tensor: another layout?"
            )
        for name in named:
            shape = tuple(weights[name].shape)
            if len(shape) == len(axes):
                sizes = {axis: n for axis, n in zip(axes, shape, strict=True) if "*" not in axis} | sizes
            expected = {axis: math.prod(sizes.get(part, 0) for part in axis.split("*")) for axis in axes}
            if shape != tuple(expected.values()):
                spelled = ", ".join(f"{axis} {n}" if n else axis for axis, n in expected.items())
                raise UserError(f"expected {name} [{spelled}] in layout {layout}, got {shape}: another layout or task?")
    if strangers := [name for name in weights if _kind(name) not in table]:
        raise UserError(f"expected only {', '.join(table)} in layout {layout}, got {strangers[0]!r}: another layout?")
    return sizes


def _permuted(value: Tensor, stored: str, wanted: str, sizes: Mapping[str, int]) -> Tensor:
    """The tensor with its axes in the wanted order."""
    axes: list[str] = []
    for axis in stored.split():
        parts = axis.split("*")
        if len(parts) > 1:
            value = value.unflatten(len(axes), [sizes[part] for part in parts])
        axes += parts
    return value.permute([axes.index(axis) for axis in wanted.split()]).contiguous()


def _mixed_attention(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our configuration from one of Zhong et al."""
    fields: dict[str, Any] = {"causal": False}
    if "attn_coeff" in config:
        fields["attention_mix"] = float(config["attn_coeff"])
    if "act_fn" in config:
        fields["act_fn"] = str(config["act_fn"]).lower()
    return fields
