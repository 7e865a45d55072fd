"""One sequence's activations, put into another's between two layers; and the held-out pair, put together that way.

h_base[position] ← h_source[position] at the output of a layer, everything after it computed anew (Geiger et al. 2021,
arXiv 2106.02997). What the answers say is told by ``interp.anchor.interchange``.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.anchor.roles import layer_output
from interp.anchor.sequences import Batch, composed_pairs
from interp.result import Result
from interp.statistics import Interval, share
from interp.subject import Subject
from interp.thresholds import FITTED
from tasks.base import UserError, generator
from tasks.families.anchor import AnchorComposition, Pair

MOST = 0.50
"""Share of answers that must follow a rule where the held-out pair is put together inside: one anchor's place need not
hold all of it."""
CONTROL = 0.20
"""Share that a control may explain. With few possible answers chance alone explains some: one in as many as there
are."""
CHANGES = ("key", "first anchor", "second anchor")
Call = Literal["inferential", "symmetric", "undetermined"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recombination(Result):
    """Answers after the anchor that makes the pair the held-out one was patched in at one boundary.

    ``inferential`` and ``symmetric`` are the candidate rules' answers for the held-out pair, ``stayed`` the base's.
    """

    change: str
    boundary: int
    inferential: Interval
    symmetric: Interval
    stayed: Interval


def patch(
    subject: Subject,
    base: Int[Tensor, "example pos"],
    source: Int[Tensor, "example pos"],
    boundary: int,
    at: Sequence[int],
    *,
    random_vector: int | None = None,
) -> Int[Tensor, " example"]:
    """Answers to ``base`` with the source's activations at positions ``at`` of one boundary.

    Args:
        boundary: 0 is the embedding, l the output of layer l, after its LayerNorm where the norm comes last.
        random_vector: a seed: put Gaussian vectors of the source's norms there instead.

    Raises:
        UserError: no such boundary.
    """
    if not 0 <= boundary <= subject.config.n_layers:
        raise UserError(f"expected a boundary between 0 and {subject.config.n_layers}, got {boundary}")
    name = "blocks.0.hook_resid_pre" if boundary == 0 else layer_output(subject.config, boundary - 1)
    taken = subject.activations(source, [name])[1][name][:, list(at)]
    if random_vector is not None:
        drawn = generator(random_vector, "interchange").standard_normal(tuple(taken.shape))
        vectors = torch.from_numpy(drawn).to(taken.dtype)
        taken = vectors * taken.norm(dim=-1, keepdim=True) / vectors.norm(dim=-1, keepdim=True)

    def edit(value: Float[Tensor, "example pos d_model"]) -> Float[Tensor, "example pos d_model"]:
        value = value.clone()
        value[:, list(at)] = taken
        return value

    return subject.logits(base, {name: edit}).argmax(-1)


def recombinations(
    subject: Subject, task: AnchorComposition, batches: list[Batch], boundaries: Sequence[int]
) -> tuple[Recombination, ...]:
    """At either anchor and every boundary; none without a held-out pair that tells the rules apart."""
    if held_out_pair(task) is None:
        return ()
    places = itertools.product(CHANGES[1:], boundaries)
    return tuple(_recombine(subject, task, batches, change, boundary) for change, boundary in places)


def _recombine(
    subject: Subject, task: AnchorComposition, batches: list[Batch], change: str, boundary: int
) -> Recombination:
    """Bases whose other anchor is that of the held-out pair; the anchor that is missing is patched in."""
    held_out = held_out_pair(task)
    assert held_out is not None
    index = CHANGES.index(change) - 1
    rest = [pair for pair in composed_pairs(task) if pair[1 - index] == held_out[1 - index]]
    answers, bases, rules = [], [], {"inferential": [], "symmetric": []}
    for batch in batches:
        pairs = [rest[i % len(rest)] for i in range(len(batch.keys))]
        base = batch.holding(pairs=pairs)
        source = batch.holding(pairs=[held_out] * len(pairs))
        answers.append(patch(subject, base.inputs, source.inputs, boundary, [batch.at + 1 + index]))
        bases.append(base.answers(task))
        for rule, values in task.candidate_rules(held_out, torch.from_numpy(batch.keys)).items():
            rules[rule].append(values)
    return Recombination(
        change=change,
        boundary=boundary,
        inferential=share_of(answers, rules["inferential"], batches),
        symmetric=share_of(answers, rules["symmetric"], batches),
        stayed=share_of(answers, bases, batches),
    )


def held_out_pair(task: AnchorComposition) -> Pair | None:
    """The held-out pair that is judged, where both of its anchors occur with others in composed pairs."""
    judged = next((pair for pair in task.held_out if task.rules_differ(pair)), None)
    if judged is None:
        return None
    sides = [[pair for pair in composed_pairs(task) if pair[side] == judged[side]] for side in (0, 1)]
    return judged if all(sides) else None


def largest(recombined: Sequence[Recombination]) -> dict[str, Interval]:
    """Of each rule the largest share past the embedding; empty without a held-out pair."""
    inside = [found for found in recombined if found.boundary > 0]
    return {
        rule: max((getattr(found, rule) for found in inside), key=lambda share: share.value)
        for rule in ("inferential", "symmetric")
        if inside
    }


def rule_inside(accuracy: float, found: Mapping[str, Interval], control: Mapping[str, Interval]) -> Call:
    """The rule that more than half of the answers follow, to the interval's lower end, where the other explains few."""
    for rule, interval in found.items():
        others = [control[rule].value, *(share.value for name, share in found.items() if name != rule)]
        if accuracy >= FITTED and interval.low > MOST and max(others) <= CONTROL:
            return "inferential" if rule == "inferential" else "symmetric"
    return "undetermined"


def share_of(answers: list[Tensor], expected: list[Tensor], batches: list[Batch]) -> Interval:
    """Share of equal answers; intervals resample (key, position) of the base."""
    units = torch.cat([torch.from_numpy(batch.keys) * 1_000 + batch.at for batch in batches])
    return share(torch.cat(answers) == torch.cat(expected), units)
