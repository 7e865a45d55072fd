"""Circuits by cutting edges: what a model makes of the anchors without the key, and of the key without the second
anchor.

An edge carries one position to another through one layer's attention, or to itself past it. Two circuits are left when
one place is cut off (Zhang et al. 2025, arXiv 2501.08537, figure 4):

* A, *commutativity*: the key is cut off, the logits know the anchors only. Do (a,b) and (b,a) lie on top of each other?
* B, *reasoning*: the second anchor is cut off, the logits know (key, first anchor) only. Are they the same wherever the
  intermediate value t = g(x; a1) is?

Design:

* To cut a place off means: in every layer but the last all edges out of it, its skip too; in the last the edge to the
  answer. No other position ever reads its token then, so that at any depth, one and two layers included, the logits do
  not depend on it. The skip is cut as in the source; with the last edge cut, what stays at the place reaches no answer.
* Scores are masked before the softmax. With ``after_softmax`` weights are set to 0 behind it: then the cut token still
  acts on the others through the sum that divides them, and the independence is lost.
* One key position per analysis: the third, as in the source's figure, or the last that leaves room for all roles.
* Keys are drawn from all keys, not from unseen ones as in the source: under cut A the key makes no difference.

Reading: A alone tells no composing model from a mirroring one. Maps that are added commute, and a model that composes,
robbed of the key, composes on another token that stands before the anchors: (a,b) and (b,a) overlap there, too, or all
pairs do, if it finds no other. What differs is B: composing leaves g(x; a1), equal for equal t, mirroring leaves
(x, a1) with a pair that is not whole. So B decides *inferential*, and *symmetric* is overlap in A without blocks in B.
A cut puts a model where training never was: answers that commute need not overlap without the key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.anchor.cutting import cut_off, edits
from interp.anchor.roles import anchor_task, key_positions, positions
from interp.result import Result
from interp.statistics import Interval, mean, share
from interp.subject import Subject
from interp.weights.projection import principal_components, silhouette
from tasks.base import UserError, as_tensor, generator
from tasks.families.anchor import AnchorComposition, Pair
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

Solution = Literal["inferential", "symmetric", "undetermined"]

BLOCKS = 0.5
"""Block contrast, interval included, from which circuit B reasons: half of what equal logits inside and unrelated ones
outside would give."""
NO_BLOCKS = 0.25
"""Block contrast, interval included, up to which it does not, and up to which that of random weights may go."""
OVERLAP = 0.5
"""Overlap, interval included, up to which circuit A commutes: (b,a) is twice as near to (a,b) as another pair is. It
must also be at most this part of the smallest overlap of random weights, since averaging both anchors, which attention
does before it has learnt anything, already brings the orders nearer to each other."""
COMMUTATIVE = 0.5
"""Share of equal answers to (a,b) and (b,a), uncut, below which commutativity is poor (Zhang et al. 2025)."""
N_SEQUENCES = 48
N_CONTEXTS = 8
N_VALUES = 10
N_CONTROLS = 3


def order_distances(
    logits: Float[Tensor, "sequence pair d_vocab_out"], pairs: Sequence[Pair]
) -> tuple[Float[Tensor, " sequence"], Float[Tensor, " sequence"]]:
    """Mean Euclidean distance of (a,b) to (b,a), and mean distance of pairs with other anchors, within each sequence.

    Both in units of logits, float64; their ratio is the overlap of orders. ``pairs`` names the second axis. Where no
    two pairs are mirrored, or none have other anchors, the mean is NaN.
    """
    distance = torch.cdist(logits.double(), logits.double(), compute_mode="donot_use_mm_for_euclid_dist")
    mirrored = torch.tensor([[p == q[::-1] and p != q for q in pairs] for p in pairs])
    apart = torch.tensor([[set(p) != set(q) for q in pairs] for p in pairs])
    return distance[:, mirrored].mean(-1), distance[:, apart].mean(-1)


def ratio_of_means(
    above: Float[Tensor, " n"], below: Float[Tensor, " n"], units: Int[Tensor, " n"] | None = None
) -> Interval | None:
    """mean(above)/mean(below) with an interval that resamples units; ``None`` where mean(below) is 0.

    R = mean of R + (above − R · below)/mean(below), whose bootstrap gives the interval (the ratio's first order).
    """
    scale = float(below.double().mean())
    if scale == 0:
        return None
    ratio = float(above.double().mean()) / scale
    return mean(ratio + (above.double() - ratio * below.double()) / scale, units)


def logit_cosines(logits: Float[Tensor, "context row d_vocab_out"]) -> Float[Tensor, "context row row"]:
    """Cosine of every two rows of logits within a context, float64; 0 for a row of zeros.

    A part that all logits share, such as an unembedding bias, brings all cosines nearer to 1.
    """
    unit = F.normalize(logits.double(), dim=-1)
    return (unit @ unit.mT).clamp(-1, 1)


def block_means(
    cosine: Float[Tensor, "context row row"], values: Int[Tensor, " row"]
) -> tuple[Float[Tensor, "context value"], Float[Tensor, "context value"]]:
    """Mean cosine of rows of equal value (the diagonal left out), and of them with all other rows, for each value in
    ascending order.

    Their difference is the block contrast: 1 where equal values have equal logits and others unrelated ones, 0 where
    values make no difference. A value with a single row has no pair inside: NaN.
    """
    same = values[:, None] == values
    inside, outside = same & ~torch.eye(len(values), dtype=torch.bool), ~same
    rows = [values == value for value in values.unique()]
    means = [torch.stack([cosine[:, row[:, None] & where].mean(-1) for row in rows], -1) for where in (inside, outside)]
    return means[0], means[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitScores(Result):
    """What is left after the cuts.

    Circuit A: ``overlap`` is the distance of (a,b) to (b,a) over that of pairs with other anchors, on the same key and
    noise: 0 where the order makes no difference, about 1 where it makes as much as other anchors; ``None`` where no
    anchor makes any. Silhouettes label the logits of all sequences by unordered or ordered pair. Circuit B:
    ``contrast`` = ``inside`` − ``outside``, mean cosines of logits with the same and with different intermediate
    values. Intervals resample keys (of the one position) for A, intermediate values for B.
    """

    overlap: Interval | None
    silhouette_unordered: float
    silhouette_ordered: float
    contrast: Interval
    inside: float
    outside: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitsResult(Result):
    """What ``analyze`` finds.

    ``overlap`` and ``contrast`` are those of ``scores``. Of several draws of random weights, ``control_overlap`` is the
    smallest and ``control_contrast`` and ``control_commutativity`` are the largest. ``placebo`` cuts off a noise
    position instead, ``None`` where there is none: a model that knows the task keeps its answers then, and with them
    both overlap and blocks. ``commutativity`` is the share of sequences, uncut, with the same answer to (a,b) and
    (b,a); ``commutativity_held_out`` is that of pairs of which an order was held out.

    For figures: ``logits`` under cut A, and the ``cosine`` of logits under cut B, mean over contexts, rows ordered by
    ``values`` (the intermediate values), then first anchor.
    """

    verdict: Solution
    key_position: int
    overlap: float | None
    control_overlap: float | None
    contrast: float
    control_contrast: float
    commutativity: Interval
    commutativity_held_out: Interval | None
    control_commutativity: float
    scores: CircuitScores
    placebo: CircuitScores | None
    placebo_position: int | None
    controls: tuple[CircuitScores, ...]
    pairs: tuple[Pair, ...]
    values: tuple[int, ...]
    logits: Float[Tensor, "sequence pair d_vocab_out"]
    cosine: Float[Tensor, "row row"]


def decide(scores: CircuitScores, controls: Sequence[CircuitScores], commutativity: float) -> Solution:
    """The solution by the rules above: blocks in B are *inferential*; overlap in A without blocks in B, by a model
    whose answers commute, is *symmetric*; anything else, or what random weights do as well, is *undetermined*."""
    if max(control.contrast.value for control in controls) > NO_BLOCKS:
        return "undetermined"
    low, high = scores.contrast.ends
    if low >= BLOCKS:
        return "inferential"
    beside = [control.overlap.value for control in controls if control.overlap is not None]
    if scores.overlap is None or not beside or high > NO_BLOCKS or commutativity < COMMUTATIVE:
        return "undetermined"
    near = scores.overlap.ends[1]
    return "symmetric" if near <= OVERLAP and near <= OVERLAP * min(beside) else "undetermined"


@ordinary_torch()
def analyze(
    subject: Subject,
    *,
    n_sequences: int = N_SEQUENCES,
    n_contexts: int = N_CONTEXTS,
    key_position: int | None = None,
    after_softmax: bool = False,
    control_seed: int = 0,
    seed: int = 0,
) -> CircuitsResult:
    """Both circuits of a model of anchor composition, with a placebo and random weights beside them.

    Args:
        subject: a transformer of any depth.
        n_sequences: for circuit A: keys with their noise, each asked with every ordered pair of different anchors.
        n_contexts: for circuit B: draws of the noise around the same keys and first anchors.
        key_position: where the key stands; ``None``: at the third place, or the last that leaves room for all roles.
        after_softmax: see ``edits``.
        control_seed: of the first of several draws of random weights.
        seed: of keys and noise.

    Raises:
        UserError: another task or model, too few anchors, sequences, or intermediate values, a key position without
            room.
    """
    task, config = anchor_task(subject.task), subject.config
    if not config.has_attention:
        raise UserError(f"expected a transformer, whose attention has edges, got a model with {type(config).__name__}")
    at = min(2, key_positions(task)[-1]) if key_position is None else key_position
    if at not in key_positions(task):
        raise UserError(f"expected a key position among 0 … {key_positions(task)[-1]}, got {at}")
    if n_sequences < 2 or n_contexts < 1:
        raise UserError(f"expected at least 2 sequences and 1 context, got {n_sequences} and {n_contexts}")
    places = positions(task, at)
    asked = _Questions.of(task, at, n_sequences, n_contexts, seed)

    def measured(of: Subject, key: int, second: int) -> tuple[CircuitScores, Tensor, Tensor]:
        without = [
            edits(cut_off(place, config.n_layers, task.n_ctx), config, task.n_ctx, after_softmax=after_softmax)
            for place in (key, second)
        ]
        logits = of.logits(asked.orders.flatten(0, 1), without[0]).unflatten(0, asked.orders.shape[:2])
        blocks = of.logits(asked.blocks.flatten(0, 1), without[1]).unflatten(0, asked.blocks.shape[:2])
        cosine = logit_cosines(blocks)
        return _scores(logits, cosine, asked), logits, cosine.mean(0)

    key, second = places["key"][0], places["second anchor"][0]
    scores, logits, cosine = measured(subject, key, second)
    noise = places["noise"][0] if places["noise"] else None
    randoms = [subject.randomized(control_seed + i) for i in range(N_CONTROLS)]
    controls = tuple(measured(random, key, second)[0] for random in randoms)
    commutativity = _commutativity(subject, asked, asked.pairs)
    held_out = [pair for pair in task.held_out if pair in asked.pairs]
    overlaps = [control.overlap.value for control in controls if control.overlap is not None]
    return CircuitsResult(
        verdict=decide(scores, controls, commutativity.value),
        key_position=at,
        overlap=None if scores.overlap is None else scores.overlap.value,
        control_overlap=min(overlaps, default=None),
        contrast=scores.contrast.value,
        control_contrast=max(control.contrast.value for control in controls),
        commutativity=commutativity,
        commutativity_held_out=_commutativity(subject, asked, held_out) if held_out else None,
        control_commutativity=max(_commutativity(random, asked, asked.pairs).value for random in randoms),
        scores=scores,
        placebo=None if noise is None else measured(subject, noise, noise)[0],
        placebo_position=noise,
        controls=controls,
        pairs=asked.pairs,
        values=tuple(asked.values.tolist()),
        logits=logits,
        cosine=cosine,
    )


def figures(result: CircuitsResult) -> dict[str, "go.Figure"]:
    """``orders``: logits under cut A in two dimensions, coloured by unordered pair; ``blocks``: cosines of the logits
    under cut B, ordered by intermediate value."""
    from interp import plots

    n_anchors = result.values.count(result.values[0])
    blocks = plots.heatmap(
        result.cosine.round(decimals=3).tolist(),
        title="Logits without the second anchor",
        x="intermediate value, then first anchor",
        y="intermediate value, then first anchor",
        colour="cosine",
        caption=f"Blocks of {n_anchors} by {n_anchors} on the diagonal are equal intermediate values: mean cosine "
        f"{_rounded(result.scores.inside)} inside, {_rounded(result.scores.outside)} outside; their difference is at "
        f"most {_rounded(result.control_contrast)} with random weights. Mean over noise.",
        limit=1.0,
    )
    centres = [(n_anchors - 1) / 2 + i for i in range(0, len(result.values), n_anchors)]
    ticks = {"tickvals": centres, "ticktext": [str(value) for value in result.values[::n_anchors]]}
    blocks.update_xaxes(**ticks)
    blocks.update_yaxes(**ticks)
    return {"orders": _orders(result), "blocks": blocks}


@dataclass(frozen=True, kw_only=True)
class _Questions:
    """What both circuits are asked: each key with every ordered pair, and each (value, first anchor) in every
    context."""

    pairs: tuple[Pair, ...]
    orders: Int[Tensor, "sequence pair pos"]
    keys: Int[Tensor, " sequence"]
    blocks: Int[Tensor, "context row pos"]
    values: Int[Tensor, " row"]

    @classmethod
    def of(cls, task: AnchorComposition, at: int, n_sequences: int, n_contexts: int, seed: int) -> "_Questions":
        pairs = tuple(pair for pair in task.pairs if pair[0] != pair[1])
        if task.n_anchors < 3:
            raise UserError(f"expected at least 3 anchors, so that pairs can differ, got {task.n_anchors}")
        rng = generator(task.data_seed, "circuits", seed)

        def around(keys: np.ndarray) -> np.ndarray:
            return task.place((1, 2), keys, np.full(len(keys), at), rng)

        keys = np.resize(rng.permutation(task.keys), n_sequences)
        orders = around(keys)[:, None].repeat(len(pairs), axis=1)
        orders[:, :, at + 1 : at + 3] = pairs
        rows = _rows(task)
        noise = around(np.full(n_contexts, task.key_low))
        blocks = noise[:, None].repeat(len(rows), axis=1)
        blocks[:, :, at : at + 2] = rows[:, 1:]
        return cls(
            pairs=pairs,
            orders=as_tensor(orders),
            keys=as_tensor(keys),
            blocks=as_tensor(blocks),
            values=as_tensor(rows[:, 0]),
        )


def _rows(task: AnchorComposition) -> Int[np.ndarray, "row 3"]:
    """(t, x, a1) with g(x; a1) = t, by t, then a1: up to ten values from the middle of those that every first anchor
    reaches from some key."""
    reached = [{int(anchor(x)): int(x) for x in task.keys} for anchor in task.anchors]
    values = sorted(set.intersection(*map(set, reached)))
    if len(values) < 2:
        raise UserError(
            "expected at least two intermediate values that every anchor reaches from some key, got "
            f"{len(values)}: the anchors need a wider range of keys"
        )
    start = max(0, len(values) - N_VALUES) // 2
    chosen = values[start : start + N_VALUES]
    return np.array([(t, keys[t], a) for t in chosen for a, keys in enumerate(reached, start=1)], dtype=np.int64)


def _scores(
    logits: Float[Tensor, "sequence pair d_vocab_out"], cosine: Float[Tensor, "context row row"], asked: _Questions
) -> CircuitScores:
    unordered = sorted({tuple(sorted(pair)) for pair in asked.pairs})
    labels = [unordered.index(tuple(sorted(pair))) for pair in asked.pairs]
    flat = logits.flatten(0, 1)
    inside, outside = block_means(cosine, asked.values)
    values = asked.values.unique().expand(len(cosine), -1)
    return CircuitScores(
        overlap=ratio_of_means(*order_distances(logits, asked.pairs), asked.keys),
        silhouette_unordered=silhouette(flat, labels * len(logits)),
        silhouette_ordered=silhouette(flat, list(range(len(labels))) * len(logits)),
        contrast=mean((inside - outside).flatten(), values.flatten()),
        inside=float(inside.mean()),
        outside=float(outside.mean()),
    )


def _commutativity(subject: Subject, asked: _Questions, pairs: Sequence[Pair]) -> Interval:
    """Share of (key, noise) with the same answer to (a,b) and (b,a), over those of the pairs with a < b."""
    place = {pair: i for i, pair in enumerate(asked.pairs)}
    answers = subject.answers(asked.orders.flatten(0, 1)).unflatten(0, asked.orders.shape[:2])
    ascending = sorted({(min(pair), max(pair)) for pair in pairs})
    first, mirrored = [place[a, b] for a, b in ascending], [place[b, a] for a, b in ascending]
    same: Bool[Tensor, "sequence pair"] = answers[:, first] == answers[:, mirrored]
    return share(same.flatten(), asked.keys.repeat_interleave(len(ascending)))


def _rounded(value: float) -> str:
    """Two decimals, with no sign on 0."""
    return f"{round(value, 2) + 0.0:.2f}"


def _orders(result: CircuitsResult) -> "go.Figure":
    """Scatter of the logits under cut A."""
    from interp import plots, theme

    points = principal_components(result.logits.flatten(0, 1)).coordinates.unflatten(0, result.logits.shape[:2])
    traces = []
    for index, pair in enumerate(pair for pair in result.pairs if pair[0] < pair[1]):
        for order, symbol in ((pair, "circle-open"), (pair[::-1], "cross-thin-open")):
            at = points[:, result.pairs.index(order)].T.tolist()
            marker = {"color": theme.seed_colour(index), "symbol": symbol, "size": 9, "line_width": 1.5}
            traces.append({"x": at[0], "y": at[1], "name": "({},{})".format(*order), "marker": marker})
    shown = "none: no anchor is seen" if result.overlap is None else f"{result.overlap:.2f}"
    beside = "" if result.control_overlap is None else f" (random weights at least {result.control_overlap:.2f})"
    return plots.scatter(
        traces,
        title="Logits without the key",
        x="first principal component of the logits",
        y="second principal component of the logits",
        caption="Circles (a,b), crosses (b,a), one of each per key and noise. Distance of (a,b) to (b,a) over that of "
        f"pairs with other anchors: {shown}{beside}. Silhouette {_rounded(result.scores.silhouette_unordered)} by "
        f"unordered, {_rounded(result.scores.silhouette_ordered)} by ordered pair.",
    )
