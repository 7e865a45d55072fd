"""Everything that one model of a group operation computes on all n² pairs, for transformers and MLPs alike."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.modular.addition import addition_of
from interp.subject import Subject
from tasks.base import Task, UserError
from tasks.families.group import GroupComposition
from tasks.families.modular import ModularArithmetic
from tasks.finite_groups import Group, named
from tasks.models.config import MLPConfig

_CHUNK = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class CompositionTable:
    """One model on every pair (a, b), rows a·n + b.

    ``operands`` are the embeddings of a and of b: rows of W_E, in an MLP what the first layer reads of each. ``pre``
    and ``post`` are the neurons of the last MLP at the answer position; ``readout`` maps them to the logits: W_out W_U,
    in an MLP W_U. Without neurons it is W_U itself. ``linear``: the logits are linear in the neurons, as they are
    without LayerNorm.
    """

    group: Group
    answers: Int[Tensor, " pairs"]
    train: Bool[Tensor, " pairs"]
    logits: Float[Tensor, "pairs element"]
    operands: tuple[Float[Tensor, "element d"], Float[Tensor, "element d"]]
    readout: Float[Tensor, "d_read element"]
    pre: Float[Tensor, "pairs d_mlp"] | None
    post: Float[Tensor, "pairs d_mlp"] | None
    linear: bool


def group_of(task: Task) -> Group:
    """The group in which the task computes; for a ± b mod p the cyclic one.

    Raises:
        UserError: the task computes in none.
    """
    if isinstance(task, GroupComposition):
        return task.structure
    return named(f"C_{addition_of(task, expected='GroupComposition or of add or subtract mod p').p}")


def composition_table(subject: Subject) -> CompositionTable:
    """The table of a model of a group operation, in the precision of its weights.

    Raises:
        UserError: the task computes in no group; an MLP that reads numbers instead of tokens.
    """
    group = group_of(subject.task)
    task, config, params, n = subject.task, subject.config, subject.params, group.order
    assert isinstance(task, GroupComposition | ModularArithmetic)
    task = task.ordered
    inputs, at = task.all_inputs(), task.answer_position
    of_a, of_b = inputs[::n, 0], inputs[:n, 1]
    if config.has_attention:
        operands = params["embed.W_E"][of_a], params["embed.W_E"][of_b]
    else:
        operands = _read(config, params, of_a, 0), _read(config, params, of_b, 1)
    last = config.neurons[-1:]
    names = [last[0].pre, last[0].post] if last else []
    logits, kept = [], {name: [] for name in names}
    for chunk in inputs.split(_CHUNK):
        chunk_logits, activations = subject.activations(chunk, names)
        logits.append(chunk_logits[:, :n])
        for name, value in activations.items():
            # the other positions are let go
            kept[name].append(value[:, at].clone() if config.has_attention else value)
    pre, post = [torch.cat(kept[name]) for name in names] or (None, None)
    return CompositionTable(
        group=group,
        answers=task.all_targets(),
        train=task.train_mask,
        logits=torch.cat(logits),
        operands=operands,
        readout=subject.readout()[:, :n],
        pre=pre,
        post=post,
        linear=not config.has_attention or config.normalization == "none",
    )


def _read(config: MLPConfig, params: dict[str, Tensor], tokens: Tensor, position: int) -> Float[Tensor, "element d"]:
    """What the first hidden layer reads of these tokens at a position."""
    W_in = params["layers.0.W_in"]
    if config.input == "one_hot":
        return W_in[position * config.d_vocab + tokens]
    if config.input == "counts":
        return W_in[tokens]
    if config.input == "embedding":
        return params["embed.W_E"][tokens] @ W_in
    if config.input == "concatenated":
        return params[f"embed.{position}.W_E"][tokens] @ W_in.unflatten(0, (config.n_ctx, -1))[position]
    known = "one_hot, counts, embedding, concatenated"
    raise UserError(f"expected an MLP that reads tokens ({known}), got input {config.input!r}")
