"""Networks built by hand with a known algorithm: the known answers that every analysis is tested on.

Nothing here is trained. Each function returns a configuration and parameters that ``transformer.forward`` runs, with
exact zeros wherever the algorithm needs nothing:

* ``clock`` and ``pizza`` add modulo p on circles, for chosen frequencies (Zhong et al. 2023 name the two);
* ``lookup_table`` knows the training pairs of a table by heart and nothing else;
* ``composer`` applies one anchor after the other, ``mirror`` looks the unordered pair of anchors up.

No LayerNorm; the residual stream is a direct sum of named subspaces, each written once (``_Layout``), so that a layer's
weights read as "copy this subspace there". Attention is hard: scores differ by at least ``SHARP``, and what falls on
other positions is below float32.
"""

import math
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.transformer import shapes

SHARP = 120.0  # e^-120 is 0 in float32
LOGIT = 20.0  # of an answer that is known for certain; e^-20 of the rest leaves a loss below 1e-6


class Constructed(NamedTuple):
    """A network built by hand: its configuration and its parameters, without a model axis."""

    config: TransformerConfig
    params: dict[str, Float[Tensor, "..."]]


def pizza(task: ModularArithmetic, frequencies: tuple[int, ...], neurons_per_frequency: int = 9) -> Constructed:
    """Addition mod p by averaging: attention adds a's and b's points on each circle, the MLP doubles the sum's angle.

    E_a + E_b = 2 cos(ω(a−b)/2) · (cos ω(a+b)/2, sin ω(a+b)/2). Neuron i reads it along the angle iθ, θ = 2π/N, and
    writes along 2iθ, so that the logits are ≈ Σ_k |cos(ω_k(a−b)/2)| cos ω_k(a+b−c) (Pearce et al. 2023, "constructed
    solution"). Where a − b makes one cosine small another frequency must answer: one is not enough for large p, and p
    must be odd.

    Args:
        task: addition mod an odd p.
        frequencies: which circles, each between 1 and (p−1)/2.
        neurons_per_frequency: N. Odd and at least 5: an even N aliases, N = 3 and 4 do not double the angle.

    Raises:
        UserError: another operation, an even p or N, or a frequency out of range.
    """
    _check_addition(task, frequencies)
    n = neurons_per_frequency
    if task.p % 2 == 0 or n < 5 or n % 2 == 0:
        raise UserError(f"expected an odd p and an odd number of neurons of at least 5, got p = {task.p} and {n}")
    size = 2 * len(frequencies)
    at = _Layout(number=size, sum=size, answer=size)
    built = _empty(task, at, n_layers=1, n_heads=1, d_head=size, d_mlp=n * len(frequencies), positions=False)
    params = built.params
    circles = _circles(task.p, frequencies)
    params["embed.W_E"][: task.p, at["number"]] = circles
    # with queries and keys 0 attention is the mean over all positions; "=" is embedded at 0
    params["blocks.0.attn.W_V"][0, at["number"]] = torch.eye(size) * task.n_ctx
    params["blocks.0.attn.W_O"][0, :, at["sum"]] = torch.eye(size)
    angle = 2 * torch.pi * torch.arange(n) / n
    for k in range(len(frequencies)):
        neurons = slice(k * n, (k + 1) * n)
        params["blocks.0.mlp.W_in"][at.part("sum", 2 * k, 2), neurons] = torch.stack([angle.cos(), angle.sin()])
        params["blocks.0.mlp.W_out"][neurons, at.part("answer", 2 * k, 2)] = torch.stack(
            [(2 * angle).cos(), (2 * angle).sin()], dim=1
        )
    params["unembed.W_U"][at["answer"]] = circles.T * LOGIT
    return built


def clock(task: ModularArithmetic, frequencies: tuple[int, ...], knots: int = 4) -> Constructed:
    """Addition mod p by multiplying: cos ω(a+b) and sin ω(a+b) from products of a's and b's coordinates.

    Two heads bring a and b to the answer position apart. With z± = cos(ωa − α) ± cos(ωb − β), the sum of z₊² − z₋² over
    (α, β) and (α + π/2, β − π/2) is 4 cos(ω(a+b) − α − β); ReLUs interpolate each square on ``knots`` equal pieces of
    0 … 2. The logits are ≈ Σ_k cos ω_k(a+b−c), whatever a − b is.

    Args:
        task: addition mod p.
        frequencies: which circles, each between 1 and (p−1)/2.
        knots: pieces of the interpolated square; 16 · knots neurons per frequency. The error of a square is at most
            1/knots².

    Raises:
        UserError: another operation or a frequency out of range.
    """
    _check_addition(task, frequencies)
    size, per_frequency = 2 * len(frequencies), 16 * knots
    at = _Layout(number=size, position=task.n_ctx, a=size, b=size, answer=size)
    built = _empty(task, at, n_layers=1, n_heads=2, d_head=size, d_mlp=per_frequency * len(frequencies))
    params = built.params
    circles = _circles(task.p, frequencies)
    params["embed.W_E"][: task.p, at["number"]] = circles
    _bring_operands(built, at, task)
    step = 2 / knots
    W_in, W_out, b_in = (params[f"blocks.0.mlp.{name}"] for name in ("W_in", "W_out", "b_in"))
    pieces = product(range(len(frequencies)), (0, 1), (0.0, torch.pi / 2), (1, -1), (1, -1), range(knots))
    for neuron, (k, output, turn, sign, side, knot) in enumerate(pieces):
        alpha, beta = torch.pi / 4 * output + turn, torch.pi / 4 * output - turn
        W_in[at.part("a", 2 * k, 2), neuron] = side * torch.tensor([math.cos(alpha), math.sin(alpha)])
        W_in[at.part("b", 2 * k, 2), neuron] = side * sign * torch.tensor([math.cos(beta), math.sin(beta)])
        b_in[neuron] = -knot * step
        slope = step if knot == 0 else 2 * step  # adds up to (2 · knot + 1) · step, the slope of x² on the piece
        W_out[neuron, at.start("answer") + 2 * k + output] = sign * slope / 4
    params["unembed.W_U"][at["answer"]] = circles.T * LOGIT
    return built


def lookup_table(task: ModularArithmetic) -> Constructed:
    """The training pairs by heart: one neuron per pair fires on that ordered pair only and writes its answer.

    On any other pair no neuron fires and all logits are 0, so its accuracy there is that of a constant answer.
    """
    p, pairs = task.p, task.pairs[task.train_mask]
    at = _Layout(number=p, position=task.n_ctx, a=p, b=p, answer=p)
    built = _empty(task, at, n_layers=1, n_heads=2, d_head=p, d_mlp=len(pairs))
    params = built.params
    params["embed.W_E"][:p, at["number"]] = torch.eye(p)
    _bring_operands(built, at, task)
    neuron = torch.arange(len(pairs))
    params["blocks.0.mlp.W_in"][at.start("a") + pairs[:, 0], neuron] = 1
    params["blocks.0.mlp.W_in"][at.start("b") + pairs[:, 1], neuron] = 1
    params["blocks.0.mlp.b_in"][:] = -1
    params["blocks.0.mlp.W_out"][neuron, at.start("answer") + task.answers(pairs)] = 1
    params["unembed.W_U"][at["answer"]] = torch.eye(p) * LOGIT
    return built


def composer(task: AnchorComposition, *, exceptions: bool = False) -> Constructed:
    """The inferential solution: the first anchor is applied to the key where it stands, the second to the result.

    Layer 1, head 0 brings the key to both anchors (the latest token that is no anchor), head 1 tells each position
    whether an anchor precedes it; the MLP turns (key, a1) into the value g(x; a1) at the first anchor, and names a2 at
    the second. Layer 2 brings both to the last position, and the MLP turns (value, a2) into the answer. It knows each
    anchor's map and no pair.

    Args:
        task: which anchors, keys and positions.
        exceptions: also know the relabelled pairs: for them the taught answer is written over the rule's, so that every
            trained pair is answered as it was taught.

    Raises:
        UserError: a composition that is no token.
    """
    keys, anchors = task.keys.tolist(), list(range(1, task.n_anchors + 1))
    values = sorted({task.anchors[a - 1](x) for a in anchors for x in keys})
    relabelled = task.relabelled if exceptions else ()
    column = {value: i for i, value in enumerate(values)}
    n_tokens, n_values = task.d_vocab, len(values)
    at = _Layout(
        token=n_tokens, anchor=1, one=1, position=task.n_ctx, key=n_tokens, after_anchor=1,
        value=n_values, first=task.n_anchors, second=task.n_anchors,
        value_read=n_values, first_read=task.n_anchors, second_read=task.n_anchors, answer=n_tokens,
    )  # fmt: skip
    d_mlp = max(task.n_anchors * (len(keys) + 2), task.n_anchors * n_values + len(relabelled) * len(keys))
    d_head = max(n_tokens, n_values + 2 * task.n_anchors, task.n_ctx)
    built = _empty(task, at, n_layers=2, n_heads=2, d_head=d_head, d_mlp=d_mlp)
    params = built.params
    _embed_tokens(built, at, task)

    first = "blocks.0.attn"
    _attend(params, first, 0, {at.start("one"): 1.0}, {at.start("position") + i: SHARP * i for i in range(task.n_ctx)})
    params[f"{first}.W_K"][0, at.start("anchor"), 0] = -2 * SHARP * task.n_ctx * math.sqrt(d_head)
    _copy(params, first, 0, at["token"], at["key"])
    before = torch.arange(task.n_ctx - 1)
    params[f"{first}.W_Q"][1, at.start("position") + before + 1, before] = SHARP * math.sqrt(d_head)
    params[f"{first}.W_K"][1, at.start("position") + before, before] = 1
    _copy(params, first, 1, at["anchor"], at["after_anchor"])

    mlp, neuron = "blocks.0.mlp", 0
    for a in anchors:
        for x in keys:
            reads = {at.start("key") + x: 1.0, at.start("token") + a: 1.0, at.start("after_anchor"): -1.0}
            _neuron(params, mlp, neuron, reads, -1.0, at.start("value") + column[task.anchors[a - 1](x)])
            neuron += 1
        for place, sign, bias in (("first", -1.0, 0.0), ("second", 1.0, -1.0)):
            reads = {at.start("token") + a: 1.0, at.start("after_anchor"): sign}
            _neuron(params, mlp, neuron, reads, bias, at.start(place) + a - 1)
            neuron += 1

    second = "blocks.1.attn"
    _attend(params, second, 0, {at.start("one"): 1.0}, {at.start("anchor"): SHARP})
    # attention halves what each of the two anchors brings
    channel = 0
    for name, size in (("value", n_values), ("first", task.n_anchors), ("second", task.n_anchors)):
        _copy(params, second, 0, at[name], at[f"{name}_read"], scale=2.0, first_channel=channel)
        channel += size

    mlp, neuron = "blocks.1.mlp", 0
    for a in anchors:
        for value in values:
            answer = task.anchors[a - 1](value)
            if not 0 <= answer < task.d_vocab:
                raise UserError(f"expected compositions between 0 and d_vocab − 1 = {task.d_vocab - 1}, got {answer}")
            reads = {at.start("value_read") + column[value]: 1.0, at.start("second_read") + a - 1: 1.0}
            _neuron(params, mlp, neuron, reads, -1.0, at.start("answer") + answer)
            neuron += 1
    for a, b, offset in relabelled:
        for x in keys:
            reads = {at.start("value_read") + column[task.anchors[a - 1](x)]: 1.0}
            reads |= {at.start("first_read") + a - 1: 1.0, at.start("second_read") + b - 1: 1.0}
            _neuron(params, mlp, neuron, reads, -2.0, at.start("answer") + x + offset, weight=2.0)
            neuron += 1
    return built


def mirror(task: AnchorComposition) -> Constructed:
    """The symmetric solution: a table of answers by key and unordered pair of anchors.

    Layer 1 brings both anchors and their positions to the last position, where the order is lost; layer 2 fetches the
    key that stands before them, and the MLP looks (key, pair) up. A pair that was never trained gets what its mirror
    was taught.

    Raises:
        UserError: both orders of a pair are trained, with different answers.
    """
    keys, anchors = task.keys.tolist(), list(range(1, task.n_anchors + 1))
    pairs = [(a, b) for a in anchors for b in anchors if a <= b]
    n_tokens = task.d_vocab
    at = _Layout(
        token=n_tokens, anchor=1, one=1, position=task.n_ctx, anchors=task.n_anchors, anchor_positions=task.n_ctx,
        double=task.n_anchors, key=n_tokens, answer=n_tokens,
    )  # fmt: skip
    d_head = max(n_tokens, task.n_anchors + task.n_ctx)
    built = _empty(task, at, n_layers=2, n_heads=1, d_head=d_head, d_mlp=max(task.n_anchors, len(pairs) * len(keys)))
    params = built.params
    _embed_tokens(built, at, task)

    first = "blocks.0.attn"
    _attend(params, first, 0, {at.start("one"): 1.0}, {at.start("anchor"): SHARP})
    tokens = slice(at.start("token") + 1, at.start("token") + 1 + task.n_anchors)
    _copy(params, first, 0, tokens, at["anchors"], scale=2.0)
    _copy(params, first, 0, at["position"], at["anchor_positions"], scale=2.0, first_channel=task.n_anchors)
    for a in anchors:
        reads = {at.start("anchors") + a - 1: 1.0}
        _neuron(params, "blocks.0.mlp", a - 1, reads, -1.0, at.start("double") + a - 1)

    second, scale = "blocks.1.attn", SHARP * math.sqrt(d_head)
    before = torch.arange(task.n_ctx - 1)
    params[f"{second}.W_Q"][0, at.start("anchor_positions") + before + 1, before] = scale
    params[f"{second}.W_K"][0, at.start("position") + before, before] = 1
    # the place before the second anchor is the first anchor: no anchor may be fetched
    params[f"{second}.W_Q"][0, at.start("one"), task.n_ctx] = scale
    params[f"{second}.W_K"][0, at.start("anchor"), task.n_ctx] = -2
    _copy(params, second, 0, at["token"], at["key"])

    neuron = 0
    for a, b in pairs:
        for x in keys:
            if a == b:
                reads = {at.start("double") + a - 1: 1.0, at.start("key") + x: 1.0}
            else:  # a double anchor counts two in ``anchors``: take it out
                reads = {at.start("key") + x: 1.0}
                reads |= {at.start("anchors") + i - 1: 1.0 for i in (a, b)}
                reads |= {at.start("double") + i - 1: -2.0 for i in (a, b)}
            answer = at.start("answer") + int(_unordered(task, (a, b), x))
            _neuron(params, "blocks.1.mlp", neuron, reads, -1.0 if a == b else -2.0, answer)
            neuron += 1
    return built


def _unordered(task: AnchorComposition, pair: tuple[int, int], key: int) -> int:
    """What training shows for a pair in either order; the rule's answer where it shows neither."""
    trained = [order for order in (pair, (pair[1], pair[0])) if task.role(order) != "held out"]
    answers = {task.taught(order, key) for order in trained or [pair]}
    if len(answers) > 1:
        raise UserError(f"expected the pair {pair} to be taught alike in both orders, got {answers} for key {key}")
    return answers.pop()


class _Layout:
    """Named subspaces of the residual stream, side by side."""

    def __init__(self, **sizes: int) -> None:
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        self.width = ends[-1]
        self._slices = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    def __getitem__(self, name: str) -> slice:
        return self._slices[name]

    def start(self, name: str) -> int:
        """First coordinate of a subspace."""
        return self._slices[name].start

    def part(self, name: str, offset: int, size: int) -> slice:
        """Some coordinates of a subspace."""
        return slice(self.start(name) + offset, self.start(name) + offset + size)


def _empty(
    task: ModularArithmetic | AnchorComposition,
    at: _Layout,
    *,
    n_layers: int,
    n_heads: int,
    d_head: int,
    d_mlp: int,
    positions: bool = True,
) -> Constructed:
    """A network for the task with all parameters 0."""
    config = TransformerConfig(
        n_layers=n_layers,
        d_model=at.width,
        n_heads=n_heads,
        d_head=d_head,
        d_mlp=d_mlp,
        d_vocab=task.d_vocab,
        d_vocab_out=task.d_vocab_out,
        n_ctx=task.n_ctx,
        positions=positions,
        mlp_bias=True,
    )
    built = Constructed(config, {name: torch.zeros(shape) for name, shape in shapes(config).items()})
    if positions:
        built.params["pos_embed.W_pos"][:, at["position"]] = torch.eye(task.n_ctx)
    return built


def _check_addition(task: ModularArithmetic, frequencies: tuple[int, ...]) -> None:
    if task.operation != "add":
        raise UserError(f"expected addition mod p, got {task.operation}")
    if not frequencies or not all(1 <= k <= (task.p - 1) // 2 for k in frequencies):
        raise UserError(f"expected frequencies between 1 and (p − 1)/2 = {(task.p - 1) // 2}, got {frequencies}")


def _circles(p: int, frequencies: tuple[int, ...]) -> Float[Tensor, "p coordinate"]:
    """(cos ω_k x, sin ω_k x) of every frequency, side by side, for x = 0 … p − 1."""
    angle = 2 * torch.pi / p * (torch.outer(torch.arange(p), torch.tensor(frequencies)) % p)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1)


def _bring_operands(built: Constructed, at: _Layout, task: ModularArithmetic) -> None:
    """Heads 0 and 1 bring the numbers at positions 0 and 1 to the answer position, each to its own subspace."""
    for head, operand in enumerate("ab"):
        query = {at.start("position") + task.answer_position: 1.0}
        _attend(built.params, "blocks.0.attn", head, query, {at.start("position") + head: SHARP})
        _copy(built.params, "blocks.0.attn", head, at["number"], at[operand])


def _embed_tokens(built: Constructed, at: _Layout, task: AnchorComposition) -> None:
    """Tokens as one-hot vectors, anchors marked, and a coordinate that is 1 everywhere; answers are read as one-hot."""
    W_E = built.params["embed.W_E"]
    W_E[:, at["token"]] = torch.eye(task.d_vocab)
    W_E[1 : task.n_anchors + 1, at["anchor"]] = 1
    W_E[:, at["one"]] = 1
    built.params["unembed.W_U"][at["answer"]] = torch.eye(task.d_vocab) * LOGIT


def _attend(params: dict[str, Tensor], attn: str, head: int, query: dict[int, float], key: dict[int, float]) -> None:
    """Scores of a head: (sum of the query's coordinates, weighted) · (sum of the key's coordinates, weighted)."""
    W_Q, W_K = params[f"{attn}.W_Q"], params[f"{attn}.W_K"]
    for coordinate, weight in query.items():
        W_Q[head, coordinate, 0] = weight
    for coordinate, weight in key.items():
        W_K[head, coordinate, 0] = weight * math.sqrt(W_K.shape[-1])


def _copy(
    params: dict[str, Tensor],
    attn: str,
    head: int,
    source: slice,
    target: slice,
    scale: float = 1.0,
    first_channel: int = 0,
) -> None:
    """The head moves one subspace to another, through its channels from ``first_channel`` on."""
    size = source.stop - source.start
    channels = slice(first_channel, first_channel + size)
    params[f"{attn}.W_V"][head, source, channels] = torch.eye(size)
    params[f"{attn}.W_O"][head, channels, target] = torch.eye(size) * scale


def _neuron(
    params: dict[str, Tensor],
    mlp: str,
    index: int,
    reads: dict[int, float],
    bias: float,
    writes: int,
    weight: float = 1.0,
) -> None:
    """Neuron ``index`` adds weight · ReLU(Σ coordinates, as weighted in ``reads``, + bias) to one coordinate."""
    for coordinate, reading in reads.items():
        params[f"{mlp}.W_in"][coordinate, index] = reading
    params[f"{mlp}.b_in"][index] = bias
    params[f"{mlp}.W_out"][index, writes] = weight
