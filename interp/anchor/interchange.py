"""Interchange interventions: one sequence's activations at some positions, put into another's, between two layers.

h_base[position] ← hsources[position] at the output of a layer, everything after it computed anew. If the model then
gives the answer that the rule gives for the base with one thing taken from the source, those positions carried that
thing there (Geiger et al. 2021, arXiv 2106.02997).

* ``nodes``: base and source differ in the key, the first or the second anchor; one role at one layer boundary is
  patched (boundary 0: the embedding). *Moved* answers the source, *stayed* the base.
* ``recombined``: the same with the held-out pair as source, at the anchor that differs. There the candidate rules give
  different answers. Past the embedding, the pair is then put together inside the model, and ``rule`` is the one that
  most of its answers follow. Where the pair was formed before, they stay with the base, and there is none.
* Two patches decide the ``route``. Base and source differ in the key and in both anchors. Patched *from the second
  anchor on* (where both anchors are known at the earliest), a model that has formed the pair apart from the key answers
  the source's pair on the *base's* key (``paired``): the symmetric route. Patched *at both anchors*, a model whose key
  has passed into them answers the source (``carried``): the inferential route; the first anchor alone must then move
  the answer too (``first_anchor_moves``), or the second anchor could have looked up key and pair by itself.

All are asked at every boundary between layers; the largest counts. Sequences have their second anchor before the last
position, keys that were seen, and pairs that were taught by the rule.

The names are those of the published patterns. A route is no rule: a model may add up the anchors before it meets the
key, for which ``paired`` holds, and still compose on the held-out pair; some trained ones do (notebooks/LOG.md).

Controls of the route: the same patch at noise positions, where there are any; a random vector of the source's norm at
the same positions; answers of other sequences (arbitrary labels); random weights. Of the rule: the answers of the other
rule, and random weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from interp.anchor.patching import (
    CHANGES,
    CONTROL,
    Call,
    Recombination,
    largest,
    patch,
    recombinations,
    rule_inside,
    share_of,
)
from interp.anchor.roles import ROLES, anchor_task, positions
from interp.anchor.sequences import Batch, base_batches, composed_pairs, source_of
from interp.result import Result
from interp.statistics import Interval
from interp.subject import Subject
from interp.thresholds import FITTED, FOLLOWS, followed
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOVES = 0.50
"""Share of answers that the first anchor alone must move in an inferential model: it is most, not all, of the route."""
N_SEQUENCES = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class NodePatch(Result):
    """Answers after one role was patched at one boundary: ``moved`` to the source's, ``stayed`` with the base's."""

    change: str
    boundary: int
    role: str
    moved: Interval
    stayed: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class InterchangeResult(Result):
    """What ``analyze`` finds.

    ``carried``, ``paired`` and ``first_anchor_moves`` are shares of answers, at the boundary where each is largest;
    ``composed`` and ``mirrored`` those that follow either rule where the held-out pair was put together inside, at the
    boundary and anchor where each is largest (NaN without such a pair). ``accuracy`` is that of the unpatched bases.
    ``noise_moves`` is the share of answers that a patch of the noise positions changes to the source's (``None``
    without such positions); ``random_vector`` and ``arbitrary_labels`` the larger of the shares of *carried* and
    *paired* that remain with these controls; ``control_…`` are of random weights.
    """

    route: Call
    rule: Call
    accuracy: float
    carried: float
    paired: float
    first_anchor_moves: float
    composed: float
    mirrored: float
    noise_moves: float | None
    random_vector: float
    arbitrary_labels: float
    control_carried: float
    control_paired: float
    control_first_anchor_moves: float
    control_composed: float
    control_mirrored: float
    carried_interval: Interval
    paired_interval: Interval
    carried_boundary: int
    paired_boundary: int
    nodes: tuple[NodePatch, ...]
    recombined: tuple[Recombination, ...]


@ordinary_torch()
def analyze(
    subject: Subject, *, n_sequences: int = N_SEQUENCES, seed: int = 0, control_seed: int = 0
) -> InterchangeResult:
    """Interchange at every layer boundary and role of a model of anchor composition, and the route it shows.

    Args:
        subject: a model of ``AnchorComposition`` with at least two layers.
        n_sequences: base sequences, spread over the key positions.
        seed: of the sequences and their sources. ``control_seed``: of the random weights.

    Raises:
        UserError: another task, sequences of three tokens, one layer, or fewer than two pairs taught by the rule.
    """
    task = anchor_task(subject.task)
    if subject.config.n_layers < 2:
        raise UserError("expected a model of at least two layers: with one there is nothing between layers to patch")
    if not any({a, b}.isdisjoint({c, d}) for a, b in composed_pairs(task) for c, d in composed_pairs(task)):
        raise UserError("expected pairs taught by the rule that differ in both anchors, to patch one into the other")
    inside = list(range(1, subject.config.n_layers))
    batches = base_batches(task, n_sequences, seed)
    random = subject.randomized(control_seed)
    decided = _decide(subject, task, batches, inside, seed)
    control = _decide(random, task, batches, inside, seed)
    recombined = recombinations(subject, task, batches, [0, *inside])
    put_together = largest(recombined)
    control_together = largest(recombinations(random, task, batches, inside))
    base_answers = torch.cat([subject.answers(batch.inputs) for batch in batches])
    accuracy = float((base_answers == torch.cat([batch.answers(task) for batch in batches])).double().mean())
    return InterchangeResult(
        route=_route(accuracy, decided, control),
        rule=rule_inside(accuracy, put_together, control_together),
        accuracy=accuracy,
        carried=decided["carried"].value,
        paired=decided["paired"].value,
        first_anchor_moves=decided["first_anchor_moves"].value,
        composed=_value(put_together, "inferential"),
        mirrored=_value(put_together, "symmetric"),
        noise_moves=None if decided["noise"] is None else decided["noise"].value,
        random_vector=decided["random_vector"],
        arbitrary_labels=decided["arbitrary_labels"],
        control_carried=control["carried"].value,
        control_paired=control["paired"].value,
        control_first_anchor_moves=control["first_anchor_moves"].value,
        control_composed=_value(control_together, "inferential"),
        control_mirrored=_value(control_together, "symmetric"),
        carried_interval=decided["carried"],
        paired_interval=decided["paired"],
        carried_boundary=decided["carried_boundary"],
        paired_boundary=decided["paired_boundary"],
        nodes=tuple(
            _node(subject, task, batches, change, boundary, role, seed)
            for change in CHANGES
            for boundary in range(subject.config.n_layers)
            for role in ROLES
            if any(positions(task, batch.at)[role] for batch in batches)
        ),
        recombined=recombined,
    )


def figures(result: InterchangeResult) -> dict[str, "go.Figure"]:
    """``nodes``: share of answers that each patch moves; ``routes``: the two patches that decide, with their
    controls."""
    from interp import plots

    roles = [role for role in ROLES if any(node.role == role for node in result.nodes)]
    boundaries = sorted({node.boundary for node in result.nodes})
    rows = [(change, boundary) for change in CHANGES for boundary in boundaries]
    moved = {(node.change, node.boundary, node.role): node.moved.value for node in result.nodes}
    made = {
        "nodes": plots.heatmap(
            [[moved[change, boundary, role] for role in roles] for change, boundary in rows],
            title="Which activation carries what",
            x="patched role",
            y="what differs in the source, and the layer boundary that is patched",
            colour="share of answers that become the source's",
            caption="One role at one boundary is taken from a sequence that differs in the key or in one anchor. "
            "Boundary 0 is the embedding, l the output of layer l.",
            signed=False,
            limit=1.0,
            x_labels=roles,
            y_labels=[f"{change}, {boundary}" for change, boundary in rows],
            show_values=True,
        )
    }
    shares = {
        "model": [result.carried, result.paired],
        "random weights": [result.control_carried, result.control_paired],
    }
    made["routes"] = plots.bars(
        ["at both anchors: answers the source", "from the second anchor on: source's pair, base's key"],
        shares,
        title="Where the key is when the pair is known",
        x="patch, and the answer it would give",
        y="share of answers",
        caption="Base and source differ in the key and in both anchors. A model whose key has passed into the anchors "
        "gives the first answer (inferential), one whose pair is formed apart from the key the second (symmetric); "
        f"{FOLLOWS:.0%} decides.",
        threshold=FOLLOWS,
    )
    return made


def _value(shares: Mapping[str, Interval], rule: str) -> float:
    return shares[rule].value if rule in shares else math.nan


def _route(accuracy: float, found: dict[str, Any], control: dict[str, Any]) -> Call:
    """The route of the module's head, written once."""
    controls = [found["random_vector"], found["arbitrary_labels"], control["carried"].value, control["paired"].value]
    controls += [] if found["noise"] is None else [found["noise"].value]
    if accuracy < FITTED or max(controls) > CONTROL:
        return "undetermined"
    holds = {name: followed(found[name]) for name in ("carried", "paired")}
    inferential = holds["carried"] and found["first_anchor_moves"].value > MOVES
    if inferential == holds["paired"]:
        return "undetermined"
    return "inferential" if inferential else "symmetric"


def _decide(
    subject: Subject, task: AnchorComposition, batches: list[Batch], boundaries: list[int], seed: int
) -> dict[str, Any]:
    """The deciding patches with those of their controls that need no other weights."""
    sources = [source_of(task, batch, ("key", "pair"), seed) for batch in batches]
    first = [source_of(task, batch, ("first anchor",), seed) for batch in batches]
    mixed = [
        Batch(tokens=source.tokens, keys=batch.keys, pairs=source.pairs, at=batch.at)
        for batch, source in zip(batches, sources, strict=True)
    ]  # the base's key under the source's pair
    asked = {
        "carried": (sources, sources, ("first anchor", "second anchor")),
        "paired": (sources, mixed, None),
        "first_anchor_moves": (first, first, ("first anchor",)),
        "noise": (sources, sources, ("noise",)),
    }
    found: dict[str, Any] = {"random_vector": 0.0, "arbitrary_labels": 0.0}
    for name, (given, wanted, roles) in asked.items():
        places = [_places(task, batch.at, roles) for batch in batches]
        if not any(places):
            found[name] = None
            continue
        answered = {
            boundary: [
                patch(subject, batch.inputs, source.inputs, boundary, at)
                for batch, source, at in zip(batches, given, places, strict=True)
            ]
            for boundary in boundaries
        }
        expected = [batch.answers(task) for batch in wanted]
        hits = {boundary: share_of(answers, expected, batches) for boundary, answers in answered.items()}
        best = max(hits, key=lambda boundary: hits[boundary].value)
        found[name] = hits[best]
        if name in ("carried", "paired"):
            found[f"{name}_boundary"] = best
            others = [answers.roll(1) for answers in expected]
            found["arbitrary_labels"] = max(found["arbitrary_labels"], share_of(answered[best], others, batches).value)
            drawn = [
                patch(subject, batch.inputs, source.inputs, best, at, random_vector=seed)
                for batch, source, at in zip(batches, given, places, strict=True)
            ]
            found["random_vector"] = max(found["random_vector"], share_of(drawn, expected, batches).value)
    return found


def _places(task: AnchorComposition, at: int, roles: tuple[str, ...] | None) -> list[int]:
    """Positions of the roles; ``None``: from the second anchor on."""
    if roles is None:
        return list(range(at + 2, task.sequence_length))
    return [place for role in roles for place in positions(task, at)[role]]


def _node(
    subject: Subject,
    task: AnchorComposition,
    batches: list[Batch],
    change: str,
    boundary: int,
    role: str,
    seed: int,
) -> NodePatch:
    used = [batch for batch in batches if positions(task, batch.at)[role]]
    sources = [source_of(task, batch, (change,), seed) for batch in used]
    answers = [
        patch(subject, batch.inputs, source.inputs, boundary, positions(task, batch.at)[role])
        for batch, source in zip(used, sources, strict=True)
    ]
    return NodePatch(
        change=change,
        boundary=boundary,
        role=role,
        moved=share_of(answers, [source.answers(task) for source in sources], used),
        stayed=share_of(answers, [batch.answers(task) for batch in used], used),
    )
