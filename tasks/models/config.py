"""Architectures: of a transformer, of an MLP. They stand apart from the forward passes so that reading a command line
needs no torch."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from tasks.base import Fields, Task, UserError, answer_positions

Activation = Literal["relu", "gelu", "identity", "square", "tanh", "sigmoid", "softplus", "x_tanh", "x2_tanh"]
MLPInput = Literal["bits", "one_hot", "counts", "embedding", "concatenated", "vector"]
Normalization = Literal["none", "pre", "post"]
Layout = Literal["transformer_lens", "progress_measures", "clock_pizza", "group_mlp", "group_transformer"]
"""How published weights are stored; ``tasks.models.layouts`` reads them."""


@dataclass(frozen=True, kw_only=True)
class NeuronLayer:
    """A hidden layer, by the names of what belongs to it.

    Attributes:
        W_in, b_in: parameters of which each neuron has a column [d_in, neuron] and an entry.
        W_out: the parameter of which each neuron has a row [neuron, d_out].
        pre, post: activations before and after the activation function.
    """

    W_in: str
    b_in: str
    W_out: str
    pre: str
    post: str


@runtime_checkable
class ModelConfig(Protocol):
    """What an architecture says of itself, whichever family it belongs to."""

    @property
    def n_ctx(self) -> int:
        """Length of the inputs it reads."""
        ...

    @property
    def d_out(self) -> int:
        """Number of answers."""
        ...

    @property
    def reads(self) -> str:
        """How an input is read: ``sequence``, position by position, or as an ``MLPInput``."""
        ...

    @property
    def has_attention(self) -> bool:
        """Whether positions are mixed by attention."""
        ...

    @property
    def neurons(self) -> tuple[NeuronLayer, ...]:
        """The hidden layers, in order."""
        ...

    def for_task(self, task: Task) -> Self:
        """The architecture with a task's vocabulary and length."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values."""
        ...


def refuse_unfit(model: Any, task: Task, hint: str = "") -> None:
    """Nothing, if the architecture can read the task's inputs and give its answers.

    Raises:
        UserError: it is too small, reads tokens where the task has vectors, vectors of another size, or answers once
            where the task asks at several positions. The message ends in ``hint``.
    """
    for name, least in (("n_ctx", task.n_ctx), ("d_vocab", task.d_vocab), ("d_out", task.d_vocab_out)):
        size = getattr(model, name)
        if (size or 0) < least:
            raise UserError(f"expected a model with {name} of at least {least} for this task, got {size}{hint}")
    if model.d_vocab and not task.d_vocab:
        raise UserError(f"expected a model that reads real vectors for this task, got one that reads tokens{hint}")
    expected, read = getattr(task, "d_input", None), getattr(model, "d_input", None)
    if expected not in (None, read):
        raise UserError(f"expected a model that reads vectors of d_input {expected} for this task, got {read}{hint}")
    if len(answer_positions(task)) > 1 and model.reads != "sequence":
        raise UserError(f"expected a transformer for a task with several answers, a perceptron gives one{hint}")


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

    @property
    def reads(self) -> str:
        """``sequence``."""
        return "sequence"

    @property
    def has_attention(self) -> bool:
        """Yes."""
        return True

    @property
    def neurons(self) -> tuple[NeuronLayer, ...]:
        """One hidden layer per block, none where the model is attention only."""
        if self.d_mlp is None:
            return ()
        return tuple(
            NeuronLayer(
                W_in=f"{mlp}.W_in",
                b_in=f"{mlp}.b_in",
                W_out=f"{mlp}.W_out",
                pre=f"{mlp}.hook_pre",
                post=f"{mlp}.hook_post",
            )
            for mlp in (f"blocks.{layer}.mlp" for layer in range(self.n_layers))
        )

    def for_task(self, task: Task) -> Self:
        """The architecture with the task's vocabulary, or the size of its real vectors; it may be made for longer
        sequences than the task's."""
        n_ctx = max(self.n_ctx, task.n_ctx)
        d_input = None if task.d_vocab else getattr(task, "d_input", self.d_input)
        return replace(self, d_vocab=task.d_vocab or None, d_input=d_input, d_vocab_out=task.d_vocab_out, n_ctx=n_ctx)


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Fields):
    """Architecture of a multi-layer perceptron over a few tokens or numbers, answered once per input.

    Args:
        n_ctx: number of tokens of an input. ``d_vocab``: of different tokens. ``d_vocab_out``: of answers.
        d_hidden: width of each hidden layer.
        input: ``bits``: tokens are numbers and are read as they are; ``one_hot``: each position has a row per token;
            ``counts``: the positions share one row per token, and how often each token stands there is read;
            ``embedding``: rows of one table W_E, shared by the positions, are added up; ``concatenated``: each position
            has a table W_E of its own, and the rows stand side by side (Chughtai et al. 2023); ``vector``: n_ctx
            real numbers are read as they are, and d_vocab is 0.
        d_embed: width of W_E, where there is one.
        constant_input: a 1 is appended to bits or vector, which gives the first layer a bias that is decayed like a
            weight.
        bias: whether hidden layers have a bias. ``output_bias``: whether the answer has one.
        tied_unembedding: the last layer is W_out W_E transposed.
        one_logit: of two answers, the logit of answer 1 alone is computed; that of answer 0 is 0.

    Raises:
        UserError: a size below 1, or options that exclude each other.
    """

    n_ctx: int
    d_vocab: int = 0
    d_vocab_out: int
    d_hidden: tuple[int, ...]
    input: MLPInput = "bits"
    d_embed: int | None = None
    act_fn: Activation = "relu"
    constant_input: bool = False
    bias: bool = False
    output_bias: bool = False
    tied_unembedding: bool = False
    one_logit: bool = False

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("n_ctx", "d_vocab", "d_vocab_out", "d_embed")}
        if self.input == "vector" and sizes.pop("d_vocab"):
            raise UserError(f"expected d_vocab 0 with input 'vector', which has no tokens, got {self.d_vocab}")
        for name, value in (*sizes.items(), *(("d_hidden", width) for width in self.d_hidden or (0,))):
            if value is not None and value < 1:
                raise UserError(f"expected {name} of at least 1, got {value}")
        for name, kinds in (("input", MLPInput), ("act_fn", Activation)):
            if getattr(self, name) not in get_args(kinds):
                raise UserError(f"expected {name} among {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        if (self.input in ("embedding", "concatenated")) != (self.d_embed is not None):
            known = "input 'embedding' or 'concatenated'"
            raise UserError(f"expected d_embed with {known} and only there, got {self.d_embed}")
        if self.constant_input and self.input not in ("bits", "vector"):
            raise UserError(f"expected constant_input with input 'bits' or 'vector' only, got input {self.input!r}")
        if self.tied_unembedding and (self.input != "embedding" or self.d_vocab_out > self.d_vocab):
            raise UserError("a tied unembedding needs input 'embedding' with d_vocab of at least d_vocab_out")
        if self.one_logit and (self.d_vocab_out != 2 or self.tied_unembedding):
            raise UserError("one_logit is for two answers and an unembedding of its own")

    @property
    def d_out(self) -> int:
        """Number of answers."""
        return self.d_vocab_out

    @property
    def d_model(self) -> int:
        """Width of what the first hidden layer reads."""
        if self.d_embed is not None:
            return self.d_embed if self.input == "embedding" else self.n_ctx * self.d_embed
        of_tokens = {"one_hot": self.n_ctx * self.d_vocab, "counts": self.d_vocab}
        return of_tokens.get(self.input, self.n_ctx + self.constant_input)

    @property
    def reads(self) -> str:
        """What ``input`` says."""
        return self.input

    @property
    def has_attention(self) -> bool:
        """No."""
        return False

    @property
    def neurons(self) -> tuple[NeuronLayer, ...]:
        """Every hidden layer; the next one's ``W_in`` reads its neurons, in the end the unembedding."""
        layers = [f"layers.{layer}" for layer in range(len(self.d_hidden))]
        last = "unembed.W_out" if self.tied_unembedding else "unembed.W_U"
        readers = [*(f"{layer}.W_in" for layer in layers[1:]), last]
        return tuple(
            NeuronLayer(
                W_in=f"{layer}.W_in",
                b_in=f"{layer}.b_in",
                W_out=reader,
                pre=f"{layer}.hook_pre",
                post=f"{layer}.hook_post",
            )
            for layer, reader in zip(layers, readers, strict=True)
        )

    def for_task(self, task: Task) -> Self:
        """The architecture with the task's vocabulary and length."""
        return replace(self, d_vocab=task.d_vocab, d_vocab_out=task.d_vocab_out, n_ctx=task.n_ctx)
