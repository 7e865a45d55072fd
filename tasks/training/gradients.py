"""What is done to gradients between the backward pass and the optimiser: L1 penalty, frozen weights, Grokfast, ⊥Grad.

All are off unless the configuration asks, and work on the matrix [model, n] of ``StackedParameters`` in place; a
member of a stack comes out bit-equal to the model alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.training.config import TrainingConfig
from tasks.training.optimizer import StackedParameters


class GradientRules:
    """The rules of a stack in training.

    Per model, in this order, with w its weights and g the gradient of its mean loss:

    * ``l1_penalty`` c: g ← g + c·sign(w), the gradient of c·Σ|w| over what ``decayed`` names;
    * ``frozen``: g ← 0 there;
    * ``grokfast`` λ, α: h ← α h + (1−α) g, beginning as the first g; g ← g + λ h (Lee et al. 2024);
    * ``perpendicular``: per tensor, g⊥ = g − (w·g / w·w) w at the length of g (Prieto et al. 2025).

    Attributes:
        average: [model, n] h, or ``None`` without Grokfast.
    """

    def __init__(self, params: StackedParameters, config: TrainingConfig, l1_penalty: Float[Tensor, " model"]) -> None:
        self.params = params
        self.config = config
        self.penalty = None
        if bool(l1_penalty.any()):
            column = l1_penalty.to(params.values).unsqueeze(1)
            self.penalty = column * params.matrices() if config.decayed == "matrices" else column
        self.average: Tensor | None = torch.zeros_like(params.values) if config.grokfast else None

    @torch.no_grad()
    def apply(self, step: int) -> None:
        """Change the gradients of step ``step`` (from 0)."""
        gradients = self.params.gradients
        if self.penalty is not None:
            gradients.add_(self.penalty * self.params.values.detach().sign())
        for name in self.config.frozen:
            self.params.gradient(name).zero_()
        if self.average is not None:
            alpha = self.config.grokfast_alpha if step else 0.0
            self.average.mul_(alpha).add_(gradients, alpha=1 - alpha)
            gradients.add_(self.average, alpha=self.config.grokfast)
        if self.config.perpendicular:
            for name, weights in self.params.tensors.items():
                for w, g in zip(weights.detach(), self.params.gradient(name), strict=True):
                    g.copy_(perpendicular(w, g))


def perpendicular(w: Float[Tensor, "..."], g: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """g⊥ = g − (w·g / w·w) w, as long as g; 0 where g points along w up to rounding, g itself where w is 0."""
    precision = torch.finfo(w.dtype)
    along = (w * g).sum() / (w * w).sum().clamp_min(precision.tiny)
    across = g - along * w
    length, whole = torch.linalg.vector_norm(across), torch.linalg.vector_norm(g)
    return torch.where(length > 16 * precision.eps * whole, across * (whole / length), 0.0)
