"""What training minimises, and what an evaluation reports."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tasks.models.family import Inputs, ModelFamily, Parameters, Targets
from tasks.training.config import Autocast

CHUNK = 2048
"""Examples evaluated at once: bounds memory, changes no result."""


def cross_entropy(
    logits: Float[Tensor, "*rest example d_vocab_out"], targets: Int[Tensor, "*rest example"]
) -> Float[Tensor, "*rest example"]:
    """−log softmax(logits)[target] of each example, in float64.

    A last axis of length 1 holds the logit of answer 1 against answer 0, whose logit is 0.

    float32 log-softmax cannot represent losses below about 1e-7, which grokked models reach and where their gradients
    vanish (Nanda et al. 2023; Prieto et al. 2025). Differentiable once.
    """
    if logits.shape[-1] == 1:
        return F.softplus(logits.squeeze(-1).double() * (1 - 2 * targets), threshold=40)
    return _CrossEntropy.apply(logits, targets)


def squared_error(
    outputs: Float[Tensor, "*rest example d_out"], targets: Float[Tensor, "*rest example d_out"]
) -> Float[Tensor, "*rest example"]:
    """The mean over outputs of (output − target)² of each example, in float64."""
    return (outputs.double() - targets).square().mean(-1)


def losses(outputs: Float[Tensor, "model batch d_vocab_out"], targets: Targets) -> Float[Tensor, "model batch"]:
    """The loss of each example: cross entropy where targets are answers, squared error where they are numbers."""
    return squared_error(outputs, targets) if targets.is_floating_point() else cross_entropy(outputs, targets)


def mean_loss(
    params: Parameters,
    inputs: Inputs,
    targets: Targets,
    family: ModelFamily,
    model: Any,
    answer_position: int,
    prepared: Any,
    autocast: Autocast,
) -> Float[Tensor, ""]:
    """The sum over models of the mean loss at the answer position: what an update differentiates."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=autocast == "bfloat16"):
        logits = family.forward(params, inputs, model, answer_position=answer_position, prepared=prepared)
    return losses(logits[:, :, 0], targets).mean(-1).sum()


class _CrossEntropy(torch.autograd.Function):
    """One exponential serves both passes; torch's own takes it twice. It has a first derivative only."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        shifted = logits.double() - logits.amax(-1, keepdim=True)
        answers = targets.unsqueeze(-1)
        taught = shifted.gather(-1, answers)
        exponentials = shifted.exp_()
        total = exponentials.sum(-1, keepdim=True)
        ctx.save_for_backward(exponentials, total, answers)
        ctx.dtype = logits.dtype
        return (total.log() - taught).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        exponentials, total, answers = ctx.saved_tensors
        gradient = grad_outputs[0].unsqueeze(-1)
        softmax = exponentials * (gradient / total)
        return softmax.scatter_add_(-1, answers, -gradient).to(ctx.dtype), None


def performance(
    logits: Float[Tensor, "example d_vocab_out"],
    targets: Int[Tensor, " example"] | Float[Tensor, "example d_vocab_out"],
    rules: Mapping[str, Int[Tensor, " example"] | Float[Tensor, "example d_vocab_out"]],
    name: str,
) -> dict[str, float]:
    """Mean loss and accuracy on a set, and the share of answers that follow each rule, under keys that begin with
    ``name``.

    Where targets are numbers there is no accuracy, and what stands for each rule is the mean squared error to what it
    predicts. An empty set has no loss and no accuracy: NaN.
    """
    if targets.is_floating_point():
        predictions = {"loss": targets, **rules}
        return {f"{name}_{key}": float(squared_error(logits, each).mean()) for key, each in predictions.items()}
    answers = (logits.squeeze(-1) > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)
    measured = {"loss": cross_entropy(logits, targets).mean(), "accuracy": (answers == targets).double().mean()}
    measured |= {rule: (answers == expected).double().mean() for rule, expected in rules.items()}
    return {f"{name}_{key}": float(value) for key, value in measured.items()}
