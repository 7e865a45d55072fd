"""A perceptron of addition mod p as two matrices, and the wave that each of its neurons reads or writes.

With one table of embeddings and one hidden layer only the products count: W_input = W_E W_in and W_output = W_out W_Eᵀ,
or W_U where nothing is tied (Pearce et al. 2023, the explorable "Do Machine Learning Models Memorize or Generalize?").
All numbers are float64.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.addition import addition_of
from interp.subject import Subject
from interp.waves import frequency_waves
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.layers import ACTIVATIONS


class Collapsed(NamedTuple):
    """An MLP as two matrices: logits = act(W_input[a] + W_input[b] + offset) W_output + bias.

    ``offset`` is what "=" and the hidden bias add to every input.
    """

    W_input: Float[Tensor, "p neuron"]
    W_output: Float[Tensor, "neuron p"]
    offset: Float[Tensor, " neuron"]
    bias: Float[Tensor, " p"]
    act_fn: str

    def hidden(self) -> Float[Tensor, "pairs neuron"]:
        """The neurons' activations on every pair, rows a·p + b."""
        pre = (self.W_input.unsqueeze(1) + self.W_input).flatten(0, 1) + self.offset
        return ACTIVATIONS[self.act_fn](pre)


def collapsed(subject: Subject) -> Collapsed:
    """The two matrices of a perceptron of a + b mod p.

    Raises:
        UserError: the task is not addition mod p with one embedding per number; the model is no perceptron with one
            row per number, embedded or not, and one hidden layer.
    """
    task, c = one_table(subject), subject.config
    if c.reads not in ("embedding", "counts") or len(c.neurons) != 1:
        kind = "a transformer" if c.has_attention else f"{len(c.neurons)} after input {c.reads!r}"
        raise UserError(f"expected a perceptron with input 'embedding' or 'counts' and one hidden layer, got {kind}")
    params, p = {name: value.double() for name, value in subject.params.items()}, task.p
    reads = params["layers.0.W_in"]
    reads = params["embed.W_E"] @ reads if c.reads == "embedding" else reads
    none = torch.zeros((), dtype=torch.float64)
    W_U = subject.readout(torch.float64)
    equals = reads[p] if task.form == "equation" else none
    return Collapsed(
        W_input=reads[:p],
        W_output=W_U[:, :p],
        offset=equals + params.get("layers.0.b_in", none) + torch.zeros_like(reads[0]),
        bias=subject.unembedding[1][:p].double(),
        act_fn=c.act_fn,
    )


class Waves(NamedTuple):
    """Of each column the strongest wave A cos(ω_k x − φ); see ``strongest_waves``."""

    frequency: Int[Tensor, " neuron"]
    amplitude: Float[Tensor, " neuron"]
    angle: Float[Tensor, " neuron"]
    share: Float[Tensor, " neuron"]


def strongest_waves(W: Float[Tensor, "p neuron"], frequency: Int[Tensor, " neuron"] | None = None) -> Waves:
    """Frequency k, amplitude A, angle φ of the strongest wave in each column, and its share of the column's variance.

    The column is a constant plus Σ_k A_k cos(ω_k x − φ_k), k = 1 … ⌊p/2⌋; φ = atan2(sine part, cosine part) in (−π, π].
    The share is 1 for one pure wave and about 0.12 for random numbers at p = 67: the best of ⌊p/2⌋. NaN, and amplitude
    0, for a constant column.

    Args:
        W: rows are the numbers; pass ``W_output.T`` for the answers.
        frequency: measure the wave of this frequency instead of the strongest.

    >>> x = torch.arange(67, dtype=torch.float64).unsqueeze(1)
    >>> [round(float(v), 6) for v in strongest_waves(3 * torch.cos(2 * torch.pi / 67 * 5 * x - 1))]
    [5.0, 3.0, 1.0, 1.0]
    """
    p = W.shape[0]
    parts = frequency_waves(p) @ W.double()
    power = parts.pow(2).sum(1)
    varies = power.sum(0) > 1e-20 * W.double().pow(2).sum(0)  # rounding leaves waves in a constant
    parts, power = parts * varies, power * varies
    k = power.argmax(0) if frequency is None else frequency - 1
    cosine, sine = parts[k, :, torch.arange(len(k))].T
    strength = power.gather(0, k.unsqueeze(0))[0]
    return Waves(
        frequency=k + 1,
        amplitude=(strength * torch.where(2 * k + 2 == p, 1, 2) / p).sqrt(),
        angle=torch.atan2(sine, cosine),
        share=strength / power.sum(0),
    )


def one_table(subject: Subject) -> ModularArithmetic:
    """The subject's task: addition mod p, with one embedding per number.

    Raises:
        UserError: another task, or b with tokens of its own.
    """
    task = addition_of(subject.task, expected="add mod p")
    if task.operation != "add" or task.diff_vocab:
        got = "diff_vocab" if task.diff_vocab else task.operation
        raise UserError(f"expected a model of add mod p with one embedding per number, got {got}")
    return task
