"""The hooked multi-layer perceptron: the sibling of ``tasks.models.hooked`` for tasks that an MLP solves.

The computation is ``tasks.models.mlp.forward``, its taps the hook points: ``hook_embed`` (what the first layer reads),
``layers.0.hook_pre`` and ``layers.0.hook_post``, …, and ``hook_out`` before a tied unembedding. transformer-lens has no
such model, so there is nothing to convert, and ``run_with_cache`` returns a plain dict: an ``ActivationCache`` speaks
of residual streams and heads.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from tasks.base import UserError
from tasks.models.config import MLPConfig
from tasks.models.hooked import HookedModel
from tasks.models.mlp import MLP


class HookedMLP(HookedModel):
    """One multi-layer perceptron with hook points. ``state_dict()`` has exactly the names of ``mlp.shapes(config)``."""

    family = MLP()
    config: MLPConfig

    def forward(
        self, input: Int[Tensor, "*batch pos"] | Float[Tensor, "*batch pos"], return_type: str | None = "logits"
    ) -> Float[Tensor, "batch 1 d_vocab_out"] | None:
        """Logits [batch, 1, d_vocab_out] of inputs [batch, pos] or [pos]: one answer per input, as at one position.
        With ``one_logit`` the last axis has length 1, too.

        Raises:
            UserError: a return type other than ``"logits"`` and ``None``, an input of another length, an unknown token.
        """
        return self._logits(self._batch(input), return_type)

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride]  # a dict alone
        self, input: Tensor, *args: Any, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch 1 d_vocab_out"] | None, dict[str, Tensor]]:
        """Logits, and the activations [batch, …] under their hook names.

        Arguments are those of ``HookedRootModule.run_with_cache``: ``names_filter``, ``incl_bwd``, ….
        """
        input = self._batch(input)
        if remove_batch_dim and len(input) != 1:
            raise UserError(f"remove_batch_dim=True needs a batch of 1, got {len(input)}")
        out, cache = super().run_with_cache(input, *args, **kwargs)
        return out, {name: value[0] for name, value in cache.items()} if remove_batch_dim else cache

    def _batch(self, input: Tensor) -> Tensor:
        """The input with a batch axis, checked. Bits may be any numbers: they are read as they are."""
        c = self.config
        if input.ndim not in (1, 2):
            raise UserError(f"expected an input with axes batch pos, got shape {tuple(input.shape)}")
        input = input if input.ndim == 2 else input.unsqueeze(0)
        if c.input not in ("bits", "vector") and input.numel():
            low, high = int(input.min()), int(input.max())
            if low < 0 or high >= c.d_vocab:
                raise UserError(f"expected tokens in 0…{c.d_vocab - 1}, got {low}…{high}")
        return input
