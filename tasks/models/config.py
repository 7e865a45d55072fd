"""The architecture of a transformer. It stands apart from the forward pass so that reading a command line needs no
torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from tasks.base import Fields, UserError

Activation = Literal["relu", "gelu", "identity"]
Normalization = Literal["none", "pre", "post"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Fields):
    """Architecture of a decoder or encoder transformer. Sizes carry transformer-lens's letters.

    Args:
        d_vocab: number of input tokens; ``None`` where the input is real vectors of size ``d_input``, read in linearly.
        d_vocab_out: number of answers; ``None`` means d_vocab.
        d_mlp: width of the MLP; ``None`` means attention only.
        normalization: ``none``, ``pre`` (before attention and MLP, and once at the end) or ``post`` (after each sum).
        positions: whether a learned position embedding is added.
        attention_bias, mlp_bias, unembedding_bias: whether the group has bias parameters.
        tied_unembedding: W_U is W_E transposed (its first d_vocab_out columns).
        causal: a query sees positions up to its own; otherwise all.
        attention_mix: α in αM + (1−α)J, M the attention pattern and J ones wherever a query may see (Zhong et al.
            2023), not renormalised.
        norm_eps: ε of the LayerNorms.

    Raises:
        UserError: a size below 1, or both or neither of d_vocab and d_input.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_ctx: int
    d_vocab: int | None = None
    d_vocab_out: int | None = None
    d_mlp: int | None = None
    d_input: int | None = None
    act_fn: Activation = "relu"
    normalization: Normalization = "none"
    positions: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    unembedding_bias: bool = False
    tied_unembedding: bool = False
    causal: bool = True
    attention_mix: float = 1.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab", "d_vocab_out", "d_mlp", "d_input"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"expected {name} of at least 1, got {value}")
        if (self.d_vocab is None) == (self.d_input is None):
            raise UserError("expected one of d_vocab (token input) and d_input (real-vector input)")
        if self.act_fn not in get_args(Activation):
            raise UserError(f"expected act_fn among {', '.join(get_args(Activation))}, got {self.act_fn!r}")
        if self.normalization not in ("none", "pre", "post"):
            raise UserError(f"expected normalization none, pre or post, got {self.normalization!r}")
        if self.tied_unembedding and (self.d_vocab is None or self.d_out > self.d_vocab):
            raise UserError("a tied unembedding needs token input with d_vocab of at least d_vocab_out")

    @property
    def d_out(self) -> int:
        """Number of logits."""
        if self.d_vocab_out is None and self.d_vocab is None:
            raise UserError("expected d_vocab_out for a model with real-vector input")
        return self.d_vocab_out or self.d_vocab  # pyright: ignore[reportReturnType]
