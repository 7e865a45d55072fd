"""Frequencies and neurons taken out of a model of addition, one kind at a time, and what its loss becomes.

What a measure finds in a model the model need not use; taking it away decides. Part of an activation is *removed*
(zero), put to its *mean* over all pairs, or *resampled*: replaced by what another, random pair has there, which keeps
its distribution and leaves no average behind. A wave's mean is 0: to remove it and to put it to its mean are one.

A frequency can be ablated at three places:

* *embedding*: the waves of k over the numbers, before anything is computed;
* *neurons*: cos and sin ω_k(a+b) of what the last MLP's neurons write to the logits, A W_L;
* *logits*: the same of the logits themselves, as restricted and excluded loss do.

Removing the others instead keeps the keys and the mean. Controls: as many random frequencies that are no keys, as many
random neurons of no such frequency. With every logit resampled, the labels are shuffled: that loss is the ceiling of a
resampled one, as ln p is that of a removed one. Losses are means over all pairs, resampled ones over draws of pairs
with their interval over the draws. With a tied unembedding the embedding's waves, removed, are taken from the answers
too. Heads and paths: ``interp.modular.paths``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.modular.addition import AdditionTable, at_answer, pair_logits, with_embedding
from interp.modular.fourier import EXPLAINED, strongest_frequencies
from interp.modular.readout import output_waves
from interp.modular.restricted import placebo_keys, restricted_and_excluded
from interp.result import Result
from interp.statistics import Interval, mean
from interp.subject import Subject
from tasks.base import UserError, generator
from tasks.training.objective import cross_entropy

N_DRAWS = 10
N_SHOWN = 256
"""Pairs of a draw."""

Logits = Callable[[Tensor], Tensor]
"""From an activation [example, d] to logits [example, p]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PartAblation(Result):
    """Loss with a part of an activation at zero, at its mean over all pairs, and taken from other pairs."""

    zero: float
    mean: float
    resampled: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation(Result):
    """Loss without the keys, with nothing but the keys, with those of other pairs, and the same for as many random
    frequencies."""

    without: float
    only: float
    resampled: Interval
    control_without: float
    control_only: float
    control_resampled: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronAblation(PartAblation):
    """Loss with the neurons of one key ablated, those of which it explains over .85; ``control_…``: as many random
    neurons that are not of this key, other ones in every draw."""

    n_neurons: int
    control_mean: Interval
    control_resampled: Interval


def couples(n_pairs: int, seed: int) -> Int[Tensor, "draw 2 shown"]:
    """Of each draw the pairs that are shown, and below each another one whose values it gets."""
    rng, size = generator(seed, "resampled pairs"), min(N_SHOWN, n_pairs)
    drawn = [[rng.permutation(n_pairs)[:size] for _ in range(2)] for _ in range(N_DRAWS)]
    return torch.from_numpy(np.array(drawn))


def ablate(
    part: Float[Tensor, "pairs d"],
    rest: Float[Tensor, "pairs d"],
    targets: Int[Tensor, " pairs"],
    drawn: Int[Tensor, "draw 2 shown"],
    logits: Logits = lambda activation: activation,
) -> PartAblation:
    """The losses of rest + part with the part ablated.

    Args:
        part, rest: their sum is an activation on all pairs.
        targets: the answers. ``drawn``: from ``couples``.
        logits: from the activation to the logits; without it, it is the logits.
    """
    return PartAblation(
        zero=_loss(logits(rest), targets),
        mean=_loss(logits(rest + part.mean(0)), targets),
        resampled=_over_draws(drawn, targets, lambda shown, other: logits(rest[shown] + part[other])),
    )


def shuffled_labels(table: AdditionTable, *, seed: int = 0) -> Interval:
    """The model's loss against the labels of other pairs: the ceiling of a resampled loss."""
    drawn = couples(len(table.targets), seed)
    return _over_draws(drawn, table.targets, lambda shown, other: table.logits[other])


def without_embedded_waves(
    embedding: Float[Tensor, "p d_model"], keys: Sequence[int]
) -> tuple[Float[Tensor, "p d_model"], Float[Tensor, "p d_model"]]:
    """The rows of the numbers without the waves of these frequencies, and with nothing but these and their mean."""
    waves = output_waves(len(embedding), keys)
    part = waves.T @ (waves @ embedding.double())
    return embedding.double() - part, part + embedding.double().mean(0)


def without_neurons(table: AdditionTable, chosen: Bool[Tensor, " d_mlp"]) -> Float[Tensor, "pairs p"]:
    """Logits with each chosen neuron at its mean over all pairs.

    Args:
        table: of ``interp.modular.addition``.
        chosen: True for a neuron to ablate.

    Raises:
        UserError: the model has no MLP, or a LayerNorm.
    """
    if table.post is None or table.W_L is None:
        raise UserError("expected a model with an MLP and without LayerNorm: its logits are not linear in neurons")
    A = table.post[:, chosen]
    return table.logits - (A - A.mean(0)) @ table.W_L[chosen]


def ablations(subject: Subject, table: AdditionTable, keys: Sequence[int], *, seed: int = 0) -> dict[str, Ablation]:
    """The keys ablated at each place; without ``W_L`` not at the neurons.

    Args:
        subject: whose table it is.
        table: of ``interp.modular.addition``.
        keys: the key frequencies.
        seed: of the random ones, and of the pairs drawn.
    """
    drawn = couples(len(table.targets), seed)
    ours, control = _everywhere(subject, table, keys, drawn), _random_frequencies(subject, table, keys, drawn, seed)
    return {
        place: Ablation(
            without=found.without,
            only=found.only,
            resampled=found.resampled,
            control_without=control[place].without,
            control_only=control[place].only,
            control_resampled=control[place].resampled,
        )
        for place, found in ours.items()
    }


class _Waves(NamedTuple):
    """Loss without some waves, with them alone, and with those of other pairs."""

    without: float
    only: float
    resampled: Interval


def _everywhere(
    subject: Subject, table: AdditionTable, frequencies: Sequence[int], drawn: Int[Tensor, "draw 2 shown"]
) -> dict[str, _Waves]:
    """These frequencies ablated at each place."""
    found = {"embedding": _at_embedding(subject, table, frequencies, drawn)}
    if table.neuron_logits is not None:
        found["neurons"] = _at_logits(table, frequencies, drawn, table.neuron_logits)
    return found | {"logits": _at_logits(table, frequencies, drawn, table.logits)}


def _random_frequencies(
    subject: Subject, table: AdditionTable, keys: Sequence[int], drawn: Int[Tensor, "draw 2 shown"], seed: int
) -> dict[str, _Waves]:
    """The control: as many random frequencies in the place of the keys."""
    return _everywhere(subject, table, placebo_keys(table.p, keys, seed), drawn)


def _at_logits(
    table: AdditionTable,
    frequencies: Sequence[int],
    drawn: Int[Tensor, "draw 2 shown"],
    summand: Float[Tensor, "pairs p"],
) -> _Waves:
    """The waves of the sum ablated in a summand of the logits."""
    only, without = restricted_and_excluded(table.logits, frequencies, of=summand)
    waves = table.logits - without
    resampled = _over_draws(drawn, table.targets, lambda shown, other: without[shown] + waves[other])
    return _Waves(_loss(without, table.targets), _loss(only, table.targets), resampled)


def _at_embedding(
    subject: Subject, table: AdditionTable, frequencies: Sequence[int], drawn: Int[Tensor, "draw 2 shown"]
) -> _Waves:
    """The waves of the numbers ablated before anything is computed."""
    rows = without_embedded_waves(table.embedding, frequencies)
    without, only = (
        _loss(pair_logits(with_embedding(subject, each), table.inputs)[:, : table.p], table.targets) for each in rows
    )
    waves, dtype = table.embedding - rows[0], subject.params["embed.W_E"].dtype

    def resampled(shown: Tensor, other: Tensor) -> Tensor:
        numbers = table.inputs[:, :2]
        change = (waves[numbers[other]] - waves[numbers[shown]]).to(dtype)

        def edit(embedded: Tensor) -> Tensor:
            return torch.cat([embedded[:, :2] + change, embedded[:, 2:]], dim=1)

        edits = {"hook_embed": edit, **at_answer(subject)}
        return subject.logits(table.inputs[shown], edits)[:, : table.p]

    return _Waves(without, only, _over_draws(drawn, table.targets, resampled))


def neuron_ablations(table: AdditionTable, keys: Sequence[int], *, seed: int = 0) -> dict[int, NeuronAblation] | None:
    """The neurons of each key ablated together; ``None`` without ``W_L``.

    Args:
        table: of ``interp.modular.addition``.
        keys: the key frequencies.
        seed: of the pairs drawn and of the random neurons.
    """
    A, W_L, L, blocks = table.post, table.W_L, table.logits, table.neuron_blocks
    if A is None or W_L is None or blocks is None:
        return None
    drawn, (frequency, explained) = couples(len(table.targets), seed), strongest_frequencies(blocks)
    sets = {k: (frequency == k) & (explained > EXPLAINED) for k in keys}
    control, found = _random_neurons(table, sets, drawn, seed), {}
    for k, own in sets.items():
        part = A[:, own] @ W_L[own]
        ours = ablate(part, L - part, table.targets, drawn)
        found[k] = NeuronAblation(
            zero=ours.zero,
            mean=ours.mean,
            resampled=ours.resampled,
            n_neurons=int(own.sum()),
            control_mean=control[k][0],
            control_resampled=control[k][1],
        )
    return found


def _random_neurons(
    table: AdditionTable,
    sets: Mapping[int, Bool[Tensor, " d_mlp"]],
    drawn: Int[Tensor, "draw 2 shown"],
    seed: int,
) -> dict[int, tuple[Interval, Interval]]:
    """The control: as many random neurons outside of each set at their mean, and taken from other pairs."""
    A, W_L = table.post, table.W_L
    assert A is not None
    assert W_L is not None
    rng, means, found = generator(seed, "random neurons"), A.mean(0), {}
    for k, own in sets.items():
        others, losses = torch.nonzero(~own).flatten(), []
        for shown, other in drawn:
            some = others[torch.from_numpy(rng.permutation(len(others)))][: int(own.sum())]
            here, there = A[shown.unsqueeze(1), some], A[other.unsqueeze(1), some]
            left, answers = table.logits[shown] - here @ W_L[some], table.targets[shown]
            losses.append([_loss(left + given @ W_L[some], answers) for given in (means[some], there)])
        at_mean, resampled = torch.tensor(losses, dtype=torch.float64).T
        found[k] = mean(at_mean), mean(resampled)
    return found


def _over_draws(
    drawn: Int[Tensor, "draw 2 shown"], targets: Int[Tensor, " pairs"], logits: Callable[[Tensor, Tensor], Tensor]
) -> Interval:
    """The mean over draws of the loss of what is made of the pairs shown and the others."""
    shown, other = drawn.transpose(0, 1).flatten(1)
    return mean(cross_entropy(logits(shown, other), targets[shown]).view(len(drawn), -1).mean(1))


def _loss(logits: Tensor, targets: Tensor) -> float:
    return float(cross_entropy(logits, targets).mean())
