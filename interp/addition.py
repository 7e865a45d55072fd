"""Everything that one model of addition mod p computes on all p² pairs, in float64: what its measures share.

Subtraction is addition of the negative: rows are taken at (a, −b), so that every table has rows a·p + b and its rule
reads a + b. Other operations have no such circle in the order of their numbers and are refused.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.subject import Subject
from tasks.base import Task, UserError
from tasks.models.config import TransformerConfig
from tasks.modular import ModularArithmetic

_CHUNK = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditionTable:
    """One model on every pair (a, b), rows a·p + b.

    ``pre`` and ``post`` are the neurons of the last MLP at the answer position, ``W_L`` = W_out W_U of that MLP the
    map from neurons to logits, ``neuron_logits`` = post W_L what they write. All are ``None`` without an MLP, the last
    two also with LayerNorm, where the logits are not linear in the neurons. ``attention`` is what the answer position
    attends to in the first layer.
    """

    p: int
    targets: Int[Tensor, " pairs"]
    train: Bool[Tensor, " pairs"]
    embedding: Float[Tensor, "p d_model"]
    logits: Float[Tensor, "pairs p"]
    attention: Float[Tensor, "pairs head pos"]
    pre: Float[Tensor, "pairs d_mlp"] | None
    post: Float[Tensor, "pairs d_mlp"] | None
    W_L: Float[Tensor, "d_mlp p"] | None
    neuron_logits: Float[Tensor, "pairs p"] | None


def addition_of(task: Task, *, expected: str = "add or subtract mod p") -> ModularArithmetic:
    """The task itself, which must be addition or subtraction mod p.

    Args:
        task: of a model.
        expected: what the caller takes, for the message.

    Raises:
        UserError: another task or operation.
    """
    if isinstance(task, ModularArithmetic) and task.operation in ("add", "subtract"):
        return task
    got = f"{task.operation} mod {task.p}" if isinstance(task, ModularArithmetic) else type(task).__name__
    raise UserError(f"expected a model of {expected}, got {got}: its numbers lie on no circle in their order")


def one_embedding_per_number(subject: Subject) -> ModularArithmetic:
    """The subject's task: addition or subtraction mod p, learnt by a transformer that embeds a and b alike.

    Raises:
        UserError: another task, b with tokens of its own, or a perceptron.
    """
    task = addition_of(subject.task)
    if task.diff_vocab:
        raise UserError("expected one embedding per number, got diff_vocab: use representation.analyze")
    if not isinstance(subject.config, TransformerConfig):
        raise UserError("expected a transformer, got a perceptron: representation.analyze measures both")
    return task


def addition_table(subject: Subject, dtype: torch.dtype = torch.float64) -> AdditionTable:
    """The table of a transformer of a ± b mod p, in float64, from one forward pass in ``dtype``.

    A pass in float32 takes half as long and does for controls. It moves a test loss of 1e-6 that a few pairs with large
    logits decide in the fifth digit.

    Raises:
        UserError: see ``one_embedding_per_number``.
    """
    task, config = one_embedding_per_number(subject), subject.config
    assert isinstance(config, TransformerConfig)
    p = task.p
    params = {name: value.to(dtype) for name, value in subject.params.items()}
    order = _as_addition(task)
    inputs = task.all_inputs()[order]
    names = ["blocks.0.attn.hook_pattern"]
    mlp = f"blocks.{config.n_layers - 1}.mlp"
    if config.d_mlp is not None:
        names += [f"{mlp}.hook_pre", f"{mlp}.hook_post"]
    cast, at = subject.with_params(params), task.answer_position
    logits, kept = [], {name: [] for name in names}
    for chunk in inputs.split(_CHUNK):
        chunk_logits, activations = cast.activations(chunk, names)
        logits.append(chunk_logits[:, :p])
        kept[names[0]].append(activations[names[0]][:, :, at])
        for name in names[1:]:
            kept[name].append(activations[name][:, at].clone())  # the other positions are let go
    pre, post = [torch.cat(kept[name]).double() for name in names[1:]] or (None, None)
    W_L = None
    if post is not None and config.normalization == "none":
        W_U = params["unembed.W_U"] if "unembed.W_U" in params else params["embed.W_E"].T
        W_L = params[f"{mlp}.W_out"].double() @ W_U[:, :p].double()
    return AdditionTable(
        p=p,
        targets=task.all_targets()[order],
        train=task.train_mask[order],
        embedding=params["embed.W_E"][:p].double(),
        logits=torch.cat(logits).double(),
        attention=torch.cat(kept[names[0]]).double(),
        pre=pre,
        post=post,
        W_L=W_L,
        neuron_logits=None if post is None or W_L is None else post @ W_L,
    )


def with_embedding(subject: Subject, embedding: Float[Tensor, "p d_model"]) -> Subject:
    """The subject with other embeddings of the numbers; the row of "=" is kept."""
    W_E = subject.params["embed.W_E"].clone()
    W_E[: len(embedding)] = embedding.to(W_E.dtype)
    return subject.with_params({**subject.params, "embed.W_E": W_E})


def _as_addition(task: ModularArithmetic) -> Int[Tensor, " pairs"]:
    """For row a·p + b of a table of addition the number of the pair that the model is shown."""
    a, b = task.pairs.T
    return a * task.p + (b if task.operation == "add" else -b % task.p)
