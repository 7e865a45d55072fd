"""Information flow: which role of a sequence attends to which, layer by layer.

A[q, k] is the attention from query role q to key role k: summed over the places that have role k, averaged over those
of role q, over sequences with the key at every place that leaves the last position to noise. Rows sum to 1. Where a
layer has several heads, a score takes the head in which it is largest.

Two patterns are published (Zhang et al. 2024, arXiv 2405.05409, figure 3, for two layers). *Symmetric*: the first layer
gathers both anchors at the last position, the last layer fetches the key. *Inferential*: the first layer brings the key
to both anchors, the last layer collects the anchors. In deeper models the scores ask the first and the last layer.

Attention weights are not causes: a head may look and write nothing. ``interp.anchor.interchange`` asks by intervention.

Control: random weights of the same shape, which attend evenly to what the mask allows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anchor.roles import ROLES, anchor_task, key_positions, positions
from interp.result import Result
from interp.statistics import Interval, mean
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

PRESENT = 0.5
"""Mean attention from which an edge of a pattern counts as there: more than all other places together."""
DRAWN = 0.05
"""Least attention of an edge that the flow diagram draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowScores(Result):
    """Mean attention along the edges of the two patterns, each between 0 and 1.

    ``gather_anchors``: first layer, last position → both anchors. ``fetch_key``: last layer, last position → key.
    ``key_to_first`` and ``key_to_second``: first layer, anchor → key. ``collect_anchors``: last layer, last position →
    both anchors. Intervals resample (key, position).
    """

    gather_anchors: Interval
    fetch_key: Interval
    key_to_first: Interval
    key_to_second: Interval
    collect_anchors: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionResult(Result):
    """What ``analyze`` finds.

    ``pattern`` is *symmetric* where ``gather_anchors`` and ``fetch_key`` are above 0.5, *inferential* where
    ``key_to_first``, ``key_to_second`` and ``collect_anchors`` are, *undetermined* where neither or both hold or where
    random weights show the pattern, too. ``attention`` holds A, rows and columns in the order of ``roles``,
    those that have a place.
    """

    pattern: Literal["symmetric", "inferential", "undetermined"]
    gather_anchors: float
    fetch_key: float
    key_to_first: float
    key_to_second: float
    collect_anchors: float
    control_gather_anchors: float
    control_fetch_key: float
    control_key_to_first: float
    control_key_to_second: float
    control_collect_anchors: float
    intervals: FlowScores
    roles: tuple[str, ...]
    attention: Float[Tensor, "layer head query_role key_role"]


def role_attention(
    pattern: Float[Tensor, "example head query pos"], key_position: Int[Tensor, " example"], task: AnchorComposition
) -> Float[Tensor, "example head query_role key_role"]:
    """A of each sequence: attention between roles in the order of ``interp.anchor.roles.ROLES``, float64.

    Summed over the places of the key role, averaged over those of the query role; NaN in the row of a role without a
    place, 0 in its column.
    """
    n, _, n_pos, _ = pattern.shape
    member = torch.zeros(n, len(ROLES), n_pos, dtype=torch.float64)
    for index, at in enumerate(key_position.tolist()):
        for role, places in enumerate(positions(task, at).values()):
            member[index, role, places] = 1
    summed = torch.einsum("ehqp,erp->ehqr", pattern.double(), member)
    return torch.einsum("ehqr,esq->ehsr", summed, member) / member.sum(-1)[:, None, :, None]


def scores(attention: Float[Tensor, "layer example head query_role key_role"]) -> dict[str, Float[Tensor, " example"]]:
    """Attention along each edge of ``FlowScores``, sequence by sequence, in the head where its mean is largest."""
    key, first, second, last = (ROLES.index(role) for role in ("key", "first anchor", "second anchor", "last"))
    edges = {
        "gather_anchors": attention[0, :, :, last, [first, second]].sum(-1),
        "fetch_key": attention[-1, :, :, last, key],
        "key_to_first": attention[0, :, :, first, key],
        "key_to_second": attention[0, :, :, second, key],
        "collect_anchors": attention[-1, :, :, last, [first, second]].sum(-1),
    }
    return {name: edge[:, edge.mean(0).argmax()] for name, edge in edges.items()}


@ordinary_torch()
def analyze(subject: Subject, *, control_seed: int = 0) -> AttentionResult:
    """Attention by role of a model of anchor composition, on every trained pair and seen key.

    Raises:
        UserError: another task, sequences of three tokens, or a model of one layer, in which no flow has two steps.
    """
    task = anchor_task(subject.task)
    if subject.config.n_layers < 2:
        raise UserError("expected a model of at least two layers: the patterns of information flow have two steps")
    inputs, at, units = _sequences(task)
    attention = _attention(subject, inputs, at, task)
    found = {name: mean(values, units) for name, values in scores(attention).items()}
    control = scores(_attention(subject.randomized(control_seed), inputs, at, task))
    beside = {name: float(values.mean()) for name, values in control.items()}
    values = {name: interval.value for name, interval in found.items()}
    placed = [index for index, role in enumerate(ROLES) if any(positions(task, p)[role] for p in key_positions(task))]
    return AttentionResult(
        pattern="undetermined" if _pattern(beside) != "undetermined" else _pattern(values),
        **values,
        **{f"control_{name}": value for name, value in beside.items()},
        intervals=FlowScores(**found),
        roles=tuple(ROLES[index] for index in placed),
        attention=attention.nanmean(1)[:, :, placed][..., placed],
    )


def figures(result: AttentionResult) -> dict[str, "go.Figure"]:
    """``flow``: the edges between roles, as wide as their attention; ``layer 1`` and so on: A of every head."""
    from interp import plots

    made = {"flow": _flow(result)}
    for layer, heads in enumerate(result.attention, start=1):
        for head, values in enumerate(heads, start=1):
            name = f"layer {layer}" if len(heads) == 1 else f"layer {layer}, head {head}"
            made[name] = plots.heatmap(
                values.tolist(),
                title=f"Attention by role, {name}",
                x="attended role",
                y="attending role",
                colour="attention",
                caption="Mean over trained pairs and seen keys, of sequences whose second anchor is not last. Noise is "
                "all other places but the last, which also holds noise; rows sum to 1.",
                signed=False,
                limit=1.0,
                x_labels=result.roles,
                y_labels=result.roles,
                show_values=True,
            )
    return made


def _pattern(values: dict[str, float]) -> Literal["symmetric", "inferential", "undetermined"]:
    symmetric = min(values["gather_anchors"], values["fetch_key"]) > PRESENT
    inferential = min(values["key_to_first"], values["key_to_second"], values["collect_anchors"]) > PRESENT
    if symmetric == inferential:
        return "undetermined"
    return "symmetric" if symmetric else "inferential"


def _sequences(
    task: AnchorComposition,
) -> tuple[Int[Tensor, "example pos"], Int[Tensor, " example"], Int[Tensor, " example"]]:
    """Every trained pair with every seen (key, position) that leaves room behind the anchors; the key's position and
    the number of its (key, position)."""
    combinations = task.combinations("seen")
    inner = np.flatnonzero(np.isin(combinations[:, 1], key_positions(task)))
    inputs = torch.cat([task.grid(pair, "seen").inputs[inner] for pair in task.trained_pairs])
    n_pairs = len(task.trained_pairs)
    return inputs, torch.from_numpy(combinations[inner, 1]).repeat(n_pairs), torch.from_numpy(inner).repeat(n_pairs)


def _attention(
    subject: Subject, inputs: Tensor, at: Tensor, task: AnchorComposition
) -> Float[Tensor, "layer example head query_role key_role"]:
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(subject.config.n_layers)]
    patterns = subject.activations(inputs, names)[1]
    return torch.stack([role_attention(patterns[name], at, task) for name in names])


def _flow(result: AttentionResult) -> "go.Figure":
    """Roles from left to right, layers from bottom to top; the head in which an edge is strongest counts."""
    import plotly.graph_objects as go

    from interp import theme

    attention = result.attention.amax(1)
    n_layers, shown = len(attention), [role for role in result.roles if role != "noise"]
    place = {role: index for index, role in enumerate(shown)}
    anchors = ("first anchor", "second anchor")
    symmetric = {(0, "last", anchor) for anchor in anchors} | {(n_layers - 1, "last", "key")}
    inferential = {(0, anchor, "key") for anchor in anchors} | {(n_layers - 1, "last", anchor) for anchor in anchors}
    colours = dict.fromkeys(inferential, theme.CATEGORIES[0]) | dict.fromkeys(symmetric, theme.CATEGORIES[1])
    figure = go.Figure()
    for role, x in place.items():
        figure.add_scatter(
            x=[x] * (n_layers + 1),
            y=list(range(n_layers + 1)),
            mode="lines+markers",
            line={"color": theme.SOFT_INK, "dash": "dot", "width": 1},
            marker={"color": theme.INK, "size": 9},
            name=role,
            showlegend=False,
        )
    for layer in range(n_layers):
        for query in shown:
            for key in shown:
                weight = float(attention[layer, result.roles.index(query), result.roles.index(key)])
                if query == key or not weight >= DRAWN:
                    continue
                colour = colours.get((layer, query, key), theme.CONTROL)
                figure.add_scatter(
                    x=[place[key], place[query]],
                    y=[layer, layer + 1],
                    mode="lines",
                    line={"color": colour, "width": 1 + 9 * weight},
                    hovertext=f"layer {layer + 1}: {query} attends to {key}, {weight:.2f}",
                    hoverinfo="text",
                    showlegend=False,
                )
    figure.update_layout(
        template=theme.template(),
        title={
            "text": "Information flow",
            "subtitle": {
                "text": f"An edge rises from the attended role, as wide as the attention (from {DRAWN:g} on; strongest "
                "head). Dotted: the residual stream.<br>Blue: edges of the inferential pattern, orange: of the "
                "symmetric one. Noise is left out."
            },
        },
        margin_t=120,
    )
    figure.update_xaxes(
        title_text="role of the position", tickvals=list(place.values()), ticktext=list(place), range=[-0.4, 3.4]
    )
    figure.update_yaxes(
        title_text="after layer (0: embedding)", tickvals=list(range(n_layers + 1)), range=[-0.2, n_layers + 0.2]
    )
    return figure
