"""What a model of a + b mod p does with the embeddings of its two operands: the gradients of its logits there, and its
logits when only one circle of the embedding is left.

Both go through the model's own forward pass, transformer or MLP, in either form of the task.
"""

import random
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.addition import pair_logits
from interp.spread import finite
from interp.subject import Subject, in_chunks
from interp.waves import fourier_basis
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic

N_TRIPLES = 100
_LARGEST_SHUFFLE = 211  # p³ integers in a list
_CHUNK = 2048


def addition_task(subject: Subject) -> ModularArithmetic:
    """The task of the subject, with every ordered pair.

    Raises:
        UserError: it is not addition mod p, or the model embeds no tokens.
    """
    task, config = subject.task, subject.config
    if not isinstance(task, ModularArithmetic) or task.operation != "add":
        got = f"{task.operation} mod {task.p}" if isinstance(task, ModularArithmetic) else type(task).__name__
        raise UserError(f"expected a model of add mod p, got {got}: elsewhere a and b play different parts")
    if config.reads not in ("sequence", "embedding", "concatenated"):
        raise UserError(f"expected a model that embeds tokens (embedding, concatenated), got input {config.reads!r}")
    return task.ordered


def operand_tables(subject: Subject) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p d"]]:
    """The rows that embed a and b."""
    task = addition_task(subject)
    own = "embed.0.W_E" in subject.params
    names = ("embed.0.W_E", "embed.1.W_E") if own else ("embed.W_E", "embed.W_E")
    first = task.p * task.diff_vocab
    return subject.params[names[0]][: task.p], subject.params[names[1]][first : first + task.p]


@cache
def seeded_triples(p: int) -> Int[Tensor, "triple 3"]:
    """The 100 triples (a, b, c) at which gradients are compared: the first of all p³ in ascending order, shuffled with
    Python's ``random.Random(42)``, as published. c is any class, not the sum. Above p = 211 that list is too long, and
    the triples are a sample drawn with the same generator.
    """
    rng = random.Random(42)
    chosen = rng.sample(range(p**3), N_TRIPLES) if p > _LARGEST_SHUFFLE else first_shuffled(rng, p**3, N_TRIPLES)
    index = torch.tensor(chosen)
    return torch.stack([index // p**2, index // p % p, index % p], dim=1)


def first_shuffled(rng: random.Random, size: int, n: int) -> list[int]:
    """The first n of 0 … size − 1 after ``rng.shuffle``, in a third of its time: a million calls are saved.

    A shuffle swaps place i with a random one up to i, from the last place down. Followed back from the first swap of
    all, only n places matter.
    """
    draw, swaps = rng.getrandbits, []
    for bits in range(size.bit_length(), 1, -1):
        for i in range(min(size, 2**bits - 1) - 1, 2 ** (bits - 1) - 2, -1):  # where i + 1 has so many bits
            other = draw(bits)
            while other > i:
                other = draw(bits)
            swaps.append(other)
    ends = {place: place for place in range(min(n, size))}  # where one stands → where it ends
    for i, other in enumerate(reversed(swaps), start=1):
        if i < n or other in ends:
            ends |= {to: ends.pop(place) for place, to in {i: other, other: i}.items() if place in ends}
    return sorted(ends, key=ends.__getitem__)


def directions(*tables: Float[Tensor, "p d"]) -> Float[Tensor, "d rank"]:
    """Orthonormal directions in which the rows of each table differ: singular values above a thousandth of the largest,
    tables centred."""
    rows = torch.cat([table.double() - table.double().mean(0) for table in tables])
    _, S, V = torch.linalg.svd(finite(rows), full_matrices=False)
    return V[S / S[0] > 1e-3].T


def gradient_similarity(
    of_a: Float[Tensor, "example d"], of_b: Float[Tensor, "example d"], span: Float[Tensor, "d rank"] | None = None
) -> Float[Tensor, " example"]:
    """Cosine of ∂Q_abc/∂E_a and ∂Q_abc/∂E_b, between −1 and 1; NaN where one of them vanishes.

    ``span``: of the gradients only the part in these ``directions`` of the embedding. Elsewhere no number moves the
    input, and yet a gradient may be large: in the pair form the answer is read where b stands, and what reads it sees
    E_b itself. In a hand-built pizza that makes 0.64 of a mean of 1.
    """
    of_a, of_b = of_a.double(), of_b.double()
    if span is not None:
        of_a, of_b = of_a @ span, of_b @ span
    return (of_a * of_b).sum(-1) / (of_a.norm(dim=-1) * of_b.norm(dim=-1))


def operand_gradients(
    subject: Subject, triples: Int[Tensor, "triple 3"]
) -> tuple[Float[Tensor, "triple d"], Float[Tensor, "triple d"]]:
    """∂Q_abc/∂E_a and ∂Q_abc/∂E_b at the embedded inputs, before positions are added, for each (a, b, c)."""
    task, (a, b, c) = addition_task(subject), triples.T
    leaf, logits = _differentiable(subject, task.all_inputs()[a * task.p + b])
    (gradient,) = torch.autograd.grad(logits.gather(1, c.unsqueeze(1)).sum(), leaf)
    return _per_operand(subject, gradient)


class ExactSymmetricity(NamedTuple):
    """s_g over all inputs and classes, of whole gradients and along the embedding."""

    whole: float
    in_span: float


def exact_symmetricity(subject: Subject) -> ExactSymmetricity:
    """Gradient symmetricity over all p³ triples: one backward pass per class over all pairs.

    Triples at which a gradient vanishes are left out.
    """
    task, span = addition_task(subject), directions(*operand_tables(subject))

    def similarities(inputs: Tensor) -> Float[Tensor, "2 triple"]:
        leaf, logits = _differentiable(subject, inputs)
        of_class = []
        for c in range(task.p):
            (gradient,) = torch.autograd.grad(logits[:, c].sum(), leaf, retain_graph=c < task.p - 1)
            pair = _per_operand(subject, gradient)
            of_class.append(torch.stack([gradient_similarity(*pair), gradient_similarity(*pair, span)]))
        return torch.cat(of_class, dim=1)

    return ExactSymmetricity(*in_chunks(similarities, task.all_inputs(), dim=1).nanmean(1).tolist())


def isolated_logits(subject: Subject, k: int) -> Float[Tensor, "pairs p"]:
    """Logits on all pairs when the embeddings keep their mean and their wave of frequency k, and nothing else."""
    task, config = addition_task(subject), subject.config
    waves = fourier_basis(task.p)[[0, *range(2 * k - 1, min(2 * k + 1, task.p))]]
    rows = [(waves.T @ (waves @ table.double())).to(table.dtype) for table in operand_tables(subject)]
    if config.has_attention:
        return pair_logits(_with_operands(subject, rows), task.all_inputs())[:, : task.p]
    changes = [row - table for row, table in zip(rows, operand_tables(subject), strict=True)]

    def logits(pairs: Tensor, inputs: Tensor) -> Tensor:
        of_a = changes[0][pairs[:, 0]]
        of_b = changes[1][pairs[:, 1]]

        def edit(embedded: Tensor) -> Tensor:
            change = of_a + of_b if config.reads == "embedding" else _padded([of_a, of_b], embedded.shape[1])
            return embedded + change

        return subject.logits(inputs, {"hook_embed": edit})[:, : task.p]

    return in_chunks(logits, task.pairs, task.all_inputs())


def _with_operands(subject: Subject, rows: list[Tensor]) -> Subject:
    """The transformer with other embeddings of a and of b; a tied unembedding stays as it is."""
    task, config, W_E = addition_task(subject), subject.config, subject.params["embed.W_E"]
    embedding = W_E.clone()
    for first, row in zip((0, task.p * task.diff_vocab), rows, strict=True):
        embedding[first : first + task.p] = row
    params = {**subject.params, "embed.W_E": embedding}
    if config.tied_unembedding:
        params["unembed.W_U"] = subject.unembedding[0]
        config = replace(config, tied_unembedding=False)
    return Subject.of(config, params, subject.task)


def _differentiable(
    subject: Subject, inputs: Int[Tensor, "example pos"]
) -> tuple[Float[Tensor, "1 example *pos d"], Float[Tensor, "example p"]]:
    """The embedded inputs as a leaf of the graph, and the logits at the answer position."""
    leaves: list[Tensor] = []

    def tap(name: str, value: Tensor) -> Tensor:
        if name != "hook_embed":
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[0]

    logits = subject.forward(inputs, tap=tap)
    return leaves[0], logits


def _per_operand(
    subject: Subject, gradient: Float[Tensor, "1 example *pos d_in"]
) -> tuple[Float[Tensor, "example d"], Float[Tensor, "example d"]]:
    """The parts of a gradient at the embedded inputs that belong to a and to b."""
    config, gradient = subject.config, gradient[0]
    if config.reads == "embedding":  # the two rows were added up
        return gradient, gradient
    if not config.has_attention:
        gradient = gradient.unflatten(-1, (config.n_ctx, -1))
    return gradient[:, 0], gradient[:, 1]


def _padded(parts: list[Tensor], width: int) -> Float[Tensor, "example width"]:
    """The parts side by side, zeros behind them."""
    joined = torch.cat(parts, dim=1)
    return torch.nn.functional.pad(joined, (0, width - joined.shape[1]))
