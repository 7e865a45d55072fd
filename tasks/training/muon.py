"""Muon over a stack of models (Jordan et al. 2024): weight matrices move by orthogonal matrices.

Per model, step and weight matrix W [d_in, d_out] of the layers, with gradient g, rate η and weight decay λ:

* h ← μh + (1−μ)g; u = (1−μ)g + μh;
* O = u with every singular value brought near 1;
* W ← W(1 − ηλ) − 0.2 √max(d_in, d_out) η O.

The factor before η gives an update the root mean square that AdamW's has, so that rates and decays made for AdamW serve
here too (Liu et al. 2025, arXiv 2502.16982). Embeddings, positions, the unembedding, biases and LayerNorms are AdamW's.
The matrices of attention heads are orthogonalised one by one.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.training.config import TrainingConfig
from tasks.training.optimizer import StackedAdamW, StackedParameters

_ADAMW_SCALE = 0.2  # the root mean square of an update of AdamW, per unit of its rate
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7


class StackedMuon:
    """Muon for the matrices of the layers, AdamW for the rest; see ``tasks.training.optimizer.Optimizer``."""

    KEEPS: ClassVar[tuple[str, ...]] = (*StackedAdamW.KEEPS, "momentum")

    def __init__(
        self, params: StackedParameters, config: TrainingConfig, weight_decay: Float[Tensor, " model"]
    ) -> None:
        self.params = params
        self.config = config
        self.weight_decay = weight_decay
        self.names = [name for name in params.tensors if in_a_layer(name) and name not in config.frozen]
        # what is frozen AdamW puts back: it sees to everything else
        self.others = StackedAdamW(params, replace(config, frozen=(*config.frozen, *self.names)), weight_decay)
        self.state = {**self.others.state, "momentum": torch.zeros_like(params.values)}

    @torch.no_grad()
    def step(self, learning_rate: Float[Tensor, " model"], step: int) -> None:
        """One update; see ``Optimizer``."""
        self.others.step(learning_rate, step)  # clips the gradients, too
        mu = self.config.momentum
        gradients, momentum = self.params.gradients, self.state["momentum"]
        momentum.mul_(mu).add_(gradients, alpha=1 - mu)
        for name in self.names:
            values = self.params.tensors[name].detach()
            looking_ahead = (1 - mu) * self.params.view(gradients, name) + mu * self.params.view(momentum, name)
            direction = orthogonalized(looking_ahead)
            scale = _ADAMW_SCALE * max(values.shape[-2:]) ** 0.5
            each = (len(values), *(1,) * (values.ndim - 1))
            rate = learning_rate.to(values).view(each)
            decay = self.weight_decay.to(values).view(each)
            values.mul_(1 - rate * decay).sub_(rate * scale * direction)


def in_a_layer(name: str) -> bool:
    """Whether a parameter is a weight matrix between the embedding and the unembedding.

    >>> [in_a_layer(name) for name in ("embed.W_E", "blocks.0.attn.W_Q", "blocks.0.mlp.b_in", "unembed.W_U")]
    [False, True, False, False]
    """
    owner, _, own = name.rpartition(".")
    return owner.startswith(("blocks.", "layers.")) and own.startswith("W")


def orthogonalized(matrices: Float[Tensor, "model *head d_in d_out"]) -> Float[Tensor, "model *head d_in d_out"]:
    """The matrices with their singular values brought between about 0.7 and 1.2; their singular vectors stay.

    Five steps of X ← aX + (bA + cA²)X with A = XXᵀ, from X at Frobenius norm 1; a, b, c are those of Jordan et al. A
    singular value s becomes as + bs³ + cs⁵ at each; values below a hundredth of the largest norm come out smaller.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.transpose(-2, -1) if tall else matrices  # the smaller Gram matrix
    X = X.flatten(0, -3)
    X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp_min(_SMALLEST_NORM)
    for _ in range(_ITERATIONS):
        A = torch.bmm(X, X.transpose(1, 2))
        X = a * X + torch.bmm(b * A + c * torch.bmm(A, A), X)
    X = X.transpose(1, 2) if tall else X
    return X.reshape(matrices.shape)
