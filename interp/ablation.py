"""Frequencies, heads and paths taken out of a model of addition, one kind at a time, and what its loss becomes.

What a measure finds in a model the model need not use; taking it away decides. A frequency can be removed at three
places:

* *embedding*: the waves of k over the numbers, before anything is computed;
* *neurons*: cos and sin ω_k(a+b) of what the last MLP's neurons write to the logits, A W_L;
* *logits*: the same of the logits themselves, as restricted and excluded loss do.

Removing the others instead keeps the keys and the mean. Controls: as many random frequencies that are no keys. Losses
are means over all pairs. With a tied unembedding the embedding's waves are taken from the answers, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.addition import AdditionTable, with_embedding
from interp.readout import output_waves
from interp.restricted import placebo_keys, restricted_and_excluded
from interp.result import Result
from interp.subject import Subject
from tasks.base import UserError, joined
from tasks.training.objective import cross_entropy


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation(Result):
    """Loss without the keys and with nothing but the keys, and both for as many random frequencies."""

    without: float
    only: float
    control_without: float
    control_only: float


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
        table: of ``interp.addition``.
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
        table: of ``interp.addition``.
        keys: the key frequencies.
        seed: of the random ones.
    """
    others = placebo_keys(table.p, keys, seed)
    summands = {"logits": table.logits}
    if table.neuron_logits is not None:
        summands = {"neurons": table.neuron_logits, **summands}

    def at_embedding(frequencies: Sequence[int]) -> list[float]:
        edited = (with_embedding(subject, rows) for rows in without_embedded_waves(table.embedding, frequencies))
        return [_model_loss(model) for model in edited]

    def at(summand: Tensor, frequencies: Sequence[int]) -> list[float]:
        only, without = restricted_and_excluded(table.logits, frequencies, of=summand)
        return [_loss(without, table), _loss(only, table)]

    found = {"embedding": (at_embedding(keys), at_embedding(others))}
    found |= {place: (at(summand, keys), at(summand, others)) for place, summand in summands.items()}
    return {
        place: Ablation(without=ours[0], only=ours[1], control_without=control[0], control_only=control[1])
        for place, (ours, control) in found.items()
    }


def head_losses(subject: Subject) -> Float[Tensor, "layer head"]:
    """Loss over all pairs with one head's output at zero, for every head of every layer; one forward pass each."""
    heads = range(subject.config.n_heads)
    return torch.tensor(
        [
            [_model_loss(_without_head(subject, layer, head)) for head in heads]
            for layer in range(subject.config.n_layers)
        ],
        dtype=torch.float64,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PathLosses(Result):
    """Loss over all pairs with one of the last MLP's two paths to the logits cut.

    ``mlp_alone``: what goes past the MLP is zero; ``mlp_and_mean``: it is its mean over pairs; ``past_mlp``: the MLP is
    zero, and no product of a and b is left but those of attention.
    """

    mlp_alone: float
    mlp_and_mean: float
    past_mlp: float


def path_losses(table: AdditionTable) -> PathLosses | None:
    """What each path to the logits can do alone; ``None`` without ``W_L``."""
    if (through := table.neuron_logits) is None:
        return None
    past = table.logits - through
    return PathLosses(
        mlp_alone=_loss(through, table), mlp_and_mean=_loss(through + past.mean(0), table), past_mlp=_loss(past, table)
    )


def _without_head(subject: Subject, layer: int, head: int) -> Subject:
    name = f"blocks.{layer}.attn.W_O"
    W_O = subject.params[name].clone()
    W_O[head] = 0
    return subject.with_params({**subject.params, name: W_O})


def _loss(logits: Tensor, table: AdditionTable) -> float:
    return float(cross_entropy(logits, table.targets).mean())


def _model_loss(subject: Subject) -> float:
    """Loss over all pairs, from the model's own precision."""
    pairs = joined(list(subject.task.evaluation_sets().values()))
    return float(cross_entropy(subject.logits(pairs.inputs), pairs.targets).mean())
