"""What training minimises, and what an evaluation reports."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "*rest example d_vocab_out"], targets: Int[Tensor, "*rest example"]
) -> Float[Tensor, "*rest example"]:
    """−log softmax(logits)[target] of each example, in float64.

    float32 log-softmax cannot represent losses below about 1e-7, which grokked models reach and where their gradients
    vanish (Nanda et al. 2023; Prieto et al. 2025).
    """
    log_probabilities = torch.log_softmax(logits.double(), dim=-1)
    return -log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def performance(
    logits: Float[Tensor, "example d_vocab_out"],
    targets: Int[Tensor, " example"],
    rules: Mapping[str, Int[Tensor, " example"]],
    name: str,
) -> dict[str, float]:
    """Mean loss and accuracy on a set, and the share of answers that follow each rule, under keys that begin with
    ``name``.

    An empty set has no loss and no accuracy: NaN.
    """
    answers = logits.argmax(-1)
    measured = {"loss": cross_entropy(logits, targets).mean(), "accuracy": (answers == targets).double().mean()}
    measured |= {rule: (answers == expected).double().mean() for rule, expected in rules.items()}
    return {f"{name}_{key}": float(value) for key, value in measured.items()}
