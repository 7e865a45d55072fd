"""Geometry: do inputs with equal values lie together, is the order of the anchors lost, are numbers in order?

A model that composes turns key and first anchor into the value g(x; a1) before it meets the second anchor; one that
looks (key, unordered pair) up never holds that value. Three places tell them apart (Zhang et al. 2024, arXiv
2405.05409, figures 3 and 4; key x, anchors a1 and a2, last position s):

* u(x; a1): the last layer's attention values at the first anchor, all heads side by side;
* v(x; a1, a2): the residual stream at s after the last layer's attention (and its LayerNorm, where that follows it);
* the same after the first layer's attention, the *anchor map*: a symmetric model has the pair here, unordered, no key.

*Boxes* are comparisons of different keys with equal targets by the rule: of g(x; a1) for u, of f(x; a1, a2) for v. Only
pairs taught by the rule are compared, so that no target is in doubt. The sequences of a draw share their noise and the
place of the key.

Plain cosines, as published, mislead in two ways:

* What all vectors share (noise, position, the mean of a LayerNorm) raises every cosine and leaves little room for a
  contrast: a model built by hand to compose has 0.86 in its best boxes of v and 0.71 beside them. The verdict reads
  cosines around the mean (*centred*).
* Near keys may be alike, and a box lies at a fixed distance x′ − x. ``sided`` compares it with the same kinds at the
  same distance on the other side.

A model may form the answer after v, in its last MLP. Then v agrees in boxes of pairs with the same second anchor alone.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anchor.boxes import BoxContrast, Contents, box_contrast, contents, directions
from interp.anchor.roles import anchor_task, key_positions
from interp.result import Result
from interp.subject import Subject
from interp.weights.projection import (
    EmbeddingOrder,
    covariance_eigenvalues,
    embedding_order,
    order_score,
    principal_components,
    tsne,
)
from tasks.base import generator
from tasks.families.anchor import AnchorComposition, Pair
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

Solution = Literal["inferential", "symmetric", "undetermined"]
N_DRAWS = 4
"""Draws of noise; the place of the key goes round with them."""
VALUE_FORMED = 0.25
"""Least sided contrast of centred u from which the first map is done at the first anchor: about half of what a model
built by hand to compose shows with four anchors (0.57); one built as a symmetric table shows 0."""
VALUE_ARRIVES = 0.20
"""The same for centred v with the same second anchor: half of 0.40; the symmetric table shows 0."""
KEY_ABSENT = 0.10
"""Largest share of the variance of u that the first anchor leaves, at which u counts as free of the key: 0 in the
symmetric table, 0.57 in the model that composes."""
ORDER_LOST = 0.50
"""Largest overlap at which the order of the anchors counts as lost: 0 in the symmetric table, about 1 where first and
second anchor have places of their own."""
PAIR_FIRST = 0.80
"""Least share of the unordered pair in what varies at s after the first layer: 1 in the symmetric table, 0.6 where a
key and two of four anchors are averaged as vectors of equal size, which loses the order, too."""
KEY_LATER = 0.10
"""Least share of the key in v: without the key there is nothing to look up. 0.35 in the symmetric table."""
_U, _V = "u, centred", "v, same second anchor"
_PUBLISHED: tuple[tuple[Pair, Pair], ...] = (((3, 3), (2, 2)), ((1, 3), (1, 2)))
_SHOWN = 11


class Vectors(NamedTuple):
    """The vectors of a model at the places of the module's docstring; those at first anchor and key have a2 = 1."""

    first_layer: Float[Tensor, "draw first second key d_model"]
    v: Float[Tensor, "draw first second key d_model"]
    u: Float[Tensor, "draw first key d_values"]
    u_at_key: Float[Tensor, "draw first key d_values"]


def vectors(subject: Subject, *, n_draws: int = N_DRAWS, seed: int = 0) -> Vectors:
    """u, v and what the anchor map shows, for every ordered pair of anchors and every key.

    Raises:
        UserError: another task, or sequences of three tokens.
    """
    task, config, rng = anchor_task(subject.task), subject.config, generator(seed, "geometry")
    last, mid = config.n_layers - 1, "hook_normalized_mid" if config.normalization == "post" else "hook_resid_mid"
    names = [f"blocks.0.{mid}", f"blocks.{last}.{mid}", f"blocks.{last}.attn.hook_v"]
    anchors, places, draws = torch.arange(1, task.n_anchors + 1), key_positions(task), []
    for draw in range(n_draws):
        at = places[draw % len(places)]
        noise = torch.from_numpy(rng.integers(task.key_low, task.key_high + 1, size=task.sequence_length))
        tokens = noise.repeat(len(anchors), len(anchors), len(task.keys), 1)
        tokens[..., at] = torch.from_numpy(task.keys)
        tokens[..., at + 1], tokens[..., at + 2] = anchors[:, None, None], anchors[:, None]
        kept = subject.activations(tokens.flatten(0, 2), names)[1]
        early, late, values = (kept[name].flatten(2).unflatten(0, tokens.shape[:3]) for name in names)
        draws.append((early[..., -1, :], late[..., -1, :], values[:, 0, :, at + 1], values[:, 0, :, at]))
    return Vectors(*(torch.stack(parts) for parts in zip(*draws, strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures(Result):
    """All measures of one model.

    ``boxes``: contrasts by name, of u and v plain and centred, of centred v with the same second anchor, and of centred
    u at the key's place, which in a causal model cannot know the anchor: its ``sided`` is 0. ``first_layer`` and
    ``last_layer``: what s holds after their attention; ``key_in_u``: the share of the variance of u that the first
    anchor does not explain. ``v_order``, ``u_order``: order score of the first two
    components with the target, mean over draws. ``covariance_eigenvalues``: of the embeddings of anchors and keys.
    """

    boxes: dict[str, BoxContrast]
    first_layer: Contents
    last_layer: Contents
    key_in_u: float
    v_order: float
    u_order: float
    embedding: EmbeddingOrder
    largest_eigenvalue: float
    covariance_eigenvalues: Float[Tensor, " component"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GeometryResult(Result):
    """What ``analyze`` finds: the solution that the geometry speaks for (see ``solution``), the published contrasts
    (plain cosines), all measures of the model and of random weights (``control``), and data of the figures."""

    verdict: Solution
    v_contrast: float
    u_contrast: float
    model: Measures
    control: Measures
    projection: Literal["PCA", "t-SNE"]
    keys: tuple[int, ...]
    shown_keys: tuple[int, ...]
    shown_boxes: tuple[tuple[Pair, Pair, int], ...]
    v_map: Float[Tensor, "shown shown"]
    u_map: Float[Tensor, "item item"]
    u_targets: Int[Tensor, "first shown"]
    embedding_map: Float[Tensor, "key 2"]
    anchor_map: Float[Tensor, "first second key 2"]


@ordinary_torch()
def analyze(
    subject: Subject, *, seed: int = 0, n_draws: int = N_DRAWS, all_rows: bool = False, with_tsne: bool = False
) -> GeometryResult:
    """Geometry of a model of anchor composition.

    Args:
        subject: a model of ``AnchorComposition``.
        seed: of noise, resampling, permutations and random weights.
        n_draws: draws of noise.
        all_rows: eigenvalues of all embedding rows, not only of anchors and keys.
        with_tsne: maps by t-SNE, not by principal components; takes long.

    Raises:
        UserError: another task, or sequences of three tokens.
    """
    task = anchor_task(subject.task)
    found = vectors(subject, n_draws=n_draws, seed=seed)
    random = subject.randomized(seed)
    model = _measures(subject, task, found, seed, all_rows)
    control = _measures(random, task, vectors(random, n_draws=n_draws, seed=seed), seed, all_rows)
    start = max(0, min(_SHOWN - 1, len(task.keys) - _SHOWN))
    shown = slice(start, start + _SHOWN)
    boxes = _shown_boxes(task)
    v, u = directions(found.v.flatten(1, 2))[:, shown], directions(found.u)[:, shown].flatten(0, 1)
    v_map = torch.full((v.shape[1], v.shape[1]), math.nan, dtype=torch.float64)
    for triangle, (one, other, _) in enumerate(boxes):
        i, j = ((a - 1) * task.n_anchors + b - 1 for a, b in (one, other))
        below = torch.ones_like(v_map, dtype=torch.bool).tril(-1)
        v_map = torch.where(below.T, (v[i] @ v[j].T).T, v_map) if triangle else torch.where(below, v[i] @ v[j].T, v_map)

    def drawn(rows: Tensor) -> Tensor:
        return tsne(rows, seed=seed) if with_tsne else principal_components(rows).coordinates

    return GeometryResult(
        verdict=solution(model, control),
        v_contrast=model.boxes["v"].contrast.value,
        u_contrast=model.boxes["u"].contrast.value,
        model=model,
        control=control,
        projection="t-SNE" if with_tsne else "PCA",
        keys=tuple(task.keys.tolist()),
        shown_keys=tuple(task.keys[shown].tolist()),
        shown_boxes=boxes,
        v_map=v_map,
        u_map=u @ u.T,
        u_targets=_values(task)[:, shown],
        embedding_map=drawn(subject.params["embed.W_E"][task.keys]),
        anchor_map=drawn(found.first_layer[0].flatten(0, 2)).unflatten(0, found.first_layer.shape[1:4]),
    )


def solution(model: Measures, control: Measures) -> Solution:
    """The solution that the geometry speaks for.

    *Inferential*: the sided contrasts of centred u and of centred v with the same second anchor reach ``VALUE_FORMED``
    and ``VALUE_ARRIVES``, their lower ends above random weights. *Symmetric*: their upper ends stay below these, u is
    free of the key (``KEY_ABSENT``), and the last position holds the unordered pair after the first layer
    (``ORDER_LOST``, ``PAIR_FIRST``) and the key after the last one's attention (``KEY_LATER``). Neither where random
    weights meet the same. A value whose code changes slowly has a small sided contrast though it is there.
    """
    sides = [(m.boxes[_U].sided, m.boxes[_V].sided) for m in (model, control)]
    found = list(zip(*sides, (VALUE_FORMED, VALUE_ARRIVES), strict=True))
    if all(own.value >= least > beside.value and own.ends[0] > beside.value for own, beside, least in found):
        return "inferential"
    if all(own.ends[1] < least for own, _, least in found) and _table(model) and not _table(control):
        return "symmetric"
    return "undetermined"


def figures(result: GeometryResult) -> dict[str, "go.Figure"]:
    """``v`` and ``u``: cosines, boxes framed; ``contrasts``: what boxes add; ``anchor map``; ``embedding`` and
    ``steps``: order among the keys' embeddings."""
    from interp import plots, theme

    made: dict[str, go.Figure] = {}
    n, own, random = len(result.shown_keys), result.model.embedding, result.control.embedding
    if len(result.shown_boxes) == 2:
        (a, b, below), (c, d, above) = ((_named(one), _named(other), k) for one, other, k in result.shown_boxes)
        made["v"] = plots.heatmap(
            result.v_map.round(decimals=3).tolist(),
            title="Cosines of v, the last position after the last layer's attention",
            x="key x2",
            y="key x1",
            colour="cosine",
            caption=f"Below the diagonal v(x1;{a}) with v(x2;{b}), above it v(x1;{d}) with v(x2;{c}). Framed: equal "
            f"targets, x1 = x2 + {below} below, x2 = x1 + {above} above. Near keys may be alike: see contrasts.",
            limit=1.0,
            x_labels=result.shown_keys,
            y_labels=result.shown_keys,
        )
        _frame(made["v"], [(x + below, x) for x in range(n - below)] + [(x, x + above) for x in range(n - above)])
    values = result.u_targets.flatten()
    labels = [f"{key} with {a + 1}" for a in range(len(result.u_targets)) for key in result.shown_keys]
    made["u"] = plots.heatmap(
        result.u_map.round(decimals=3).tolist(),
        title="Cosines of u, the last layer's values at the first anchor",
        x="key and first anchor",
        y="key and first anchor",
        colour="cosine",
        caption="One block per pair of first anchors. Framed: the first map gives both the same value. Mean over draws "
        "of noise.",
        limit=1.0,
        x_labels=labels,
        y_labels=labels,
    )
    equal = (values.unsqueeze(1) == values) & ~torch.eye(len(values), dtype=torch.bool)
    _frame(made["u"], torch.nonzero(equal).tolist())
    names = [_U, _V, "v, centred"]
    made["contrasts"] = plots.bars(
        names,
        {
            "model": [result.model.boxes[name].sided.value for name in names],
            "random weights": [result.control.boxes[name].sided.value for name in names],
        },
        title="Do equal targets lie together?",
        x="place",
        y="mean cosine in boxes − across",
        caption="Across: the same anchors and the same distance of keys, on the other side, where targets differ. 1: "
        "equal targets are one vector, others unrelated.",
    )
    made["contrasts"].update_yaxes(range=[-0.1, 1.05])
    made["anchor map"] = _anchor_map(result)
    x, y = result.embedding_map.T.tolist()
    colours = {"color": result.keys, "colorscale": theme.MAGNITUDE, "colorbar": {"title": {"text": "key"}}}
    made["embedding"] = plots.scatter(
        [{"x": x, "y": y, "text": result.keys, "marker": {"size": 8, **colours}}],
        x=f"{result.projection} 1",
        y=f"{result.projection} 2",
        title="Embeddings of the keys",
        caption="The first two principal components explain {:.1%} and {:.1%} ".format(*own.explained)
        + "(random weights {:.1%} and {:.1%}). ".format(*random.explained)
        + f"Order score {own.order:.2f}, reached by no more than {own.order_p_value:.1%} of token orders.",
    )
    made["steps"] = plots.bars(
        list(range(1, len(own.step_scores) + 1)),
        {"model": own.step_scores, "random weights": random.step_scores},
        title="Arithmetic sequences among the embeddings",
        x="step k",
        y="mean cosine of x and x + k − mean of all",
        caption="Dotted: 95 % of shuffled token orders have their largest bar below. A sequence of step 3 peaks at 3, "
        "6 and 9; numbers that are merely in order fall from left to right.",
        threshold=own.shuffled_step_score,
    )
    return made


def _table(measures: Measures) -> bool:
    """Whether the last position holds the unordered pair first and the key later, and the first anchor never has it."""
    early, late = measures.first_layer, measures.last_layer
    pair_first = early.overlap <= ORDER_LOST and early.pair >= PAIR_FIRST
    return pair_first and late.key >= KEY_LATER and measures.key_in_u <= KEY_ABSENT


def _values(task: AnchorComposition) -> Int[Tensor, "anchor key"]:
    """g(x; a) of every anchor and key."""
    return torch.stack([torch.from_numpy(np.asarray(anchor(task.keys))) for anchor in task.anchors])


def _measures(subject: Subject, task: AnchorComposition, found: Vectors, seed: int, all_rows: bool) -> Measures:
    composed = [pair for pair in task.pairs if task.role(pair) == "composed"]
    kinds = torch.tensor([(a - 1) * task.n_anchors + b - 1 for a, b in composed])
    second = kinds % task.n_anchors
    v, u, u_targets = found.v.flatten(1, 2)[:, kinds], found.u.double(), _values(task)
    v_targets = torch.stack([torch.from_numpy(np.asarray(task.composed(pair, task.keys))) for pair in composed])
    v_plain, v_centred = directions(v), directions(v, centred=True)
    W_E = subject.params["embed.W_E"]
    rows = W_E if all_rows else torch.cat([W_E[1 : task.n_anchors + 1], W_E[task.keys]])
    eigenvalues = covariance_eigenvalues(rows)

    def order(vectors: Tensor, targets: Tensor) -> float:
        scores = [
            order_score(principal_components(draw.flatten(0, 1)).coordinates, targets.flatten()) for draw in vectors
        ]
        return sum(scores) / len(scores)

    return Measures(
        boxes={
            "v": box_contrast(v_plain, v_targets, seed=seed),
            "v, centred": box_contrast(v_centred, v_targets, seed=seed),
            _V: box_contrast(v_centred, v_targets, second.unsqueeze(1) == second, seed=seed),
            "u": box_contrast(directions(u), u_targets, seed=seed),
            _U: box_contrast(directions(u, centred=True), u_targets, seed=seed),
            "u at the key, centred": box_contrast(directions(found.u_at_key, centred=True), u_targets, seed=seed),
        },
        first_layer=contents(found.first_layer),
        last_layer=contents(found.v),
        key_in_u=float((u - u.mean(2, keepdim=True)).pow(2).sum() / (u - u.mean((1, 2), keepdim=True)).pow(2).sum()),
        v_order=order(v, v_targets),
        u_order=order(u, u_targets),
        embedding=embedding_order(W_E[task.keys], seed=seed),
        largest_eigenvalue=float(eigenvalues[0]),
        covariance_eigenvalues=eigenvalues,
    )


def _shown_boxes(task: AnchorComposition) -> tuple[tuple[Pair, Pair, int], ...]:
    """Two (pair, other pair, k) with f(x + k; pair) = f(x; other pair) for a small k > 0, the published ones first."""
    composed, found = [pair for pair in task.pairs if task.role(pair) == "composed"], []
    choices = [pairs for pairs in _PUBLISHED if set(pairs) <= set(composed)]
    for one, other in [*choices, *product(composed, composed)]:
        for k in range(1, min(_SHOWN, len(task.keys))):
            if (task.composed(one, task.keys[k:]) == task.composed(other, task.keys[:-k])).all():
                found.append((one, other, k))
    return tuple(dict.fromkeys(found))[:2]


def _named(pair: Pair) -> str:
    return f"{pair[0]},{pair[1]}"


def _frame(figure: "go.Figure", cells: list[Any]) -> None:
    """Frames around (row, column) cells of a heat map."""
    for row, column in cells:
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"color": "black", "width": 1},
        )


def _anchor_map(result: GeometryResult) -> "go.Figure":
    from interp import plots, theme

    n, traces = len(result.anchor_map), []
    unordered = [(a, b) for a in range(n) for b in range(a, n)]
    for index, (a, b) in enumerate(unordered):
        for first, second, symbol in ((a, b, "circle"), (b, a, "x-thin"))[: 1 if a == b else 2]:
            x, y = result.anchor_map[first, second].T.tolist()
            colour = theme.seed_colour(index)
            if index >= len(theme.CATEGORIES):
                symbol = {"circle": "square", "x-thin": "cross-thin"}[symbol]
            marker = {"color": colour, "symbol": symbol, "size": 7, "line": {"color": colour, "width": 1.5}}
            traces.append({"x": x, "y": y, "name": _named((first + 1, second + 1)), "marker": marker})
    found, random = result.model.first_layer, result.control.first_layer
    return plots.scatter(
        traces,
        x=f"{result.projection} 1",
        y=f"{result.projection} 2",
        title="Anchor map: the last position after the first layer's attention",
        caption=f"One point per pair and key, noise held fixed; (a,b) and (b,a) have one colour. Overlap "
        f"{found.overlap:.2f} (0: the order is lost), pair's share of the variance {found.pair:.0%}, key's "
        f"{found.key:.0%}; random weights {random.overlap:.2f}, {random.pair:.0%}, {random.key:.0%}.",
    )
