"""The multi-layer perceptron: its parameters and its forward pass.

Design:

* Made like ``tasks.models.transformer``: a pure function of a parameter dict with a leading ``model`` axis, with
  a tap on every activation. Activations are rows: a layer computes ``x @ W``.
* An input is read once, whatever its length: there is one answer per input, and the position axis of the logits has
  length 1.
* Full batches that all models of a stack share are read once for all of them.
* Exact shortcuts serve training, untapped. A last ReLU layer, its one logit and the loss are one function that finds
  its gradients in a single pass; it has a first derivative only. A wide table W_E meets the narrow layers beside it,
  W_in and in a tied unembedding W_out, once per token instead of once per example.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tasks.base import UserError
from tasks.models.config import MLPConfig
from tasks.models.family import Parameters, Shown, Tap, names_shown, untapped
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
    answer_position: Shown | None = None,
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
    batch, width, b_U = inputs.shape[1], c.d_hidden[-1], params.get("unembed.b_U")
    one_by_one = worth_a_call(batch * width, inputs.device) and not torch.is_grad_enabled()
    if one_by_one and _ends_in_one_logit(c, inputs, tap):
        logit = _one_logit(*_before_one_logit(params, inputs, c))
        return (logit if b_U is None else logit + b_U.unsqueeze(1)).unsqueeze(2)
    x = _activations(params, inputs, c, tap, len(c.d_hidden))
    if c.tied_unembedding:
        W_out, W_U = params["unembed.W_out"], params["embed.W_E"][:, : c.d_out].transpose(1, 2)
        if _exact(inputs, tap) and _worth_a_table(c, batch, c.d_out, width):
            return product(x, product(W_out, W_U, None), b_U).unsqueeze(2)
        out = tap("hook_out", product(x, W_out, None))
        return product(out, W_U, b_U).unsqueeze(2)
    return product(x, params["unembed.W_U"], b_U).unsqueeze(2)


def hook_names(config: MLPConfig) -> list[str]:
    """Names of all activations that ``forward`` shows to a tap, in order."""
    inputs = torch.empty((1, 1, config.n_ctx), dtype=torch.int64, device="meta")
    return names_shown(forward, shapes(config), inputs, config)


def mean_cross_entropy(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos"],
    targets: Int[Tensor, "model batch"],
    config: MLPConfig,
) -> Float[Tensor, " model"] | None:
    """The mean cross entropy of each model where a last ReLU layer ends in one logit without a bias, or ``None``.

    It has a first derivative only. That is found in float64, as ``tasks.training.objective.cross_entropy`` finds it;
    the loss itself, which training does not read, in the type of the weights.

    Raises:
        UserError: inputs of another length than ``config.n_ctx``.
    """
    if config.output_bias or not _ends_in_one_logit(config, inputs, untapped):
        return None
    return _OneLogitLoss.apply(*_before_one_logit(params, inputs, config), targets)


def _activations(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos"],
    c: MLPConfig,
    tap: Tap,
    n_layers: int,
) -> Float[Tensor, "model batch d"]:
    """What the first hidden layers make of the inputs; without a layer, what the first one reads."""
    if inputs.shape[2] != c.n_ctx:
        raise UserError(f"expected inputs of length {c.n_ctx}, got {inputs.shape[2]}: this model reads all at once")
    table = n_layers > 0 and _exact(inputs, tap) and _worth_a_table(c, inputs.shape[1], c.d_vocab, c.d_hidden[0])
    x = None if table else _read(params, inputs, c, tap)
    for layer in range(n_layers):
        name = f"layers.{layer}"
        W_in, b_in = params[f"{name}.W_in"], params.get(f"{name}.b_in")
        if x is None:
            pre = gather(product(params["embed.W_E"], W_in, None), inputs).sum(2)
            pre = pre if b_in is None else pre + b_in.unsqueeze(1)
        else:
            pre = tap(f"{name}.hook_pre", product(x, W_in, b_in))
        x = tap(f"{name}.hook_post", activation(pre, c.act_fn, tap))
    assert x is not None
    return x


def _exact(inputs: Tensor, tap: Tap) -> bool:
    """Whether shortcuts may be taken: nobody looks, and products are not of mixed types."""
    device = "cpu" if inputs.is_meta else inputs.device.type  # tensors without contents stand for some on a CPU
    return tap is untapped and not torch.is_autocast_enabled(device)


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
    tokens = _once(inputs)
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


def _ends_in_one_logit(c: MLPConfig, inputs: Tensor, tap: Tap) -> bool:
    """Whether the last layer is ReLU with one logit, and goes together with it; what a compiler fuses does not."""
    alone = c.one_logit and c.act_fn == "relu" and _exact(inputs, tap) and not torch.compiler.is_compiling()
    return alone and not (len(c.d_hidden) == 1 and _worth_a_table(c, inputs.shape[1], c.d_vocab, c.d_hidden[0]))


def _before_one_logit(
    params: Parameters, inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos"], c: MLPConfig
) -> tuple[Float[Tensor, "model batch d_in"], Float[Tensor, "model d_in d_hidden"], Float[Tensor, "model d_hidden 1"]]:
    """x, W and w of the logit relu(x W) w; a bias is a row more of W."""
    last = len(c.d_hidden) - 1
    x, W = _activations(params, inputs, c, untapped, last), params[f"layers.{last}.W_in"]
    b = params.get(f"layers.{last}.b_in")
    if b is not None:
        x, W = F.pad(x, (0, 1), value=1.0), torch.cat([W, b.unsqueeze(1)], dim=1)
    return x, W, params["unembed.W_U"]


def _one_logit(
    x: Float[Tensor, "model batch d_in"], W: Float[Tensor, "model d_in d_hidden"], w: Float[Tensor, "model d_hidden 1"]
) -> Float[Tensor, "model batch 1"]:
    """relu(x W) w, model by model, so that the activations of one stay in the cache."""
    hidden, logit = x.new_empty(x.shape[1], W.shape[2]), x.new_empty(*x.shape[:2], 1)
    for rows, W_in, W_U, out in zip(x, W, w, logit, strict=True):
        torch.mm(rows, W_in, out=hidden).relu_()
        torch.mm(hidden, W_U, out=out)
    return logit


def _once(value: Tensor) -> Tensor:
    """[1, …] where all models have the same."""
    return value[:1] if len(value) > 1 and value.stride(0) == 0 else value


_VECTOR = 32  # elements that a processor's vector operation takes at most, twice


class _OneLogitLoss(torch.autograd.Function):
    """The mean cross entropy of relu(x W) w for one column w, whose gradients are found on the way.

    With A the 0/1 matrix of active neurons and g the slope of the loss at the logits, all follow from G = (g x)ᵀ A:
    the gradient of W is G scaled by w, that of w the column sums of W ∘ G. So A is needed at once, before it leaves the
    cache, and never again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "model batch d_in"],
        W: Float[Tensor, "model d_in d_hidden"],
        w: Float[Tensor, "model d_hidden 1"],
        targets: Int[Tensor, "model batch"],
    ) -> Float[Tensor, " model"]:
        n_models, batch, _ = x.shape
        columns = _once(x).transpose(1, 2).contiguous().expand(n_models, -1, -1)
        sign = (1 - 2 * _once(targets)).double().expand(n_models, -1)
        share = sign / batch
        scaled = (W * w.transpose(1, 2)).transpose(1, 2) if ctx.needs_input_grad[0] else None
        to_x = None if scaled is None else x.new_empty(x.shape)
        if worth_a_call(batch * W.shape[2], x.device):
            G, logit = torch.empty_like(W), x.new_empty(n_models, batch)
            hidden, weighted = x.new_empty(batch, W.shape[2]), torch.empty_like(columns[0])
            z, slope = share.new_empty(batch), x.new_empty(batch)
            stack = zip(x, columns, W, w, logit.unsqueeze(2), sign, share, G, strict=True)
            for m, (rows, columns_m, W_m, w_m, logit_m, sign_m, share_m, G_m) in enumerate(stack):
                torch.mm(rows, W_m, out=hidden).relu_()
                torch.mm(hidden, w_m, out=logit_m)
                torch.mul(torch.mul(logit_m[:, 0], sign_m, out=z).sigmoid_(), share_m, out=slope)
                torch.mm(torch.mul(columns_m, slope, out=weighted), hidden.gt_(0), out=G_m)
                if scaled is not None and to_x is not None:
                    torch.mm(hidden, scaled[m], out=to_x[m]).mul_(slope.unsqueeze(1))
        else:
            hidden = torch.relu_(product(x, W, None))
            logit = product(hidden, w, None).squeeze(2)
            whole = F.pad(logit * sign, (0, -batch % _VECTOR))  # torch's sigmoid rounds differently where a tensor ends
            slope = torch.sigmoid(whole)[:, :batch].mul_(share).to(x.dtype)
            G = product(columns * slope.unsqueeze(1), hidden.sign_(), None)
            to_x = None if scaled is None else product(hidden, scaled, None) * slope.unsqueeze(2)
        ctx.save_for_backward(G * w.transpose(1, 2), (W * G).sum(1).unsqueeze(2), to_x)
        return F.softplus(logit * sign.to(x.dtype), threshold=40).mean(1, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_W, to_w, to_x = ctx.saved_tensors
        upstream = grad_outputs[0].to(to_W.dtype).view(-1, 1, 1)
        return None if to_x is None else to_x * upstream, to_W * upstream, to_w * upstream, None


class MLP:
    """The multi-layer perceptron as a family of models; see ``tasks.models.family``."""

    name = "mlp"
    shapes = staticmethod(shapes)
    hook_names = staticmethod(hook_names)
    forward = staticmethod(forward)
    mean_cross_entropy = staticmethod(mean_cross_entropy)

    @staticmethod
    def prepare(inputs: Int[Tensor, "example pos"] | Float[Tensor, "example pos"]) -> Tensor:
        """Nothing is worth keeping."""
        return inputs[:0]
