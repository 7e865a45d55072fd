"""Optimisers over a stack of models that differ in learning rate and weight decay: what they have in common, and AdamW.

An optimiser says what it keeps per parameter; the resume file and the memory model ask it. A new one is its file and a
line of ``OPTIMIZERS``.

All parameters of a model lie in one row of a matrix [model, n], each tensor padded to 64 bytes; the tensors that the
forward pass sees are views of it, and their gradients views of a second matrix. An update is one pass over one matrix
by torch's fused kernel, however many tensors there are, and a member's row is computed as if it were alone.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

from tasks.training.config import OptimizerName, TrainingConfig

_ALIGNMENT = 16  # elements: products of a member must not depend on where in the stack its row begins


class StackedParameters:
    """The parameters of M models as views of one matrix.

    Attributes:
        values: [model, n] all weights. ``gradients``: the same for their gradients.
        tensors: name → leaf tensor [model, …], a view of ``values``.
    """

    def __init__(self, params: Mapping[str, Float[Tensor, "model ..."]]) -> None:
        first = next(iter(params.values()))
        self.n_models = first.shape[0]
        self.shapes = {name: tuple(value.shape[1:]) for name, value in params.items()}
        sizes = {name: -(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT for name, shape in self.shapes.items()}
        self.values = torch.zeros(self.n_models, sum(sizes.values()), dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.values)
        self.slices: dict[str, slice] = {}
        self.tensors: dict[str, Tensor] = {}
        start = 0
        for name, value in params.items():
            self.slices[name] = slice(start, start + math.prod(self.shapes[name]))
            start += sizes[name]
            view = self.view(self.values, name)
            view.copy_(value)
            self.tensors[name] = view.requires_grad_()

    def view(self, matrix: Float[Tensor, "model n"], name: str) -> Float[Tensor, "model ..."]:
        """The part of a matrix [model, n] that belongs to one parameter, in its shape."""
        return matrix[:, self.slices[name]].view(self.n_models, *self.shapes[name])

    def differentiate(self, loss: Float[Tensor, ""]) -> None:
        """Fill ``gradients`` with the gradient of a scalar; padding stays 0."""
        for name, gradient in zip(self.tensors, torch.autograd.grad(loss, list(self.tensors.values())), strict=True):
            self.view(self.gradients, name).copy_(gradient)

    def gradient(self, name: str) -> Float[Tensor, "model ..."]:
        """What ``differentiate`` found for one parameter, a view."""
        return self.view(self.gradients, name)

    def member(self, index: int) -> dict[str, Float[Tensor, "..."]]:
        """A copy of one model's parameters, on CPU, without the model axis."""
        return {name: self.view(self.values, name)[index].detach().cpu().clone() for name in self.slices}

    def matrices(self) -> Float[Tensor, " n"]:
        """1 where a row holds an entry of a weight matrix, 0 at biases, LayerNorm weights and padding."""
        mask = torch.zeros(self.values.shape[1], dtype=self.values.dtype, device=self.values.device)
        for name, where in self.slices.items():
            if name.rsplit(".", 1)[-1].startswith("W"):
                mask[where] = 1
        return mask


@runtime_checkable
class Optimizer(Protocol):
    """What the trainer asks of an optimiser; made of parameters, configuration and one weight decay per model.

    Attributes:
        KEEPS: names of the matrices [model, n] that it keeps from step to step, of the shape of all weights.
        state: those matrices by name; writing into them continues another training.
    """

    KEEPS: ClassVar[tuple[str, ...]]
    state: dict[str, Tensor]

    def __init__(
        self, params: StackedParameters, config: TrainingConfig, weight_decay: Float[Tensor, " model"]
    ) -> None: ...

    def step(self, learning_rate: Float[Tensor, " model"], step: int) -> None:
        """Update number ``step`` (from 0) with one learning rate per model."""
        ...


OPTIMIZERS: dict[OptimizerName, str] = {
    "adamw": "tasks.training.optimizer:StackedAdamW",
    "muon": "tasks.training.muon:StackedMuon",
}
"""Name in a run's configuration → where it stands."""


def optimizer_class(name: OptimizerName) -> Any:
    """The class, an ``Optimizer``, of this name."""
    module, _, attribute = OPTIMIZERS[name].partition(":")
    return getattr(import_module(module), attribute)


class StackedAdamW:
    """AdamW (Loshchilov and Hutter 2019) as ``torch.optim.AdamW`` computes it, by the same fused kernel.

    Per model and step t = 1, 2, …: w ← w (1 − ηλ); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
    w ← w − η m̂ / (√v̂ + ε), with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), after the model's gradient was clipped to ``clip_norm``.
    Models of equal rate and decay are updated by one call, those that are neighbours in one pass over their rows. What
    ``frozen`` names is put back as it was.
    """

    KEEPS: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: StackedParameters, config: TrainingConfig, weight_decay: Float[Tensor, " model"]
    ) -> None:
        self.params = params
        self.config = config
        self.weight_decay = weight_decay.tolist()
        self.decayed = params.matrices() if config.decayed == "matrices" else None
        self.state = {name: torch.zeros_like(params.values) for name in self.KEEPS}

    @torch.no_grad()
    def step(self, learning_rate: Float[Tensor, " model"], step: int) -> None:
        """One update; see ``Optimizer``."""
        c, values, gradients = self.config, self.params.values.detach(), self.params.gradients
        frozen = {name: self.params.tensors[name].detach().clone() for name in c.frozen}
        if c.clip_norm is not None:
            for row in gradients:  # row by row: a norm over one row must not depend on how many rows there are
                row.mul_((c.clip_norm / (torch.linalg.vector_norm(row) + 1e-6)).clamp(max=1.0))
        alike: dict[tuple[float, float], list[int]] = {}
        for model, settings in enumerate(zip(learning_rate.tolist(), self.weight_decay, strict=True)):
            alike.setdefault(settings, []).append(model)
        matrices = (values, gradients, self.state["exp_avg"], self.state["exp_avg_sq"])
        for (rate, decay), models in alike.items():
            if self.decayed is not None:
                for model in models:
                    values[model].mul_(1 - rate * decay * self.decayed)
            blocks = _neighbours(models)  # updated faster than rows; padding keeps their bits the same
            adamw(
                *([matrix[block] for block in blocks] for matrix in matrices),
                max_exp_avg_sqs=[],
                state_steps=list(torch.full((len(blocks),), float(step), device=values.device).unbind()),
                fused=True,
                amsgrad=False,
                beta1=c.beta1,
                beta2=c.beta2,
                lr=rate,
                weight_decay=decay if self.decayed is None else 0.0,
                eps=c.eps,
                maximize=False,
            )
        for name, value in frozen.items():
            self.params.tensors[name].detach().copy_(value)


def _neighbours(indices: list[int]) -> list[slice]:
    """Ascending numbers as ranges without a gap.

    >>> _neighbours([0, 1, 2, 5])
    [slice(0, 3, None), slice(5, 6, None)]
    """
    ranges: list[slice] = []
    for index in indices:
        if ranges and ranges[-1].stop == index:
            ranges[-1] = slice(ranges[-1].start, index + 1)
        else:
            ranges.append(slice(index, index + 1))
    return ranges
