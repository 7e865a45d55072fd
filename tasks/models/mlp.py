"""The multi-layer perceptron: its parameters and its forward pass.

Design:

* Made like ``tasks.models.transformer``: a pure function of a parameter dict with a leading ``model`` axis, with
  a tap on every activation. Activations are rows: a layer computes ``x @ W``.
* An input is read once, whatever its length: there is one answer per input, and the position axis of the logits has
  length 1.
* Full batches that all models of a stack share are read once for all of them.
* Exact shortcuts serve training, untapped. A last ReLU layer and its one logit are one function with a backward pass of
  its own; it has a first derivative only. A wide table W_E meets the narrow layers beside it, W_in and in a tied
  unembedding W_out, once per token instead of once per example.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tasks.base import UserError
from tasks.models.config import MLPConfig
from tasks.models.family import Parameters, Tap, untapped
from tasks.models.layers import activation, gather, product, worth_a_call


def shapes(config: MLPConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of one model, in forward order."""
    c = config
    out: dict[str, tuple[int, ...]] = {}
    if c.d_embed is not None:
        tables = ["embed"] if c.input == "embedding" else [f"embed.{position}" for position in range(c.n_ctx)]
        out |= {f"{table}.W_E": (c.d_vocab, c.d_embed) for table in tables}
    for layer, (width_in, width_out) in enumerate(zip((c.d_model, *c.d_hidden), c.d_hidden, strict=False)):
        out[f"layers.{layer}.W_in"] = (width_in, width_out)
        if c.bias:
            out[f"layers.{layer}.b_in"] = (width_out,)
    if c.tied_unembedding:
        assert c.d_embed is not None
        out["unembed.W_out"] = (c.d_hidden[-1], c.d_embed)
    else:
        out["unembed.W_U"] = (c.d_hidden[-1], 1 if c.one_logit else c.d_out)
    if c.output_bias:
        out["unembed.b_U"] = (1 if c.one_logit else c.d_out,)
    return out


def forward(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos"],
    config: MLPConfig,
    *,
    tap: Tap = untapped,
    answer_position: int | None = None,
    prepared: object = None,
) -> Float[Tensor, "model batch 1 d_vocab_out"]:
    """Logits of a stack of models, [model, batch, 1, d_vocab_out]; with ``one_logit`` the last axis has length 1.

    Args:
        params: one tensor per name of ``shapes``, with a leading model axis.
        inputs: token ids, or the numbers of a vector, one batch per model.
        tap: sees and may replace each activation, each with a leading model axis.
        answer_position, prepared: not used; every family takes them.

    Raises:
        UserError: inputs of another length than ``config.n_ctx``.
    """
    c = config
    if inputs.shape[2] != c.n_ctx:
        raise UserError(f"expected inputs of length {c.n_ctx}, got {inputs.shape[2]}: this model reads all at once")
    b_U = params.get("unembed.b_U")
    # products of mixed types, and what a compiler fuses itself, go the plain way
    device = "cpu" if inputs.is_meta else inputs.device.type  # tensors without contents stand for some on a CPU
    exact = tap is untapped and not torch.is_autocast_enabled(device)
    plain = not exact or torch.compiler.is_compiling()
    batch = inputs.shape[1]
    x = None if exact and _worth_a_table(c, batch, c.d_vocab, c.d_hidden[0]) else _read(params, inputs, c, tap)
    for layer in range(len(c.d_hidden)):
        name = f"layers.{layer}"
        W_in, b_in = params[f"{name}.W_in"], params.get(f"{name}.b_in")
        if x is None:
            pre = gather(product(params["embed.W_E"], W_in, None), inputs).sum(2)
            pre = pre if b_in is None else pre + b_in.unsqueeze(1)
        elif c.one_logit and c.act_fn == "relu" and layer == len(c.d_hidden) - 1 and not plain:
            if b_in is not None:
                x, W_in = F.pad(x, (0, 1), value=1.0), torch.cat([W_in, b_in.unsqueeze(1)], dim=1)
            logit = _OneLogit.apply(x, W_in, params["unembed.W_U"])
            return (logit if b_U is None else logit + b_U.unsqueeze(1)).unsqueeze(2)
        else:
            pre = tap(f"{name}.hook_pre", product(x, W_in, b_in))
        x = tap(f"{name}.hook_post", activation(pre, c.act_fn, tap))
    assert x is not None
    if c.tied_unembedding:
        W_out, W_U = params["unembed.W_out"], params["embed.W_E"][:, : c.d_out].transpose(1, 2)
        if exact and _worth_a_table(c, batch, c.d_out, c.d_hidden[-1]):
            return product(x, product(W_out, W_U, None), b_U).unsqueeze(2)
        out = tap("hook_out", product(x, W_out, None))
        return product(out, W_U, b_U).unsqueeze(2)
    return product(x, params["unembed.W_U"], b_U).unsqueeze(2)


def _worth_a_table(c: MLPConfig, batch: int, n_rows: int, width: int) -> bool:
    """Whether rows of a shared W_E are better multiplied with the layer of this width before examples meet them.

    With more examples than rows and a layer narrower than a row, nothing of it takes longer.
    """
    return c.input == "embedding" and c.d_embed is not None and n_rows <= batch and width <= c.d_embed


def _read(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos"],
    c: MLPConfig,
    tap: Tap,
) -> Float[Tensor, "model batch d_model"]:
    """What the first hidden layer reads."""
    some = next(iter(params.values()))
    shared = inputs.shape[0] > 1 and inputs.stride(0) == 0  # every model has the same batch: read it once
    tokens = inputs[:1] if shared else inputs
    if c.input == "embedding":
        x = gather(params["embed.W_E"], inputs).sum(2)
    elif c.input == "concatenated":
        rows = [gather(params[f"embed.{i}.W_E"], inputs[:, :, i : i + 1]).squeeze(2) for i in range(c.n_ctx)]
        x = torch.cat(rows, dim=-1)
    elif c.input == "one_hot":
        x = F.one_hot(tokens, c.d_vocab).flatten(2).to(some.dtype)
    elif c.input == "counts":
        x = F.one_hot(tokens, c.d_vocab).sum(2).to(some.dtype)
    else:
        x = tokens.to(some.dtype)
        x = F.pad(x, (0, 1), value=1.0) if c.constant_input else x
    x = x.expand(len(inputs), -1, -1)
    return tap("hook_embed", x if tap is untapped else x.clone())  # a hook may write into what it is shown


class _OneLogit(torch.autograd.Function):
    """relu(x W) w for one column w, in half the passes over the hidden activations that autograd takes.

    With A the 0/1 matrix of active neurons and g the gradient of the logits, all gradients follow from G = (g x)ᵀ A:
    that of W is G scaled by w, that of w the column sums of W ∘ G. Where models are computed one by one, A is computed
    anew in the backward pass: that takes less time than to write it to memory and read it again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "model batch d_in"],
        W: Float[Tensor, "model d_in d_hidden"],
        w: Float[Tensor, "model d_hidden 1"],
    ) -> Float[Tensor, "model batch 1"]:
        if worth_a_call(x.shape[1] * W.shape[2], x.device):  # so one model's activations stay in the cache
            hidden, logit = x.new_empty(x.shape[1], W.shape[2]), x.new_empty(*x.shape[:2], 1)
            for model in range(len(W)):
                torch.mm(x[model], W[model], out=hidden).relu_()
                torch.mm(hidden, w[model], out=logit[model])
            ctx.save_for_backward(x, W, w)
        else:
            hidden = torch.relu_(product(x, W, None))
            logit = product(hidden, w, None).clone()
            ctx.save_for_backward(x, W, w, hidden.sign_())
        return logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, W, w, *active = ctx.saved_tensors
        (gradient,) = grad_outputs
        scaled = (W * w.transpose(1, 2)).transpose(1, 2) if ctx.needs_input_grad[0] else None
        if active:
            G, to_x = _gradients(x, gradient, active[0], scaled)
        else:
            G, to_x = _gradients_one_by_one(x, gradient, W, scaled)
        return to_x, G * w.transpose(1, 2), (W * G).sum(1).unsqueeze(-1)


def _gradients(
    x: Float[Tensor, "model batch d_in"],
    gradient: Float[Tensor, "model batch 1"],
    active: Float[Tensor, "model batch d_hidden"],
    scaled: Float[Tensor, "model d_hidden d_in"] | None,
) -> tuple[Float[Tensor, "model d_in d_hidden"], Float[Tensor, "model batch d_in"] | None]:
    """G, and with ``scaled``, (W ∘ wᵀ)ᵀ, the gradient of x."""
    if x.shape[2] < active.shape[2]:
        G = product((x * gradient).transpose(1, 2), active, None)
    else:
        G = product(x.transpose(1, 2), active * gradient, None)
    return G, None if scaled is None else product(active, scaled, None) * gradient


def _gradients_one_by_one(
    x: Float[Tensor, "model batch d_in"],
    gradient: Float[Tensor, "model batch 1"],
    W: Float[Tensor, "model d_in d_hidden"],
    scaled: Float[Tensor, "model d_hidden d_in"] | None,
) -> tuple[Float[Tensor, "model d_in d_hidden"], Float[Tensor, "model batch d_in"] | None]:
    """The same, with the active neurons of one model after the other."""
    G, active = torch.empty_like(W), x.new_empty(x.shape[1], W.shape[2])
    to_x = None if scaled is None else x.new_empty(x.shape)
    for model, of_logit in enumerate(gradient):
        torch.mm(x[model], W[model], out=active).gt_(0)
        if to_x is not None and scaled is not None:
            torch.mm(active, scaled[model], out=to_x[model]).mul_(of_logit)
        if x.shape[2] < W.shape[2]:
            torch.mm((x[model] * of_logit).T, active, out=G[model])
        else:
            torch.mm(x[model].T, active.mul_(of_logit), out=G[model])
    return G, to_x


class MLP:
    """The multi-layer perceptron as a family of models; see ``tasks.models.family``."""

    name = "mlp"
    shapes = staticmethod(shapes)
    forward = staticmethod(forward)

    @staticmethod
    def prepare(inputs: Int[Tensor, "example pos"] | Float[Tensor, "example pos"]) -> Tensor:
        """Nothing is worth keeping."""
        return inputs[:0]
