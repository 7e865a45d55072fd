"""The transformer: its parameters and its forward pass.

Design:

* Parameter and hook names are transformer-lens's, shapes too (``blocks.0.attn.W_Q [n_heads, d_model, d_head]``), so its
  tools read our models. Activations are rows: a layer computes ``x @ W``.
* Everything carries a leading ``model`` axis; products are explicit ``bmm`` in one operand layout, so that a member of
  a stack is computed bit by bit as if it were alone.
* Exact shortcuts serve training: ``answer_position`` computes queries, MLP and unembedding of the last layer at that
  position only; ``prepared`` computes the first layer's projections once per distinct (token, position) and gathers
  them, and so the attention scores where the answer position always holds the same token.
* Where nothing is tapped, LayerNorm is torch's own (written out where its scale is shown; they agree to rounding) and
  an activation overwrites what it is computed from.
* No LayerNorm folding, no dropout, no key-value cache: these models are small and looked at whole.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tasks.models.config import TransformerConfig
from tasks.models.family import Inputs, Parameters, Shown, Tap, Targets, names_shown, untapped
from tasks.models.layers import activation, gather, linear, product, worth_a_call


class DistinctTokens(NamedTuple):
    """The (token, position) pairs that occur in a training set, each once; ``row[token, position]`` is its place.

    ``constant`` holds, for a position where only one token occurs, its row; ``None`` elsewhere.
    """

    tokens: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]
    row: Int[Tensor, "token pos"]
    constant: tuple[int | None, ...]

    def to(self, device: torch.device | str) -> "DistinctTokens":
        """The same on another device."""
        return DistinctTokens(self.tokens.to(device), self.positions.to(device), self.row.to(device), self.constant)


def prepare(
    inputs: Int[Tensor, "example pos"] | Float[Tensor, "example pos d_input"],
) -> DistinctTokens | Float[Tensor, "0 pos d_input"]:
    """``distinct_tokens`` of a training set; of real vectors nothing is worth keeping."""
    return inputs[:0] if inputs.is_floating_point() else distinct_tokens(inputs)


def distinct_tokens(inputs: Int[Tensor, "example pos"]) -> DistinctTokens:
    """The table from which ``forward`` computes the first layer's projections once per (token, position)."""
    n_ctx = inputs.shape[1]
    codes = torch.unique(inputs * n_ctx + torch.arange(n_ctx))
    row = torch.full((int(inputs.max()) + 1, n_ctx), -1)
    tokens, positions = codes // n_ctx, codes % n_ctx
    row[tokens, positions] = torch.arange(len(codes))
    found = [torch.nonzero(positions == position).flatten().tolist() for position in range(n_ctx)]
    return DistinctTokens(tokens, positions, row, tuple(at[0] if len(at) == 1 else None for at in found))


def shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of one model, under transformer-lens's names, in forward order."""
    c = config
    out: dict[str, tuple[int, ...]] = {}
    if c.d_vocab is not None:
        out["embed.W_E"] = (c.d_vocab, c.d_model)
    else:
        assert c.d_input is not None
        out["read_in.W"] = (c.d_input, c.d_model)
    if c.positions:
        out["pos_embed.W_pos"] = (c.n_ctx, c.d_model)
    for layer in range(c.n_layers):
        block = f"blocks.{layer}"
        if c.normalization != "none":
            out[f"{block}.ln1.w"] = out[f"{block}.ln1.b"] = (c.d_model,)
        for part in "QKV":
            out[f"{block}.attn.W_{part}"] = (c.n_heads, c.d_model, c.d_head)
        out[f"{block}.attn.W_O"] = (c.n_heads, c.d_head, c.d_model)
        if c.attention_bias:
            for part in "QKV":
                out[f"{block}.attn.b_{part}"] = (c.n_heads, c.d_head)
            out[f"{block}.attn.b_O"] = (c.d_model,)
        if c.d_mlp is not None:
            if c.normalization != "none":
                out[f"{block}.ln2.w"] = out[f"{block}.ln2.b"] = (c.d_model,)
            out[f"{block}.mlp.W_in"] = (c.d_model, c.d_mlp)
            if c.mlp_bias:
                out[f"{block}.mlp.b_in"] = (c.d_mlp,)
            out[f"{block}.mlp.W_out"] = (c.d_mlp, c.d_model)
            if c.mlp_bias:
                out[f"{block}.mlp.b_out"] = (c.d_model,)
    if c.normalization == "pre":
        out["ln_final.w"] = out["ln_final.b"] = (c.d_model,)
    if not c.tied_unembedding:
        out["unembed.W_U"] = (c.d_model, c.d_out)
    if c.unembedding_bias:
        out["unembed.b_U"] = (c.d_out,)
    return out


def forward(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos d_input"],
    config: TransformerConfig,
    *,
    tap: Tap = untapped,
    answer_position: Shown | None = None,
    prepared: DistinctTokens | Tensor | None = None,
) -> Float[Tensor, "model batch shown d_vocab_out"]:
    """Logits of a stack of models, [model, batch, pos, d_vocab_out]; of the answer positions alone, if they are given.

    Args:
        params: one tensor per name of ``shapes``, with a leading model axis.
        inputs: token ids (or real vectors), one batch per model.
        tap: sees and may replace each activation, under transformer-lens's hook names, each with a leading model axis.
        answer_position: compute the last layer's queries, MLP and logits here only, at one position or at several. Not
            together with a tap.
        prepared: ``distinct_tokens`` of the training set: the first layer's projections are computed once per row and
            gathered. Not together with a tap. Anything else is ignored.
    """
    c = config
    if not isinstance(prepared, DistinctTokens):
        prepared = None
    positions = torch.arange(inputs.shape[2], device=inputs.device)
    asked = None if answer_position is None else _places(answer_position)
    x = _embed(params, inputs, c, tap) if prepared is None else inputs  # which the first layer then looks up

    for layer in range(c.n_layers):
        block = f"blocks.{layer}"
        only = asked if layer == c.n_layers - 1 else None
        queries = positions if only is None else positions[only]
        if layer == 0 and prepared is not None:
            x, attn_out = _first_attention(params, inputs, only, prepared, c)
        else:
            x = tap(f"{block}.hook_resid_pre", x)
            normed = _norm(x, params, f"{block}.ln1", c, tap) if c.normalization == "pre" else x
            k, v = (_project(normed, params, f"{block}.attn", part, c) for part in "KV")
            if only is not None:
                x = x[:, :, only]
                normed = normed[:, :, only] if c.normalization == "pre" else x
            q = _project(normed, params, f"{block}.attn", "Q", c)
            attn_out = _attention(q, k, v, queries, params, f"{block}.attn", c, tap)
        x = tap(f"{block}.hook_resid_mid", x + tap(f"{block}.hook_attn_out", attn_out))
        if c.normalization == "post":
            x = tap(f"{block}.hook_normalized_mid", _norm(x, params, f"{block}.ln1", c, tap))
        if c.d_mlp is not None:
            normed = _norm(x, params, f"{block}.ln2", c, tap) if c.normalization == "pre" else x
            x = x + tap(f"{block}.hook_mlp_out", _mlp(normed, params, f"{block}.mlp", c, tap))
        x = tap(f"{block}.hook_resid_post", x)
        if c.normalization == "post" and c.d_mlp is not None:
            x = tap(f"{block}.hook_normalized_post", _norm(x, params, f"{block}.ln2", c, tap))

    if c.normalization == "pre":
        x = _norm(x, params, "ln_final", c, tap)
    W_U = params["embed.W_E"][:, : c.d_out].transpose(1, 2) if c.tied_unembedding else params["unembed.W_U"]
    return linear(x, W_U, params.get("unembed.b_U"))


def _places(shown: Shown) -> slice | list[int]:
    """The positions as an index that keeps the axis: a slice, which makes a view, where they are evenly spaced.

    >>> _places(3), _places((0, 2, 4)), _places((0, 1, 5))
    (slice(3, 4, 1), slice(0, 5, 2), [0, 1, 5])
    """
    places = [shown] if isinstance(shown, int) else list(shown)
    stride = places[1] - places[0] if len(places) > 1 else 1
    evenly = stride > 0 and list(range(places[0], places[-1] + 1, stride)) == places
    return slice(places[0], places[-1] + 1, stride) if evenly else places


def hook_names(config: TransformerConfig) -> list[str]:
    """Names of all activations that ``forward`` shows to a tap, in order."""
    size = (1, 1, config.n_ctx)
    if config.d_vocab is not None:
        inputs = torch.empty(size, dtype=torch.int64, device="meta")
    else:
        inputs = torch.empty((*size, config.d_input or 0), device="meta")
    return names_shown(forward, shapes(config), inputs, config)


def _embed(
    params: Parameters, inputs: Tensor, c: TransformerConfig, tap: Tap
) -> Float[Tensor, "model batch pos d_model"]:
    if c.d_vocab is None:
        x = tap("hook_embed", linear(inputs, params["read_in.W"]))
    else:
        x = tap("hook_embed", gather(params["embed.W_E"], inputs))
    if c.positions:
        positions = params["pos_embed.W_pos"][:, None, : inputs.shape[2]].expand(-1, inputs.shape[1], -1, -1)
        # a hook may write into what it is shown, which must then not be the parameter itself
        x = x + (positions if tap is untapped else tap("hook_pos_embed", positions.clone()))
    return x


def _first_attention(
    params: Parameters,
    inputs: Int[Tensor, "model batch pos"],
    only: slice | list[int] | None,
    prepared: DistinctTokens,
    c: TransformerConfig,
) -> tuple[Float[Tensor, "model batch query d_model"], Float[Tensor, "model batch query d_model"]]:
    """The first residual stream, where asked for, and what attention adds to it, from one row per distinct token."""
    name = "blocks.0.attn"
    positions = torch.arange(inputs.shape[2], device=inputs.device)
    asked = slice(None) if only is None else only
    queries = positions[asked]
    x = params["embed.W_E"][:, prepared.tokens]
    if c.positions:
        x = x + params["pos_embed.W_pos"][:, prepared.positions]
    normed = _norm(x, params, "blocks.0.ln1", c, untapped) if c.normalization == "pre" else x
    q, k, v = (_project(normed, params, name, part, c) for part in "QKV")
    rows = prepared.row[inputs, positions]
    fixed = None
    if isinstance(only, slice) and only.stop == only.start + 1:  # one position is asked about
        fixed = prepared.constant[only.start]
    if fixed is None:
        q, k, v = gather(q, rows[:, :, asked]), gather(k, rows), gather(v, rows)
        attn_out = _attention(q, k, v, queries, params, name, c, untapped)
    else:  # one query for all examples: a score per row, gathered
        products = (q[:, fixed : fixed + 1] * k).unflatten(-1, (c.n_heads, c.d_head))
        scores = gather(products.sum(-1) / math.sqrt(c.d_head), rows).transpose(2, 3).unsqueeze(3)
        v = gather(v, rows).unflatten(-1, (c.n_heads, c.d_head))
        attn_out = _attend(scores, v, queries, params, name, c, untapped)
    return gather(x, rows[:, :, asked]), attn_out


def _norm(x: Tensor, params: Parameters, name: str, c: TransformerConfig, tap: Tap) -> Tensor:
    """LayerNorm with affine weights; the tap sees the scale and the rows before the affine map, as in
    transformer-lens."""
    w, b = params[f"{name}.w"], params[f"{name}.b"]
    affine = (w.shape[0], *(1,) * (x.ndim - 2), w.shape[-1])
    if tap is untapped and worth_a_call(x[0].numel(), x.device):
        each = zip(x.unbind(), w.unbind(), b.unbind(), strict=True) if len(x) > 1 else [(x.squeeze(0), w[0], b[0])]
        rows = [F.layer_norm(row, row.shape[-1:], weight, bias, c.norm_eps) for row, weight, bias in each]
        return torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)
    if tap is untapped:
        return F.layer_norm(x, x.shape[-1:], eps=c.norm_eps) * w.view(affine) + b.view(affine)
    x = x - x.mean(-1, keepdim=True)
    scale = tap(f"{name}.hook_scale", (x.pow(2).mean(-1, keepdim=True) + c.norm_eps).sqrt())
    return tap(f"{name}.hook_normalized", x / scale) * w.view(affine) + b.view(affine)


def _project(x: Tensor, params: Parameters, name: str, part: str, c: TransformerConfig) -> Tensor:
    """Queries, keys or values [model, …, head · d_head] of all heads side by side."""
    W = params[f"{name}.W_{part}"].transpose(1, 2).reshape(x.shape[0], c.d_model, c.n_heads * c.d_head)
    b = params[f"{name}.b_{part}"].reshape(x.shape[0], -1) if c.attention_bias else None
    return linear(x, W, b)


def _attention(
    q: Float[Tensor, "model batch query head_d_head"],
    k: Float[Tensor, "model batch pos head_d_head"],
    v: Float[Tensor, "model batch pos head_d_head"],
    query_positions: Int[Tensor, " query"],
    params: Parameters,
    name: str,
    c: TransformerConfig,
    tap: Tap,
) -> Float[Tensor, "model batch query d_model"]:
    """What attention writes to the residual stream, from projections that hold the heads side by side."""
    q, k, v = (
        tap(f"{name}.hook_{part}", projected.unflatten(-1, (c.n_heads, c.d_head)))
        for part, projected in (("q", q), ("k", k), ("v", v))
    )
    if q.shape[2] == 1:  # then products and sums beat thousands of matrix products with one row
        scores = (q * k).sum(-1).transpose(2, 3).unsqueeze(3) / math.sqrt(c.d_head)
    else:
        scores = torch.matmul(q.transpose(2, 3), k.permute(0, 1, 3, 4, 2)) / math.sqrt(c.d_head)
    return _attend(scores, v, query_positions, params, name, c, tap)


def _attend(
    scores: Float[Tensor, "model batch head query pos"],
    v: Float[Tensor, "model batch pos head d_head"],
    query_positions: Int[Tensor, " query"],
    params: Parameters,
    name: str,
    c: TransformerConfig,
    tap: Tap,
) -> Float[Tensor, "model batch query d_model"]:
    """What attention writes to the residual stream, from its scores and values."""
    allowed = _allowed(query_positions, v.shape[2], c)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    pattern = F.softmax(tap(f"{name}.hook_attn_scores", scores), dim=-1)
    if c.attention_mix != 1.0:
        ones = torch.ones_like(pattern) if allowed is None else allowed.to(pattern.dtype)
        pattern = c.attention_mix * pattern + (1 - c.attention_mix) * ones
    pattern = tap(f"{name}.hook_pattern", pattern)
    if scores.shape[3] == 1:
        z = (pattern.permute(0, 1, 4, 2, 3) * v).sum(2, keepdim=True)
    else:
        z = torch.matmul(pattern, v.transpose(2, 3)).transpose(2, 3)
    z = tap(f"{name}.hook_z", z)
    W_O = params[f"{name}.W_O"].reshape(z.shape[0], c.n_heads * c.d_head, c.d_model)
    return linear(z.flatten(-2), W_O, params.get(f"{name}.b_O"))


def _allowed(
    query_positions: Int[Tensor, " query"], n_pos: int, c: TransformerConfig
) -> Bool[Tensor, "query pos"] | None:
    """Which keys a query may see, or None where it sees all."""
    if not c.causal:
        return None
    return torch.arange(n_pos, device=query_positions.device) <= query_positions.unsqueeze(1)


def _mlp(x: Tensor, params: Parameters, name: str, c: TransformerConfig, tap: Tap) -> Tensor:
    """What the MLP writes to the residual stream."""
    W_in, b_in = params[f"{name}.W_in"], params.get(f"{name}.b_in")
    W_out, b_out = params[f"{name}.W_out"], params.get(f"{name}.b_out")
    if tap is untapped:
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        return product(activation(product(flat, W_in, b_in), c.act_fn, tap), W_out, b_out).reshape(x.shape)
    pre = tap(f"{name}.hook_pre", linear(x, W_in, b_in))
    post = tap(f"{name}.hook_post", activation(pre, c.act_fn, tap))
    return linear(post, W_out, b_out)


def count_parameters(config: TransformerConfig) -> int:
    """Number of parameters of one model."""
    return sum(math.prod(shape) for shape in shapes(config).values())


class Transformer:
    """The transformer as a family of models; see ``tasks.models.family``."""

    name = "transformer"
    shapes = staticmethod(shapes)
    hook_names = staticmethod(hook_names)
    forward = staticmethod(forward)
    prepare = staticmethod(prepare)

    @staticmethod
    def mean_cross_entropy(params: Parameters, inputs: Inputs, targets: Targets, config: TransformerConfig) -> None:
        """Not faster together with the logits."""
