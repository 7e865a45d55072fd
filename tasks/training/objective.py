"""What training minimises, and what an evaluation reports."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tasks.models.family import Inputs, ModelFamily, Parameters, Shown, Targets
from tasks.training.config import Autocast, Dtype, Objective

CHUNK = 2048
"""Examples evaluated at once: bounds memory, changes no result."""

_LOWEST = -700.0  # its exponential is 1e-304; of numbers below -708 it takes processors forty times as long


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


def margins(
    logits: Float[Tensor, "example d_vocab_out"], targets: Int[Tensor, " example"]
) -> Float[Tensor, " example"]:
    """The logit of the right answer minus the largest other: negative where the answer is wrong."""
    right = targets.unsqueeze(-1)
    return (logits.gather(-1, right) - logits.scatter(-1, right, -torch.inf).amax(-1, keepdim=True)).squeeze(-1)


def squared_error(
    outputs: Float[Tensor, "*rest example d_out"], targets: Float[Tensor, "*rest example d_out"]
) -> Float[Tensor, "*rest example"]:
    """The mean over outputs of (output − target)² of each example, in float64."""
    return (outputs.double() - targets).square().mean(-1)


def stablemax_cross_entropy(
    logits: Float[Tensor, "*rest example d_vocab_out"], targets: Int[Tensor, "*rest example"], dtype: torch.dtype
) -> Float[Tensor, "*rest example"]:
    """log Σ s(logits) − log s(logit of the target), with s(x) = x + 1 for x ≥ 0 and 1/(1−x) below (Prieto et al. 2025,
    arXiv 2501.04697): it grows as slowly as a line, so that no logit drowns the others in rounding."""
    x = logits.to(dtype)
    logs = torch.where(x >= 0, x.clamp(min=0).log1p(), -(-x).clamp(min=0).log1p())
    return logs.logsumexp(-1) - logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def losses(
    outputs: Float[Tensor, "*rest example d_vocab_out"],
    targets: Int[Tensor, "*rest example"] | Float[Tensor, "*rest example d_vocab_out"],
    objective: Objective = "cross_entropy",
    dtype: Dtype = "float64",
) -> Float[Tensor, "*rest example"]:
    """The loss of each example: the objective where targets are answers, squared error where they are numbers.

    In float64. Where ``dtype`` says so and targets are answers in float32, with all that is lost there.
    """
    precision = getattr(torch, dtype)
    if targets.is_floating_point():
        return squared_error(outputs, targets)
    if outputs.shape[-1] == 1 and objective != "cross_entropy":
        outputs = F.pad(outputs, (1, 0))  # the logit of answer 0
    if objective == "squared_error":
        return (outputs.to(precision) - F.one_hot(targets, outputs.shape[-1])).square().mean(-1)
    if objective == "stablemax":
        return stablemax_cross_entropy(outputs, targets, precision)
    return cross_entropy(outputs, targets) if dtype == "float64" else _float32_cross_entropy(outputs, targets)


def mean_loss(
    params: Parameters,
    inputs: Inputs,
    targets: Targets,
    family: ModelFamily,
    model: Any,
    answer_position: Shown,
    prepared: Any,
    autocast: Autocast,
    objective: Objective = "cross_entropy",
    loss_dtype: Dtype = "float64",
) -> Float[Tensor, ""]:
    """The sum over models of the mean loss over examples and their answers: what an update differentiates."""
    device = "cpu" if inputs.is_meta else inputs.device.type  # tensors without contents stand for some on a CPU
    with torch.autocast(device, torch.bfloat16, enabled=autocast == "bfloat16"):
        if objective == "cross_entropy" and loss_dtype == "float64" and not targets.is_floating_point():
            together = family.mean_cross_entropy(params, inputs, targets, model)
            if together is not None:
                return together.sum()
        logits = family.forward(params, inputs, model, answer_position=answer_position, prepared=prepared)
    # one answer has no axis of its own. A view both ways: the gradient of logits[:, :, 0] would be copied into zeros
    answers = logits.squeeze(2)
    return losses(answers, targets, objective, loss_dtype).flatten(1).mean(-1).sum()


def _float32_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """What most training code minimises: torch's own, which is 0 where the other answers' shares round to nothing."""
    if logits.shape[-1] == 1:
        return F.softplus(logits.squeeze(-1).float() * (1 - 2 * targets), threshold=40)
    chosen = logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1))
    return -chosen.squeeze(-1)


class _CrossEntropy(torch.autograd.Function):
    """One exponential serves both passes; torch's own takes it twice. It has a first derivative only."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        shifted = logits.double() - logits.amax(-1, keepdim=True)
        answers = targets.unsqueeze(-1)
        taught = shifted.gather(-1, answers)
        exponentials = shifted.clamp_(min=_LOWEST).exp_()
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
    logits: Float[Tensor, "example *answer d_vocab_out"],
    targets: Int[Tensor, "example *answer"] | Float[Tensor, "example *answer d_vocab_out"],
    rules: Mapping[str, Int[Tensor, "example *answer"] | Float[Tensor, "example *answer d_vocab_out"]],
    name: str,
    objective: Objective = "cross_entropy",
) -> dict[str, float]:
    """Mean loss and accuracy over all answers of a set, and the share of them that follow each rule.

    Their keys begin with ``name``.

    The loss is cross entropy; where another objective is minimised, its mean stands beside it, as ``…_objective``.
    Where targets are numbers there is no accuracy, and what stands for each rule is the mean squared error to what it
    predicts. An empty set has no loss and no accuracy: NaN.
    """
    if targets.is_floating_point():
        predictions = {"loss": targets, **rules}
        return {f"{name}_{key}": float(squared_error(logits, each).mean()) for key, each in predictions.items()}
    answers = (logits.squeeze(-1) > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)
    measured = {"loss": cross_entropy(logits, targets).mean(), "accuracy": (answers == targets).double().mean()}
    if objective != "cross_entropy":
        measured["objective"] = losses(logits, targets, objective).mean()
    measured |= {rule: (answers == expected).double().mean() for rule, expected in rules.items()}
    return {f"{name}_{key}": float(value) for key, value in measured.items()}
