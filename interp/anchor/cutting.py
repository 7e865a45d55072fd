"""Cutting edges: what one position hands to another through one layer, taken away.

An edge carries a position to another through one layer's attention, or to itself past it (``Skip``). Cuts become edits
by hook name, for ``Subject.logits``; nothing else of the model changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.subject import Edit
from tasks.base import UserError
from tasks.models.config import TransformerConfig


@dataclass(frozen=True)
class Edge:
    """What a query reads of a source position in one layer's attention; layer 0 is the first."""

    layer: int
    source: int
    query: int


@dataclass(frozen=True)
class Skip:
    """The residual edge of a position: what it carries past one layer's attention."""

    layer: int
    position: int


Cut = Edge | Skip


def out_of(layer: int, position: int, n_pos: int) -> tuple[Cut, ...]:
    """All edges out of a position in one layer: to every query, to itself, and its skip."""
    return (*(Edge(layer, position, query) for query in range(n_pos)), Skip(layer, position))


def cut_off(position: int, n_layers: int, n_pos: int) -> tuple[Cut, ...]:
    """The cuts after which the logits at the last position do not depend on the token at another position: all edges
    out of it in every layer but the last, and there the edge to the last position.

    >>> cut_off(0, 2, 2)
    (Edge(layer=0, source=0, query=0), Edge(layer=0, source=0, query=1), Skip(layer=0, position=0), \
Edge(layer=1, source=0, query=1))
    """
    before = (cut for layer in range(n_layers - 1) for cut in out_of(layer, position, n_pos))
    return (*before, Edge(n_layers - 1, position, n_pos - 1))


def edits(
    cuts: Sequence[Cut], config: TransformerConfig, n_pos: int, *, after_softmax: bool = False
) -> dict[str, Edit]:
    """The edits, by hook name, under which ``Subject.logits`` runs without these edges.

    A cut edge has score −∞, and weight 0 where attention is mixed with ones. A query left without keys takes nothing
    (``hook_z`` is 0; an output bias remains). A cut skip removes x from x + attention, at that position, before any
    LayerNorm of the sum (``hook_resid_mid`` becomes ``hook_attn_out``), in pre-LN, post-LN and models without norm
    alike. Queries, keys and values still read x, and the skip around the MLP stays: what attention brought survives.

    Args:
        cuts: in any order; an edge that a causal mask forbids anyway makes no difference.
        config: of the model.
        n_pos: tokens per sequence.
        after_softmax: leave the scores and set weights to 0; the others are not scaled up to make good for them.

    Raises:
        UserError: a layer or position that does not exist.
    """
    for cut in cuts:
        places = (cut.source, cut.query) if isinstance(cut, Edge) else (cut.position,)
        if not (0 <= cut.layer < config.n_layers and all(0 <= place < n_pos for place in places)):
            raise UserError(f"expected layers below {config.n_layers} and positions below {n_pos}, got {cut}")
    visible = torch.ones(n_pos, n_pos, dtype=torch.bool)
    if config.causal:
        visible = visible.tril()
    made: dict[str, Edit] = {}
    for layer in sorted({cut.layer for cut in cuts}):
        gone = torch.zeros(n_pos, n_pos, dtype=torch.bool)
        skips: list[int] = []
        for cut in cuts:
            if cut.layer == layer and isinstance(cut, Edge):
                gone[cut.query, cut.source] = True
            elif cut.layer == layer and isinstance(cut, Skip):
                skips.append(cut.position)
        if gone.any():
            blind = ~(visible & ~gone).any(-1, keepdim=True)  # softmax over no key is NaN, which is overwritten
            if not after_softmax:
                made[f"blocks.{layer}.attn.hook_attn_scores"] = partial(_filled, where=gone, by=-math.inf)
            made[f"blocks.{layer}.attn.hook_pattern"] = partial(_filled, where=gone | blind, by=0.0)
        if skips:
            made |= _without_skip(f"blocks.{layer}", skips)
    return made


def _filled(value: Float[Tensor, "example head query pos"], *, where: Bool[Tensor, "query pos"], by: float) -> Tensor:
    return value.masked_fill(where, by)


def _without_skip(block: str, positions: list[int]) -> dict[str, Edit]:
    """Edits under which the sum behind attention is what attention brought alone."""
    brought: list[Tensor] = []

    def remember(attn_out: Tensor) -> Tensor:
        brought[:] = [attn_out]
        return attn_out

    def replaced(resid_mid: Tensor) -> Tensor:
        alone = resid_mid.clone()
        alone[:, positions] = brought[0][:, positions]
        return alone

    return {f"{block}.hook_attn_out": remember, f"{block}.hook_resid_mid": replaced}
