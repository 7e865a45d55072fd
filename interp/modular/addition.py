"""Everything that one model of addition mod p computes on all p² pairs, in float64: what its measures share.

Subtraction is addition of the negative: rows are taken at (a, −b), so that every table has rows a·p + b and its rule
reads a + b. Other operations have no such circle in the order of their numbers and are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.subject import Edit, Subject, in_chunks
from interp.waves import FrequencyBlocks, frequency_blocks
from tasks.base import Task, UserError
from tasks.families.modular import ModularArithmetic
from tasks.registry import model_family

_CHUNK = 2048
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditionTable:
    """One model on every pair (a, b), rows a·p + b; ``inputs`` are what it is shown.

    ``past_attention`` is what the answer position holds before the last layer's attention, ``heads`` what that layer's
    heads have to write there, before W_O. ``pre`` and ``post`` are the neurons of the last MLP at the answer position,
    ``direct`` = W_out W_U of that MLP. All three are ``None`` without an MLP. ``attention`` is what the answer position
    attends to in the first layer. ``linear``: the logits are linear in the neurons, as they are without LayerNorm.
    """

    p: int
    inputs: Int[Tensor, "pairs pos"]
    targets: Int[Tensor, " pairs"]
    train: Bool[Tensor, " pairs"]
    embedding: Float[Tensor, "p d_model"]
    logits: Float[Tensor, "pairs p"]
    attention: Float[Tensor, "pairs head pos"]
    past_attention: Float[Tensor, "pairs d_model"]
    heads: Float[Tensor, "pairs head d_head"]
    pre: Float[Tensor, "pairs d_mlp"] | None
    post: Float[Tensor, "pairs d_mlp"] | None
    direct: Float[Tensor, "d_mlp p"] | None
    linear: bool

    @property
    def W_L(self) -> Float[Tensor, "d_mlp p"] | None:
        """The map from neurons to logits; ``None`` without an MLP, and where LayerNorm makes it none."""
        return self.direct if self.linear else None

    @cached_property
    def neuron_logits(self) -> Float[Tensor, "pairs p"] | None:
        """post W_L, what the neurons write to the logits."""
        return None if self.post is None or self.W_L is None else self.post @ self.W_L

    @cached_property
    def logit_blocks(self) -> FrequencyBlocks:
        """The waves of each frequency in the logits."""
        return frequency_blocks(self.logits, self.p)

    @cached_property
    def neuron_blocks(self) -> FrequencyBlocks | None:
        """The waves of each frequency in ``post``."""
        return None if self.post is None else frequency_blocks(self.post, self.p)


def kept(compute: Callable[Concatenate[Subject, P], R]) -> Callable[Concatenate[Subject, P], R]:
    """The function with its last result, for as long as the subject of it is there.

    Several analyses look at the same model in turn, and a table of one takes 200 MB.
    """
    last: WeakKeyDictionary[Subject, tuple[Any, R]] = WeakKeyDictionary()

    def remembering(subject: Subject, *args: P.args, **kwargs: P.kwargs) -> R:
        asked = (args, kwargs)
        if subject not in last or last[subject][0] != asked:
            last.clear()
            last[subject] = asked, compute(subject, *args, **kwargs)
        return last[subject][1]

    return remembering


def addition_of(task: Task, *, expected: str = "add or subtract mod p") -> ModularArithmetic:
    """The task, which must be addition or subtraction mod p, with every ordered pair.

    Args:
        task: of a model.
        expected: what the caller takes, for the message.

    Raises:
        UserError: another task or operation.
    """
    if isinstance(task, ModularArithmetic) and task.operation in ("add", "subtract"):
        return task.ordered
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
    if not subject.config.has_attention:
        raise UserError("expected a transformer, got a perceptron: representation.analyze measures both")
    return task


@kept
def addition_table(subject: Subject) -> AdditionTable:
    """The table of a transformer of a ± b mod p, in float64, from one forward pass.

    The last one is kept: whoever asks next for the same subject gets it at once.

    Raises:
        UserError: see ``one_embedding_per_number``.
    """
    return _table(subject, torch.float64)


@kept
def control_table(subject: Subject, seed: int) -> AdditionTable:
    """The table of random weights of the same shapes and scales, kept likewise.

    From a pass in float32, which takes half as long and does for controls: it moves a test loss of 1e-6 that a few
    pairs with large logits decide in the fifth digit.

    Raises:
        UserError: see ``one_embedding_per_number``.
    """
    one_embedding_per_number(subject)
    return _table(subject.randomized(seed), torch.float32)


def _table(subject: Subject, dtype: torch.dtype) -> AdditionTable:
    task, config = one_embedding_per_number(subject), subject.config
    p, at = task.p, task.answer_position
    params = {name: value.to(dtype) for name, value in subject.params.items()}
    order = _as_addition(task)
    block = f"blocks.{config.n_layers - 1}"
    names = ["blocks.0.attn.hook_pattern", f"{block}.hook_resid_pre", f"{block}.attn.hook_z"]
    if config.neurons:
        names += [config.neurons[-1].pre, config.neurons[-1].post]
    cast, inputs = subject.with_params(params), task.all_inputs()[order]
    rows, tables = slice(0), {}

    def keep(name: str, value: Tensor) -> Tensor:
        by_position = value.transpose(1, 2) if name == names[0] else value
        here = by_position[:, at if by_position.shape[1] > 1 else 0]
        if name not in tables:
            tables[name] = torch.empty(p * p, *here.shape[1:], dtype=torch.float64)
        tables[name][rows] = here
        return value

    edits = {name: partial(keep, name) for name in names} | at_answer(subject)
    for start in range(0, p * p, _CHUNK):
        rows = slice(start, start + _CHUNK)
        keep("logits", cast.logits(inputs[rows], edits)[:, None, :p])
    attention, past_attention, heads, *neurons = (tables[name] for name in names)
    direct = None
    if neurons:
        direct = cast.readout(torch.float64)[:, :p]
    return AdditionTable(
        p=p,
        inputs=inputs,
        targets=task.all_targets()[order],
        train=task.train_mask[order],
        embedding=params["embed.W_E"][:p].double(),
        logits=tables["logits"],
        attention=attention,
        past_attention=past_attention,
        heads=heads,
        pre=neurons[0] if neurons else None,
        post=neurons[1] if neurons else None,
        direct=direct,
        linear=config.normalization == "none",
    )


def unembedding(subject: Subject, p: int) -> tuple[Float[Tensor, "d_model p"], Float[Tensor, " p"]]:
    """W_U and b_U of the p numbers in float64."""
    W_U, b_U = subject.unembedding
    return W_U[:, :p].double(), b_U[:p].double()


def at_answer(subject: Subject) -> dict[str, Edit]:
    """An edit of a transformer that changes nothing at the answer position and lets the others go after the last
    layer's attention, where they have no more to say: half of the time."""
    at = subject.task.answer_position
    return {f"blocks.{subject.config.n_layers - 1}.hook_resid_mid": lambda residual: residual[:, at : at + 1]}


@torch.no_grad()
def pair_logits(subject: Subject, inputs: Int[Tensor, "example pos"]) -> Float[Tensor, "example d_vocab_out"]:
    """``subject.logits(inputs)`` with the first layer's projections computed once per number, as training does.

    Equal to it up to rounding, in two thirds of the time.
    """
    prepared = model_family(subject.config).prepare(inputs)
    return in_chunks(partial(subject.forward, prepared=prepared), inputs)


def with_embedding(subject: Subject, embedding: Float[Tensor, "p d_model"]) -> Subject:
    """The subject with other embeddings of the numbers; the row of "=" is kept."""
    W_E = subject.params["embed.W_E"].clone()
    W_E[: len(embedding)] = embedding.to(W_E.dtype)
    return subject.with_params({**subject.params, "embed.W_E": W_E})


def _as_addition(task: ModularArithmetic) -> Int[Tensor, " pairs"]:
    """For row a·p + b of a table of addition the number of the pair that the model is shown."""
    a, b = task.pairs.T
    return a * task.p + (b if task.operation == "add" else -b % task.p)
