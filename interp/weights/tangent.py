"""The empirical neural tangent kernel: how much a step of gradient descent on one input moves the logits at another.

K(x, x′) = Σ_c ∇_w f_c(x) · ∇_w f_c(x′), summed over logits c and all parameters w (Jacot et al. 2018). With 226,000
parameters, 113 logits and 256 inputs these are 6.5 billion derivatives, which are never written down. A weight matrix
reads x_s and writes y_s at each position s: its gradient is Σ_s x_s ⊗ ∂f_c/∂y_s, and its part of the kernel

    Σ_s,t (x_s · x′_t) Σ_c (∂f_c/∂y_s · ∂f_c/∂y′_t),

which needs derivatives by activations alone. A bias is a matrix that reads 1, an embedding reads one-hot rows; the
derivatives by LayerNorms, of which there are few, are taken as they are. Nothing is sampled: the kernel is exact up to
rounding in the precision of the weights.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.subject import Subject
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.registry import model_family

_DERIVATIVES = 1 << 25  # held at a time: 128 MiB in float32
_INPUTS = "inputs"


def tangent_kernel(
    subject: Subject, inputs: Int[Tensor, "example pos"] | Float[Tensor, "example *pos d_input"]
) -> Float[Tensor, "example example"]:
    """K between all pairs of inputs, of the logits at the answer position; float64.

    Symmetric, without negative eigenvalues but for rounding. Scaling the weights of a homogeneous network of depth L by
    c scales it by c^(2L − 2). It is the kernel of plain gradient descent on these parameters: Adam and weight decay
    move the logits otherwise.

    Raises:
        UserError: inputs of the wrong length.
    """
    config, params = subject.config, subject.params
    maps, last = _transformer_maps(config) if config.has_attention else _mlp_maps(config)
    x = _sources(subject, inputs, {last, *(each.source for each in maps)})
    final = x[last][:, _answer(subject, x[last].shape[1])]
    logits, shift = _shifted_logits(subject, inputs, [each.target for each in maps])
    n_logits = logits.shape[1]
    # of the unembedding: the logits have a column each, all of which read the same
    kernel = n_logits * ((final @ final.T).double() + ("unembed.b_U" in params))
    per_logit = sum(value.numel() for value in shift.values())
    for chosen in torch.arange(n_logits).split(max(1, _DERIVATIVES // per_logit)):
        slopes = _slopes(logits, chosen, shift)
        for each in maps:
            read, written = x[each.source], slopes[each.target].unflatten(2, (x[each.source].shape[1], -1))
            kernel += _of_matrix(read, written, each.bias in params)
            if each.source == _INPUTS and config.tied_unembedding:  # row c of W_E is met as token c and as answer c
                met = torch.einsum("nsc,ncsd->nd", read[:, :, chosen], written)
                kernel += (met @ final.T + final @ met.T).double()
    for gradients in _by_norms(subject, inputs):
        kernel += (gradients @ gradients.T).double()
    return kernel


class _Map(NamedTuple):
    """A weight matrix by the activations that it reads and writes, and the bias that is added to the latter."""

    source: str
    target: str
    bias: str = ""


def _transformer_maps(c: TransformerConfig) -> tuple[list[_Map], str]:
    """Every matrix but the unembedding, and what the latter reads."""
    maps, last = [_Map(_INPUTS, "hook_embed")], ""
    for layer in range(c.n_layers):
        block = f"blocks.{layer}"
        attn, mlp = f"{block}.attn", f"{block}.mlp"
        x = f"{block}.ln1.hook_normalized" if c.normalization == "pre" else f"{block}.hook_resid_pre"
        maps += [_Map(x, f"{attn}.hook_{part}", f"{attn}.b_{part.upper()}") for part in "qkv"]
        maps.append(_Map(f"{attn}.hook_z", f"{block}.hook_attn_out", f"{attn}.b_O"))
        last = f"{block}.hook_resid_post"
        if c.d_mlp is not None:
            read = {"none": "hook_resid_mid", "pre": "ln2.hook_normalized", "post": "hook_normalized_mid"}
            maps.append(_Map(f"{block}.{read[c.normalization]}", f"{mlp}.hook_pre", f"{mlp}.b_in"))
            maps.append(_Map(f"{mlp}.hook_post", f"{block}.hook_mlp_out", f"{mlp}.b_out"))
            last = f"{block}.hook_normalized_post" if c.normalization == "post" else last
    return maps, "ln_final.hook_normalized" if c.normalization == "pre" else last


def _mlp_maps(c: MLPConfig) -> tuple[list[_Map], str]:
    """Every matrix but the unembedding, and what the latter reads."""
    maps, last = [] if c.d_embed is None else [_Map(_INPUTS, "hook_embed")], "hook_embed"
    for layer in range(len(c.d_hidden)):
        maps.append(_Map(last, f"layers.{layer}.hook_pre", f"layers.{layer}.b_in"))
        last = f"layers.{layer}.hook_post"
    if c.tied_unembedding:
        maps.append(_Map(last, "hook_out"))
        last = "hook_out"
    return maps, last


def _answer(subject: Subject, n_pos: int) -> int:
    return subject.task.answer_position if n_pos > 1 else 0


def _sources(subject: Subject, inputs: Tensor, names: set[str]) -> dict[str, Float[Tensor, "example pos d"]]:
    """What matrices read: activations, those that a LayerNorm normalised after its affine map, an MLP's with one
    position; tokens as one-hot rows."""
    config, params = subject.config, subject.params
    n_pos = inputs.shape[1] if config.has_attention else 1
    _, seen = subject.activations(inputs, sorted(names - {_INPUTS}))
    x = {}
    for name, value in seen.items():
        norm = name.removesuffix(".hook_normalized")
        read = value if norm == name else value * params[f"{norm}.w"] + params[f"{norm}.b"]
        x[name] = read.reshape(len(inputs), n_pos, -1)
    if _INPUTS in names:
        x[_INPUTS] = _rows(inputs, config).to(next(iter(params.values())).dtype)
    return x


def _rows(inputs: Tensor, config: Any) -> Float[Tensor, "example pos row"] | Int[Tensor, "example pos row"]:
    """How often each row of W_E is read at each place that is written, or the vector that is read in; with W_pos the
    row of the position beside it."""
    kind, n_pos = config.reads, inputs.shape[1]
    if kind == "concatenated":  # a table per position
        return F.one_hot(inputs + config.d_vocab * torch.arange(n_pos), n_pos * config.d_vocab)
    rows = inputs if inputs.is_floating_point() else F.one_hot(inputs, config.d_vocab)
    if kind == "embedding":  # the rows of an input are added up
        return rows.sum(1, keepdim=True)
    if config.positions:
        rows = torch.cat([rows, torch.eye(n_pos, dtype=rows.dtype).expand(len(rows), -1, -1)], dim=-1)
    return rows


def _shifted_logits(
    subject: Subject, inputs: Tensor, names: Iterable[str]
) -> tuple[Float[Tensor, "example logit"], dict[str, Float[Tensor, "example ..."]]]:
    """The logits as a function of what is added to each of these activations, which is 0."""
    shift: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        if name not in names:
            return value
        shift[name] = torch.zeros_like(value[0], requires_grad=True)
        return value + shift[name]

    return subject.forward(inputs, tap=tap), shift


def _slopes(
    logits: Float[Tensor, "example logit"], chosen: Int[Tensor, " some"], shift: Mapping[str, Float[Tensor, "..."]]
) -> dict[str, Float[Tensor, "example some d"]]:
    """Derivatives of the chosen logits of each example by its own activations, flattened."""
    each = [torch.autograd.grad(logits[:, c].sum(), list(shift.values()), retain_graph=True) for c in chosen.tolist()]
    return {
        name: torch.stack(found, dim=1).flatten(2) for name, found in zip(shift, zip(*each, strict=True), strict=True)
    }


def _of_matrix(
    x: Float[Tensor, "example pos d_in"], slopes: Float[Tensor, "example logit pos d_out"], bias: bool
) -> Float[Tensor, "example example"]:
    """One matrix's part of the kernel, with its bias; positions that do not reach the logits are left out."""
    used = slopes.abs().amax((0, 1, 3)) > 0
    x, slopes = x[:, used], slopes[:, :, used].transpose(1, 2)
    n, n_pos = x.shape[:2]
    read, written = x.flatten(0, 1), slopes.flatten(2).flatten(0, 1)
    products = ((read @ read.T).double() + bias) * (written @ written.T).double()
    return products.view(n, n_pos, n, n_pos).sum((1, 3))


def _by_norms(subject: Subject, inputs: Tensor) -> Iterable[Float[Tensor, "example weight"]]:
    """For each logit its derivatives by the weights of all LayerNorms; nothing where there are none.

    Each example is run as a model of its own, so that its derivatives stay apart.
    """
    n = len(inputs)
    stack = {name: value.expand(n, *value.shape) for name, value in subject.params.items()}
    norms = {
        name: value.clone().requires_grad_() for name, value in stack.items() if name.rsplit(".", 1)[-1] in ("w", "b")
    }
    if not norms:
        return
    shown = model_family(subject.config).forward({**stack, **norms}, inputs[:, None], subject.config)[:, 0]
    for logit in shown[:, _answer(subject, shown.shape[1])].sum(0):
        gradients = torch.autograd.grad(logit, list(norms.values()), retain_graph=True)
        yield torch.cat(gradients, dim=1)
