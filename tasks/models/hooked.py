"""The hooked transformer: weights under transformer-lens's names, and a hook point on every activation.

Design:

* A thin shell. The computation is ``tasks.models.transformer.forward``, the same that training runs; this module holds
  the parameters of one model, calls it as a stack of one, and turns its taps into hook points.
* It is a ``HookedRootModule``, which transformer-lens supports in 3.9 and in 4.x; ``cfg``, stacked weights and names
  are transformer-lens's, so ``transformer_lens.patching``, ``FactoredMatrix`` and ``ActivationCache`` read it.
* LayerNorm is never folded into the weights. What would be wrong without folding is done right where it can be
  (``tokens_to_residual_directions``) and refused where it cannot (under post-LN the residual stream is no sum).
* Eval mode from the start. No tokenizer, no loss, no generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, FactoredMatrix, HookedRootModule
from transformer_lens.hook_points import HookPoint

from tasks.base import UserError
from tasks.models import convert
from tasks.models.config import TransformerConfig
from tasks.models.family import ModelFamily
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class LensConfig:
    """What transformer-lens's tools look up in ``model.cfg``; the architecture itself is ``model.config``."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int | None
    d_vocab: int | None
    d_vocab_out: int
    n_ctx: int
    act_fn: str
    eps: float
    attn_only: bool
    normalization_type: str | None
    attention_dir: str
    device: torch.device
    dtype: torch.dtype
    positional_embedding_type: str = "standard"
    n_key_value_heads: int | None = None
    use_attn_result: bool = False
    use_attn_in: bool = False
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False
    gated_mlp: bool = False
    final_rms: bool = False
    output_logits_soft_cap: float = -1.0
    tokenizer_name: str | None = None
    model_name: str = "rulelens"


class _Part(nn.Module):
    """A node of the module tree; it holds parameters and hook points and computes nothing."""


class _Block(_Part):
    """A block; transformer-lens 4.x asks this of it before it reads logits from its output."""

    hook_out_is_single_residual_stream = True


class _Norm(_Part):
    """A LayerNorm's weights. Callable, because transformer-lens's logit lens applies ``ln_final`` by itself."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        w, b = self.get_parameter("w"), self.get_parameter("b")
        return F.layer_norm(x, x.shape[-1:], eps=self.eps) * w + b


class HookedModel(HookedRootModule):
    """One model of any family: its parameters and a hook point per activation, in a tree of modules by their names.

    Args:
        config: the architecture.
        params: the weights, copied; ``None`` draws them from ``init`` and ``seed``.

    Raises:
        UserError: parameters whose names or shapes are not the architecture's.
    """

    family: ClassVar[ModelFamily]
    config: Any

    def __init__(
        self,
        config: Any,
        params: Mapping[str, Float[Tensor, "..."]] | None = None,
        *,
        init: Initialization | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        shapes = self.family.shapes(config)
        if params is None:
            params = initialize(shapes, config, init or Initialization(), seed)
        convert.check_parameters(params, shapes)
        self._hold({name: params[name] for name in shapes})
        self._hook(self.family.hook_names(config))

    def _hold(self, params: Mapping[str, Tensor]) -> None:
        """Takes copies of the parameters."""
        for name, value in params.items():
            path, _, tensor = name.rpartition(".")
            self._part(path).register_parameter(tensor, nn.Parameter(value.detach().clone()))

    def _hook(self, names: Sequence[str]) -> None:
        """Makes a hook point per name, and ends the building: eval mode."""
        for name in names:
            path, _, point = name.rpartition(".")
            self._part(path).add_module(point, HookPoint())
        self.setup()
        self.eval()

    def _part(self, path: str) -> nn.Module:
        """The module at a dotted path, made if it is not there."""
        module: nn.Module = self
        for name in path.split(".") if path else []:
            if name not in module._modules:
                module.add_module(name, self._new_part(name))
            module = module.get_submodule(name)
        return module

    def _new_part(self, name: str) -> nn.Module:
        return nn.ModuleList() if name in ("blocks", "layers") else _Part()

    def _logits(self, batch: Tensor, return_type: str | None) -> Tensor | None:
        """Logits of a batch by the family's forward pass, its taps the hook points."""
        if return_type not in ("logits", None):
            raise UserError(
                f"expected return_type 'logits' or None, got {return_type!r}: compute the loss from the logits"
            )
        params = {name: value.unsqueeze(0) for name, value in self.named_parameters()}
        logits = self.family.forward(params, batch.unsqueeze(0), self.config, tap=self._hooked)
        return logits.squeeze(0) if return_type else None

    def _hooked(self, name: str, value: Tensor) -> Tensor:
        """The tap: hook points see one model, without the model axis."""
        return self.hook_dict[name](value.squeeze(0)).unsqueeze(0)


def _stacked(tensor: str, part: str) -> property:
    """A property that stacks one tensor of every block; zeros stand for a bias the model does not have."""

    def stack(model: "HookedTransformer") -> Float[Tensor, "layer ..."]:
        if part == "mlp" and model.config.d_mlp is None:
            raise UserError(f"an attention-only model has no {tensor}")
        return torch.stack([model.tensor(f"blocks.{layer}.{part}.{tensor}") for layer in range(model.config.n_layers)])

    return property(stack, doc=f"{tensor} of every layer, [layer, …].")


class HookedTransformer(HookedModel):
    """One transformer with hook points. ``state_dict()`` has exactly the names of ``transformer.shapes(config)``."""

    family = Transformer()
    config: TransformerConfig

    def _hold(self, params: Mapping[str, Tensor]) -> None:
        super()._hold(params)
        self._part("unembed")  # also where it is tied and bare: transformer-lens's logit lens asks for it

    def _new_part(self, name: str) -> nn.Module:
        if name.startswith("ln"):
            return _Norm(self.config.norm_eps)
        return _Block() if name.isdigit() else super()._new_part(name)

    @classmethod
    def from_transformer_lens(
        cls,
        source: nn.Module | Mapping[str, Any] | str | Path,
        *,
        keep_zero_biases: bool = False,
        **overrides: Any,
    ) -> Self:
        """The same model as a transformer-lens model or state dict; see ``convert.from_transformer_lens``.

        A model of ours is copied.
        """
        if isinstance(source, HookedTransformer):
            return cls(source.config, dict(source.named_parameters()))
        config, params = convert.from_transformer_lens(source, keep_zero_biases=keep_zero_biases, **overrides)
        return cls(config, params)

    def to_transformer_lens(self) -> nn.Module:
        """The installed transformer-lens's own model with these weights; see ``convert.to_transformer_lens``."""
        return convert.to_transformer_lens(self.config, dict(self.named_parameters()))

    def forward(
        self,
        input: Int[Tensor, "*batch pos"] | Float[Tensor, "*batch pos d_input"],
        return_type: str | None = "logits",
    ) -> Float[Tensor, "batch pos d_vocab_out"] | None:
        """Logits [batch, pos, d_vocab_out] of token ids [batch, pos] or [pos] (real vectors have one axis more).

        Raises:
            UserError: a return type other than ``"logits"`` and ``None``, an input longer than n_ctx, an unknown token.
        """
        return self._logits(self._batch(input), return_type)

    def _batch(self, input: Tensor) -> Tensor:
        """The input with a batch axis, checked."""
        c = self.config
        axes = ("batch", "pos") if c.d_input is None else ("batch", "pos", "d_input")
        if input.ndim == len(axes) - 1:
            input = input.unsqueeze(0)
        if input.ndim != len(axes):
            raise UserError(f"expected an input with axes {' '.join(axes)}, got shape {tuple(input.shape)}")
        if input.shape[1] > c.n_ctx:
            raise UserError(f"expected at most n_ctx = {c.n_ctx} positions, got {input.shape[1]}")
        if c.d_vocab is not None and input.numel():
            low, high = int(input.min()), int(input.max())
            if low < 0 or high >= c.d_vocab:
                raise UserError(f"expected tokens in 0…{c.d_vocab - 1}, got {low}…{high}")
        return input

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride]  # a Cache, as in transformer-lens
        self, input: Tensor, *args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch pos d_vocab_out"] | None, "Cache | dict[str, Tensor]"]:
        """Logits, and the activations under their hook names: a ``Cache``, or a dict if ``return_cache_object=False``.

        Arguments are those of ``HookedRootModule.run_with_cache``: ``names_filter``, ``remove_batch_dim``, ….
        """
        input = self._batch(input)
        if remove_batch_dim and len(input) != 1:
            raise UserError(f"remove_batch_dim=True needs a batch of 1, got {len(input)}")
        out, cache = super().run_with_cache(input, *args, remove_batch_dim=remove_batch_dim, **kwargs)
        return out, Cache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    @property
    def cfg(self) -> LensConfig:
        """The architecture in transformer-lens's words. Post-LN, which it does not have, is ``"PostLN"``."""
        c = self.config
        like = next(self.parameters())
        return LensConfig(
            n_layers=c.n_layers,
            n_heads=c.n_heads,
            d_model=c.d_model,
            d_head=c.d_head,
            d_mlp=c.d_mlp,
            d_vocab=c.d_vocab,
            d_vocab_out=c.d_out,
            n_ctx=c.n_ctx,
            act_fn=c.act_fn,
            eps=c.norm_eps,
            attn_only=c.d_mlp is None,
            normalization_type={"none": None, "pre": "LN", "post": "PostLN"}[c.normalization],
            attention_dir="causal" if c.causal else "bidirectional",
            device=like.device,
            dtype=like.dtype,
        )

    def tensor(self, name: str) -> Float[Tensor, "..."]:
        """The parameter of this name; where the model lacks what transformer-lens always has, what stands for it."""
        params = dict(self.named_parameters())
        if name in params:
            return params[name]
        full = convert.full_parameters(self.config, params)
        if name not in full:
            raise UserError(f"this model has no {name}: it has {', '.join(params)}")
        return full[name]

    W_Q, W_K, W_V, W_O = (_stacked(f"W_{part}", "attn") for part in "QKVO")
    b_Q, b_K, b_V, b_O = (_stacked(f"b_{part}", "attn") for part in "QKVO")
    W_in, W_out, b_in, b_out = (_stacked(tensor, "mlp") for tensor in ("W_in", "W_out", "b_in", "b_out"))
    W_E = property(lambda self: self.tensor("embed.W_E"), doc="Token embedding [d_vocab, d_model].")
    W_pos = property(lambda self: self.tensor("pos_embed.W_pos"), doc="Position embedding [n_ctx, d_model].")
    W_U = property(
        lambda self: self.tensor("unembed.W_U"), doc="Unembedding [d_model, d_vocab_out], also where it is tied."
    )
    b_U = property(lambda self: self.tensor("unembed.b_U"), doc="Unembedding bias [d_vocab_out].")

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_Kᵀ of every head, [layer, head, d_model, d_model]: query on the left."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O of every head, [layer, head, d_model, d_model]: source on the left."""
        return FactoredMatrix(self.W_V, self.W_O)

    def tokens_to_residual_directions(self, tokens: int | Int[Tensor, "*tokens"]) -> Float[Tensor, "*tokens d_model"]:
        """The direction whose dot product with the normalised residual stream is a token's logit, up to a constant.

        It is w ⊙ W_U[:, token], w the weight of the final LayerNorm (1 without one). transformer-lens leaves w out and
        asks for models with folded weights, where it is 1.

        Raises:
            UserError: post-LN, where a logit is read from a stream that was normalised many times.
        """
        if self.config.normalization == "post":
            raise UserError(
                "post-LN: the residual stream is normalised in every block, so no direction in it is a logit"
            )
        directions = self.W_U.T[tokens]
        return directions * self.tensor("ln_final.w") if self.config.normalization == "pre" else directions

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of what b_O and b_out write before a layer (before its MLP if ``mlp_input``)."""
        total = self.b_O[: layer + mlp_input].sum(0)
        with_mlp = include_mlp_biases and self.config.d_mlp is not None
        return total + self.b_out[:layer].sum(0) if with_mlp else total


class Cache(ActivationCache):
    """transformer-lens's ``ActivationCache``; under post-LN it refuses what assumes that the residual stream is a sum.

    Without ``apply_ln`` and without a remainder, ``accumulated_resid``, ``stack_head_results`` and ``stack_activation``
    work for every architecture. As everywhere in transformer-lens, ``apply_ln`` divides by the cached scale and leaves
    out the LayerNorm's weight and bias, except in ``accumulated_resid`` up to the unembedding: it applies ``ln_final``.
    """

    def _refuse_post(self, what: str) -> None:
        if self.model.cfg.normalization_type == "PostLN":
            raise UserError(
                f"post-LN: every block normalises the residual stream, so it is no sum of parts; {what} fails"
            )

    def apply_ln_to_stack(self, *args: Any, **kwargs: Any) -> Tensor:
        self._refuse_post("apply_ln")
        return super().apply_ln_to_stack(*args, **kwargs)

    def logit_attrs(self, *args: Any, **kwargs: Any) -> Tensor:
        self._refuse_post("logit_attrs")
        return super().logit_attrs(*args, **kwargs)

    def decompose_resid(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_post("decompose_resid")
        return super().decompose_resid(*args, **kwargs)

    def get_full_resid_decomposition(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_post("get_full_resid_decomposition")
        return super().get_full_resid_decomposition(*args, **kwargs)

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Any:
        if incl_remainder:
            self._refuse_post("incl_remainder")
        return super().stack_head_results(layer, return_labels, incl_remainder, pos_slice, apply_ln)

    def stack_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_post("stack_neuron_results")
        return super().stack_neuron_results(*args, **kwargs)
